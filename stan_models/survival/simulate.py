"""Simulate data for survival.stan.

Run it to write the data that come with it, or others:

    python stan_models/survival/simulate.py --out data.json
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

# The models are no package: a script, or whoever loads this file, finds the others by its folder.
sys.path.append(str(Path(__file__).parents[1]))

from simulation import write_simulated

SHAPE = 1.5
ALPHA = 1.0  # log scale where all covariates are 0
BETA = (0.5, -0.4, 0.2, 0.0)
FOLLOW_UP = 6.0  # years that the study lasts; persons enter at any time in it


def simulate(n: int = 80, seed: int = 1) -> dict[str, Any]:
    """Return survival times, in years, of n persons; about two in five are censored.

    Parameters
    ----------
    n : int
        Their number.
    seed : int
        For everything.
    """
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, len(BETA))).round(6)  # noqa: N806
    time = np.exp(ALPHA + X @ BETA) * rng.weibull(SHAPE, size=n)
    observed_for = rng.uniform(0, FOLLOW_UP, size=n)
    event = time < observed_for
    return {
        "N_event": int(event.sum()),
        "N_censored": int((~event).sum()),
        "d": len(BETA),
        "t_event": time[event].round(6).tolist(),
        "X_event": X[event].tolist(),
        "t_censored": observed_for[~event].round(6).tolist(),
        "X_censored": X[~event].tolist(),
    }


if __name__ == "__main__":
    write_simulated(simulate, __doc__.splitlines()[0])
