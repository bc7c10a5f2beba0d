"""Wiring: which coordinates a coupling layer moves, and which each of them looks at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stanflow.errors import UsageError

IndexArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Halves:
    """One layer's split of the coordinates.

    Attributes
    ----------
    moved, kept : arrays of shape (n,) and (D - n,)
        Coordinates, ascending.
    partners : array of shape (n, K)
        For each moved coordinate the kept ones that its local conditioner sees, -1 for none.
    """

    moved: IndexArray
    kept: IndexArray
    partners: IndexArray

    @property
    def partner_positions(self) -> IndexArray:
        """The partners as positions in `kept`, -1 for none."""
        positions = np.searchsorted(self.kept, np.maximum(self.partners, 0))
        return np.where(self.partners < 0, -1, positions)


class Wiring:
    """Halves and partners of every coupling layer, as plain index arrays.

    Parameters
    ----------
    dim : int
        D.
    moved : sequence of arrays of shape (n,)
        Per layer, the coordinates that it moves; it keeps the others.
    partners : sequence of arrays of shape (n, K), optional
        Per layer, row by row for `moved`, the kept coordinates that the local conditioner sees;
        -1 stands for none. K is the same in all layers.

    Raises
    ------
    UsageError
        An index is out of range or repeated, a half is empty, a partner is not kept, or shapes
        disagree.

    Examples
    --------
    >>> wiring = Wiring(4, moved=[[1, 3], [0, 2]], partners=[[[0], [2]], [[1], [-1]]])
    >>> wiring.layers, wiring.n_partners
    (2, 1)
    """

    def __init__(
        self,
        dim: int,
        moved: Sequence[npt.ArrayLike],
        partners: Sequence[npt.ArrayLike] | None = None,
    ) -> None:
        if partners is not None and len(partners) != len(moved):
            raise UsageError(
                f"the wiring has {len(moved)} layers of moved coordinates and {len(partners)} of "
                "partners; give as many"
            )
        self.dim = dim
        self.halves = tuple(
            _halves(dim, layer, indices, None if partners is None else partners[layer])
            for layer, indices in enumerate(moved)
        )
        if len({half.partners.shape[1] for half in self.halves}) > 1:
            raise UsageError("the wiring's layers differ in their number of partners")

    @property
    def layers(self) -> int:
        """Number of coupling layers, r."""
        return len(self.halves)

    @property
    def n_partners(self) -> int:
        """Partners of each moved coordinate, K."""
        return self.halves[0].partners.shape[1] if self.halves else 0

    @classmethod
    def alternating(cls, dim: int, layers: int) -> Wiring:
        """Return even and odd coordinates in turns, the odd ones moved first; no partners."""
        odd, even = np.arange(1, dim, 2), np.arange(0, dim, 2)
        return cls(dim, [even if layer % 2 else odd for layer in range(layers)])

    def of_layers(self, layers: Sequence[int]) -> Wiring:
        """Return the wiring of some of the layers."""
        halves = [self.halves[layer] for layer in layers]
        return Wiring(self.dim, [h.moved for h in halves], [h.partners for h in halves])

    def to_arrays(self) -> dict[str, IndexArray]:
        """Return arrays by name, for storing; `from_arrays` takes them back."""
        arrays = {}
        for layer, half in enumerate(self.halves):
            arrays[f"wiring.{layer}.moved"] = half.moved
            arrays[f"wiring.{layer}.partners"] = half.partners
        return arrays

    @classmethod
    def from_arrays(cls, dim: int, arrays: Mapping[str, npt.ArrayLike]) -> Wiring:
        """Return the wiring that `to_arrays` described."""
        layers = range(sum(name.endswith(".moved") for name in arrays))
        return cls(
            dim,
            [arrays[f"wiring.{layer}.moved"] for layer in layers],
            [arrays[f"wiring.{layer}.partners"] for layer in layers],
        )


def _halves(dim: int, layer: int, moved: npt.ArrayLike, partners: npt.ArrayLike | None) -> Halves:
    where = f"layer {layer} of the wiring"
    indices = _whole_numbers(moved, f"{where}, moved")
    if indices.ndim != 1 or not 1 <= len(indices) < dim:
        raise UsageError(
            f"{where} must move at least one and not all of the {dim} coordinates, as a list of "
            "their indices"
        )
    if len(np.unique(indices)) != len(indices) or indices.min() < 0 or indices.max() >= dim:
        raise UsageError(f"{where} must move different coordinates between 0 and {dim - 1}")
    kept = np.setdiff1d(np.arange(dim), indices)
    if partners is None:
        seen = np.empty((len(indices), 0), dtype=np.int64)
    else:
        seen = _whole_numbers(partners, f"{where}, partners")
        if seen.ndim != 2 or len(seen) != len(indices):
            raise UsageError(
                f"{where} needs partners of shape ({len(indices)}, K), one row for each coordinate "
                f"that it moves, not {seen.shape}"
            )
        if not np.isin(seen, np.append(kept, -1)).all():
            raise UsageError(f"{where} has a partner that is not among the coordinates it keeps")
    order = np.argsort(indices)
    return Halves(indices[order], kept, seen[order])


def _whole_numbers(values: npt.ArrayLike, what: str) -> IndexArray:
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise UsageError(f"{what}: indices must be whole numbers")
    return array.astype(np.int64)
