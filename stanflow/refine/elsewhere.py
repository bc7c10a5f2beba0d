"""Whether chains from elsewhere come to where moved draws are."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch

from stanflow.arrays import FloatArray
from stanflow.estimates.missing_mass import log_missing_mass, log_weights_at
from stanflow.estimates.probe import (
    have_escaped,
    metric_of,
    share_of_log_odds,
    walk_from_elsewhere,
)
from stanflow.flow.realnvp import Flow
from stanflow.refine.refined import Refined
from stanflow.sampling import annealing
from stanflow.sampling.annealing import Annealing, Path
from stanflow.sampling.chains import Chains
from stanflow.sampling.noncentered import NoncenteredTarget
from stanflow.sampling.pullback import PulledBack, images
from stanflow.stan.density import CountingTarget, Target
from stanflow.statistics.markov_chains import rank_normalized

_CHAINS = 32
_MOST_WALKS, _WALKS_FOR_NOTHING, _LEAPFROG_STEPS = 8, 3, 32
_TRANSITIONS_A_ROUND, _MOST_ROUNDS = 20, 4
_HIGH_WEIGHTS = 0.999  # quantile
_MASS_IS_TOLD_UP_TO = 50  # dimensions
_CLOSE = 1.1  # R-hat


@dataclass(frozen=True)
class Elsewhere:
    """What the chains found.

    Attributes
    ----------
    chains : int
        Chains run.
    escaped : int
        Chains that ended where the draws have no mass, in base space, too: their median weight
        p / q is more than 1000 times nearly all of the draws'.
    log_missing_mass : float
        The log of the mass that is there over the evidence, roughly; -infinity where none escaped,
        and NaN above 50 dimensions, where that is hard to tell.
    rhat : float
        ``sqrt(1 + B / W)`` of the other chains as one group and the draws as another, B the
        variance of the two means, W that within: the largest over the log weight's ranks and the
        coordinates of base points.
    visited : array of shape (n, C, D)
        Where the chains were before they moved in the flow's base space.
    """

    chains: int
    escaped: int
    log_missing_mass: float
    rhat: float
    visited: FloatArray = field(compare=False)

    @property
    def missing_share(self) -> float:
        """Share of the posterior that is missing; 0 where that was not told."""
        told = not math.isnan(self.log_missing_mass)
        return share_of_log_odds(self.log_missing_mass) if told else 0.0


@np.errstate(all="ignore")  # what is not finite is refused
def look_elsewhere(flow: Flow, target: CountingTarget, refined: Refined, *, seed: int) -> Elsewhere:
    """Run chains that start away from the draws, and compare where they come to.

    They start and climb as those of `estimates.probe`, and move for a while in the target's space,
    in the draws' metric, with a hierarchy that the flow knows taken apart. Those that are then
    where there are no draws go on there, by longer trajectories: from far out in heavy tails, or
    from the neck of a funnel, it is a long way. All of them then move in the flow's base space as
    the draws did, for up to 80 transitions with walks in between; less where those among the draws
    are like them by then, and no others come to be.

    Parameters
    ----------
    flow : Flow
        In float64.
    target : CountingTarget
        The density.
    refined : Refined
        Its draws.
    seed : int
        For starting points and momenta.
    """
    rng = np.random.default_rng(seed)
    space = _Space(flow, target, refined)
    walked = walk_from_elsewhere(
        space.target, space.metric, space.draws, space.log_p, chains=_CHAINS, rng=rng
    )
    points, densities = space.back(*walked)
    _walk_on(flow, space, refined, (points, densities), rng)
    with torch.no_grad():
        e = flow.inverse(torch.from_numpy(np.ascontiguousarray(points[-1])))[0].numpy()
    inside = np.isfinite(e).all(axis=1)
    escaped, rhat = ~inside & np.isfinite(densities).all(axis=0), math.inf
    if inside.any():
        escaped[inside], rhat = _come_together(flow, target, space, refined, e[inside], rng=rng)
    missing = -math.inf
    if escaped.any() and target.dim > _MASS_IS_TOLD_UP_TO:
        missing = math.nan
    elif escaped.any():
        missing = log_missing_mass(
            flow,
            target,
            points[:, escaped],
            densities[:, escaped],
            refined.log_evidence.value,
            rng=rng,
        )
    return Elsewhere(_CHAINS, int(escaped.sum()), missing, rhat, points)


class _Space:
    """Where chains walk: z, or what is z once a hierarchy that the flow knows is put together.

    Attributes
    ----------
    target : Target
        The density here.
    draws, log_p : arrays of shape (S, D) and (S,)
        The refined draws here, and their log density.
    metric : Metric
        The draws'.
    """

    def __init__(self, flow: Flow, target: CountingTarget, refined: Refined) -> None:
        self._layer = flow.noncentering
        self.target: Target = target
        self.draws, self.log_p = refined.z, refined.log_p
        if self._layer is not None:
            self.target = NoncenteredTarget(target, self._layer)
            self.draws = self.of(refined.z)
            self.log_p = self.target.log_density(self.draws)
        self.metric = metric_of(flow, self.draws)

    @torch.no_grad()
    def of(self, z: FloatArray) -> FloatArray:
        """Return points z, (n, D), in this space."""
        if self._layer is None:
            return z
        return np.ascontiguousarray(self._layer.inverse(torch.from_numpy(z))[0].numpy())

    @torch.no_grad()
    def back(self, points: FloatArray, log_density: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the z of points, (..., D), and the target's log density there, (...)."""
        if self._layer is None:
            return points, log_density
        rows = torch.from_numpy(points.reshape(-1, points.shape[-1]))
        z, log_det = (x.numpy() for x in self._layer(rows))
        return z.reshape(points.shape), log_density - log_det.reshape(log_density.shape)


def _walk_on(
    flow: Flow,
    space: _Space,
    refined: Refined,
    walk: tuple[FloatArray, FloatArray],
    rng: np.random.Generator,
) -> None:
    """Let chains that are away from the draws move on, while some of them come to these.

    The last points and densities of theirs, (n, C, D) and (n, C), take the place of those before.
    """
    points, densities = walk
    high = _high_log_weight(refined)
    away = have_escaped(log_weights_at(flow, points, densities) - high, densities)
    if not away.any():
        return
    chains = Chains(space.target, space.of(points[-1][away]), space.metric, rng)
    for walks in range(1, _MOST_WALKS + 1):
        for i in range(len(points)):
            chains.transition(_LEAPFROG_STEPS)
            there = space.back(chains.z, chains.there.log_density)
            points[i, away], densities[i, away] = there
        log_weights = log_weights_at(flow, points[:, away], densities[:, away])
        still = have_escaped(log_weights - high, densities[:, away])
        if not still.any() or (still.all() and walks >= _WALKS_FOR_NOTHING):
            return


def _high_log_weight(refined: Refined) -> float:
    return float(np.quantile(refined.log_p - refined.log_q, _HIGH_WEIGHTS))


def _come_together(
    flow: Flow,
    target: CountingTarget,
    space: _Space,
    refined: Refined,
    e: FloatArray,
    *,
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.bool_], float]:
    """Move chains in base space; return which still have no draws around them, and the R-hat.

    Where a round has not brought them together they walk in their own space before the next.
    """
    pulled = PulledBack(flow, target)
    path = Path.at_end(pulled)
    state: Annealing = replace(
        annealing.init(path, e, islands=1), beta=1.0, log_step=refined.log_step
    )
    log_weights, high = refined.log_p - refined.log_q, _high_log_weight(refined)
    escaped, rhat = np.ones(len(e), dtype=bool), math.inf
    draws = refined.base_points[np.isfinite(refined.base_points).all(axis=1)]
    walking: Chains | None = None
    for number in range(_MOST_ROUNDS):
        if number > 0:
            before_walk = state.particles.points
            here = space.of(images(flow, before_walk)[0])
            if walking is None:
                walking = Chains(space.target, here, space.metric, rng)
            else:
                walking.restart(np.ones(len(here), dtype=bool), here)
            e = _walked(flow, space, walking, before_walk)
            state = replace(annealing.init(path, e, islands=1), beta=1.0, log_step=state.log_step)
        points, theirs, densities = [], [], []
        for _ in range(_TRANSITIONS_A_ROUND):
            state, _info = annealing.move(state, path, rng)
            particles = state.particles
            points.append(particles.points)
            theirs.append(pulled.log_weights(particles.points, particles.log_end))
            densities.append(particles.log_end)
        before, escaped = escaped, have_escaped(np.stack(theirs) - high, np.stack(densities))
        if (~escaped).sum() < _CHAINS // 4:
            continue
        rhat = max(
            _rhat(draws, np.stack(points)[:, ~escaped].reshape(-1, e.shape[1])),
            _rhat_of_ranks(log_weights, np.stack(theirs)[:, ~escaped].ravel()),
        )
        if rhat < _CLOSE and (not escaped.any() or (escaped == before).all()):
            break
    return escaped, rhat


def _walked(flow: Flow, space: _Space, walking: Chains, e: FloatArray) -> FloatArray:
    """Return base points, (C, D), after a walk from these in the chains' own space."""
    for _ in range(_TRANSITIONS_A_ROUND):
        walking.transition(_LEAPFROG_STEPS)
    z, _ = space.back(walking.z, walking.there.log_density)
    with torch.no_grad():
        after = flow.inverse(torch.from_numpy(z))[0].numpy()
    return np.where(np.isfinite(after).all(axis=1)[:, None], after, e)


def _rhat_of_ranks(one: FloatArray, other: FloatArray) -> float:
    scores = rank_normalized(np.concatenate([one, other]))[:, None]
    return _rhat(scores[: len(one)], scores[len(one) :])


def _rhat(one: FloatArray, other: FloatArray) -> float:
    """Return the largest R-hat of two groups over the columns of (n, scalars)."""
    between = (one.mean(axis=0) - other.mean(axis=0)) ** 2 / 2
    within = (one.var(axis=0) + other.var(axis=0)) / 2
    return float(np.nan_to_num(np.sqrt(1 + between / within), nan=1.0).max())
