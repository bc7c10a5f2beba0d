"""How draws are moved from a flow to the posterior."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from stanflow.errors import UsageError

When = Literal["auto", "always", "never"]

_FEW_DIMENSIONS, _PARTICLES, _PARTICLES_IN_MANY_DIMENSIONS = 500, 512, 256
_MOST_STEPS_BEFORE, _DIMENSIONS_WITH_ALL_STEPS, _DIMENSIONS_WITH_HALF = 1200, 25, 125
_FEWEST_STEPS_BEFORE, _FEWEST_IN_MANY_DIMENSIONS, _FEWEST_A_DIMENSION = 300, 600, 0.15
_MOST_EVALUATIONS, _DIMENSIONS_WITH_ALL_EVALUATIONS = 300_000, 200
_FEWEST_EVALUATIONS, _DIMENSIONS_WITH_FEWEST, _USUAL_DRAWS = 60_000, 20, 4000


@dataclass(frozen=True)
class RefineConfig:
    """Settings of annealing from a flow to the posterior.

    Parameters
    ----------
    when : {"auto", "always", "never"}
        Whether draws are moved: where importance weights do not suffice, always, or never.
    particles : int, optional
        By default 512, and 256 above 500 dimensions.
    islands : int
        Groups of particles that choose among their own only; see `sampling.annealing`.
    effective_share : float
        How far an inverse temperature goes: to where the conditional effective sample size is this
        share of the particles.
    moves : int
        Hamiltonian trajectories at each inverse temperature.
    most_evaluations : int, optional
        Gradients to take at most; by default 300,000, fewer above 200 dimensions, where each takes
        longer, and 60,000 up to 20, where NUTS takes about as many; more for more than 4000 draws.

    Raises
    ------
    UsageError
        A value is out of range.
    """

    when: When = "auto"
    particles: int | None = None
    islands: int = 8
    effective_share: float = 0.9
    moves: int = 2
    most_evaluations: int | None = None

    def __post_init__(self) -> None:
        if self.when not in get_args(When):
            options = " or ".join(get_args(When))
            raise UsageError(f"refine must be {options}, not {self.when!r}")
        if self.islands < 2:
            raise UsageError(f"islands must be at least 2, not {self.islands}")
        if self.particles is not None and (
            self.particles < 2 * self.islands or self.particles % self.islands
        ):
            raise UsageError(
                "particles must be a multiple of islands, at least two for each, not "
                f"{self.particles} on {self.islands}"
            )
        if not 0 < self.effective_share < 1:
            raise UsageError(f"effective_share must be in (0, 1), not {self.effective_share}")
        for name in ("moves", "most_evaluations"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}")

    def particles_for(self, dim: int) -> int:
        """Return how many particles there are in D dimensions."""
        if self.particles is not None:
            return self.particles
        wanted = _PARTICLES if dim <= _FEW_DIMENSIONS else _PARTICLES_IN_MANY_DIMENSIONS
        return max(2, wanted // self.islands) * self.islands

    def evaluations_for(self, dim: int, draws: int = _USUAL_DRAWS) -> int:
        """Return the most gradients to take in D dimensions for so many draws."""
        if self.most_evaluations is not None:
            return self.most_evaluations
        if dim <= _DIMENSIONS_WITH_FEWEST:
            times = max(1.0, draws / _USUAL_DRAWS)
            return min(_MOST_EVALUATIONS, round(times * _FEWEST_EVALUATIONS))
        share = min(1.0, math.pow(_DIMENSIONS_WITH_ALL_EVALUATIONS / dim, 0.25))
        return round(_MOST_EVALUATIONS * share)

    def steps_before(self, dim: int, *, otherwise: int) -> int:
        """Return the most steps to train for in D dimensions, where nobody has said.

        Parameters
        ----------
        dim : int
            D.
        otherwise : int
            Where nothing is refined.
        """
        if self.when == "never":
            return otherwise
        share = max(
            min(1.0, _DIMENSIONS_WITH_ALL_STEPS / dim), 0.5 * min(1.0, _DIMENSIONS_WITH_HALF / dim)
        )
        wanted = _MOST_STEPS_BEFORE * share
        fewest = _FEWEST_STEPS_BEFORE + _FEWEST_A_DIMENSION * dim
        return round(max(wanted, min(fewest, _FEWEST_IN_MANY_DIMENSIONS)))

    def resolved(self, dim: int, draws: int = _USUAL_DRAWS) -> RefineConfig:
        """Return the configuration with what depends on the dimension D filled in."""
        return replace(
            self,
            particles=self.particles_for(dim),
            most_evaluations=self.evaluations_for(dim, draws),
        )
