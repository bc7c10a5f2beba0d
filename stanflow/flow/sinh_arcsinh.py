"""The sinh-arcsinh layer, which does in one dimension what couplings do in several."""

from __future__ import annotations

import ctypes
import math

import torch
from torch import Tensor, nn
from typing_extensions import override

from stanflow.flow.bijection import Bijection, Passes, gradient_of
from stanflow.flow.clamp import Clamp
from stanflow.flow.workspace import Workspace
from stanflow.kernels import layers as compiled


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
        if workspace.library is None:
            return _SinhArcsinhPasses(self, workspace)
        return _CompiledPasses(self, workspace, workspace.library)


class _SinhArcsinhPasses(Passes):
    """Of ``y = sinh(w)``, ``w = delta (asinh(v) + epsilon)``, ``v = m + a x``.

    ``log|dy/dx| = log delta + log cosh(w) - log(1 + v^2) / 2 + log a``.
    """

    def __init__(self, layer: SinhArcsinh, workspace: Workspace) -> None:
        self._layer = layer
        shape = (len(layer.location), workspace.batch)
        self._x, self._v, self._w = (workspace.empty(*shape) for _ in range(3))
        self._root, self._cosh = (workspace.empty(*shape) for _ in range(2))
        self._scratch = workspace.scratch("points", *shape)
        self._another = workspace.scratch("more points", *shape)
        self._columns = self._parameters()

    def _parameters(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return m, a, delta and epsilon, (D, 1) each."""
        layer = self._layer
        delta = layer.clamp(layer.raw_tail).exp()
        columns = (layer.location, layer.log_scale.exp(), delta, layer.skewness)
        return tuple(column.detach().unsqueeze(1) for column in columns)  # type: ignore[return-value]

    @override
    def push(self, x: Tensor, score: Tensor | None, log_q: Tensor) -> None:
        self._columns = m, a, delta, epsilon = self._parameters()
        v, w, root, cosh = self._v, self._w, self._root, self._cosh
        self._x.copy_(x)
        torch.addcmul(m, a, x, out=v)
        torch.mul(v, v, out=root).add_(1).sqrt_()
        torch.abs(v, out=w).add_(root).log_().copysign_(v)  # asinh(v), five times as fast
        w.add_(epsilon).mul_(delta)
        torch.exp(w, out=cosh)
        inverse = torch.reciprocal(cosh, out=self._scratch)
        torch.sub(cosh, inverse, out=x).mul_(0.5)
        cosh.add_(inverse).mul_(0.5)
        slope = torch.div(cosh, root, out=self._scratch)
        if score is not None:
            torch.div(x, cosh, out=self._another).mul_(delta).addcdiv_(v, root, value=-1)
            score.sub_(self._another.div_(root).mul_(a)).div_(slope).div_(a * delta)
        log_q.sub_(slope.log_().sum(0)).sub_((a * delta).log().sum())

    @override
    def pull(self, cotangent: Tensor, log_q_weight: Tensor | None) -> None:
        layer, scratch = self._layer, self._scratch
        m, a, delta, _ = self._columns
        raw_tail = layer.raw_tail.detach()
        weight = None if log_q_weight is None else log_q_weight.to(cotangent.dtype)
        total_weight = 0.0 if weight is None else weight.sum()
        cotangent.mul_(self._cosh)  # with respect to w
        if weight is not None:
            cotangent.sub_(weight * torch.tanh(self._w))
        log_delta_gradient = torch.mul(cotangent, self._w, out=scratch).sum(1).sub_(total_weight)
        torch.mul(
            log_delta_gradient, layer.clamp.derivative(raw_tail), out=gradient_of(layer.raw_tail)
        )
        cotangent.mul_(delta)
        torch.sum(cotangent, 1, out=gradient_of(layer.skewness))
        cotangent.div_(self._root)  # with respect to v
        if weight is not None:
            cotangent.add_(weight * self._v / self._root.square())
        on_location = torch.sum(cotangent, 1, out=gradient_of(layer.location))
        on_v = torch.mul(cotangent, self._v, out=scratch).sum(1)
        on_log_scale = on_v.sub_(m.squeeze(1) * on_location).sub_(total_weight)
        gradient_of(layer.log_scale).copy_(on_log_scale)
        cotangent.mul_(a)

    @override
    def restore(self, x: Tensor) -> None:
        x.copy_(self._x)


class _CompiledPasses(Passes):
    """The same, fused (sinh_arcsinh_passes.h)."""

    def __init__(self, layer: SinhArcsinh, workspace: Workspace, library: ctypes.CDLL) -> None:
        dim, batch = len(layer.location), workspace.batch
        self._x = workspace.empty(dim, batch)
        log_det = workspace.scratch("log_det", 1, batch)
        self._arguments = compiled.SinhArcsinh(
            dim=dim,
            batch=batch,
            clamp=layer.clamp.code,
            positive=layer.clamp.positive,
            negative=layer.clamp.negative,
            x=self._x.data_ptr(),
            log_det=log_det.data_ptr(),
        )
        for name in ("location", "log_scale", "skewness", "raw_tail"):
            parameter = getattr(layer, name)
            setattr(self._arguments, name, parameter.data_ptr())
            gradient = workspace.address_of_gradient(parameter)
            setattr(self._arguments, f"{name}_gradient", gradient)
        self._keep_alive = log_det
        self._address = ctypes.addressof(self._arguments)
        self._calls = compiled.Calls(library, self._x.dtype)

    @override
    def push(self, x: Tensor, score: Tensor | None, log_q: Tensor) -> None:
        score_address = None if score is None else score.data_ptr()
        self._calls.bend_push(self._address, x.data_ptr(), score_address, log_q.data_ptr())

    @override
    def pull(self, cotangent: Tensor, log_q_weight: Tensor | None) -> None:
        weight = None if log_q_weight is None else log_q_weight.data_ptr()
        self._calls.bend_pull(self._address, cotangent.data_ptr(), weight)

    @override
    def restore(self, x: Tensor) -> None:
        x.copy_(self._x)

    @override
    def link(self, dim: int) -> compiled.Link:
        return compiled.Link(bend=self._address)


def _log_cosh(w: Tensor) -> Tensor:
    return w.abs() + torch.log1p((-2 * w.abs()).exp()) - math.log(2)


def _root(v: Tensor) -> Tensor:
    """Return sqrt(1 + v^2) without overflow."""
    return torch.hypot(torch.ones_like(v), v)
