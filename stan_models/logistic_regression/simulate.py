"""Simulate data for logistic_regression.stan.

Run it to write the data that come with it, or more of them:

    python stan_models/logistic_regression/simulate.py --n 50000 --out data.json
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

# The models are no package: a script, or whoever loads this file, finds the others by its folder.
sys.path.append(str(Path(__file__).parents[1]))

from simulation import write_simulated

ALPHA = -1.0
SHARED = 0.5  # correlation of any two covariates


def simulate(n: int = 200, d: int = 10, seed: int = 1) -> dict[str, Any]:
    """Return n cases with d correlated covariates.

    Parameters
    ----------
    n : int
        Number of cases.
    d : int
        Number of covariates.
    seed : int
        For everything.
    """
    rng = np.random.default_rng(seed)
    beta = 0.5 * rng.standard_normal(d)
    own, shared = rng.standard_normal((n, d)), rng.standard_normal((n, 1))
    X = (np.sqrt(1 - SHARED) * own + np.sqrt(SHARED) * shared).round(3)  # noqa: N806
    y = rng.uniform(size=n) < 1 / (1 + np.exp(-ALPHA - X @ beta))
    return {"n": n, "d": d, "X": X.tolist(), "y": y.astype(int).tolist()}


if __name__ == "__main__":
    write_simulated(simulate, __doc__.splitlines()[0])
