"""Short Markov chains that look for posterior mass where the flow has none.

Importance weights come from the flow's own draws, so they cannot tell what no draw has seen: a
mode that the flow has missed, or a tail that it lacks. Draws of the posterior itself can: their
log weight is near the log evidence where the flow has mass, and far above it where it has not. So
a few dozen short Hamiltonian chains start away from the flow, climb to where the density is as
high as at the flow's draws, and mix for a while.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from stanflow.arrays import FloatArray
from stanflow.errors import NumericsError
from stanflow.estimates.bridge import BridgeEstimate, bridge_evidence
from stanflow.estimates.draws import FlowDraws
from stanflow.estimates.missing_mass import log_missing_mass, log_weights_at
from stanflow.flow.realnvp import Flow
from stanflow.sampling.chains import Chains
from stanflow.sampling.metric import Metric
from stanflow.stan.density import Target
from stanflow.statistics.markov_chains import rhat

_MOST_CHAINS, _FEWEST_CHAINS = 32, 16
_FEW_DIMENSIONS = 20
_USUAL_CLIMBS = 150
_OVERDISPERSION = 4.0
_LOG_WEIGHT_OF_ESCAPE = math.log(1000)
_NEGLIGIBLE = 0.5  # nats: log weights that differ by less are alike
_LARGEST_EXPONENT = 700.0  # of a finite exponential
_BEYOND_COMPARISON = 1e9  # a log weight that stands for an infinite one


@dataclass(frozen=True)
class Walk:
    """How long chains walk.

    Attributes
    ----------
    transitions, leapfrog_steps : int
        After a climb, and of each transition.
    """

    transitions: int = 50
    leapfrog_steps: int = 8

    @property
    def evaluations(self) -> int:
        """About how many gradients a chain takes."""
        return _USUAL_CLIMBS + self.transitions * self.leapfrog_steps


_SHORT_WALK, _WALK = Walk(40, 5), Walk()
FEWEST_EVALUATIONS = _FEWEST_CHAINS * _WALK.evaluations


@dataclass(frozen=True)
class Probe:
    """What the chains found.

    Attributes
    ----------
    chains : int
        Chains run.
    escaped : int
        Chains that ended where the flow has practically no mass: their draws' median weight is
        more than 1000 times the evidence.
    log_missing_mass : float
        The log of the posterior mass that is there over the mass that the flow holds, roughly
        estimated; see `missing_mass`. It is -infinity where no chain escaped.
    bridge : BridgeEstimate or None
        The evidence by bridge sampling between the flow's draws and those of the chains that did
        not escape, without Stan's dropped constants; None where all escaped.
    rhat : float
        R-hat of the log weights over the chains, all of them: how far they are from having reached
        one distribution. Noise of 0.5 nats is added to them, so that it is no matter where the log
        weights of a flow that is nearly the posterior are a little different.
    visited : array of shape (n, C, D)
        Where the chains were in the second half of their moves.
    """

    chains: int
    escaped: int
    log_missing_mass: float
    bridge: BridgeEstimate | None
    rhat: float
    visited: FloatArray = field(compare=False)

    @property
    def missing_share(self) -> float:
        """Share of what the flow holds and what it misses that it misses."""
        return share_of_log_odds(self.log_missing_mass)


def probe(
    flow: Flow,
    target: Target,
    drawn: FlowDraws,
    log_evidence: float,
    *,
    gradient_evaluations: int,
    seed: int,
) -> Probe:
    """Run the chains.

    Half of them start as Stan's do, uniformly on (-2, 2) in each coordinate; half around the flow's
    draws, four times as wide, and so do those again whose climb has failed (see `Chains.lost`).

    Parameters
    ----------
    flow : Flow
        In float64.
    target : Target
        The density.
    drawn : FlowDraws
        Draws of the flow.
    log_evidence : float
        The flow's estimate, without Stan's dropped constants.
    gradient_evaluations : int
        About how many to spend; fewer chains run for fewer.
    seed : int
        For starting points and momenta.
    """
    rng = np.random.default_rng(seed)
    walk = _SHORT_WALK if target.dim <= _FEW_DIMENSIONS else _WALK
    chains = int(np.clip(gradient_evaluations // walk.evaluations, _FEWEST_CHAINS, _MOST_CHAINS))
    points, densities = walk_from_elsewhere(
        target,
        metric_of(flow, drawn.z),
        drawn.z,
        drawn.densities.log_p,
        chains=chains,
        walk=walk,
        rng=rng,
    )
    log_weights = log_weights_at(flow, points, densities) - log_evidence
    escaped = have_escaped(log_weights, densities)
    missing = -math.inf
    if escaped.any():
        missing = log_missing_mass(
            flow, target, points[:, escaped], densities[:, escaped], log_evidence, rng=rng
        )
    bridge = _bridge(drawn, densities, log_weights + log_evidence, ~escaped)
    comparable = np.nan_to_num(log_weights, posinf=_BEYOND_COMPARISON, neginf=-_BEYOND_COMPARISON)
    blurred = comparable + _NEGLIGIBLE * rng.standard_normal(comparable.shape)
    return Probe(chains, int(escaped.sum()), missing, bridge, rhat(blurred.T), points)


def share_of_log_odds(log_odds: float) -> float:
    """Return ``odds / (1 + odds)``."""
    return 1 / (1 + math.exp(min(-log_odds, _LARGEST_EXPONENT)))


def metric_of(flow: Flow, z: FloatArray) -> Metric:
    """Return the metric of draws, (S, D), in the flow's correlated units where it has some."""
    return Metric(z, factor=flow.correlated_units)


def walk_from_elsewhere(
    target: Target,
    metric: Metric,
    z: FloatArray,
    log_p: FloatArray,
    *,
    chains: int,
    rng: np.random.Generator,
    walk: Walk = _WALK,
) -> tuple[FloatArray, FloatArray]:
    """Start chains away from draws, let them climb to the level of these, and mix.

    Parameters
    ----------
    target : Target
        The density.
    metric : Metric
        The chains'.
    z, log_p : arrays of shape (S, D) and (S,)
        The draws, and the target's log density there.
    chains : int
    rng : numpy.random.Generator
    walk : Walk

    Returns
    -------
    points, densities : arrays of shape (n, C, D) and (n, C)
        Where the chains were in the second half of their moves, and the log density there.
    """
    walking = Chains(target, _starts(target, z, chains, rng), metric, rng)
    level = float(np.quantile(log_p, 0.1))
    walking.climb(level, first_step=0.1)
    lost = walking.lost(level)
    if lost.any():
        walking.restart(lost, _around(z, chains, rng))
        walking.climb(level, first_step=0.1)
    return _mix(walking, walk)


def have_escaped(log_weights: FloatArray, densities: FloatArray) -> npt.NDArray[np.bool_]:
    """Return which chains are where the flow, or draws, have practically no mass, (C,).

    Parameters
    ----------
    log_weights : array of shape (n, C)
        Log of p / q along the chains, over what is usual.
    densities : array of shape (n, C)
        Log densities there; a chain where one is not finite has not escaped.
    """
    escaped = ~(np.median(log_weights, axis=0) <= _LOG_WEIGHT_OF_ESCAPE)
    return np.asarray(escaped & np.isfinite(densities).all(axis=0))


def _mix(chains: Chains, walk: Walk) -> tuple[FloatArray, FloatArray]:
    """Let the chains run; return points (n, C, D) and log densities (n, C) of the second half."""
    points, densities = [], []
    for transition in range(walk.transitions):
        chains.transition(walk.leapfrog_steps)
        if transition >= walk.transitions // 2:
            points.append(chains.z)
            densities.append(chains.there.log_density)
    return np.stack(points), np.stack(densities)


def _bridge(
    drawn: FlowDraws, log_p: FloatArray, log_weights: FloatArray, chains: npt.NDArray[np.bool_]
) -> BridgeEstimate | None:
    usable = chains & np.isfinite(log_p).all(axis=0) & np.isfinite(log_weights).all(axis=0)
    there = drawn.densities
    # The draws follow q restricted to where the target has a finite density.
    log_share = math.log1p(-there.rejected_share)
    if not usable.any():
        return None
    log_p = log_p[:, usable].T
    log_q = log_p - log_weights[:, usable].T
    try:
        return bridge_evidence(there.log_p, there.log_q - log_share, log_p, log_q - log_share)
    except NumericsError:
        return None


def _starts(target: Target, z: FloatArray, chains: int, rng: np.random.Generator) -> FloatArray:
    like_stan = target.starting_points(chains // 2, rng)
    return np.concatenate([like_stan, _around(z, chains - len(like_stan), rng)])


def _around(z: FloatArray, n: int, rng: np.random.Generator) -> FloatArray:
    """Return n points around draws, four times as wide."""
    around = rng.choice(z, size=n, replace=len(z) < n)
    centre = np.median(z, axis=0)
    return np.asarray(centre + _OVERDISPERSION * (around - centre))
