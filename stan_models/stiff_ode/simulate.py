"""Simulate data for stiff_ode.stan.

Run it to write the data that come with it, or others:

    python stan_models/stiff_ode/simulate.py --out data.json
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp

# The models are no package: a script, or whoever loads this file, finds the others by its folder.
sys.path.append(str(Path(__file__).parents[1]))

from simulation import write_simulated

SLOW, FASTEST, FAST = 0.04, 3e7, 1e4  # Robertson's, per second
SIGMA = 0.1
FIRST, LAST = 0.1, 1e4  # seconds


def shares(times: Any, slow: float, fastest: float, fast: float) -> Any:
    """Return the shares of the three species at some times, (N, 3)."""

    def rates(_: float, share: Any) -> list[float]:
        from_a, to_a = slow * share[0], fast * share[1] * share[2]
        to_c = fastest * share[1] ** 2
        return [to_a - from_a, from_a - to_a - to_c, to_c]

    solved = solve_ivp(
        rates, (0, times[-1]), [1.0, 0.0, 0.0], "Radau", times, rtol=1e-10, atol=1e-14
    )
    return solved.y.T


def simulate(n: int = 12, seed: int = 1) -> dict[str, Any]:
    """Return shares measured at n times, evenly spaced in their logarithm.

    Parameters
    ----------
    n : int
        Their number.
    seed : int
        For everything.
    """
    rng = np.random.default_rng(seed)
    times = np.geomspace(FIRST, LAST, n).round(6)
    y = shares(times, SLOW, FASTEST, FAST) * np.exp(SIGMA * rng.standard_normal((n, 3)))
    return {"N": n, "time": times.tolist(), "y": [[float(f"{x:.6g}") for x in row] for row in y]}


if __name__ == "__main__":
    write_simulated(simulate, __doc__.splitlines()[0])
