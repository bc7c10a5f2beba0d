"""The library that all compiled loops are in."""

from __future__ import annotations

import ctypes
import importlib.util
from functools import cache


@cache
def load() -> ctypes.CDLL | None:
    """Return the compiled loops, None where they were not built with the package."""
    spec = importlib.util.find_spec("stanflow.kernels._kernels")
    if spec is None or spec.origin is None:
        return None
    try:
        return ctypes.CDLL(spec.origin)
    except OSError:
        return None
