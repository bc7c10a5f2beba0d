"""Simulate data for poisson_random_effects.stan.

Run it to write the data that come with it, or others:

    python stan_models/poisson_random_effects/simulate.py --groups 16 --counts 80 --out data.json
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

# The models are no package: a script, or whoever loads this file, finds the others by its folder.
sys.path.append(str(Path(__file__).parents[1]))

from simulation import write_simulated

ALPHA = -0.5  # log rate where all covariates are 0
BETA = (0.4, -0.3)
TAU = 0.6  # standard deviation of the groups' log rates


def simulate(groups: int = 16, counts: int = 80, seed: int = 1) -> dict[str, Any]:
    """Return counts, each of a group, with exposures between 1 and 5.

    Parameters
    ----------
    groups, counts : int
        Each group has a count at least; the others fall to groups at random.
    seed : int
        For everything.
    """
    rng = np.random.default_rng(seed)
    others = rng.integers(groups, size=counts - groups)
    group = np.sort(np.concatenate([np.arange(groups), others]))
    X = rng.standard_normal((counts, len(BETA)))  # noqa: N806
    exposure = rng.uniform(1, 5, size=counts)
    effect = TAU * rng.standard_normal(groups)
    y = rng.poisson(exposure * np.exp(ALPHA + X @ BETA + effect[group]))
    return {
        "N": counts,
        "J": groups,
        "d": len(BETA),
        "group": (group + 1).tolist(),
        "X": X.round(6).tolist(),
        "exposure": exposure.round(6).tolist(),
        "y": y.tolist(),
    }


if __name__ == "__main__":
    write_simulated(simulate, __doc__.splitlines()[0])
