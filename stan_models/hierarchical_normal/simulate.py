"""Simulate data for hierarchical_normal.stan.

Run it to write a Stan JSON file:

    python stan_models/hierarchical_normal/simulate.py --J 100 --out data.json
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

# The models are no package: a script, or whoever loads this file, finds the module by its folder.
sys.path.append(str(Path(__file__).parents[1]))

from simulation import write_simulated

_SHAPE, _SCALE, _SD = 0.5, 0.01, 0.3
_DECIMALS = 3


def simulate(J: int, seed: int) -> dict[str, Any]:  # noqa: N803
    """Return measurements of groups whose means have the standard deviation 0.3.

    With an error of 1 they tell little of it, so the variance's posterior has a long way down, and
    the means' scale goes with it.

    Parameters
    ----------
    J : int
        Groups.
    seed : int
        For means and errors.
    """
    rng = np.random.default_rng(seed)
    y = _SD * rng.standard_normal(J) + rng.standard_normal(J)
    return {"J": J, "a": _SHAPE, "b": _SCALE, "y": y.round(_DECIMALS).tolist()}


if __name__ == "__main__":
    write_simulated(simulate, __doc__.splitlines()[0], J=10, seed=1)
