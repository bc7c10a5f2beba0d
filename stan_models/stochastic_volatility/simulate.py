"""Simulate data for stochastic_volatility.stan.

Run it to write the data that come with it, or others:

    python stan_models/stochastic_volatility/simulate.py --T 40 --out data.json
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

# The models are no package: a script, or whoever loads this file, finds the others by its folder.
sys.path.append(str(Path(__file__).parents[1]))

from simulation import write_simulated

MU = -0.5  # mean log variance of a return in percent
PHI = 0.95  # persistence
SIGMA = 0.25  # standard deviation of the innovations


def simulate(T: int = 40, seed: int = 1) -> dict[str, Any]:  # noqa: N803
    """Return T returns, in percent.

    Parameters
    ----------
    T : int
        Days, at least 2.
    seed : int
        For everything.
    """
    rng = np.random.default_rng(seed)
    innovations = SIGMA * rng.standard_normal(T)
    h = np.empty(T)
    h[0] = MU + innovations[0] / np.sqrt(1 - PHI**2)
    for t in range(1, T):
        h[t] = MU + PHI * (h[t - 1] - MU) + innovations[t]
    y = np.exp(h / 2) * rng.standard_normal(T)
    return {"T": T, "y": y.round(6).tolist()}


if __name__ == "__main__":
    write_simulated(simulate, __doc__.splitlines()[0])
