"""Simulate data for simplex_mixture.stan.

Run it to write the data that come with it, or others:

    python stan_models/simplex_mixture/simulate.py --out data.json
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

# The models are no package: a script, or whoever loads this file, finds the others by its folder.
sys.path.append(str(Path(__file__).parents[1]))

from simulation import write_simulated

WEIGHTS = (0.3, 0.5, 0.2)
MU = (-3.0, 0.5, 4.0)
SIGMA = (0.7, 1.0, 0.8)


def simulate(n: int = 100, seed: int = 1) -> dict[str, Any]:
    """Return n draws of three normals that overlap a little.

    Parameters
    ----------
    n : int
        Their number.
    seed : int
        For everything.
    """
    rng = np.random.default_rng(seed)
    component = rng.choice(len(WEIGHTS), size=n, p=WEIGHTS)
    y = np.array(MU)[component] + np.array(SIGMA)[component] * rng.standard_normal(n)
    return {"N": n, "K": len(WEIGHTS), "y": y.round(6).tolist()}


if __name__ == "__main__":
    write_simulated(simulate, __doc__.splitlines()[0])
