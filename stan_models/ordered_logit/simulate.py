"""Simulate data for ordered_logit.stan.

Run it to write the data that come with it, or others:

    python stan_models/ordered_logit/simulate.py --out data.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

BETA = (1.0, -0.5, 0.3, 0.0)
CUTPOINTS = (-1.5, -0.5, 0.5, 2.0)


def simulate(n: int = 100, seed: int = 1) -> dict[str, Any]:
    """Return n answers in five ordered categories.

    Parameters
    ----------
    n : int
        Their number.
    seed : int
        For everything.
    """
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, len(BETA)))  # noqa: N806
    latent = X @ BETA + rng.logistic(size=n)
    y = 1 + np.searchsorted(CUTPOINTS, latent)
    return {
        "N": n,
        "d": len(BETA),
        "K": len(CUTPOINTS) + 1,
        "X": X.round(6).tolist(),
        "y": y.tolist(),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    data = simulate(options.n, options.seed)
    options.out.write_text(json.dumps(data) + "\n")
