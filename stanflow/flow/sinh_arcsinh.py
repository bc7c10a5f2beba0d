"""The sinh-arcsinh layer, which does in one dimension what couplings do in several."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from typing_extensions import override

from stanflow.flow.bijection import Bijection
from stanflow.flow.clamp import AsymmetricSoftClamp


class SinhArcsinh(Bijection):
    """A monotone map of each coordinate with trainable location, scale, skewness and tails.

    ``y = sinh(delta * (asinh(m + exp(l) x) + epsilon))``: the transformation of Jones and Pewsey
    (2009, "Sinh-arcsinh distributions", Biometrika 96) after an affine map. In one dimension every
    continuous density is a monotone image of the base, and a stack of these layers bends a line
    into any such shape step by step, with a closed-form inverse. log delta passes through the
    same soft clamp as a coupling's log scale, so that tails cannot explode. It starts as the
    identity.

    Parameters
    ----------
    dim : int
        D.
    clamp : AsymmetricSoftClamp
        Bounds log delta.
    """

    def __init__(self, dim: int, clamp: AsymmetricSoftClamp) -> None:
        super().__init__()
        self._clamp = clamp
        self.location = nn.Parameter(torch.zeros(dim))
        self.log_scale = nn.Parameter(torch.zeros(dim))
        self.skewness = nn.Parameter(torch.zeros(dim))
        self.raw_tail = nn.Parameter(torch.zeros(dim))

    def _log_derivative(self, v: Tensor, w: Tensor) -> Tensor:
        log_cosh = w.abs() + torch.log1p((-2 * w.abs()).exp()) - math.log(2)
        return self._clamp(self.raw_tail) + log_cosh - _root(v).log() + self.log_scale

    def _bend(self, v: Tensor) -> Tensor:
        return self._clamp(self.raw_tail).exp() * (torch.asinh(v) + self.skewness)

    @override
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        v = self.location + self.log_scale.exp() * x
        w = self._bend(v)
        return torch.sinh(w), self._log_derivative(v, w).sum(-1)

    @override
    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        w = torch.asinh(y)
        v = torch.sinh(w * (-self._clamp(self.raw_tail)).exp() - self.skewness)
        return (v - self.location) * (-self.log_scale).exp(), self._log_derivative(v, w).sum(-1)

    @override
    @torch.no_grad()
    def push_score(self, x: Tensor, score: Tensor) -> Tensor:
        scale = self.log_scale.exp()
        v = self.location + scale * x
        w = self._bend(v)
        delta = self._clamp(self.raw_tail).exp()
        root = _root(v)
        slope = scale * (torch.tanh(w) * delta - v / root) / root
        return (score - slope) * (-self._log_derivative(v, w)).exp()


def _root(v: Tensor) -> Tensor:
    """Return sqrt(1 + v^2) without overflow."""
    return torch.hypot(torch.ones_like(v), v)
