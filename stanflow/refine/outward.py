"""Beyond the draws, along the one coordinate in which their weights say that there is more.

Where a posterior goes on from its bulk into a region of quite another shape, as where the scale of
all coefficients of separable data grows, a flow trained by the ELBO does not hold that region, and
moves of one step size for all come to it in no time that one would wait. But the coordinate that
leads there can be followed (see `sampling.marginal`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from stanflow.arrays import FloatArray
from stanflow.flow.realnvp import Flow
from stanflow.refine.reach import direction_of_weights
from stanflow.refine.refined import LogEvidence, Outward, Refined
from stanflow.sampling.annealing import systematic
from stanflow.sampling.marginal import Marginal, marginal, pooled
from stanflow.sampling.noncentered import NoncenteredDensity
from stanflow.sampling.restraint import Restraint
from stanflow.sampling.standardize import StandardizedTarget
from stanflow.stan.density import CountingTarget, Density
from stanflow.statistics.medians import QUARTILES_OF_NORMAL
from stanflow.training.noncentering import find_noncentering, points_for_hierarchy

_FROM, _LAST = 0.2, (0.9, 0.8, 0.7, 0.6, 0.5)  # quantiles of the draws
_AS_MANY = 0.1  # relative
_FEWEST_PARTICLES, _MOST_PARTICLES, _EVALUATIONS_A_PARTICLE = 128, 384, 6500
_FEWEST_DRAWS, _FEWEST_WITHIN = 400, 50
_ISLANDS = 4
_NEGLIGIBLE, _LEAST_ADDED = 4e-3, 0.01  # of the posterior
_STANDARD_ERRORS = 2.0
_NEAR = 3.0  # nats that log weights of draws that nothing holds are above the log evidence
_CANDIDATES = 4  # for each draw
_FEWEST_VALUES = 8
_FLAT = 1e-6
_NOW, _IN_THE_END = 0.2, 0.5  # of the way


class _Units(NamedTuple):
    """A density of u, and how to come from z to u and back."""

    density: Density
    of: Callable[[FloatArray], FloatArray]
    back: Callable[[FloatArray], FloatArray]


class _Taken(NamedTuple):
    """Up to which quantile draws are taken, and its value in the direction of the way."""

    quantile: float
    value: float


class _Draws(NamedTuple):
    base_points: FloatArray
    z: FloatArray
    log_p: FloatArray
    log_q: FloatArray


class _Free:
    """Draws that nothing holds: taken up to where they are as many as the density has it."""

    def __init__(self, refined: Refined) -> None:
        self.refined = self.unfollowed = refined
        self.are_enough = len(refined.z) >= _FEWEST_DRAWS

    def direction(self, u: FloatArray, log_weights: FloatArray) -> tuple[int, int] | None:
        if log_weights.mean() - self.refined.log_evidence.value < _NEAR:
            return None
        return direction_of_weights(u, log_weights)

    def nearest_end(self, s: FloatArray) -> float:
        """Return the value that the way has to get beyond, of draws' values s in its direction."""
        return float(np.quantile(s, _LAST[-1]))

    def taken(self, values: FloatArray, log_density: FloatArray, s: FloatArray) -> _Taken:
        quantile = _reliable_quantile(values, log_density, s)
        return _Taken(quantile, float(np.quantile(s, quantile)))

    def lack(self, added: LogEvidence) -> bool:
        return added.value > max(math.log1p(_LEAST_ADDED), _STANDARD_ERRORS * added.se)


class _Held:
    """Draws held to a bound: up to it they are the posterior's, and beyond there are none."""

    def __init__(self, refined: Refined, held: Restraint) -> None:
        self._held = held
        self.are_enough = bool(held.holds(refined.z).sum() >= _FEWEST_WITHIN)
        self.refined = _within(refined, held) if self.are_enough else refined
        not_followed = Outward(
            coordinate=held.coordinate,
            share=0.0,
            log_added=LogEvidence(0.0, 0.0),
            values=0,
            ended=False,
            eubo=float((self.refined.log_p - self.refined.log_q).mean()),
        )
        self.unfollowed = replace(self.refined, outward=not_followed)

    def direction(self, u: FloatArray, log_weights: FloatArray) -> tuple[int, int]:
        return self._held.direction

    def nearest_end(self, s: FloatArray) -> float:
        return self._held.sign * self._held.bound

    def taken(self, values: FloatArray, log_density: FloatArray, s: FloatArray) -> _Taken:
        return _Taken(1.0, self.nearest_end(s))

    def lack(self, added: LogEvidence) -> bool:
        return True


@np.errstate(all="ignore")  # what is not finite has no weight
def go_outward(
    flow: Flow,
    target: CountingTarget,
    refined: Refined,
    *,
    most_evaluations: int,
    seed: int,
    should_stop: Callable[[], bool] = lambda: False,
    on_value: Callable[[float], None] = lambda share: None,
) -> Refined:
    """Replace the draws beyond a value of one coordinate by the posterior's own there.

    The coordinate's marginal density f is followed from the draws' quantile t1 of 0.2 on, in the
    direction that weights grow in (see `direction_of_weights`). Up to t2 the draws say how much of
    the posterior that is, and so, with f, how much there is beyond:

        P(beyond t2) / P(between t1 and t2) = integral_t2^inf f(t) dt / integral_t1^t2 f(t) dt.

    Where draws were held, t2 is the bound. Otherwise it is the largest of their quantiles from 0.5
    to 0.9 up to which they are as many as f has it, within a tenth.

    Parameters
    ----------
    flow : Flow
        In float64.
    target : CountingTarget
        The density.
    refined : Refined
        Moved draws.
    most_evaluations : int
        Gradients to take, at most.
    seed : int
    should_stop : callable
        Asked again and again; once it says yes, it ends with what there is.
    on_value : callable
        Told at every value of the coordinate which share of the gradients is taken; 1 at the end.

    Returns
    -------
    Refined
        With the draws and the evidence that this makes. Where draws were not held, as it was if
        there are fewer than 400, the weights lead nowhere, their mean is within 3 nats of the log
        evidence, or the draws have beyond t2 what the posterior has, within 1 % of it and two
        standard errors of its log.
    """
    wanted = len(refined.z)
    draws = _Free(refined) if refined.held is None else _Held(refined, refined.held)
    if target.dim < 2 or not draws.are_enough:
        return draws.unfollowed
    refined = draws.refined
    rng = np.random.default_rng(seed)
    units = _units(flow, target, refined, rng)
    u, log_weights = units.of(refined.z), refined.log_p - refined.log_q
    direction = draws.direction(u, log_weights)
    if direction is None:
        return refined
    coordinate, sign = direction
    s = sign * u[:, coordinate]
    first, low, third = np.quantile(s, [_FROM, 0.25, 0.75])
    least = draws.nearest_end(s)
    particles = _particles(most_evaluations)
    near = np.resize(rng.permutation(np.argsort(np.abs(s - first))[:particles]), particles)
    began = target.evaluations

    def left(values: FloatArray, log_density: FloatArray) -> float:
        spent = (target.evaluations - began) / most_evaluations
        ends = should_stop() or spent > 1 or _ends(sign * values, log_density, least)
        on_value(1.0 if ends else spent)
        return 0.0 if ends else _share_left(sign * values, log_density, least, of_way=_NOW)

    way = marginal(
        units.density,
        u[near],
        coordinate,
        (sign * first, sign * least),
        scale=float((third - low) / QUARTILES_OF_NORMAL),
        islands=_ISLANDS,
        rng=rng,
        left=left,
    )
    values, log_density = sign * way.values, pooled(way.log_density)
    if not values[-1] > least:
        return draws.unfollowed
    taken = draws.taken(values, log_density, s)
    ended = _ends(values, log_density, least)
    # of the draws' mass from the first value to the last that they are taken up to
    share_known = taken.quantile - float((s <= first).mean())
    beyond, error = _mass_beyond(
        values, way.log_density, taken.value, share=share_known, ended=ended
    )
    error = math.hypot(error, beyond / math.sqrt(max(1.0, share_known * refined.settling.ess)))
    whole = taken.quantile + beyond
    # Errors of ratios are skewed: on the log scale half as much and twice as much are as far.
    added = LogEvidence(math.log(whole), error / whole)
    if not draws.lack(added):
        return refined
    share = beyond / whole
    outside = _draws_beyond(
        units.density, way, direction, last=taken.value, n=max(1, round(wanted * share)), rng=rng
    )
    inside = np.flatnonzero(s <= taken.value)
    n_inside = wanted - len(outside)
    chosen = rng.choice(inside, size=n_inside, replace=n_inside > len(inside))
    new = _draws_at(flow, target, units.back(outside))
    old = (getattr(refined, name)[chosen] for name in _Draws._fields)
    order = rng.permutation(wanted)
    outward = Outward(
        coordinate=coordinate,
        share=share,
        log_added=added,
        values=len(values),
        ended=ended,
        eubo=float(log_weights[inside].mean()),
    )
    merged = _Draws(*(np.concatenate(x)[order] for x in zip(old, new, strict=True)))
    return _with_draws(refined, merged, outward, particles)


def _particles(most_evaluations: int) -> int:
    """Return how many can go all the way, an even number on each island."""
    wanted = most_evaluations // _EVALUATIONS_A_PARTICLE // (2 * _ISLANDS) * (2 * _ISLANDS)
    return int(np.clip(wanted, _FEWEST_PARTICLES, _MOST_PARTICLES))


def _within(refined: Refined, held: Restraint) -> Refined:
    """Return the draws that a restraint does not bear on, and the evidence of their region."""
    inside = held.holds(refined.z)
    share = float(inside.mean())
    error = math.sqrt((1 - share) / share / refined.settling.ess)
    log_share = LogEvidence(math.log(share), error)
    return replace(
        refined,
        **{name: getattr(refined, name)[inside] for name in _Draws._fields},
        annealed=_sum(refined.annealed, log_share),
        bridge=None if refined.bridge is None else _sum(refined.bridge, log_share),
        settling=replace(refined.settling, ess=refined.settling.ess * share),
    )


def _units(
    flow: Flow,
    target: Density,
    refined: Refined,
    rng: np.random.Generator,
) -> _Units:
    """Return the target in training's units, or with all of a hierarchy taken apart.

    Training leaves coordinates where they are whose place the data tell. Farther out they do not.
    Units of each coordinate by itself are left out: particles have their own.
    """
    _, units = StandardizedTarget.of_flow(flow, target)
    if units.factor is not None:
        return _Units(units, units.in_units, units.out_of_units)
    layer = flow.without_units()[-1]
    if layer is None:
        return _Units(target, lambda z: z, lambda u: u)
    z, held = refined.z, refined.held
    points = rng.choice(z, size=points_for_hierarchy(target.dim), replace=False)
    layers = find_noncentering(target, points, z.std(axis=0))
    if layers and not (held is not None and held.coordinate in layers[0].moved.tolist()):
        layer = layers[0]
    noncentered = NoncenteredDensity(target, layer)
    return _Units(noncentered, noncentered.carry_back, noncentered.carry)


def _integral(values: FloatArray, log_density: FloatArray, low: float, high: float) -> float:
    """Integrate a density, log-linear between values, from low to high."""
    inside = values[(values > low) & (values < high)]
    at = np.concatenate([[low], inside, [high]])
    log_f = np.interp(at, values, log_density)
    f, change = np.exp(log_f), np.diff(log_f)
    means = np.where(np.abs(change) > _FLAT, np.diff(f) / change, f[:-1])
    return float((means * np.diff(at)).sum())


def _remainder(values: FloatArray, log_density: FloatArray, of_way: float) -> float:
    """Return the integral beyond the last value, as if the density were a power from now on.

    It is ``f x / (a - 1)`` of ``f ~ x^-a``, x the way so far; of an exponential it is nearly that.
    The power is that of the given share of the way, the last.
    """
    x = values - values[0]
    since = min(int(np.searchsorted(x, (1 - of_way) * x[-1])), len(x) - 2)
    power = (log_density[since] - log_density[-1]) / math.log(x[-1] / x[since])
    return math.exp(log_density[-1]) * x[-1] / (power - 1) if power > 1 else math.inf


def _share_left(
    values: FloatArray, log_density: FloatArray, last: float, *, of_way: float
) -> float:
    """Return which share of the integral is beyond the last value; 1 while that is not known."""
    if not values[-1] > last or len(values) < _FEWEST_VALUES:
        return 1.0
    remainder = _remainder(values, log_density, of_way)
    if not math.isfinite(remainder):
        return 1.0
    return float(remainder / (remainder + _integral(values, log_density, values[0], values[-1])))


def _ends(values: FloatArray, log_density: FloatArray, last: float) -> bool:
    """Return whether a density has been followed to where hardly any of the posterior is left."""
    return _share_left(values, log_density, last, of_way=_IN_THE_END) < _NEGLIGIBLE


def _reliable_quantile(values: FloatArray, log_density: FloatArray, draws: FloatArray) -> float:
    """Return up to which quantile draws are as many as the density has it, from half to half."""
    for to in (to for to in _LAST if np.quantile(draws, to) < values[-1]):
        low, middle, high = np.quantile(draws, [_FROM, 0.5 * (_FROM + to), to])
        lower = _integral(values, log_density, low, middle)
        if _integral(values, log_density, middle, high) < (1 + _AS_MANY) * lower:
            return to
    return _LAST[-1]


def _mass_beyond(
    values: FloatArray, log_density: FloatArray, last: float, *, share: float, ended: bool
) -> tuple[float, float]:
    """Return the mass beyond `last`, of the draws' mass as the unit, and its standard error."""

    def beyond(log_f: FloatArray, remainder: float = 0.0) -> float:
        outside = _integral(values, log_f, last, values[-1]) + remainder
        return share * outside / _integral(values, log_f, values[0], last)

    of_islands = np.array([beyond(log_f) for log_f in log_density.T])
    error = float(of_islands.std(ddof=1)) / math.sqrt(len(of_islands))
    whole = pooled(log_density)
    return beyond(whole, _remainder(values, whole, _IN_THE_END) if ended else 0.0), error


def _draws_beyond(
    density: Density,
    way: Marginal,
    direction: tuple[int, int],
    *,
    last: float,
    n: int,
    rng: np.random.Generator,
) -> FloatArray:
    """Return n draws beyond `last`, (n, D): particles of all values, each moved within its cell."""
    coordinate, sign = direction
    values, log_f = sign * way.values, pooled(way.log_density)
    middles = 0.5 * (values[1:] + values[:-1])
    low = np.maximum(np.concatenate([[values[0]], middles]), last)
    high = np.concatenate([middles, [values[-1]]])
    width = np.maximum(high - low, 0.0)
    share = np.exp(log_f - log_f.max()) * width
    cells = rng.choice(len(values), size=_CANDIDATES * n, p=share / share.sum())
    points = way.points[cells, rng.integers(way.points.shape[1], size=len(cells))].astype(float)
    before = density.log_density(points)
    points[:, coordinate] = sign * (low[cells] + width[cells] * rng.uniform(size=len(cells)))
    log_weight = density.log_density(points) - before
    log_weight = np.where(np.isfinite(log_weight), log_weight, -np.inf)
    weights = np.exp(log_weight - log_weight.max())
    return np.asarray(points[systematic(weights, n, rng)])


@torch.no_grad()
def _draws_at(flow: Flow, target: Density, z: FloatArray) -> _Draws:
    """Return what the flow and the target make of points."""
    base_points, log_det = flow.inverse(torch.from_numpy(np.ascontiguousarray(z)))
    log_q = (flow.base.log_prob(base_points) - log_det).numpy()
    log_q = np.where(np.isfinite(log_q), log_q, -np.inf)  # beyond where a flow can be inverted
    return _Draws(base_points.numpy(), z, target.log_density(z), log_q)


def _with_draws(refined: Refined, draws: _Draws, outward: Outward, particles: int) -> Refined:
    """Return it with other draws and their evidence; those from particles are worth as many."""
    usable = np.isfinite(draws.log_p)
    log_weights = (draws.log_p - draws.log_q)[usable & np.isfinite(draws.log_q)]
    settling, share, added = refined.settling, outward.share, outward.log_added
    ess = 1 / (share**2 / particles + (1 - share) ** 2 / settling.ess)
    return replace(
        refined,
        **{name: x[usable] for name, x in draws._asdict().items()},
        annealed=_sum(refined.annealed, added),
        bridge=None if refined.bridge is None else _sum(refined.bridge, added),
        eubo=float(log_weights.mean()),
        settling=replace(settling, ess=min(settling.ess, ess)),
        outward=outward,
    )


def _sum(evidence: LogEvidence, added: LogEvidence) -> LogEvidence:
    return replace(
        evidence, value=evidence.value + added.value, se=math.hypot(evidence.se, added.se)
    )
