"""Simulate data for lasso.stan.

Run it to write a Stan JSON file:

    python stan_models/lasso/simulate.py --n 100 --d 1000 --rho 0.5 --out data.json
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

# The models are no package: a script, or whoever loads this file, finds the design by its folder.
sys.path.append(str(Path(__file__).parents[1]))

from ar1_design import covariates, linear_outcomes
from simulation import write_simulated


def simulate(n: int, d: int, rho: float, seed: int, digits: int | None = None) -> dict[str, Any]:
    """Return data with AR(1)-correlated standard normal covariates, intercept 0 and noise of sd 3.

    Parameters
    ----------
    n, d : int
        Observations and covariates; d is at least 5.
    rho : float
        Correlation of neighbouring covariates.
    seed : int
        For the covariates and noise.
    digits : int, optional
        Round covariates and outcomes to so many decimals.

    Raises
    ------
    UsageError
        There is no such design.
    """
    rng = np.random.default_rng(seed)
    X = covariates(n, d, rho, rng, digits)  # noqa: N806
    y = linear_outcomes(X, rng, digits)
    return {"n": n, "d": d, "X": X.tolist(), "y": y.tolist()}


if __name__ == "__main__":
    write_simulated(simulate, __doc__.splitlines()[0], n=100, d=10, rho=0.5, seed=1)
