"""Simulate data for gaussian_process.stan.

Run it to write the data that come with it, or others:

    python stan_models/gaussian_process/simulate.py --out data.json
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

# The models are no package: a script, or whoever loads this file, finds the others by its folder.
sys.path.append(str(Path(__file__).parents[1]))

from simulation import write_simulated

LENGTH = 10.0  # of the interval on which counts are taken
MU = 1.5  # mean log rate
LENGTH_SCALE = 2.0
AMPLITUDE = 1.0
PHI = 10.0  # the variance of a count is m + m^2 / phi


def simulate(n: int = 20, seed: int = 3) -> dict[str, Any]:
    """Return counts at n evenly spaced points.

    Parameters
    ----------
    n : int
        Their number.
    seed : int
        For everything.
    """
    rng = np.random.default_rng(seed)
    x = np.linspace(0, LENGTH, n)
    distance = x[:, None] - x
    covariance = AMPLITUDE**2 * np.exp(-0.5 * (distance / LENGTH_SCALE) ** 2)
    f = MU + np.linalg.cholesky(covariance + 1e-6 * np.eye(n)) @ rng.standard_normal(n)
    y = rng.poisson(np.exp(f) * rng.gamma(PHI, 1 / PHI, size=n))
    return {"N": n, "x": x.round(6).tolist(), "y": y.tolist()}


if __name__ == "__main__":
    write_simulated(simulate, __doc__.splitlines()[0])
