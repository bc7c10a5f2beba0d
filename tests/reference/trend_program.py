"""Data for prophet's program, of which the prophet package has an executable by CmdStan."""

from __future__ import annotations

from typing import Any

import numpy as np

TAU = 0.05


def trend_data(n: int = 60) -> dict[str, Any]:
    """Data of prophet's program: a constant level with two regressors, changepoints unused.

    With the flat trend the likelihood does not know k and delta, so theirs is the prior: k is
    N(0, 5), delta is double exponential with scale `TAU`.
    """
    rng = np.random.default_rng(1)
    t = np.linspace(0, 1, n)
    X = np.column_stack([np.sin(12 * t), np.cos(12 * t)])  # noqa: N806
    return {
        "T": n, "K": 2, "S": 3, "t": t, "cap": np.zeros(n), "X": X,
        "y": 0.4 + X @ [0.3, -0.2] + rng.normal(0, 0.1, n),
        "t_change": [0.2, 0.4, 0.6], "sigmas": [10, 10], "tau": TAU, "trend_indicator": 2,
        "s_a": [1, 1], "s_m": [0, 0],
    }  # fmt: skip
