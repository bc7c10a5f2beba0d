"""LOFT: the layer that keeps extreme values finite."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from stanflow.flow.bijection import Bijection


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
    @torch.no_grad()
    def push_score(self, x: Tensor, score: Tensor) -> Tensor:
        beyond = self._beyond(x)
        slope_of_log_derivative = -x.sign() * (beyond > 0) / (beyond + 1)
        return (score - slope_of_log_derivative) * (beyond + 1)
