"""Simulate data for item_response.stan.

Run it to write the data that come with it, or others:

    python stan_models/item_response/simulate.py --out data.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np


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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--persons", type=int, default=20)
    parser.add_argument("--items", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    data = simulate(options.persons, options.items, options.seed)
    options.out.write_text(json.dumps(data) + "\n")
