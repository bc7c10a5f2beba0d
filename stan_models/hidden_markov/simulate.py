"""Simulate data for hidden_markov.stan.

Run it to write the data that come with it, or others:

    python stan_models/hidden_markov/simulate.py --out data.json
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

# The models are no package: a script, or whoever loads this file, finds the others by its folder.
sys.path.append(str(Path(__file__).parents[1]))

from simulation import write_simulated

TRANSITION = np.array([[0.9, 0.08, 0.02], [0.05, 0.9, 0.05], [0.02, 0.08, 0.9]])
MU = np.array([-2.0, 0.0, 2.5])
SIGMA = np.array([0.8, 0.5, 1.2])


def simulate(T: int = 1500, seed: int = 1) -> dict[str, Any]:  # noqa: N803
    """Return T values that a chain of three states emits.

    Parameters
    ----------
    T : int
        Their number.
    seed : int
        For everything.
    """
    rng = np.random.default_rng(seed)
    states = [int(rng.integers(3))]
    for _ in range(T - 1):
        states.append(int(rng.choice(3, p=TRANSITION[states[-1]])))
    y = MU[states] + SIGMA[states] * rng.standard_normal(T)
    return {"T": T, "K": 3, "y": y.round(6).tolist()}


if __name__ == "__main__":
    write_simulated(simulate, __doc__.splitlines()[0])
