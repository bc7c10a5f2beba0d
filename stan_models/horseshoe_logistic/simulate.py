"""Simulate data for horseshoe_logistic.stan.

Run it to write a Stan JSON file:

    python stan_models/horseshoe_logistic/simulate.py --n 100 --d 1000 --rho 0.5 --out data.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

NONZERO = {1: 3.0, 2: 1.5, 5: 2.0}  # position, counted from 1: coefficient


def simulate(n: int, d: int, rho: float, seed: int) -> dict[str, Any]:
    """Return data with AR(1)-correlated standard normal covariates.

    Parameters
    ----------
    n, d : int
        Observations and covariates; d is at least 5.
    rho : float
        Correlation of neighbouring covariates.
    seed : int
        For the covariates and outcomes.
    """
    rng = np.random.default_rng(seed)
    innovations = rng.standard_normal((n, d))
    X = np.empty((n, d))  # noqa: N806
    X[:, 0] = innovations[:, 0]
    for j in range(1, d):
        X[:, j] = rho * X[:, j - 1] + np.sqrt(1 - rho**2) * innovations[:, j]
    beta = np.zeros(d)
    for position, coefficient in NONZERO.items():
        beta[position - 1] = coefficient
    y = rng.uniform(size=n) < 1 / (1 + np.exp(-X @ beta))
    return {"n": n, "d": d, "X": X.tolist(), "y": y.astype(int).tolist()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--d", type=int, default=10)
    parser.add_argument("--rho", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    data = simulate(options.n, options.d, options.rho, options.seed)
    options.out.write_text(json.dumps(data))
