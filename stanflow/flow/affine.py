"""Affine layers: elementwise, and by lower-triangular matrices."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor, nn
from typing_extensions import override

from stanflow.flow.bijection import Bijection, Passes, gradient_of
from stanflow.flow.workspace import Workspace
from stanflow.kernels import layers as compiled


class ShiftScale(Bijection):
    """``z = x * exp(log_scale) + shift``, elementwise; starts as the identity.

    Parameters
    ----------
    dim : int
        D.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.empty(dim))
        self.shift = nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Make it the identity."""
        self.log_scale.zero_()
        self.shift.zero_()

    @override
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * self.log_scale.exp() + self.shift, self.log_scale.sum().expand(len(x))

    @override
    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return (y - self.shift) * (-self.log_scale).exp(), self.log_scale.sum().expand(len(y))

    @override
    def passes(self, workspace: Workspace) -> Passes:
        return _ShiftScalePasses(self, workspace)


class _ShiftScalePasses(Passes):
    def __init__(self, layer: ShiftScale, workspace: Workspace) -> None:
        self._layer = layer
        self._workspace = workspace
        self._log_scale, self._shift = layer.log_scale.detach(), layer.shift.detach()
        dim = len(self._shift)
        self._x = workspace.empty(dim, workspace.batch)
        self._scale = workspace.empty(dim, 1)

    @override
    def push(self, x: Tensor, score: Tensor | None, log_q: Tensor) -> None:
        self._x.copy_(x)
        torch.exp(self._log_scale.unsqueeze(1), out=self._scale)
        x.mul_(self._scale).add_(self._shift.unsqueeze(1))
        log_q.sub_(self._log_scale.sum())
        if score is not None:
            score.div_(self._scale)

    @override
    def pull(self, cotangent: Tensor, log_q_weight: Tensor | None) -> None:
        shift_gradient = gradient_of(self._layer.shift)
        log_scale_gradient = gradient_of(self._layer.log_scale)
        torch.sum(cotangent, 1, out=shift_gradient)
        cotangent.mul_(self._scale)
        scratch = self._workspace.scratch("points", *cotangent.shape)
        torch.sum(torch.mul(cotangent, self._x, out=scratch), 1, out=log_scale_gradient)
        if log_q_weight is not None:
            log_scale_gradient.sub_(log_q_weight.sum())

    @override
    def restore(self, x: Tensor) -> None:
        x.copy_(self._x)

    @override
    def link(self, dim: int) -> compiled.Link:
        layer, workspace = self._layer, self._workspace
        self._arguments = compiled.ShiftScale(
            dim=dim,
            batch=workspace.batch,
            log_scale=layer.log_scale.data_ptr(),
            shift=layer.shift.data_ptr(),
            log_scale_gradient=workspace.address_of_gradient(layer.log_scale),
            shift_gradient=workspace.address_of_gradient(layer.shift),
            x=self._x.data_ptr(),
        )
        return compiled.Link(affine=ctypes.addressof(self._arguments))


class LowerTriangular(Bijection):
    """``z = L x`` with L unit lower-triangular; starts as the identity.

    Between a base and a `ShiftScale` it makes every covariance matrix.

    Parameters
    ----------
    dim : int
        D.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.below_diagonal = nn.Parameter(torch.empty(dim * (dim - 1) // 2))
        self.dim = dim
        rows, columns = torch.tril_indices(dim, dim, offset=-1, device="cpu")
        self.rows: Tensor
        self.columns: Tensor
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns, persistent=False)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Make it the identity."""
        self.below_diagonal.zero_()

    def _matrix(self) -> Tensor:
        identity = torch.eye(
            self.dim, dtype=self.below_diagonal.dtype, device=self.below_diagonal.device
        )
        return identity.index_put((self.rows, self.columns), self.below_diagonal)

    @override
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x @ self._matrix().T, x.new_zeros(len(x))

    @override
    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        x: Tensor = torch.linalg.solve_triangular(
            self._matrix(), y.T, upper=False, unitriangular=True
        )
        return x.T, y.new_zeros(len(y))

    @override
    def passes(self, workspace: Workspace) -> Passes:
        return _LowerTriangularPasses(self, workspace)


class _LowerTriangularPasses(Passes):
    def __init__(self, layer: LowerTriangular, workspace: Workspace) -> None:
        self._layer = layer
        self._x = workspace.empty(layer.dim, workspace.batch)
        self._product = workspace.scratch("points", layer.dim, workspace.batch)
        self._matrix = torch.eye(layer.dim, dtype=self._x.dtype, device=self._x.device)
        self._outer = torch.empty_like(self._matrix)

    @override
    def push(self, x: Tensor, score: Tensor | None, log_q: Tensor) -> None:
        below = self._layer.below_diagonal.detach()
        self._matrix.index_put_((self._layer.rows, self._layer.columns), below)
        self._x.copy_(x)
        x.copy_(torch.mm(self._matrix, x, out=self._product))
        if score is not None:
            score.copy_(
                torch.linalg.solve_triangular(self._matrix.T, score, upper=True, unitriangular=True)
            )

    @override
    def pull(self, cotangent: Tensor, log_q_weight: Tensor | None) -> None:
        torch.mm(cotangent, self._x.T, out=self._outer)
        gradient = gradient_of(self._layer.below_diagonal)
        gradient.copy_(self._outer[self._layer.rows, self._layer.columns])
        cotangent.copy_(torch.mm(self._matrix.T, cotangent, out=self._product))

    @override
    def restore(self, x: Tensor) -> None:
        x.copy_(self._x)


class FixedAffine(Bijection):
    """``z = F x + shift`` with a lower-triangular F; nothing in it is trained.

    Parameters
    ----------
    shift : Tensor of shape (D,)
    factor : Tensor of shape (D, D)
        F, with a positive diagonal.
    """

    def __init__(self, shift: Tensor, factor: Tensor) -> None:
        super().__init__()
        self.shift: Tensor
        self.factor: Tensor
        self.register_buffer("shift", shift)
        self.register_buffer("factor", factor)

    @property
    def log_det(self) -> Tensor:
        """Log-determinant of F, of shape ()."""
        return self.factor.diagonal().log().sum()

    def solve(self, right: Tensor) -> Tensor:
        """Return ``F^-1 right``, (D, n)."""
        solved: Tensor = torch.linalg.solve_triangular(self.factor, right, upper=False)
        return solved

    @override
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x @ self.factor.T + self.shift, self.log_det.expand(len(x))

    @override
    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.solve((y - self.shift).T).T, self.log_det.expand(len(y))

    @override
    def passes(self, workspace: Workspace) -> Passes:
        return _FixedAffinePasses(self)


class _FixedAffinePasses(Passes):
    def __init__(self, layer: FixedAffine) -> None:
        self._layer = layer

    @override
    def push(self, x: Tensor, score: Tensor | None, log_q: Tensor) -> None:
        layer = self._layer
        x.copy_(torch.addmm(layer.shift.unsqueeze(1), layer.factor, x))
        log_q.sub_(layer.log_det)
        if score is not None:
            score.copy_(torch.linalg.solve_triangular(layer.factor.T, score, upper=True))

    @override
    def pull(self, cotangent: Tensor, log_q_weight: Tensor | None) -> None:
        cotangent.copy_(self._layer.factor.T @ cotangent)

    @override
    def restore(self, x: Tensor) -> None:
        x.copy_(self._layer.solve(x - self._layer.shift.unsqueeze(1)))
