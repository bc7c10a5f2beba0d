"""LOFT: the layer that keeps extreme values finite."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor
from typing_extensions import override

from stanflow.flow.bijection import Bijection, Passes
from stanflow.flow.workspace import Workspace
from stanflow.kernels import layers as compiled


class Loft(Bijection):
    """Log soft extension, elementwise.

    ``g(x) = sign(x) * (log(max(|x| - tau, 0) + 1) + min(|x|, tau))``: the identity inside
    [-tau, tau], logarithmic outside (Andrade 2024, arXiv 2402.16408).

    Parameters
    ----------
    tau : float
        Where the logarithm takes over.

    Examples
    --------
    >>> y, log_det = Loft(tau=100.0)(torch.tensor([[5.0, -1e6]]))
    >>> y
    tensor([[   5.0000, -113.8154]])
    """

    def __init__(self, tau: float = 100.0) -> None:
        super().__init__()
        self.tau = tau

    def _beyond(self, x: Tensor) -> Tensor:
        return (x.abs() - self.tau).clamp(min=0)

    @override
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        stretch = torch.log1p(self._beyond(x))
        y = x.sign() * (stretch + x.abs().clamp(max=self.tau))
        return y, -stretch.sum(-1)

    @override
    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        stretch = self._beyond(y)
        x = y.sign() * (torch.expm1(stretch) + y.abs().clamp(max=self.tau))
        return x, -stretch.sum(-1)

    @override
    def passes(self, workspace: Workspace) -> Passes:
        return _LoftPasses(self.tau, workspace)


class _LoftPasses(Passes):
    """``1 / g' = max(|x| - tau, 0) + 1``; ``d log|g'| / dx = -sign(x) / (1/g')`` outside."""

    def __init__(self, tau: float, workspace: Workspace) -> None:
        self._tau = tau
        self._workspace = workspace
        self._x: Tensor | None = None

    def _buffers(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self._x is None:
            self._x = torch.empty_like(x)
            self._inverse_slope = torch.empty_like(x)
        return self._x, self._inverse_slope, self._workspace.scratch("points", *x.shape)

    @override
    def push(self, x: Tensor, score: Tensor | None, log_q: Tensor) -> None:
        saved, inverse_slope, scratch = self._buffers(x)
        saved.copy_(x)
        torch.abs(x, out=inverse_slope).sub_(self._tau).clamp_(min=0)
        torch.log1p(inverse_slope, out=scratch)
        log_q.add_(scratch.sum(0))
        x.clamp_(-self._tau, self._tau).add_(scratch.copysign_(saved))
        inverse_slope.add_(1)
        if score is not None:
            score.add_(self._log_slope_derivative(), alpha=-1).mul_(inverse_slope)

    def _log_slope_derivative(self) -> Tensor:
        """Return ``d log|g'| / dx`` in the scratch buffer."""
        assert self._x is not None
        scratch = self._workspace.scratch("points", *self._x.shape)
        torch.gt(self._inverse_slope, 1, out=scratch)
        return scratch.copysign_(self._x).neg_().div_(self._inverse_slope)

    @override
    def pull(self, cotangent: Tensor, log_q_weight: Tensor | None) -> None:
        cotangent.div_(self._inverse_slope)
        if log_q_weight is not None:  # log q falls by log|g'|
            cotangent.sub_(self._log_slope_derivative().mul_(log_q_weight.to(cotangent.dtype)))

    @override
    def restore(self, x: Tensor) -> None:
        assert self._x is not None
        x.copy_(self._x)

    @override
    def link(self, dim: int) -> compiled.Link:
        batch = self._workspace.batch
        inverse_slope = self._workspace.empty(dim, batch)
        arguments = compiled.Loft(
            dim=dim, batch=batch, tau=self._tau, inverse_slope=inverse_slope.data_ptr()
        )
        self._keep_alive = (arguments, inverse_slope)
        return compiled.Link(loft=ctypes.addressof(arguments))
