"""Simulate data for robust_regression.stan.

Run it to write the data that come with it, or others:

    python stan_models/robust_regression/simulate.py --out data.json
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

# The models are no package: a script, or whoever loads this file, finds the others by its folder.
sys.path.append(str(Path(__file__).parents[1]))

from simulation import write_simulated

ALPHA = 1.0
BETA = (0.8, -0.5, 0.0)
SIGMA = 0.7
NU = 3.0  # degrees of freedom


def simulate(n: int = 60, seed: int = 1) -> dict[str, Any]:
    """Return n observations with Student-t errors.

    Parameters
    ----------
    n : int
        Their number.
    seed : int
        For everything.
    """
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, len(BETA)))  # noqa: N806
    y = ALPHA + X @ BETA + SIGMA * rng.standard_t(NU, size=n)
    return {"N": n, "d": len(BETA), "X": X.round(6).tolist(), "y": y.round(6).tolist()}


if __name__ == "__main__":
    write_simulated(simulate, __doc__.splitlines()[0])
