"""Numbers as JSON has them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def finite(value: Any) -> Any:
    """Return numbers, arrays and lists of them as Python's; those that are not finite are None.

    Examples
    --------
    >>> import numpy as np
    >>> finite(np.array([1.0, np.inf]))
    [1.0, None]
    """
    if isinstance(value, np.ndarray):
        return finite(value.tolist())
    if isinstance(value, list):
        return [finite(inner) for inner in value]
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
