"""Simulate data for item_response.stan.

Run it to write the data that come with it, or others:

    python stan_models/item_response/simulate.py --out data.json
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

# The models are no package: a script, or whoever loads this file, finds the others by its folder.
sys.path.append(str(Path(__file__).parents[1]))

from simulation import write_simulated


def simulate(persons: int = 20, items: int = 8, seed: int = 1) -> dict[str, Any]:
    """Return every person's answer to every item.

    Abilities are standard normal, difficulties evenly spaced from -1.5 to 1.5, discriminations
    lognormal(0.2, 0.4).

    Parameters
    ----------
    persons, items : int
        Their numbers.
    seed : int
        For everything.
    """
    rng = np.random.default_rng(seed)
    ability = rng.standard_normal(persons)
    difficulty = np.linspace(-1.5, 1.5, items)
    discrimination = np.exp(0.2 + 0.4 * rng.standard_normal(items))
    person, item = np.divmod(np.arange(persons * items), items)
    logit = discrimination[item] * (ability[person] - difficulty[item])
    y = rng.uniform(size=persons * items) < 1 / (1 + np.exp(-logit))
    return {
        "I": persons,
        "J": items,
        "N": persons * items,
        "person": (person + 1).tolist(),
        "item": (item + 1).tolist(),
        "y": y.astype(int).tolist(),
    }


if __name__ == "__main__":
    write_simulated(simulate, __doc__.splitlines()[0])
