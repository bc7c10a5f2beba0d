"""From a flow to the posterior itself, by annealing in the flow's base space."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from stanflow.arrays import FloatArray
from stanflow.errors import NumericsError
from stanflow.estimates.bridge import BridgeEstimate, bridge_evidence
from stanflow.estimates.draws import FlowDraws, LogDensities
from stanflow.flow.realnvp import Flow
from stanflow.refine.config import RefineConfig
from stanflow.refine.reach import restraint_to_reach
from stanflow.refine.record import Record, Snapshot
from stanflow.refine.refined import LogEvidence, Refined, RefineStep, Stop
from stanflow.refine.settling import Settling, settling
from stanflow.refine.under_way import UnderWay
from stanflow.sampling import annealing
from stanflow.sampling.annealing import Path
from stanflow.sampling.pullback import PulledBack, images
from stanflow.sampling.restraint import Restrained, Restraint
from stanflow.sampling.widened_base import WidenedBase
from stanflow.stan.density import CountingTarget
from stanflow.statistics.importance_weights import log_sum_exp
from stanflow.statistics.markov_chains import rank_normalized
from stanflow.training.checkpoint import Keep

_FEWEST_SNAPSHOTS, _FEWEST_KEPT = 20, 8
_SETTLED_RHAT, _SETTLED_SHIFT = 1.02, 0.1
_EFFECTIVE_SHARE, _EFFECTIVE_SHARE_HELD = 0.5, 0.125  # of the draws wanted
_SHARE_BEFORE_SHARPENING, _FAR = 0.4, 3.0  # of the evaluations; nats
_EVALUATIONS_HELD = 1.5  # times the evaluations, as annealing begins anew


@np.errstate(all="ignore")  # what is not finite is refused
def refine(
    flow: Flow,
    target: CountingTarget,
    of_flow: LogDensities,
    config: RefineConfig,
    *,
    draws: int,
    seed: int,
    drawn: FlowDraws | None = None,
    may_end_far: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    on_round: Callable[[RefineStep], None] = lambda step: None,
    keep: Keep | None = None,
) -> Refined | None:
    """Move draws of a trained flow to the posterior.

    Particles are drawn from the flow's base, widened (see `WidenedBase`), annealed to the density
    pulled back through the flow, and moved on there until they have settled: until snapshots from
    the later half of their way there have a nested R-hat below 1.02, no shift above a tenth of a
    standard deviation, and are worth half of the draws wanted. The draws are chosen from these.

    Where particles come to the density with weights ``log p - log q`` whose mean is 3 nats above
    the log evidence, and which grow with one coordinate, much of the posterior lies where the flow
    has no draws, and moves would take long to come to the right share of it. So they begin anew,
    held to where the flow has draws (see `reach.restraint_to_reach`); what lies beyond is for
    `outward.go_outward` to follow.

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
    drawn : FlowDraws, optional
        Draws of the flow, by which to hold particles where that is called for; without them, none
        are held.
    may_end_far : bool
        Whether to end after two fifths of the evaluations where the mean of ``log p - log q`` over
        the draws is then 3 nats above the log evidence: the flow should learn from them first.
    should_stop : callable
        Asked again and again; once it says yes, it ends with what there is.
    on_round : callable
        Called after every round of moves.
    keep : Keep, optional
        Where it keeps how far it has got. From what is there, if it is of this flow, it goes on, to
        the numbers that it would have reached without a break.

    Returns
    -------
    Refined or None
        None where it ended before the posterior was reached.
    """
    config = config.resolved(target.dim)
    run = _Run(flow, target, config, drawn, draws=draws, seed=seed, on_round=on_round, keep=keep)
    stopped: Stop | None = None
    while stopped is None:
        if run.anneals:
            cut_short = should_stop()
            run.keep(now=cut_short)
            if cut_short or run.evaluations > run.most or not run.heat():
                return None
            continue
        run.move()
        cut_short, stopped = should_stop(), run.reason_to_stop(may_end_far=may_end_far)
        if stopped is None:
            run.keep(now=cut_short)
        stopped = "cut short" if cut_short else stopped
    return run.result(of_flow, stopped)


class _Run:
    """What moves from round to round."""

    def __init__(
        self,
        flow: Flow,
        target: CountingTarget,
        config: RefineConfig,
        drawn: FlowDraws | None,
        *,
        draws: int,
        seed: int,
        on_round: Callable[[RefineStep], None],
        keep: Keep | None,
    ) -> None:
        self._flow, self._target, self._config = flow, target, config
        self._base = WidenedBase(flow.base)
        self._drawn, self._draws, self._seed = drawn, draws, seed
        self._on_round, self._keep, self._share = on_round, keep, 0.0
        self._rng = np.random.default_rng(seed)
        particles = config.particles_for(target.dim)
        self._snapshots = max(_FEWEST_KEPT, math.ceil(draws / particles))
        self._enough = max(_FEWEST_SNAPSHOTS, 2 * self._snapshots)
        self._began, self._began_at = target.gradients, time.perf_counter()
        self._digest = hashlib.sha256(flow.flat.numpy().tobytes()).digest()
        if keep is not None and keep.state is not None:
            under_way = UnderWay.from_tensors(keep.state)
            if under_way.flow == self._digest:
                self._restore(under_way)
                return
        self._acceptance, self._temperatures, self._rounds = math.nan, 0, 0
        self._begin(None)

    def _begin(self, held: Restraint | None) -> None:
        """Draw particles from the base, to be annealed to the density held like this."""
        self._lead_to(held)
        particles = self._config.particles_for(self._target.dim)
        points = self._base.sample(particles, torch.Generator().manual_seed(self._seed))
        self._state = annealing.init(self._path, points, self._config.islands)
        self._record = Record()

    def _lead_to(self, held: Restraint | None) -> None:
        self._held = held
        times = 1.0 if held is None else _EVALUATIONS_HELD
        self.most = round(times * self._config.evaluations_for(self._target.dim))
        target = self._target if held is None else Restrained(self._target, held)
        self._pulled = PulledBack(self._flow, target)
        self._path = Path(self._base, self._pulled)

    @property
    def anneals(self) -> bool:
        """Whether the inverse temperature is below 1."""
        return self._state.beta < 1

    @property
    def evaluations(self) -> int:
        """Gradients taken."""
        return self._target.gradients - self._began

    @property
    def _log_evidence(self) -> float:
        return log_sum_exp(self._state.log_evidence) - math.log(self._config.islands)

    def heat(self) -> bool:
        """Go on to another inverse temperature; return whether the evidence is finite there."""
        state = annealing.heat(self._state, self._config.effective_share)
        if not np.isfinite(state.log_evidence).all():
            return False
        self._state = annealing.resample(state, self._rng, always=state.beta == 1)
        for _ in range(self._config.moves):
            self._move(self._path)
        self._temperatures += 1
        self._tell()
        if state.beta == 1 and self._held is None:
            held = self._to_be_held()
            if held is not None:
                self._begin(held)
        return True

    def _to_be_held(self) -> Restraint | None:
        """Return what the particles that have arrived are to be held by, if by anything."""
        points, log_density = self._state.particles.points, self._state.particles.log_end
        log_weights = self._pulled.log_weights(points, log_density)
        if self._drawn is None or not log_weights.mean() - self._log_evidence > _FAR:
            return None
        z, _ = images(self._flow, points)
        return restraint_to_reach(self._flow, self._drawn.z, z, log_weights)

    def move(self) -> None:
        """Move once at inverse temperature 1, and record it."""
        self._move(Path.at_end(self._pulled))
        self._record = self._record.taken(self._state, self._pulled, 2 * self._enough)

    def _move(self, path: Path) -> None:
        self._state, info = annealing.move(self._state, path, self._rng)
        self._acceptance = info.acceptance

    def reason_to_stop(self, *, may_end_far: bool) -> Stop | None:
        """Return why it ends after the last move; None where it goes on."""
        if self.evaluations > self.most:
            return "evaluations"
        if (
            may_end_far
            and self._held is None
            and self.evaluations > _SHARE_BEFORE_SHARPENING * self.most
        ):
            eubo = self._record.snapshots[-1].log_weights.mean()
            if eubo - self._log_evidence > _FAR:
                return "far"
        enough = len(self._record.snapshots) >= self._enough
        if not enough or self._record.moves % _FEWEST_SNAPSHOTS:
            return None
        found = self._settling(self._record.kept(self._snapshots))
        self._tell(found.rhat)
        share = _EFFECTIVE_SHARE if self._held is None else _EFFECTIVE_SHARE_HELD
        return "settled" if _is_settled(found, share * self._draws) else None

    def _settling(self, kept: Snapshot) -> Settling:
        scores = [rank_normalized(x) for x in (kept.log_weights, kept.log_densities)]
        scalars = np.concatenate([kept.points, np.stack(scores, axis=2)], axis=2)
        return settling(scalars, self._config.islands)

    def _tell(self, rhat: float = math.nan, *, ends: bool = False) -> None:
        self._rounds += 1
        self._share = 1.0 if ends else max(self._share, min(1.0, self.evaluations / self.most))
        self._on_round(
            RefineStep(
                round=self._rounds,
                inverse_temperature=self._state.beta,
                acceptance=self._acceptance,
                log_evidence=self._log_evidence,
                rhat=rhat,
                share=self._share,
                seconds=self._seconds,
            )
        )

    @property
    def _seconds(self) -> float:
        return time.perf_counter() - self._began_at

    def keep(self, *, now: bool) -> None:
        """Keep how far it has got, if it is time to, or now."""
        if self._keep is None or not (now or self._keep.due):
            return
        under_way = UnderWay(
            state=self._state,
            record=self._record,
            acceptance=self._acceptance,
            temperatures=self._temperatures,
            rounds=self._rounds,
            evaluations=self.evaluations,
            seconds=self._seconds,
            generator=dict(self._rng.bit_generator.state),
            flow=self._digest,
            held=self._held,
        )
        self._keep.write(under_way.as_tensors())

    def _restore(self, under_way: UnderWay) -> None:
        self._lead_to(under_way.held)
        self._state, self._record = under_way.state, under_way.record
        self._acceptance = under_way.acceptance
        self._temperatures, self._rounds = under_way.temperatures, under_way.rounds
        self._rng.bit_generator.state = under_way.generator
        self._target.gradients += under_way.evaluations
        self._began_at -= under_way.seconds

    def result(self, of_flow: LogDensities, stopped: Stop) -> Refined | None:
        """Return the draws and what vouches for them; None where hardly any is usable."""
        islands, size = self._state.log_weights.shape
        kept = self._record.kept(self._snapshots)
        found = self._settling(kept)
        self._tell(found.rhat, ends=stopped != "far")
        points = kept.points
        z, log_q = images(self._flow, points.reshape(-1, self._target.dim))
        log_p = self._target.log_density(z)
        if self._held is not None:
            assert self._drawn is not None
            log_p = log_p + self._held.log_factor(z)
            of_flow = replace(
                self._drawn.densities,
                log_p=self._drawn.densities.log_p + self._held.log_factor(self._drawn.z),
            )
        usable = np.isfinite(log_p) & np.isfinite(log_q)
        if usable.sum() < 2:
            return None
        chosen = self._rng.permutation(np.flatnonzero(usable))[: self._draws]
        return Refined(
            base_points=points.reshape(z.shape)[chosen],
            z=z[chosen],
            log_p=log_p[chosen],
            log_q=log_q[chosen],
            annealed=_annealed(self._state.log_evidence),
            bridge=_bridge(
                of_flow, *(x.reshape(points.shape[:2]).T for x in (log_p, log_q)), islands=islands
            ),
            eubo=float((log_p - log_q)[usable].mean()),
            settling=replace(found, ess=min(found.ess, float(len(chosen)))),
            temperatures=self._temperatures,
            transitions=self._record.moves,
            acceptance=self._acceptance,
            log_step=self._state.log_step,
            stopped=stopped,
            particles=islands * size,
            islands=islands,
            held=self._held,
        )


def _is_settled(found: Settling, fewest: float) -> bool:
    return found.rhat < _SETTLED_RHAT and found.shift < _SETTLED_SHIFT and found.ess >= fewest


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
