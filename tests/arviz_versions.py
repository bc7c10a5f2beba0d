"""What ArviZ 0.2x and 1.x call by different names."""

from __future__ import annotations

from typing import Any

import arviz

IS_BEFORE_1 = arviz.__version__.startswith("0.")


def group_names(data: Any) -> set[str]:
    """Return the names of the groups of an InferenceData or a DataTree."""
    return set(data.groups() if IS_BEFORE_1 else data.children)


def elpd(loo: Any) -> float:
    """Return the expected log predictive density that `arviz.loo` found."""
    return float(loo.elpd_loo if IS_BEFORE_1 else loo.elpd)
