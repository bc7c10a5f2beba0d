"""What moving draws to the posterior gives, and what is told on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stanflow.arrays import FloatArray
from stanflow.refine.settling import Settling
from stanflow.sampling.restraint import Restraint

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
        Of the most evaluations that are spent; 1 where it ends. Outward it begins anew.
    seconds : float
        Since refining began.
    outward : bool
        Whether draws are done with, and what lies beyond them is looked at.
    """

    round: int
    inverse_temperature: float
    acceptance: float
    log_evidence: float
    rhat: float
    share: float
    seconds: float
    outward: bool = False


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
    held : Restraint or None
        What the particles were held by. Without `outward`, so are the draws and the evidence.
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
    held: Restraint | None = None
    outward: Outward | None = None

    @property
    def log_evidence(self) -> LogEvidence:
        """The estimate with the smaller standard error."""
        if self.bridge is None or self.annealed.se < self.bridge.se:
            return self.annealed
        return self.bridge
