"""Couplings wired by the target's curvature.

A coordinate c depends on a coordinate j, as far as a density can tell, by its mixed derivative
``d^2 log p / dz_c dz_j``. In units of the posterior's spread, the mean of its size over points of
the posterior says how much of c's conditional location and scale j governs. From this matrix come

- **halves**: strongly tied coordinates should sit in opposite halves, where one can look at the
  other: a maximum cut of the graph. One cut cannot separate all pairs, so each further cut counts
  those that the former ones separated for less;
- **partners**: for each moved coordinate the kept ones that it depends on most, which its local
  conditioner sees directly.

Nothing is read from the program's text, and in each row only the strongest entries are kept, so
that memory grows with D and not with its square.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from stanflow.arrays import FloatArray
from stanflow.flow.config import FlowConfig
from stanflow.flow.wiring import IndexArray, Wiring
from stanflow.stan.curvature import second_derivatives
from stanflow.stan.density import Density

_GRADIENTS_FOR_POINTS = 32_000
_MOST_POINTS, _FEWEST_POINTS = 16, 4
_CUTS = 4
DIFFERENCE = 1e-3  # in units of the posterior's spread
_ROWS_AT_ONCE = 512
_MOST_NUMBERS_AT_ONCE = 4_000_000
_STRONGEST = 32
_NEGLIGIBLE = 1e-6
_ATTEMPTS, _SWEEPS = 4, 20
_COUNTS_AFTER_CUT = 0.3


@dataclass(frozen=True)
class Dependence:
    """A symmetric (D, D) matrix without diagonal: its entries above zero, row by row.

    Attributes
    ----------
    dim : int
        D.
    bounds : int array of shape (D + 1,)
        Row i's entries are those from ``bounds[i]`` to ``bounds[i + 1]``.
    columns : int array of shape (n,)
        Theirs, in order in each row.
    values : array of shape (n,)
        The entries.
    """

    dim: int
    bounds: IndexArray
    columns: IndexArray
    values: FloatArray

    @classmethod
    def of_entries(
        cls, dim: int, rows: IndexArray, columns: IndexArray, values: FloatArray
    ) -> Dependence:
        """Return the matrix where each pair has the largest value that either order has."""
        flat = np.concatenate([rows * dim + columns, columns * dim + rows])
        positive = np.tile(values > 0, 2)
        order = np.argsort(flat[positive], kind="stable")
        flat, both = flat[positive][order], np.tile(values, 2)[positive][order]
        places, first = np.unique(flat, return_index=True)
        largest = np.maximum.reduceat(both, first) if len(first) else both
        bounds = np.searchsorted(places, dim * np.arange(dim + 1))
        return cls(dim, bounds, places % dim, largest)

    def row(self, i: int) -> slice:
        """Return where the entries of a row are."""
        return slice(self.bounds[i], self.bounds[i + 1])

    def rows(self) -> IndexArray:
        """Return the row of each entry, (n,)."""
        return np.repeat(np.arange(self.dim), np.diff(self.bounds))


def measure_dependence(target: Density, points: FloatArray) -> Dependence:
    """Measure how coordinates depend on each other.

    Parameters
    ----------
    target : Density
        The density, in units of the posterior's spread.
    points : array of shape (n, D)
        Where its mass is; 2 D gradients are taken at each.

    Returns
    -------
    Dependence
        Mean over the points of ``|d^2 log p / dz_c dz_j|``, by central differences, for the
        strongest 32 entries of each row, and of each column. Points where it is not finite
        are left out.

    Examples
    --------
    >>> from stanflow.stan.model import StanModel
    >>> model = StanModel(
    ...     stan_code="parameters { real v; vector[3] x; } "
    ...     "model { v ~ normal(0, 1); x ~ normal(0, exp(v)); }",
    ...     engine="embedded",
    ... )
    >>> dependence = measure_dependence(model, np.full((1, 4), 0.5))
    >>> dependence.rows(), dependence.columns, dependence.values.round(1)
    (array([0, 0, 0, 1, 2, 3]), array([1, 2, 3, 0, 0, 0]), array([0.4, 0.4, 0.4, 0.4, 0.4, 0.4]))
    """
    dim = target.dim
    rows_at_once = max(1, min(_ROWS_AT_ONCE, _MOST_NUMBERS_AT_ONCE // dim))
    rows, columns, values = [], [], []
    for start in range(0, dim, rows_at_once):
        coordinates = np.arange(start, min(start + rows_at_once, dim))
        dependence = _rows_of_curvature(target, points, coordinates)
        dependence[np.arange(len(coordinates)), coordinates] = 0
        kept = min(_STRONGEST, dim - 1)
        strongest = np.argpartition(-dependence, kept - 1, axis=1)[:, :kept]
        rows.append(np.repeat(coordinates, kept))
        columns.append(strongest.ravel())
        values.append(np.take_along_axis(dependence, strongest, axis=1).ravel())
    found = np.concatenate(values)
    found[found < _NEGLIGIBLE] = 0
    return Dependence.of_entries(dim, np.concatenate(rows), np.concatenate(columns), found)


def _rows_of_curvature(target: Density, points: FloatArray, coordinates: IndexArray) -> FloatArray:
    """Return the mean size of the derivatives of the gradient along some coordinates, (n, D)."""
    total, counted = np.zeros((len(coordinates), target.dim)), 0
    for point in points:
        derivatives = second_derivatives(
            target, point, np.ones(target.dim), DIFFERENCE, coordinates
        )
        if np.isfinite(derivatives).all():
            total += np.abs(derivatives)
            counted += 1
    return np.asarray(total / max(counted, 1))


@np.errstate(all="ignore")  # points where the density is not finite are left out
def wire_by_curvature(
    config: FlowConfig, target: Density, points: FloatArray, rng: np.random.Generator
) -> Wiring:
    """Measure the curvature and wire a flow as its configuration says.

    Parameters
    ----------
    config : FlowConfig
        Its layers, wiring and partners.
    target : Density
        The density, in units of the posterior's spread.
    points : array of shape (n, D)
        Where its mass is; the first few are taken.
    rng : numpy.random.Generator
        Where the search for cuts begins.
    """
    dependence = measure_dependence(target, points[: points_looked_at(target.dim)])
    if config.wiring == "even-odd":
        return even_odd(dependence, layers=config.depth(target.dim), partners=config.partners)
    return wire(
        dependence, layers=config.depth(target.dim), partners=config.partners, cuts=_CUTS, rng=rng
    )


def points_looked_at(dim: int) -> int:
    """Return at how many points the curvature is measured, by 2 D gradients each."""
    affordable = _GRADIENTS_FOR_POINTS // (2 * dim)
    return min(_MOST_POINTS, max(_FEWEST_POINTS, affordable))


def wire(
    dependence: Dependence, *, layers: int, partners: int, cuts: int, rng: np.random.Generator
) -> Wiring:
    """Choose halves and partners.

    Parameters
    ----------
    dependence : Dependence
        See `measure_dependence`.
    layers : int
        Coupling layers, r. Layers 2 i and 2 i + 1 move the two sides of the same cut.
    partners : int
        Partners of a moved coordinate, K: those that it depends on most; 0 for none.
    cuts : int
        Different cuts, which take turns.
    rng : numpy.random.Generator
        Where the search for cuts begins.
    """
    sides = _maximum_cuts(dependence, cuts, rng)
    moved = [np.flatnonzero(side == half) for side in sides for half in (0, 1)]
    return _in_turns(dependence, moved, layers, partners)


def even_odd(dependence: Dependence, *, layers: int, partners: int) -> Wiring:
    """Return even and odd coordinates in turns, with partners from the curvature."""
    dim = dependence.dim
    moved = [half.moved for half in Wiring.alternating(dim, 2).halves]
    return _in_turns(dependence, moved, layers, partners)


def _in_turns(
    dependence: Dependence, moved: list[IndexArray], layers: int, partners: int
) -> Wiring:
    """Return layers that move these coordinates in turns, each half's partners found once."""
    seen = [strongest_partners(dependence, indices, partners) for indices in moved[:layers]]
    turns = [layer % len(moved) for layer in range(layers)]
    return Wiring(dependence.dim, [moved[i] for i in turns], [seen[i] for i in turns])


def strongest_partners(dependence: Dependence, moved: IndexArray, partners: int) -> IndexArray:
    """Return the kept coordinates that moved ones depend on most, (n, K); -1 for none."""
    found = np.full((len(moved), partners), -1, dtype=np.int64)
    is_moved = np.zeros(dependence.dim, dtype=bool)
    is_moved[moved] = True
    for row, coordinate in enumerate(moved):
        entries = dependence.row(coordinate)
        others, values = dependence.columns[entries], dependence.values[entries]
        kept = ~is_moved[others]
        strongest = others[kept][np.argsort(-values[kept], kind="stable")][:partners]
        found[row, : len(strongest)] = strongest
    return found


def _maximum_cuts(
    dependence: Dependence, cuts: int, rng: np.random.Generator
) -> list[npt.NDArray[np.int8]]:
    """Return cuts as sides, 0 or 1 a coordinate."""
    remaining, rows = dependence, dependence.rows()
    found = []
    for _ in range(cuts):
        attempts = [_local_maximum_cut(remaining, rng) for _ in range(_ATTEMPTS)]
        side = max(attempts, key=lambda side: _weight_of_cut(remaining, rows, side))
        found.append(side)
        separated = side[rows] != side[remaining.columns]
        counted = np.where(separated, _COUNTS_AFTER_CUT, 1.0) * remaining.values
        remaining = replace(remaining, values=counted)
    return found


def _weight_of_cut(
    dependence: Dependence, rows: npt.NDArray[np.intp], side: npt.NDArray[np.int8]
) -> float:
    return float(dependence.values[side[rows] != side[dependence.columns]].sum())


def _local_maximum_cut(dependence: Dependence, rng: np.random.Generator) -> npt.NDArray[np.int8]:
    """Move one coordinate after the other to where it cuts more, from a random balanced split."""
    dim = dependence.dim
    side = rng.permutation(np.arange(dim) % 2).astype(np.int8)
    for _ in range(_SWEEPS):
        changed = False
        for coordinate in rng.permutation(dim):
            entries = dependence.row(coordinate)
            signs = 1 - 2 * side[dependence.columns[entries]].astype(np.int64)
            pull = float(dependence.values[entries] @ signs)
            better = 1 if pull > 0 else 0 if pull < 0 else side[coordinate]
            if better != side[coordinate]:
                side[coordinate] = better
                changed = True
        if not changed:
            break
    if len(np.unique(side)) == 1:
        side[rng.integers(dim)] ^= 1
    return side
