"""The compiled passes of layers (layers.c), called through ctypes."""

from __future__ import annotations

import ctypes
from typing import Any

import torch

_NUMBERS_WORTH_ANOTHER_THREAD = 16_384

_integer, _real, _pointer = ctypes.c_int64, ctypes.c_double, ctypes.c_void_p


class Coupling(ctypes.Structure):
    """``struct coupling`` of layers.c, where each member is described."""

    _fields_ = (
        ("moved", _integer), ("n_kept", _integer), ("batch", _integer), ("parts", _integer),
        ("rows", _pointer),
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
    """``struct network`` of layers.c, where each member is described."""

    _fields_ = (
        ("n_kept", _integer), ("n_moved", _integer), ("hidden_units", _integer),
        ("batch", _integer),
        ("kept", _pointer), ("kept_rows", _pointer),
        ("input_weight", _pointer), ("input_bias", _pointer),
        ("output_weight", _pointer), ("hidden", _pointer), ("output", _pointer),
        ("hidden_cotangent", _pointer), ("sign", _real), ("input_weight_gradient", _pointer),
        ("input_bias_gradient", _pointer), ("output_weight_gradient", _pointer),
    )  # fmt: skip


class Activation(ctypes.Structure):
    """``struct activation`` of layers.c, where each member is described."""

    _fields_ = (
        ("units", _integer), ("batch", _integer), ("parts", _integer), ("hidden", _pointer),
        ("cotangent", _pointer), ("bias", _pointer), ("bias_gradient", _pointer),
    )  # fmt: skip


class SinhArcsinh(ctypes.Structure):
    """``struct sinh_arcsinh`` of layers.c, where each member is described."""

    _fields_ = (
        ("dim", _integer), ("batch", _integer),
        ("clamp", _integer), ("positive", _real), ("negative", _real),
        ("location", _pointer), ("log_scale", _pointer), ("skewness", _pointer),
        ("raw_tail", _pointer), ("location_gradient", _pointer),
        ("log_scale_gradient", _pointer), ("skewness_gradient", _pointer),
        ("raw_tail_gradient", _pointer), ("x", _pointer), ("log_det", _pointer),
    )  # fmt: skip


class Loft(ctypes.Structure):
    """``struct loft`` of layers.c, where each member is described."""

    _fields_ = (
        ("dim", _integer), ("batch", _integer), ("tau", _real), ("inverse_slope", _pointer),
    )  # fmt: skip


class ShiftScale(ctypes.Structure):
    """``struct shift_scale`` of layers.c, where each member is described."""

    _fields_ = (
        ("dim", _integer), ("batch", _integer), ("log_scale", _pointer), ("shift", _pointer),
        ("log_scale_gradient", _pointer), ("shift_gradient", _pointer), ("x", _pointer),
    )  # fmt: skip


class Link(ctypes.Structure):
    """``struct link`` of layers.c, where each member is described."""

    _fields_ = (
        ("coupling", _pointer), ("forward", _pointer), ("backward", _pointer), ("bend", _pointer),
        ("loft", _pointer), ("affine", _pointer),
    )  # fmt: skip


class ChainPart(ctypes.Structure):
    """``struct chain_part`` of layers.c, where each member is described."""

    _fields_ = (
        ("first", _integer), ("columns", _integer), ("links", _pointer),
        ("points", _pointer), ("score", _pointer),
    )  # fmt: skip


class Chain(ctypes.Structure):
    """``struct chain`` of layers.c, where each member is described."""

    _fields_ = (
        ("dim", _integer), ("batch", _integer), ("layers", _integer), ("parts", _integer),
        ("threads", _integer), ("part", _pointer),
    )  # fmt: skip


class StudentT(ctypes.Structure):
    """``struct student_t`` of layers.c, where each member is described."""

    _fields_ = (("nu", _real), ("root", _real), ("constant", _real))


class StepPart(ctypes.Structure):
    """``struct step_part`` of layers.c, where each member is described."""

    _fields_ = (
        ("chain", _pointer), ("noise", _pointer), ("base", _pointer), ("log_q", _pointer),
        ("largest", _pointer), ("base_gradient", _pointer),
    )  # fmt: skip


class Step(ctypes.Structure):
    """``struct step`` of layers.c, where each member is described."""

    _fields_ = (
        ("dim", _integer), ("batch", _integer), ("layers", _integer), ("parts", _integer),
        ("threads", _integer), ("part", _pointer), ("log_degrees_minus_one", _pointer),
        ("base", _pointer), ("tails", _integer), ("longest", _real),
        ("log_density_gradient", _pointer), ("log_density", _pointer), ("model", _pointer),
        ("location", _pointer), ("scale", _pointer), ("factor", _pointer), ("log_det", _real),
        ("rows", _pointer), ("log_ratio", _pointer), ("accepted", _pointer),
        ("centre", _pointer), ("spread", _pointer), ("parameters", _integer),
        ("gradients", _pointer),
    )  # fmt: skip


class Adam(ctypes.Structure):
    """``struct adam`` of layers.c, where each member is described."""

    _fields_ = (
        ("parameters", _integer), ("parameter", _pointer), ("gradient", _pointer),
        ("mean", _pointer), ("mean_square", _pointer), ("beta1", _real), ("beta2", _real),
        ("epsilon", _real), ("longest", _real),
    )  # fmt: skip


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

        def function(name: str, *arguments: Any, result: Any = None) -> Any:
            found = library[f"stanflow_{name}_{suffix}"]
            found.restype, found.argtypes = result, arguments
            return found

        self.push = function("push", *[_pointer] * 4)
        self.restore = function("restore", *[_pointer] * 2)
        self.pull = function("pull", *[_pointer] * 3)
        self.activate = function("activate", _pointer)
        self.pull_activation = function("pull_activation", _pointer)
        self.network_push = function("network_push", *[_pointer] * 2)
        self.network_pull = function("network_pull", *[_pointer] * 2)
        self.bend_push = function("bend_push", *[_pointer] * 4)
        self.bend_pull = function("bend_pull", *[_pointer] * 3)
        self.chain_push = function("chain_push", *[_pointer] * 4)
        self.chain_pull = function("chain_pull", *[_pointer] * 3)
        self.step_gradient = function(
            "step_gradient", _pointer, ctypes.c_uint64, ctypes.c_int, result=_integer
        )
        self.adam = function("adam", _pointer, _real, _real, result=_real)


def parts_for(numbers: int) -> int:
    """Return into how many parts to split an elementwise pass over so many numbers."""
    return max(1, min(torch.get_num_threads(), numbers // _NUMBERS_WORTH_ANOTHER_THREAD))
