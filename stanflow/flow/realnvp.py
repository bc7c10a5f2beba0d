"""The stack: a base distribution and the bijections after it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stanflow.flow.affine import LowerTriangular, ShiftScale
from stanflow.flow.base import Base, Gaussian, StudentT
from stanflow.flow.bijection import Bijection
from stanflow.flow.clamp import AsymmetricSoftClamp
from stanflow.flow.config import FlowConfig
from stanflow.flow.coupling import AffineCoupling
from stanflow.flow.loft import Loft
from stanflow.flow.sinh_arcsinh import SinhArcsinh


class Flow(nn.Module):
    """A distribution on R^D: ``z = T_k(... T_1(e))``, e from the base.

    Parameters
    ----------
    base : Base
        Distribution of e.
    bijections : list of Bijection
        T_1, ..., T_k; the last is a `ShiftScale`.
    """

    def __init__(self, base: Base, bijections: list[Bijection]) -> None:
        super().__init__()
        self.base = base
        self.layers = nn.ModuleList(bijections)

    @property
    def dim(self) -> int:
        """Number of coordinates, D."""
        return self.base.dim

    @property
    def bijections(self) -> list[Bijection]:
        """T_1, ..., T_k."""
        return [module for module in self.layers if isinstance(module, Bijection)]

    @property
    def output(self) -> ShiftScale:
        """The last layer, which holds location and scale."""
        last = self.bijections[-1]
        assert isinstance(last, ShiftScale)
        return last

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw n samples.

        Returns
        -------
        z : Tensor of shape (n, D)
        log_q : Tensor of shape (n,)
            Log density of the flow at z.
        """
        e = self.base.sample(n, generator)
        z, log_q = e, self.base.log_prob(e)
        for bijection in self.bijections:
            z, log_det = bijection(z)
            log_q = log_q - log_det
        return z, log_q

    def sample_with_score(
        self, n: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Draw n samples, differentiable in the parameters, with the score of the flow.

        The score is carried forward next to the sample, so no inverse pass is needed.

        Returns
        -------
        z : Tensor of shape (n, D)
            With an autograd graph.
        log_q : Tensor of shape (n,)
            Log density of the flow at z, without a graph.
        score : Tensor of shape (n, D)
            ``d log q(z) / dz`` with the parameters held fixed, without a graph.
        """
        e = self.base.sample(n, generator)
        with torch.no_grad():
            log_q, score = self.base.log_prob(e), self.base.score(e)
        z = e
        for bijection in self.bijections:
            z, log_det, score = bijection.forward_with_score(z, score)
            log_q = log_q - log_det.detach()
        return z, log_q, score

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the base point e of each z, and ``log|det dz/de|`` there."""
        total = z.new_zeros(len(z))
        for bijection in reversed(self.bijections):
            z, log_det = bijection.inverse(z)
            total = total + log_det
        return z, total

    def log_prob(self, z: Tensor) -> Tensor:
        """Return the log density of points of shape (n, D), as (n,).

        It is -infinity where the base point is too far out for a floating-point number: beyond
        LOFT's tau + 700, say, where its inverse is exp(700).
        """
        e, log_det = self.inverse(z)
        log_prob = self.base.log_prob(e) - log_det
        overflowed = torch.isnan(log_prob) & torch.isfinite(z).all(-1)
        return torch.where(overflowed, -torch.inf, log_prob)


def build_flow(config: FlowConfig, dim: int, seed: int) -> Flow:
    """Build an untrained flow, which is its base distribution.

    In one dimension, where a coupling layer has nothing to split, Real NVP's place is taken by
    as many sinh-arcsinh layers.

    Parameters
    ----------
    config : FlowConfig
        The family and its size.
    dim : int
        D, at least 1.
    seed : int
        For the weights of the hidden layers.

    Examples
    --------
    >>> flow = build_flow(FlowConfig(layers=2, hidden=8), dim=3, seed=1)
    >>> z, log_q = flow.sample(5, torch.Generator().manual_seed(1))
    >>> bool(torch.allclose(flow.log_prob(z), log_q))
    True
    """
    clamp = AsymmetricSoftClamp(config.clamp_positive, config.clamp_negative)
    bijections: list[Bijection] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if config.family == "fullrank":
            bijections.append(LowerTriangular(dim))
        elif config.family == "realnvp":
            for layer in range(config.layers):
                bijections.append(
                    SinhArcsinh(dim, clamp)
                    if dim == 1
                    else AffineCoupling(
                        dim, moves_odd=layer % 2 == 0, hidden=config.hidden, clamp=clamp
                    )
                )
            bijections.append(Loft(config.loft_tau))
    bijections.append(ShiftScale(dim))
    base = StudentT(dim) if config.base == "student-t" else Gaussian(dim)
    return Flow(base, bijections)
