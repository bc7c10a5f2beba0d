"""Simulate data for robust_regression.stan.

Run it to write the data that come with it, or others:

    python stan_models/robust_regression/simulate.py --out data.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

ALPHA = 1.0
BETA = (0.8, -0.5, 0.0)
SIGMA = 0.7
NU = 3.0  # degrees of freedom


def simulate(n: int = 60, seed: int = 1) -> dict[str, Any]:
    """Return n observations with Student-t errors.

    Parameters
    ----------
    n : int
        Their number.
    seed : int
        For everything.
    """
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, len(BETA)))  # noqa: N806
    y = ALPHA + X @ BETA + SIGMA * rng.standard_t(NU, size=n)
    return {"N": n, "d": len(BETA), "X": X.round(6).tolist(), "y": y.round(6).tolist()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    data = simulate(options.n, options.seed)
    options.out.write_text(json.dumps(data) + "\n")
