"""Simulate data for covariance.stan.

Run it to write the data that come with it, or others:

    python stan_models/covariance/simulate.py --out data.json
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

# The models are no package: a script, or whoever loads this file, finds the others by its folder.
sys.path.append(str(Path(__file__).parents[1]))

from simulation import write_simulated

MU = (1.0, 0.0, -1.0, 2.0, 0.5)
SIGMA = (0.5, 1.0, 1.5, 2.0, 1.0)
RHO = 0.7  # correlation of neighbours; of variables j and k it is RHO^|j - k|


def simulate(n: int = 50, seed: int = 2) -> dict[str, Any]:
    """Return n draws of five correlated normal variables.

    Parameters
    ----------
    n : int
        Their number.
    seed : int
        For everything.
    """
    rng = np.random.default_rng(seed)
    position = np.arange(len(MU))
    correlation = RHO ** np.abs(position[:, None] - position)
    factor = np.array(SIGMA)[:, None] * np.linalg.cholesky(correlation)
    y = MU + rng.standard_normal((n, len(MU))) @ factor.T
    return {"N": n, "K": len(MU), "y": y.round(6).tolist()}


if __name__ == "__main__":
    write_simulated(simulate, __doc__.splitlines()[0])
