"""Simulate data for ode.stan.

Run it to write the data that come with it, or others:

    python stan_models/ode/simulate.py --out data.json
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

# The models are no package: a script, or whoever loads this file, finds the others by its folder.
sys.path.append(str(Path(__file__).parents[1]))

from simulation import write_simulated

DOSE = 100.0  # mg
ABSORPTION = 1.2  # per hour
CLEARANCE = 4.0  # litres per hour
VOLUME = 35.0  # litres
SIGMA = 0.15  # standard deviation of the log measurement
TIME = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0)  # hours


def simulate(seed: int = 1) -> dict[str, Any]:
    """Return the concentrations measured in the twelve hours after a dose.

    Parameters
    ----------
    seed : int
        For the errors of measurement.
    """
    rng = np.random.default_rng(seed)
    time = np.array(TIME)
    elimination = CLEARANCE / VOLUME
    decays = np.exp(-elimination * time) - np.exp(-ABSORPTION * time)
    concentration = DOSE / VOLUME * ABSORPTION / (ABSORPTION - elimination) * decays
    y = concentration * np.exp(SIGMA * rng.standard_normal(len(time)))
    return {"N": len(TIME), "dose": DOSE, "time": list(TIME), "y": y.round(6).tolist()}


if __name__ == "__main__":
    write_simulated(simulate, __doc__.splitlines()[0])
