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


def share_threads_of_torch(shared: bool) -> None:
    """Let torch's OpenMP threads help with the loops, or the library's own, as before (threads.h).

    Where torch's runtime is another one the library's own stay.

    Parameters
    ----------
    shared : bool
    """
    compiled = load()
    if compiled is None:
        return
    parallel = getattr(ctypes.CDLL(None), "GOMP_parallel", None) if shared else None
    address = None if parallel is None else ctypes.cast(parallel, ctypes.c_void_p)
    compiled.stanflow_share_threads.argtypes = [ctypes.c_void_p]
    compiled.stanflow_share_threads(address)
