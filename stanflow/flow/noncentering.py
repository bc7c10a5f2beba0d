"""A layer that knows a hierarchy: coordinates as multiples of scales that others set."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from stanflow.flow.bijection import Bijection, Passes
from stanflow.flow.workspace import Workspace


class NonCentering(Bijection):
    """``z_c = m_c + u_c exp(s_c)`` for some coordinates c, ``z_c = u_c`` for the others.

    Location and log scale are linear in c's parents, ``m_c = a_c + sum_k t_ck z_p(c, k)`` and
    ``s_c = b_c + sum_k w_ck z_p(c, k)``. Where z_c is a priori normal around m_c with the standard
    deviation exp(s_c), u_c is the coordinate of the non-centered form of the program, and with
    weights w between 0 and its own something in between (Papaspiliopoulos, Roberts, Skoeld 2007,
    Statistical Science 22; Gorinova, Moore, Hoffman 2020, arXiv 1906.03028; as a flow's layer: Ko
    and Domke 2025, arXiv 2505.24243). Nothing in it is trained.

    Parameters
    ----------
    moved : int Tensor of shape (n,)
        The coordinates c, those that are parents of others before these.
    parents : int Tensor of shape (n, K)
        p(c, k); where there are fewer, any with weights of zero.
    scale_weights, location_weights : Tensors of shape (n, K)
        w and t.
    log_scale, location : Tensors of shape (n,)
        b and a.

    Examples
    --------
    >>> layer = NonCentering(
    ...     moved=torch.tensor([1]),
    ...     parents=torch.tensor([[0]]),
    ...     scale_weights=torch.ones(1, 1),
    ...     location_weights=torch.zeros(1, 1),
    ...     log_scale=torch.zeros(1),
    ...     location=torch.zeros(1),
    ... )
    >>> layer(torch.tensor([[0.6932, 1.0]]))
    (tensor([[0.6932, 2.0001]]), tensor([0.6932]))
    """

    def __init__(
        self,
        *,
        moved: Tensor,
        parents: Tensor,
        scale_weights: Tensor,
        location_weights: Tensor,
        log_scale: Tensor,
        location: Tensor,
    ) -> None:
        super().__init__()
        self.moved: Tensor
        self.parents: Tensor
        self.scale_weights: Tensor
        self.location_weights: Tensor
        self.log_scale: Tensor
        self.location: Tensor
        self.register_buffer("moved", moved)
        self.register_buffer("parents", parents)
        self.register_buffer("scale_weights", scale_weights)
        self.register_buffer("location_weights", location_weights)
        self.register_buffer("log_scale", log_scale)
        self.register_buffer("location", location)
        self._levels = _levels(moved, parents, (scale_weights != 0) | (location_weights != 0))

    def carry(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return z, (D, B), and log scales s, (n, B), of columns u, (D, B)."""
        z, log_scales = u, []
        for level in self._levels:
            log_scale, location = self._set_by_parents(z, level)
            placed = location + z[self.moved[level]] * log_scale.exp()
            z = z.index_copy(0, self.moved[level], placed)
            log_scales.append(log_scale)
        return z, torch.cat(log_scales)

    def pull_back(
        self, cotangent: Tensor, u: Tensor, log_scale: Tensor, log_det_weight: Tensor
    ) -> None:
        """Turn derivatives with respect to z, in place, into those with respect to u.

        Parameters
        ----------
        cotangent : Tensor of shape (D, B)
        u : Tensor of shape (n, B)
            The moved coordinates before they were.
        log_scale : Tensor of shape (n, B)
            From `carry`.
        log_det_weight : Tensor of shape (B,) or ()
            Derivative with respect to ``log|det dz/du|``.
        """
        for level in reversed(self._levels):
            moved = self.moved[level]
            of_location = cotangent[moved]
            of_u = of_location * log_scale[level].exp()
            of_log_scale = of_u * u[level] + log_det_weight
            cotangent.index_copy_(0, moved, of_u)
            self.add_to_parents(cotangent, of_location, of_log_scale, level)

    def add_to_parents(
        self, derivatives: Tensor, of_location: Tensor, of_log_scale: Tensor, rows: slice
    ) -> None:
        """Add what parents owe to locations and log scales, (n, B), of some of the moved."""
        owed = self.location_weights[rows].unsqueeze(2) * of_location.unsqueeze(1)
        owed += self.scale_weights[rows].unsqueeze(2) * of_log_scale.unsqueeze(1)
        derivatives.index_add_(0, self.parents[rows].ravel(), owed.flatten(0, 1))

    def _set_by_parents(self, z: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        """Return log scales and locations of some of the moved, (n, B) each, of columns z."""
        at_parents = z[self.parents[rows]]
        log_scale = (self.scale_weights[rows].unsqueeze(2) * at_parents).sum(1)
        location = (self.location_weights[rows].unsqueeze(2) * at_parents).sum(1)
        return (
            log_scale + self.log_scale[rows].unsqueeze(1),
            location + self.location[rows].unsqueeze(1),
        )

    @override
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z, log_scale = self.carry(x.T)
        return z.T, log_scale.sum(0)

    @override
    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        columns = y.T
        log_scale, location = self._set_by_parents(columns, slice(None))
        u = (columns[self.moved] - location) * (-log_scale).exp()
        return columns.index_copy(0, self.moved, u).T, log_scale.sum(0)

    @override
    def passes(self, workspace: Workspace) -> Passes:
        return _NonCenteringPasses(self)


class _NonCenteringPasses(Passes):
    def __init__(self, layer: NonCentering) -> None:
        self._layer = layer

    @override
    def push(self, x: Tensor, score: Tensor | None, log_q: Tensor) -> None:
        layer = self._layer
        self._u = x[layer.moved]
        z, self._log_scale = layer.carry(x)
        x.copy_(z)
        log_q.sub_(self._log_scale.sum(0))
        if score is not None:
            of_u = score[layer.moved]
            of_location = -of_u * (-self._log_scale).exp()
            of_log_scale = -of_u * self._u - 1
            score.index_copy_(0, layer.moved, -of_location)
            layer.add_to_parents(score, of_location, of_log_scale, slice(None))

    @override
    def pull(self, cotangent: Tensor, log_q_weight: Tensor | None) -> None:
        of_log_det = cotangent.new_zeros(()) if log_q_weight is None else -log_q_weight
        self._layer.pull_back(cotangent, self._u, self._log_scale, of_log_det.to(cotangent))

    @override
    def restore(self, x: Tensor) -> None:
        x.index_copy_(0, self._layer.moved, self._u)


def _levels(moved: Tensor, parents: Tensor, counts: Tensor) -> list[slice]:
    """Return runs of the moved coordinates none of which is a parent within its run."""
    first, levels = 0, list[slice]()
    within: set[int] = set()
    for row, (c, of_c, used) in enumerate(
        zip(moved.tolist(), parents.tolist(), counts.tolist(), strict=True)
    ):
        if any(p in within for p, is_used in zip(of_c, used, strict=True) if is_used):
            levels.append(slice(first, row))
            first, within = row, set()
        within.add(c)
    return [*levels, slice(first, len(moved))]
