"""The compiled elementwise passes (coupling.c), called through ctypes."""

from __future__ import annotations

import ctypes
import importlib.util
from functools import cache
from typing import Any

import torch

_NUMBERS_WORTH_ANOTHER_THREAD = 16_384

_integer, _real, _pointer = ctypes.c_int64, ctypes.c_double, ctypes.c_void_p


class Coupling(ctypes.Structure):
    """``struct coupling`` of coupling.c, where each member is described."""

    _fields_ = (
        ("moved", _integer), ("n_kept", _integer), ("batch", _integer), ("parts", _integer),
        ("parallel", _pointer), ("rows", _pointer),
        ("clamp", _integer), ("positive", _real), ("negative", _real),
        ("output", _pointer), ("bias", _pointer), ("bias_gradient", _pointer),
        ("scale", _pointer), ("gain", _pointer), ("slope", _pointer),
        ("log_det", _pointer), ("largest", _pointer),
        ("partners", _integer), ("features", _integer),
        ("kept", _pointer), ("kept_rows", _pointer), ("partner", _pointer),
        ("linear", _pointer), ("weight", _pointer), ("inner", _pointer),
        ("linear_gradient", _pointer), ("weight_gradient", _pointer),
        ("inner_gradient", _pointer), ("back", _pointer),
    )  # fmt: skip


class Network(ctypes.Structure):
    """``struct network`` of coupling.c, where each member is described."""

    _fields_ = (
        ("n_kept", _integer), ("n_moved", _integer), ("hidden_units", _integer),
        ("batch", _integer),
        ("kept", _pointer), ("kept_rows", _pointer),
        ("input_weight", _pointer), ("input_bias", _pointer),
        ("output_weight", _pointer), ("hidden", _pointer), ("output", _pointer),
        ("hidden_cotangent", _pointer), ("sign", _real), ("input_weight_gradient", _pointer),
        ("input_bias_gradient", _pointer), ("output_weight_gradient", _pointer),
    )  # fmt: skip


class SinhArcsinh(ctypes.Structure):
    """``struct sinh_arcsinh`` of coupling.c, where each member is described."""

    _fields_ = (
        ("dim", _integer), ("batch", _integer),
        ("clamp", _integer), ("positive", _real), ("negative", _real),
        ("location", _pointer), ("log_scale", _pointer), ("skewness", _pointer),
        ("raw_tail", _pointer), ("location_gradient", _pointer),
        ("log_scale_gradient", _pointer), ("skewness_gradient", _pointer),
        ("raw_tail_gradient", _pointer), ("x", _pointer), ("log_det", _pointer),
    )  # fmt: skip


class Link(ctypes.Structure):
    """``struct link`` of coupling.c, where each member is described."""

    _fields_ = (
        ("coupling", _pointer), ("forward", _pointer), ("backward", _pointer), ("bend", _pointer),
    )  # fmt: skip


class ChainPart(ctypes.Structure):
    """``struct chain_part`` of coupling.c, where each member is described."""

    _fields_ = (
        ("first", _integer), ("columns", _integer), ("links", _pointer),
        ("points", _pointer), ("score", _pointer),
    )  # fmt: skip


class Chain(ctypes.Structure):
    """``struct chain`` of coupling.c, where each member is described."""

    _fields_ = (
        ("dim", _integer), ("batch", _integer), ("layers", _integer), ("parts", _integer),
        ("threads", _integer), ("part", _pointer),
    )  # fmt: skip


@cache
def load() -> ctypes.CDLL | None:
    """Return the compiled passes, None where they were not built with the package."""
    spec = importlib.util.find_spec("stanflow.flow._coupling")
    if spec is None or spec.origin is None:
        return None
    try:
        return ctypes.CDLL(spec.origin)
    except OSError:
        return None


class Calls:
    """The functions of the library in one precision.

    Parameters
    ----------
    library : ctypes.CDLL
        From `load`.
    dtype : torch.dtype
        float32 or float64.
    """

    def __init__(self, library: ctypes.CDLL, dtype: torch.dtype) -> None:
        suffix = {torch.float32: "f32", torch.float64: "f64"}[dtype]

        def function(name: str, *arguments: Any) -> Any:
            found = library[f"stanflow_{name}_{suffix}"]
            found.restype, found.argtypes = None, arguments
            return found

        self.push = function("push", *[_pointer] * 4)
        self.restore = function("restore", *[_pointer] * 2)
        self.pull = function("pull", *[_pointer] * 3)
        self.activate = function("activate", *[_integer] * 2, *[_pointer] * 2)
        self.pull_activation = function("pull_activation", *[_integer] * 2, *[_pointer] * 3)
        self.network_push = function("network_push", *[_pointer] * 2)
        self.network_pull = function("network_pull", *[_pointer] * 2)
        self.bend_push = function("bend_push", *[_pointer] * 4)
        self.bend_pull = function("bend_pull", *[_pointer] * 3)
        self.chain_push = function("chain_push", *[_pointer] * 4)
        self.chain_pull = function("chain_pull", *[_pointer] * 3)


@cache
def openmp_entry() -> int | None:
    """Return the address of ``GOMP_parallel`` in the OpenMP runtime that torch has loaded.

    Threads of another pool would fight with torch's for the cores. None where torch's runtime
    has no such entry; the passes then run on one thread.
    """
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, ctypes.c_void_p).value
    except (OSError, AttributeError):
        return None


def parts_for(numbers: int) -> int:
    """Return into how many parts to split an elementwise pass over so many numbers."""
    return max(1, min(torch.get_num_threads(), numbers // _NUMBERS_WORTH_ANOTHER_THREAD))
