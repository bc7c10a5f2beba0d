"""The sinh-arcsinh layer, which does in one dimension what couplings do in several."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from typing_extensions import override

from stanflow.flow.bijection import Bijection, Passes, gradient_of
from stanflow.flow.clamp import Clamp
from stanflow.flow.workspace import Workspace


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
    clamp : Clamp
        Bounds log delta.
    """

    def __init__(self, dim: int, clamp: Clamp) -> None:
        super().__init__()
        self.clamp = clamp
        self.location = nn.Parameter(torch.empty(dim))
        self.log_scale = nn.Parameter(torch.empty(dim))
        self.skewness = nn.Parameter(torch.empty(dim))
        self.raw_tail = nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Make it the identity."""
        for parameter in self.parameters():
            parameter.zero_()

    def _log_derivative(self, v: Tensor, w: Tensor) -> Tensor:
        return self.clamp(self.raw_tail) + _log_cosh(w) - _root(v).log() + self.log_scale

    def _bend(self, v: Tensor) -> Tensor:
        return self.clamp(self.raw_tail).exp() * (torch.asinh(v) + self.skewness)

    @override
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        v = self.location + self.log_scale.exp() * x
        w = self._bend(v)
        return torch.sinh(w), self._log_derivative(v, w).sum(-1)

    @override
    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        w = torch.asinh(y)
        v = torch.sinh(w * (-self.clamp(self.raw_tail)).exp() - self.skewness)
        return (v - self.location) * (-self.log_scale).exp(), self._log_derivative(v, w).sum(-1)

    @override
    def passes(self, workspace: Workspace) -> Passes:
        return _SinhArcsinhPasses(self, workspace)


class _SinhArcsinhPasses(Passes):
    """Of ``y = sinh(w)``, ``w = delta (asinh(v) + epsilon)``, ``v = m + a x``.

    ``log|dy/dx| = log delta + log cosh(w) - log(1 + v^2) / 2 + log a``.
    """

    def __init__(self, layer: SinhArcsinh, workspace: Workspace) -> None:
        self._layer = layer
        shape = (len(layer.location), workspace.batch)
        self._x, self._v, self._w, self._root = (workspace.empty(*shape) for _ in range(4))

    def _columns(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return m, a, delta and epsilon, (D, 1) each."""
        layer = self._layer
        delta = layer.clamp(layer.raw_tail).exp()
        columns = (layer.location, layer.log_scale.exp(), delta, layer.skewness)
        return tuple(column.detach().unsqueeze(1) for column in columns)  # type: ignore[return-value]

    @override
    def push(self, x: Tensor, score: Tensor | None, log_q: Tensor) -> None:
        m, a, delta, epsilon = self._columns()
        self._x.copy_(x)
        self._v.copy_(m + a * x)
        self._root.copy_(_root(self._v))
        self._w.copy_(delta * (torch.asinh(self._v) + epsilon))
        log_slope = delta.log() + _log_cosh(self._w) - self._root.log() + a.log()
        if score is not None:
            slope = a * (delta * torch.tanh(self._w) - self._v / self._root) / self._root
            score.sub_(slope).mul_(torch.exp(-log_slope))
        torch.sinh(self._w, out=x)
        log_q.sub_(log_slope.sum(0))

    @override
    def pull(self, cotangent: Tensor, log_q_weight: Tensor | None) -> None:
        layer = self._layer
        _, a, delta, _ = self._columns()
        weight = 0.0 if log_q_weight is None else log_q_weight.to(cotangent.dtype)
        on_w = cotangent * torch.cosh(self._w) - weight * torch.tanh(self._w)
        on_v = on_w * delta / self._root + weight * self._v / self._root.square()
        raw_tail = layer.raw_tail.detach()
        log_delta_gradient = (on_w * self._w - weight).sum(1)
        torch.mul(
            log_delta_gradient, layer.clamp.derivative(raw_tail), out=gradient_of(layer.raw_tail)
        )
        torch.sum(on_w * delta, 1, out=gradient_of(layer.skewness))
        torch.sum(on_v, 1, out=gradient_of(layer.location))
        torch.sum(on_v * a * self._x - weight, 1, out=gradient_of(layer.log_scale))
        torch.mul(on_v, a, out=cotangent)

    @override
    def restore(self, x: Tensor) -> None:
        x.copy_(self._x)


def _log_cosh(w: Tensor) -> Tensor:
    return w.abs() + torch.log1p((-2 * w.abs()).exp()) - math.log(2)


def _root(v: Tensor) -> Tensor:
    """Return sqrt(1 + v^2) without overflow."""
    return torch.hypot(torch.ones_like(v), v)
