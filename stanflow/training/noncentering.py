"""The hierarchy of a program, found in its derivatives: who sets whose scale and location.

Where z_c is a priori normal around m with the log standard deviation ``s = b + w z_j``, and other
factors know nothing of z_j but through z_c, the log density has the derivatives

    d^3 / dz_c^2 dz_j = 2 w exp(-2 s),    d^2 / dz_c dz_j = 2 w (z_c - m) exp(-2 s).

Their ratio says where the prior is centred, whatever data say. The logarithm of the first is
linear in what sets s, which tells w. And the first over ``-2 d^2 / dz_c^2`` is w times the share
that the prior has in c's conditional precision, 1 where data say nothing of z_c and 0 where they
say all: with that for a weight, a partially non-centered form is the least dependent one
(Papaspiliopoulos, Roberts, Skoeld 2007, Statistical Science 22). All of it comes from gradients
beside a point, `2 D` of them for all pairs. Nothing is read from the program's text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from stanflow.arrays import FloatArray
from stanflow.flow.noncentering import NonCentering
from stanflow.sampling.noncentered import NoncenteredTarget
from stanflow.stan.density import Density, Target
from stanflow.training.warmstart import LocationScale, mean_field_start, typical_log_weight
from stanflow.training.wiring import points_looked_at

_DIFFERENCE = 0.1  # in units of the mean-field fit's standard deviations
_ROWS_AT_ONCE, _NUMBERS_AT_ONCE = 256, 8_000_000
_MOST_PARENTS, _MOST_TIES, _MOST_LEVELS = 4, 8, 4
_FEWEST_POINTS, _POINTS_A_WEIGHT = 4, 3
_POINTS_WITHOUT_CHANCE = 12
_LEAST_EFFECT = 0.05  # nats that a log scale changes by, over a standard deviation of the parent
_LEAST_EFFECT_WITH_IT = 0.005
_AGREEING = 0.8  # of the points, net, on an effect's sign
_LARGEST_SPREAD = 0.1  # of the ratio of two effects over points, as a share of it
_MOST_UNEXPLAINED = 0.1  # standard deviations of z_c
_AS_LARGE = 0.1  # an effect as that of a known parent
_LEAST_SHARE = 0.05  # of a prior in a precision, as far as is believed
_MOST_ROUNDS = 3
_LEAST_GAIN = 1.0  # nats
_WORTH_A_ROUND = 0.05  # nats a dimension


@dataclass(frozen=True)
class _Child:
    """A coordinate, its parents, and how they set its scale and location."""

    coordinate: int
    scale_weights: dict[int, float]
    share: float
    location_weights: dict[int, float]
    location: float

    @property
    def parents(self) -> list[int]:
        return sorted({*self.scale_weights, *self.location_weights})


def noncenter(
    target: Target,
    fitted: LocationScale,
    rng: np.random.Generator,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[NoncenteredTarget, LocationScale] | None:
    """Return a target whose hierarchy is taken apart, and a mean-field fit of it, where they win.

    They do where typical ``log p - log q`` are higher (see `typical_log_weight`). Derivatives are
    taken at draws of a mean-field fit, first of the one given. As a better one shows more of the
    posterior, that is done again, three times at most, while there is something to gain.

    Parameters
    ----------
    target : Target
        The density.
    fitted : LocationScale
        A mean-field fit of it.
    rng : numpy.random.Generator
        Source of draws.
    should_stop : callable
        Asked between rounds.
    """
    best = None
    reached = typical_log_weight(target, fitted, rng)
    points = fitted.draws(points_for_hierarchy(target.dim), rng)
    scale = np.exp(fitted.log_scale)
    kinds = [0, 1]
    for _ in range(_MOST_ROUNDS):
        before = reached
        layers = find_noncentering(target, points, scale)
        for kind in kinds if layers else []:
            if should_stop():
                return best
            layer = layers[kind]
            tried = NoncenteredTarget(target, layer)
            fitted = mean_field_start(tried, rng, should_stop)
            typical = typical_log_weight(tried, fitted, rng)
            noise = 2 * math.hypot(typical.se, reached.se)
            if typical.value > reached.value + max(_LEAST_GAIN, noise):
                reached, best, kinds = typical, (tried, fitted), [kind]
        if best is None or not reached.value > before.value + _WORTH_A_ROUND * target.dim:
            break
        points = best[0].carry(best[1].draws(len(points), rng))
        scale = points.std(axis=0)
    return best


def points_for_hierarchy(dim: int) -> int:
    """Return at how many points the hierarchy is looked for, by 2 D gradients each.

    Of the D^2 pairs of coordinates some have derivatives of the same signs at few points by chance:
    at six, a horseshoe's scale of one of a thousand coefficients seems to be set by another's.
    """
    return max(points_looked_at(dim), _POINTS_WITHOUT_CHANCE)


@np.errstate(all="ignore")  # points where a derivative is not finite say nothing
def find_noncentering(target: Density, points: FloatArray, scale: FloatArray) -> list[NonCentering]:
    """Find which coordinates set the scale of others.

    What sets c's scale most has a weight of the same sign at nearly all points, and changes the
    scale by 5 % at least. Others that do have a weight in the same ratio to it at all points.
    Where the centre of c's prior is not the same at all points, it is linear in other coordinates,
    or c is left as it is. The hierarchy is four levels deep at most.

    Parameters
    ----------
    target : Density
        The density; 2 D gradients are taken for each point.
    points : array of shape (n, D)
        About where its mass is.
    scale : array of shape (D,)
        Standard deviations there.

    Returns
    -------
    list of NonCentering
        With weights as they are in the prior, and with those times its share in the precision at
        these points, the median; none where no coordinate sets another's scale.

    Examples
    --------
    >>> from stanflow.stan.model import StanModel
    >>> model = StanModel(
    ...     stan_code="parameters { real m; real v; vector[3] x; } "
    ...     "model { m ~ normal(0, 1); v ~ normal(0, 1); x ~ normal(m, exp(v)); }",
    ...     engine="embedded",
    ... )
    >>> points = np.random.default_rng(1).normal(size=(16, 5))
    >>> layer, _ = find_noncentering(model, points, np.ones(5))
    >>> layer.moved, layer.parents[0]
    (tensor([2, 3, 4]), tensor([0, 1]))
    >>> layer.scale_weights[0].round(decimals=3), layer.location_weights[0].round(decimals=3)
    (tensor([0., 1.], dtype=torch.float64), tensor([1., 0.], dtype=torch.float64))
    """
    there = target.log_density_gradient(points)
    points, gradients = points[there.accepted], there.gradient[there.accepted]
    if len(points) < _FEWEST_POINTS:
        return []
    hierarchy = _Hierarchy(points)
    derivatives = partial(_rows_of_derivatives, target, points, gradients, scale)
    candidates = filter(None, map(_candidate, derivatives(np.arange(target.dim))))
    for candidate in sorted(candidates, key=_strongest_first):
        hierarchy.take(candidate)
    for derived in derivatives(hierarchy.outsiders()):
        siblings = (_sibling(derived, parent) for parent in hierarchy.parents())
        any(hierarchy.take(sibling) for sibling in siblings if sibling is not None)
    return hierarchy.layers()


@dataclass(frozen=True)
class _Candidate:
    """A coordinate whose scale others seem to set.

    Attributes
    ----------
    coordinate : int
    strongest : int
        The coordinate that sets the scale with the largest effect.
    scale_weights : dict
        Of each coordinate that seems to set the scale, as in the prior.
    share : float
        Of the prior in the conditional precision.
    effect : float
        What that one changes the log scale by over a standard deviation.
    centres : array of shape (n,)
        Of the prior, at each point.
    tied : list of int
        Coordinates that this one depends on most.
    ties : int
        How many it depends on.
    spread : float
        Its standard deviation.
    """

    coordinate: int
    strongest: int
    scale_weights: dict[int, float]
    share: float
    effect: float
    centres: FloatArray
    tied: list[int]
    ties: int
    spread: float


def _strongest_first(candidate: _Candidate) -> tuple[int, int, int]:
    """Sort by effect, by factors of two; then leaves of the hierarchy before what they hang on."""
    return -round(math.log2(candidate.effect)), candidate.ties, candidate.coordinate


@dataclass(frozen=True)
class _Derivatives:
    """A coordinate with its rows of derivatives.

    Attributes
    ----------
    coordinate : int
    points : array of shape (n, D)
        Where they were taken.
    second, third : arrays of shape (n, D)
        Of log p by each coordinate, and once, or twice, by this one; all in units of the scale.
    scale : array of shape (D,)
    """

    coordinate: int
    points: FloatArray
    second: FloatArray
    third: FloatArray
    scale: FloatArray

    @property
    def own(self) -> FloatArray:
        """The second derivative by the coordinate alone, (n,)."""
        return self.second[:, self.coordinate]

    def candidate(
        self, strongest: int, scale_weights: dict[int, float], share: float, effect: float
    ) -> _Candidate:
        """Return the candidate that this makes."""
        c = self.coordinate
        tie = np.abs(np.median(self.second / self.own[:, None], axis=0))
        tie[c] = 0
        ratio = self.second[:, strongest] / self.third[:, strongest]
        return _Candidate(
            c,
            strongest,
            scale_weights,
            share,
            abs(effect),
            self.points[:, c] - self.scale[c] * ratio,
            np.argsort(-tie, kind="stable")[:_MOST_TIES].tolist(),
            int((tie > _LEAST_EFFECT).sum()),
            float(self.scale[c]),
        )


def _rows_of_derivatives(
    target: Density,
    points: FloatArray,
    gradients: FloatArray,
    scale: FloatArray,
    coordinates: npt.NDArray[np.intp],
) -> Iterator[_Derivatives]:
    """Take derivatives for some coordinates."""
    at_once = min(_ROWS_AT_ONCE, max(1, _NUMBERS_AT_ONCE // points.size))
    for first in range(0, len(coordinates), at_once):
        rows = coordinates[first : first + at_once]
        steps = np.zeros((len(rows), target.dim))
        steps[np.arange(len(rows)), rows] = _DIFFERENCE * scale[rows]
        second, third = (np.empty((len(points), *steps.shape)) for _ in range(2))
        for i, (point, gradient) in enumerate(zip(points, gradients, strict=True)):
            there = target.log_density_gradient(np.concatenate([point + steps, point - steps]))
            above, below = np.split(there.gradient * scale, 2)
            second[i] = (above - below) / (2 * _DIFFERENCE)
            third[i] = (above + below - 2 * gradient * scale) / _DIFFERENCE**2
        for i, c in enumerate(rows.tolist()):
            yield _Derivatives(c, points, second[:, i], third[:, i], scale)


def _candidate(derived: _Derivatives) -> _Candidate | None:
    """Look whether others set a coordinate's scale."""
    own, third, scale = derived.own, derived.third, derived.scale
    agreeing = np.abs(np.sign(third * np.sign(own)[:, None]).sum(axis=0)) >= _AGREEING * len(own)
    agreeing[derived.coordinate] = False
    among = np.flatnonzero(agreeing)
    if len(among) == 0:
        return None
    effects = np.median(-0.5 * third[:, among] / own[:, None], axis=0)
    first = int(np.argmax(np.abs(effects)))
    strongest, effect = int(among[first]), float(effects[first])
    if not abs(effect) >= _LEAST_EFFECT:
        return None
    low, ratios, high = np.quantile(
        third[:, among] / third[:, [strongest]], [0.1, 0.5, 0.9], axis=0
    )
    with_it = (high - low <= _LARGEST_SPREAD * np.abs(ratios)) & (
        np.abs(effects) >= _LEAST_EFFECT_WITH_IT
    )
    chosen = np.flatnonzero(with_it)
    chosen = chosen[np.argsort(-np.abs(effects[chosen]), kind="stable")][:_MOST_PARENTS]
    setting = among[chosen]
    ratios = ratios[chosen] / scale[setting]
    share = effect / _weight(derived.points[:, setting] @ ratios, third[:, strongest])
    share = float(np.clip(share, _LEAST_SHARE, 1)) if share > 0 else 1.0
    weights = dict(zip(setting.tolist(), (ratios * effect / share).tolist(), strict=True))
    return derived.candidate(strongest, weights, share, effect)


def _sibling(derived: _Derivatives, parent: int) -> _Candidate | None:
    """Look whether a parent of others sets a coordinate's scale too, together with another one.

    Data may say so much of this coordinate that the effects are small, and those of what it meets
    in the data larger. But of two that set its scale together the effects are in the same ratio at
    all points, and no others' are.
    """
    third = derived.third
    low, ratios, high = np.quantile(third / third[:, [parent]], [0.1, 0.5, 0.9], axis=0)
    with_it = (high - low <= _LARGEST_SPREAD * np.abs(ratios)) & (np.abs(ratios) >= _AS_LARGE)
    with_it[derived.coordinate] = False
    setting = np.flatnonzero(with_it)
    if not with_it[parent] or not 2 <= len(setting) <= _MOST_PARENTS:
        return None
    ratios = ratios[setting] / derived.scale[setting]
    weight = _weight(derived.points[:, setting] @ ratios, third[:, parent])
    effect = float(np.median(-0.5 * third[:, parent] / derived.own))
    share = effect / weight
    if not 0 < share <= 1:
        return None
    weights = dict(zip(setting.tolist(), (ratios * weight).tolist(), strict=True))
    return derived.candidate(parent, weights, share, effect)


def _weight(along: FloatArray, third: FloatArray) -> float:
    """Return w of ``third = 2 w exp(-2 w along)``, from the logarithm's slope."""
    return float(-0.5 * np.cov(along, np.log(np.abs(third)))[0, 1] / along.var(ddof=1))


class _Hierarchy:
    """Children so far, each with its parents.

    Parameters
    ----------
    points : array of shape (n, D)
        Where derivatives were taken.
    """

    def __init__(self, points: FloatArray) -> None:
        self._points = points
        self._children: dict[int, _Child] = {}
        self._heirs: dict[int, list[int]] = {}

    def parents(self) -> list[int]:
        """Return the parents, those of the most children first."""
        return sorted(self._heirs, key=lambda parent: (-len(self._heirs[parent]), parent))

    def outsiders(self) -> npt.NDArray[np.intp]:
        """Return the coordinates that are nobody's child or parent, if others are."""
        dim = self._points.shape[1] if self._children else 0
        insiders = self._children.keys() | self._heirs.keys()
        return np.array([c for c in range(dim) if c not in insiders], dtype=np.intp)

    def take(self, candidate: _Candidate) -> bool:
        """Make a candidate a child, if its parents may be that and its centre can be explained.

        Return whether it is.
        """
        scale_weights = {
            j: w for j, w in candidate.scale_weights.items() if self._may_be(j, candidate)
        }
        if candidate.strongest not in scale_weights:
            return False
        most = min(_MOST_PARENTS - len(scale_weights), len(self._points) // _POINTS_A_WEIGHT - 1)
        explained = self._explained(candidate, most)
        if explained is not None:
            child = _Child(candidate.coordinate, scale_weights, candidate.share, *explained)
            self._children[candidate.coordinate] = child
            for parent in child.parents:
                self._heirs.setdefault(parent, []).append(candidate.coordinate)
        return explained is not None

    def _explained(self, candidate: _Candidate, most: int) -> tuple[dict[int, float], float] | None:
        """Return the centre as location weights and a constant; None if it is not linear."""
        known = np.isfinite(candidate.centres)
        centres, points = candidate.centres[known], self._points[known]
        if len(centres) < _FEWEST_POINTS:
            return None
        chosen: list[int] = []
        columns = np.ones((len(centres), 1))
        allowed = [k for k in candidate.tied if self._may_be(k, candidate)]
        while True:
            weights = np.linalg.lstsq(columns, centres, rcond=None)[0]
            unexplained = centres - columns @ weights
            if np.sqrt(np.mean(unexplained**2)) <= _MOST_UNEXPLAINED * candidate.spread:
                return dict(zip(chosen, weights[1:].tolist(), strict=True)), float(weights[0])
            if not allowed or len(chosen) == most:
                return None
            centred = points[:, allowed] - points[:, allowed].mean(axis=0)
            likeness = np.abs(unexplained @ centred) / np.linalg.norm(centred, axis=0)
            chosen.append(allowed.pop(int(np.argmax(likeness))))
            columns = np.column_stack([np.ones(len(centres)), points[:, chosen]])

    def _may_be(self, parent: int, candidate: _Candidate) -> bool:
        """Return whether a coordinate may be a parent: not an heir, and not too deep."""
        ancestors, level = self._ancestors(parent)
        return (
            parent != candidate.coordinate
            and candidate.coordinate not in ancestors
            and level + self._depth_below(candidate.coordinate) < _MOST_LEVELS
        )

    def _ancestors(self, coordinate: int) -> tuple[set[int], int]:
        """Return all above a coordinate, and on which level it is."""
        child = self._children.get(coordinate)
        if child is None:
            return set(), 0
        above = [self._ancestors(parent) for parent in child.parents]
        return (
            set(child.parents).union(*(ancestors for ancestors, _ in above)),
            1 + max(level for _, level in above),
        )

    def _depth_below(self, coordinate: int) -> int:
        """Return how many levels there are below a coordinate."""
        below = [self._depth_below(c) for c in self._heirs.get(coordinate, [])]
        return 1 + max(below) if below else 0

    def layers(self) -> list[NonCentering]:
        """Return what places the children by their parents, with prior weights and with shares."""
        if not self._children:
            return []
        children = sorted(
            self._children.values(),
            key=lambda child: (self._ancestors(child.coordinate)[1], child.coordinate),
        )
        width = max(len(child.parents) for child in children)
        parents = np.zeros((len(children), width), dtype=np.int64)
        scale_weights, location_weights = np.zeros((2, len(children), width))
        for row, child in enumerate(children):
            of_child = child.parents
            parents[row, : len(of_child)] = of_child
            for k, parent in enumerate(of_child):
                scale_weights[row, k] = child.scale_weights.get(parent, 0)
                location_weights[row, k] = child.location_weights.get(parent, 0)
        typical = np.median(self._points, axis=0)
        share = np.array([[child.share] for child in children])
        return [
            NonCentering(
                moved=torch.tensor([child.coordinate for child in children]),
                parents=torch.from_numpy(parents),
                scale_weights=torch.from_numpy(weights),
                location_weights=torch.from_numpy(location_weights),
                log_scale=torch.from_numpy(-(weights * typical[parents]).sum(axis=1)),
                location=torch.tensor([child.location for child in children]).double(),
            )
            for weights in (scale_weights, share * scale_weights)
        ]
