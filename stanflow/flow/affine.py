"""Affine layers: elementwise, and by a lower-triangular matrix."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import override

from stanflow.flow.bijection import Bijection


class ShiftScale(Bijection):
    """``z = x * exp(log_scale) + shift``, elementwise; starts as the identity.

    Parameters
    ----------
    dim : int
        D.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(dim))
        self.shift = nn.Parameter(torch.zeros(dim))

    @override
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * self.log_scale.exp() + self.shift, self.log_scale.sum().expand(len(x))

    @override
    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return (y - self.shift) * (-self.log_scale).exp(), self.log_scale.sum().expand(len(y))

    @override
    @torch.no_grad()
    def push_score(self, x: Tensor, score: Tensor) -> Tensor:
        return score * (-self.log_scale).exp()


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
        self.below_diagonal = nn.Parameter(torch.zeros(dim * (dim - 1) // 2))
        self.dim = dim
        rows, columns = torch.tril_indices(dim, dim, offset=-1)
        self._rows: Tensor
        self._columns: Tensor
        self.register_buffer("_rows", rows, persistent=False)
        self.register_buffer("_columns", columns, persistent=False)

    def _matrix(self) -> Tensor:
        identity = torch.eye(self.dim, dtype=self.below_diagonal.dtype)
        return identity.index_put((self._rows, self._columns), self.below_diagonal)

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
    @torch.no_grad()
    def push_score(self, x: Tensor, score: Tensor) -> Tensor:
        pushed: Tensor = torch.linalg.solve_triangular(
            self._matrix().T, score.T, upper=True, unitriangular=True
        )
        return pushed.T
