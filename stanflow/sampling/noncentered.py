"""A density whose hierarchy is taken apart: some coordinates in units of scales that others set."""

from __future__ import annotations

import ctypes
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from typing_extensions import override

from stanflow.arrays import FloatArray
from stanflow.flow.noncentering import NonCentering
from stanflow.kernels import library
from stanflow.stan.density import CompiledDensity, Density, DensityBatch, Target

_pointer, _integer = ctypes.c_void_p, ctypes.c_int64


class _Struct(ctypes.Structure):
    """``struct noncentered`` of noncentering.c, where each member is described."""

    _fields_ = (
        ("log_density_gradient", _pointer), ("log_density", _pointer), ("model", _pointer),
        ("dim", _integer), ("rows", _integer), ("columns", _integer), ("moved", _pointer),
        ("parents", _pointer), ("scale_weights", _pointer), ("location_weights", _pointer),
        ("log_scale", _pointer), ("location", _pointer),
    )  # fmt: skip


class NoncenteredDensity(Density):
    """The density of u where ``z = T(u)`` has a target's, T a `NonCentering`.

    Parameters
    ----------
    target : Density
        The density of z.
    layer : NonCentering
        In float64, on the CPU.

    Attributes
    ----------
    layer : NonCentering
    """

    def __init__(self, target: Density, layer: NonCentering) -> None:
        self._target, self.layer = target, deepcopy(layer)  # addresses of its tensors are kept
        self._compiled = self._of_compiled()

    @property
    @override
    def dim(self) -> int:
        return self._target.dim

    @override
    def compiled(self) -> CompiledDensity | None:
        return self._compiled

    def _of_compiled(self) -> CompiledDensity | None:
        density, loops, layer = self._target.compiled(), library.load(), self.layer
        if density is None or loops is None:
            return None
        tensors = (
            layer.moved, layer.parents, layer.scale_weights, layer.location_weights,
            layer.log_scale, layer.location,
        )  # fmt: skip
        self._arguments = _Struct(
            density.log_density_gradient, density.log_density, density.model, self.dim,
            *layer.parents.shape, *(tensor.data_ptr() for tensor in tensors),
        )  # fmt: skip
        with_gradient = loops.stanflow_noncentered_log_density_gradient
        alone = loops.stanflow_noncentered_log_density
        return replace(
            density,
            log_density_gradient=_address(with_gradient),
            log_density=_address(alone),
            model=ctypes.addressof(self._arguments),
        )

    @override
    @torch.no_grad()
    def log_density_gradient(self, z: FloatArray) -> DensityBatch:
        """Evaluate a batch.

        Parameters
        ----------
        z : array of shape (B, D)
            The u.
        """
        u = _columns(z)
        placed, log_scale = self.layer.carry(u)
        there = self._target.log_density_gradient(_rows(placed))
        gradient = _columns(there.gradient)
        self.layer.pull_back(gradient, u[self.layer.moved], log_scale, torch.ones(()))
        log_density = there.log_density + log_scale.sum(0).numpy()
        back = _rows(gradient)
        finite = np.isfinite(log_density) & np.isfinite(back).all(axis=1)
        return DensityBatch(log_density, back, there.accepted & finite)

    @override
    @torch.no_grad()
    def log_density(self, z: FloatArray) -> FloatArray:
        placed, log_scale = self.layer.carry(_columns(z))
        return np.asarray(self._target.log_density(_rows(placed)) + log_scale.sum(0).numpy())

    @torch.no_grad()
    def carry(self, u: FloatArray) -> FloatArray:
        """Return the z of points u of shape (n, D)."""
        return _rows(self.layer.carry(_columns(u))[0])

    @torch.no_grad()
    def carry_back(self, z: FloatArray) -> FloatArray:
        """Return the u of points z of shape (n, D)."""
        return _rows(self.layer.inverse(torch.from_numpy(z))[0].T)


class NoncenteredTarget(NoncenteredDensity, Target):
    """The same of a target, with its starting points."""

    def __init__(self, target: Target, layer: NonCentering) -> None:
        super().__init__(target, layer)
        self._starting_points = target.starting_points

    @override
    def starting_points(self, n: int, rng: np.random.Generator) -> FloatArray:
        return self.carry_back(self._starting_points(n, rng))


def _address(function: Any) -> int:
    return int(ctypes.cast(function, _pointer).value or 0)


def _rows(columns: torch.Tensor) -> FloatArray:
    rows: FloatArray = columns.T.contiguous().numpy()
    return rows


def _columns(rows: FloatArray) -> torch.Tensor:
    return torch.from_numpy(rows).T.contiguous()
