"""Simulate data for year_regression.stan.

Run it to write a Stan JSON file:

    python stan_models/year_regression/simulate.py --n 30 --out data.json
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

# The models are no package: a script, or whoever loads this file, finds the module by its folder.
sys.path.append(str(Path(__file__).parents[1]))

from simulation import write_simulated

_FIRST_YEAR, _LEVEL, _SLOPE, _SD = 1991, 0.5, 0.02, 0.1
_DECIMALS = 3


def simulate(n: int, seed: int) -> dict[str, Any]:
    """Return yearly values that rise by 0.02 a year with errors of standard deviation 0.1.

    Parameters
    ----------
    n : int
        Years, from 1991 on.
    seed : int
        For the errors.
    """
    rng = np.random.default_rng(seed)
    since = np.arange(n)
    y = _LEVEL + _SLOPE * since + _SD * rng.standard_normal(n)
    return {"n": n, "year": (_FIRST_YEAR + since).tolist(), "y": y.round(_DECIMALS).tolist()}


if __name__ == "__main__":
    write_simulated(simulate, __doc__.splitlines()[0], n=30, seed=1)
