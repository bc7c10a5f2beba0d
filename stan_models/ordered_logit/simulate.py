"""Simulate data for ordered_logit.stan.

Run it to write the data that come with it, or others:

    python stan_models/ordered_logit/simulate.py --out data.json
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

# The models are no package: a script, or whoever loads this file, finds the others by its folder.
sys.path.append(str(Path(__file__).parents[1]))

from simulation import write_simulated

BETA = (1.0, -0.5, 0.3, 0.0)
CUTPOINTS = (-1.5, -0.5, 0.5, 2.0)


def simulate(n: int = 100, seed: int = 1) -> dict[str, Any]:
    """Return n answers in five ordered categories.

    Parameters
    ----------
    n : int
        Their number.
    seed : int
        For everything.
    """
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, len(BETA)))  # noqa: N806
    latent = X @ BETA + rng.logistic(size=n)
    y = 1 + np.searchsorted(CUTPOINTS, latent)
    return {
        "N": n,
        "d": len(BETA),
        "K": len(CUTPOINTS) + 1,
        "X": X.round(6).tolist(),
        "y": y.tolist(),
    }


if __name__ == "__main__":
    write_simulated(simulate, __doc__.splitlines()[0])
