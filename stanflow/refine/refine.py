"""From a flow to the posterior itself, by annealing in the flow's base space."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import torch

from stanflow.arrays import FloatArray
from stanflow.errors import NumericsError
from stanflow.estimates.bridge import BridgeEstimate, bridge_evidence
from stanflow.estimates.draws import LogDensities
from stanflow.flow.realnvp import Flow
from stanflow.refine.config import RefineConfig
from stanflow.refine.settling import Settling, settling
from stanflow.sampling import annealing
from stanflow.sampling.annealing import Annealing, MoveInfo, Path
from stanflow.sampling.pullback import PulledBack, images
from stanflow.sampling.widened_base import WidenedBase
from stanflow.stan.density import CountingTarget
from stanflow.statistics.importance_weights import log_sum_exp
from stanflow.statistics.markov_chains import rank_normalized

_FEWEST_SNAPSHOTS, _FEWEST_KEPT = 20, 8
_SETTLED_RHAT, _SETTLED_SHIFT = 1.02, 0.1
_EFFECTIVE_SHARE = 0.5  # of the draws wanted
_SHARE_BEFORE_SHARPENING, _FAR = 0.4, 3.0  # of the evaluations; nats

Stop = Literal["settled", "evaluations", "cut short", "far"]


@dataclass(frozen=True)
class RefineStep:
    """What is known after a round of moves.

    Attributes
    ----------
    round : int
        Counted from 1.
    inverse_temperature : float
    acceptance : float
        Mean probability that a trajectory was accepted, in the last move.
    log_evidence : float
        The islands' common estimate for this inverse temperature, without Stan's dropped constants.
    rhat : float
        Nested R-hat of the islands, NaN before there is one.
    share : float
        Of the most evaluations that are spent; 1 where it ends.
    seconds : float
        Since refining began.
    """

    round: int
    inverse_temperature: float
    acceptance: float
    log_evidence: float
    rhat: float
    share: float
    seconds: float


@dataclass(frozen=True)
class LogEvidence:
    """An estimate of the log evidence, without Stan's dropped constants, and its standard error.

    `pareto_k` is that of the terms it was made of, where it is known.
    """

    value: float
    se: float
    pareto_k: float | None = None


@dataclass(frozen=True)
class Outward:
    """What was found beyond moved draws along one coordinate; see `outward.go_outward`.

    Attributes
    ----------
    coordinate : int
        Of z.
    share : float
        Of the draws, that are from there now.
    log_added : LogEvidence
        What the log evidence has gained.
    values : int
        Of the coordinate, at which particles moved.
    ended : bool
        Whether hardly any of the posterior is left beyond the last of them.
    eubo : float
        ``E[log p - log q]`` over the draws that were not beyond.
    """

    coordinate: int
    share: float
    log_added: LogEvidence
    values: int
    ended: bool
    eubo: float


@dataclass(frozen=True)
class Refined:
    """Draws moved to the posterior, and what vouches for them.

    Attributes
    ----------
    base_points, z : arrays of shape (S, D)
        Draws, each of weight one, in the flow's base space and in the target's.
    log_p, log_q : arrays of shape (S,)
        Log density under the target, and under the flow.
    annealed : LogEvidence
        By the product of mean weights; its error from what the islands differ in.
    bridge : LogEvidence or None
        By bridge sampling between the flow's draws and these; None where they do not overlap.
    eubo : float
        Evidence upper bound, ``E_p[log p - log q]``: above the log evidence by KL(p | q).
    settling : Settling
        Of the record that the draws are from.
    temperatures, transitions : int
        Inverse temperatures, and moves at the last one.
    acceptance, log_step : float
        Mean probability that a trajectory was accepted at the end, and the log of their step size.
    stopped : {"settled", "evaluations", "cut short", "far"}
        Why it ended: by itself, by its own limit, because it was asked to, or as the flow is far.
    particles, islands : int
    outward : Outward or None
        Where some of the draws are from, that moves did not come to.
    """

    base_points: FloatArray
    z: FloatArray
    log_p: FloatArray
    log_q: FloatArray
    annealed: LogEvidence
    bridge: LogEvidence | None
    eubo: float
    settling: Settling
    temperatures: int
    transitions: int
    acceptance: float
    log_step: float
    stopped: Stop
    particles: int
    islands: int
    outward: Outward | None = None

    @property
    def log_evidence(self) -> LogEvidence:
        """The estimate with the smaller standard error."""
        if self.bridge is None or self.annealed.se < self.bridge.se:
            return self.annealed
        return self.bridge


class _Snapshot(NamedTuple):
    points: FloatArray
    log_weights: FloatArray
    log_densities: FloatArray


@dataclass(frozen=True)
class _Record:
    """Snapshots of all particles at inverse temperature 1, so many moves apart."""

    snapshots: tuple[_Snapshot, ...] = ()
    moves: int = 0
    apart: int = 1

    def taken(self, state: Annealing, pulled: PulledBack, most: int) -> _Record:
        """Return it with another snapshot, or every other one left out where there are too many."""
        moves = self.moves + 1
        if moves % self.apart:
            return replace(self, moves=moves)
        points, log_density = state.particles.points, state.particles.log_end
        new = _Snapshot(points, pulled.log_weights(points, log_density), log_density)
        snapshots = (*self.snapshots, new)
        if len(snapshots) <= most:
            return _Record(snapshots, moves, self.apart)
        return _Record(snapshots[1::2], moves, 2 * self.apart)

    def kept(self, snapshots: int) -> _Snapshot:
        """Return so many snapshots of the later half, evenly spaced, as one of (snapshots, N)."""
        half = self.snapshots[len(self.snapshots) // 2 :]
        chosen = np.linspace(0, len(half) - 1, min(snapshots, len(half))).round().astype(int)
        return _Snapshot(*(np.stack(x) for x in zip(*(half[i] for i in chosen), strict=True)))


def _settling(kept: _Snapshot, islands: int) -> Settling:
    scores = [rank_normalized(x) for x in (kept.log_weights, kept.log_densities)]
    return settling(np.concatenate([kept.points, np.stack(scores, axis=2)], axis=2), islands)


@np.errstate(all="ignore")  # what is not finite is refused
def refine(
    flow: Flow,
    target: CountingTarget,
    of_flow: LogDensities,
    config: RefineConfig,
    *,
    draws: int,
    seed: int,
    may_end_far: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    on_round: Callable[[RefineStep], None] = lambda step: None,
) -> Refined | None:
    """Move draws of a trained flow to the posterior.

    Particles are drawn from the flow's base, widened (see `WidenedBase`), annealed to the density
    pulled back through the flow, and moved on there until they have settled: until snapshots from
    the later half of their way there have a nested R-hat below 1.02, no shift above a tenth of a
    standard deviation, and are worth half of the draws wanted. The draws are chosen from these.

    Parameters
    ----------
    flow : Flow
        In float64.
    target : CountingTarget
        The density it was trained on.
    of_flow : LogDensities
        At draws of the flow; the other side of the bridge.
    config : RefineConfig
    draws : int
        Draws wanted, S.
    seed : int
        For all that is random.
    may_end_far : bool
        Whether to end after two fifths of the evaluations where the mean of ``log p - log q`` over
        the draws is then 3 nats above the log evidence: the flow should learn from them first.
    should_stop : callable
        Asked again and again; once it says yes, it ends with what there is.
    on_round : callable
        Called after every round of moves.

    Returns
    -------
    Refined or None
        None where it ended before the posterior was reached.
    """
    dim = target.dim
    config = config.resolved(dim)
    assert config.particles is not None
    assert config.most_evaluations is not None
    began, most = target.evaluations, config.most_evaluations
    began_at, numbers = time.perf_counter(), itertools.count(1)
    base = WidenedBase(flow.base)
    pulled = PulledBack(flow, target)
    path = Path(base, pulled)
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    state = annealing.init(path, base.sample(config.particles, generator), config.islands)
    info = MoveInfo(math.nan, 0)

    def tell(rhat: float = math.nan, *, ends: bool = False) -> None:
        evidence = log_sum_exp(state.log_evidence) - math.log(config.islands)
        share = 1.0 if ends else min(1.0, (target.evaluations - began) / most)
        on_round(
            RefineStep(
                round=next(numbers),
                inverse_temperature=state.beta,
                acceptance=info.acceptance,
                log_evidence=evidence,
                rhat=rhat,
                share=share,
                seconds=time.perf_counter() - began_at,
            )
        )

    temperatures = 0
    while state.beta < 1:
        if should_stop() or target.evaluations - began > most:
            return None
        state = annealing.heat(state, config.effective_share)
        if not np.isfinite(state.log_evidence).all():
            return None
        state = annealing.resample(state, rng, always=state.beta == 1)
        for _ in range(config.moves):
            state, info = annealing.move(state, path, rng)
        temperatures += 1
        tell()
    snapshots = max(_FEWEST_KEPT, math.ceil(draws / config.particles))
    capacity = 2 * max(_FEWEST_SNAPSHOTS, 2 * snapshots)
    record = _Record()
    stopped: Stop | None = None
    while stopped is None:
        state, info = annealing.move(state, Path.at_end(pulled), rng)
        record = record.taken(state, pulled, capacity)
        if should_stop():
            stopped = "cut short"
        elif target.evaluations - began > most:
            stopped = "evaluations"
        elif may_end_far and target.evaluations - began > _SHARE_BEFORE_SHARPENING * most:
            above = record.snapshots[-1].log_weights.mean() - log_sum_exp(state.log_evidence)
            stopped = "far" if above + math.log(config.islands) > _FAR else None
        enough = len(record.snapshots) >= max(_FEWEST_SNAPSHOTS, 2 * snapshots)
        if enough and record.moves % _FEWEST_SNAPSHOTS == 0:
            found = _settling(record.kept(snapshots), config.islands)
            tell(found.rhat)
            if stopped is None and _is_settled(found, draws):
                stopped = "settled"
    kept = record.kept(snapshots)
    found = _settling(kept, config.islands)
    tell(found.rhat, ends=stopped != "far")
    return _result(
        flow,
        target,
        of_flow,
        state,
        kept,
        settling=found,
        draws=draws,
        transitions=record.moves,
        temperatures=temperatures,
        acceptance=info.acceptance,
        stopped=stopped,
        rng=rng,
    )


def _is_settled(found: Settling, draws: int) -> bool:
    return (
        found.rhat < _SETTLED_RHAT
        and found.shift < _SETTLED_SHIFT
        and found.ess >= _EFFECTIVE_SHARE * draws
    )


def _result(
    flow: Flow,
    target: CountingTarget,
    of_flow: LogDensities,
    state: Annealing,
    kept: _Snapshot,
    *,
    settling: Settling,
    draws: int,
    transitions: int,
    temperatures: int,
    acceptance: float,
    stopped: Stop,
    rng: np.random.Generator,
) -> Refined | None:
    islands, size = state.log_weights.shape
    points = kept.points
    z, log_q = images(flow, points.reshape(-1, target.dim))
    log_p = target.log_density(z)
    usable = np.isfinite(log_p) & np.isfinite(log_q)
    if usable.sum() < 2:
        return None
    chosen = rng.permutation(np.flatnonzero(usable))[:draws]
    return Refined(
        base_points=points.reshape(z.shape)[chosen],
        z=z[chosen],
        log_p=log_p[chosen],
        log_q=log_q[chosen],
        annealed=_annealed(state.log_evidence),
        bridge=_bridge(
            of_flow, *(x.reshape(points.shape[:2]).T for x in (log_p, log_q)), islands=islands
        ),
        eubo=float((log_p - log_q)[usable].mean()),
        settling=replace(settling, ess=min(settling.ess, float(len(chosen)))),
        temperatures=temperatures,
        transitions=transitions,
        acceptance=acceptance,
        log_step=state.log_step,
        stopped=stopped,
        particles=islands * size,
        islands=islands,
    )


def _annealed(log_evidence: FloatArray) -> LogEvidence:
    """Pool the islands' estimates, each without bias on the scale of the evidence."""
    islands = len(log_evidence)
    z = np.exp(log_evidence - log_evidence.max())
    value = log_sum_exp(log_evidence) - math.log(islands)
    return LogEvidence(value, float(z.std(ddof=1) / z.mean()) / math.sqrt(islands))


def _bridge(
    of_flow: LogDensities,
    log_p: FloatArray,
    log_q: FloatArray,
    *,
    islands: int,
) -> LogEvidence | None:
    """Bridge between the flow's draws and moved ones, (N, snapshots).

    The error is that of the bridge, or what the islands' own bridges differ in, the larger.
    """
    # The flow's draws follow q restricted to where the target has a finite density.
    log_share = math.log1p(-of_flow.rejected_share)

    def bridge(rows: slice) -> BridgeEstimate:
        usable = np.isfinite(log_p[rows] - log_q[rows]).all(axis=1)
        p, q = log_p[rows][usable], log_q[rows][usable]
        return bridge_evidence(of_flow.log_p, of_flow.log_q - log_share, p, q - log_share)

    size = len(log_p) // islands
    try:
        whole = bridge(slice(None))
        own = [bridge(slice(i * size, (i + 1) * size)).value for i in range(islands)]
    except (NumericsError, IndexError, ValueError):
        return None
    scatter = float(np.std(own, ddof=1)) / math.sqrt(islands)
    return LogEvidence(whole.value, max(whole.se, scatter), whole.pareto_k)
