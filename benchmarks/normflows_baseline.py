"""The comparison partner of the speed benchmark: Andrade's flow, built from ``normflows``.

The architecture and the training step of Andrade, "Stable Training of Normalizing Flows for
High-dimensional Variational Inference" (arXiv 2402.16408): masked affine couplings with an
asymmetric soft clamp, LOFT, a final element-wise affine map, a Student-t base, and path gradients
by an inverse pass. Importing this module raises ImportError where ``normflows`` is not installed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import normflows as nf
import numpy as np
import numpy.typing as npt
import torch
from normflows.distributions import BaseDistribution
from normflows.flows.affine.coupling import AffineConstFlow
from normflows.flows.base import Flow
from torch import Tensor

FloatArray = npt.NDArray[np.float64]
LogDensityGradient = Callable[[FloatArray], tuple[FloatArray, FloatArray]]

CLAMP_ABOVE = 0.1
CLAMP_BELOW = 2.0
LOFT_TAU = 100.0
INITIAL_LOG_DF = math.log(29.0)


class StudentTBase(BaseDistribution):
    """Independent standard Student-t coordinates with trainable degrees of freedom above 1."""

    def __init__(self, dim: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.log_df = torch.nn.Parameter(torch.full((dim,), INITIAL_LOG_DF, dtype=dtype))

    def _distribution(self) -> torch.distributions.StudentT:
        # Unvalidated, so that a NaN reaches the check of the gradients, as other failures do.
        return torch.distributions.StudentT(1 + torch.exp(self.log_df), validate_args=False)

    def forward(self, num_samples: int = 1) -> tuple[Tensor, Tensor]:
        """Return reparameterised draws (B, D) and their log densities (B,)."""
        draws = self.sample(num_samples)
        return draws, self.log_prob(draws)

    def sample(self, num_samples: int = 1) -> Tensor:
        """Return reparameterised draws (B, D)."""
        return self._distribution().rsample((num_samples,))

    def log_prob(self, z: Tensor) -> Tensor:
        """Return the log densities (B,) of the points `z` (B, D)."""
        return self._distribution().log_prob(z).sum(dim=1)


class ClampedCoupling(Flow):
    """Masked affine coupling whose raw log scale passes an asymmetric soft clamp.

    Parameters
    ----------
    mask
        Row of length D: 1 where a coordinate is kept, 0 where it is transformed.
    hidden
        Width of the one hidden layer of the scale's and of the shift's network.
    """

    mask: Tensor

    def __init__(self, mask: Tensor, hidden: int) -> None:
        super().__init__()
        dim = len(mask)
        self.register_buffer("mask", mask)
        self.scale_net = nf.nets.MLP([dim, hidden, dim], init_zeros=True)
        self.shift_net = nf.nets.MLP([dim, hidden, dim], init_zeros=True)

    def _scale_and_shift(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        raw = self.scale_net(kept)
        above = CLAMP_ABOVE * torch.atan(torch.relu(raw) / CLAMP_ABOVE)
        below = CLAMP_BELOW * torch.atan(-torch.relu(-raw) / CLAMP_BELOW)
        log_scale = (2 / math.pi) * (above + below)
        moved = 1 - self.mask
        return moved * log_scale, moved * self.shift_net(kept)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the transformed points (B, D) and the log determinants (B,)."""
        kept = self.mask * z
        log_scale, shift = self._scale_and_shift(kept)
        return kept + (1 - self.mask) * (z * torch.exp(log_scale) + shift), log_scale.sum(dim=1)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the preimages (B, D) and the log determinants of the inverse (B,)."""
        kept = self.mask * z
        log_scale, shift = self._scale_and_shift(kept)
        return kept + (1 - self.mask) * (z - shift) * torch.exp(-log_scale), -log_scale.sum(dim=1)


class Loft(Flow):
    """The identity up to `LOFT_TAU` in absolute value, logarithmic growth beyond."""

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the transformed points (B, D) and the log determinants (B,)."""
        size = z.abs()
        log_excess = torch.log1p(torch.relu(size - LOFT_TAU))
        return torch.sign(z) * (log_excess + size.clamp(max=LOFT_TAU)), -log_excess.sum(dim=1)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the preimages (B, D) and the log determinants of the inverse (B,)."""
        size = z.abs()
        log_excess = torch.relu(size - LOFT_TAU)
        preimage = torch.sign(z) * (torch.expm1(log_excess) + size.clamp(max=LOFT_TAU))
        return preimage, log_excess.sum(dim=1)


class _ExternalLogDensity(torch.autograd.Function):
    """A log density with gradient, computed by numpy, as a node of the autograd graph."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, log_density_gradient: LogDensityGradient) -> Tensor:
        values, gradients = log_density_gradient(points.detach().double().cpu().numpy())
        ctx.save_for_backward(torch.as_tensor(gradients).to(points))
        return torch.as_tensor(values).to(points)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        (gradients,) = ctx.saved_tensors
        return grad_outputs[0].unsqueeze(1) * gradients, None


class NormflowsBaseline:
    """The flow together with its optimiser.

    Parameters
    ----------
    dim
        Dimension D of the target.
    layers
        Number of coupling layers.
    hidden
        Width of the hidden layer of every network.
    learning_rate
        Step size of Adam.
    dtype
        Precision of parameters and draws.
    """

    def __init__(
        self,
        dim: int,
        layers: int,
        hidden: int,
        *,
        learning_rate: float = 1e-4,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        even = (torch.arange(dim) % 2 == 0).to(dtype)
        couplings = [ClampedCoupling(1 - even if i % 2 else even, hidden) for i in range(layers)]
        flows = [*couplings, Loft(), AffineConstFlow(dim)]
        self.flow = nf.NormalizingFlow(StudentTBase(dim, dtype), flows).to(dtype)
        self._optimizer = torch.optim.Adam(self.flow.parameters(), lr=learning_rate)

    def step(self, log_density_gradient: LogDensityGradient, batch: int) -> float:
        """Take one training step on `batch` draws and return their ELBO.

        The target maps points (B, D) to log densities (B,) and gradients (B, D). The parameters
        stay as they are if any gradient is not finite.
        """
        self._optimizer.zero_grad()
        points, log_q = self.flow.sample(batch)
        log_p = _ExternalLogDensity.apply(points, log_density_gradient)
        # The path gradient as the paper's code forms it: the total gradient less the score term,
        # which is the gradient of log q at fixed points and comes from a pass through the inverse.
        score_term = self.flow.log_prob(points.detach())
        torch.mean(log_q - log_p - score_term).backward()
        gradients = [p.grad for p in self.flow.parameters() if p.grad is not None]
        if all(bool(torch.isfinite(gradient).all()) for gradient in gradients):
            self._optimizer.step()
        return float((log_p - log_q).detach().mean())
