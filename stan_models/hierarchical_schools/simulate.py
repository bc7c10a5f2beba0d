"""Simulate data for hierarchical_schools.stan.

Run it to write the data that come with it, or others:

    python stan_models/hierarchical_schools/simulate.py --out data.json
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

# The models are no package: a script, or whoever loads this file, finds the others by its folder.
sys.path.append(str(Path(__file__).parents[1]))

from simulation import write_simulated

MU = (0.2, 0.5)  # intercept and slope of the average school
TAU = (0.5, 0.3)  # their standard deviations between schools
RHO = -0.4  # their correlation
SIGMA = 0.8  # standard deviation within a school


def simulate(schools: int = 12, pupils: int = 180, seed: int = 1) -> dict[str, Any]:
    """Return data of schools of unequal size.

    Parameters
    ----------
    schools, pupils : int
        Pupils of all schools together; each school has at least five.
    seed : int
        For everything.
    """
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(schools, 2.0))
    sizes = 5 + rng.multinomial(pupils - 5 * schools, shares)
    school = np.repeat(np.arange(schools), sizes)
    covariance = np.array(
        [[TAU[0] ** 2, RHO * TAU[0] * TAU[1]], [RHO * TAU[0] * TAU[1], TAU[1] ** 2]]
    )
    beta = MU + rng.standard_normal((schools, 2)) @ np.linalg.cholesky(covariance).T
    x = rng.standard_normal(pupils)
    y = beta[school, 0] + beta[school, 1] * x + SIGMA * rng.standard_normal(pupils)
    return {
        "N": pupils,
        "J": schools,
        "school": (school + 1).tolist(),
        "x": x.round(6).tolist(),
        "y": y.round(6).tolist(),
    }


if __name__ == "__main__":
    write_simulated(simulate, __doc__.splitlines()[0])
