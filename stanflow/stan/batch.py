"""The loop over draws: compiled (rows.c) where it could be built, in Python otherwise."""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import bridgestan
import numpy as np
import numpy.typing as npt

from stanflow.arrays import FloatArray
from stanflow.kernels import library
from stanflow.stan.density import CompiledDensity

StatusArray = npt.NDArray[np.uint8]
SeedArray = npt.NDArray[np.uint32]

# enum row_status of rows.c
OK = 0
THREW = 1
DENSITY_NOT_FINITE = 2
GRADIENT_NOT_FINITE = 3

_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # where a container finds its own


def available_cores() -> int:
    """Return the number of processor cores that this process may use, or has the time of."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, period = map(int, _QUOTA.read_text().split())
    except (OSError, ValueError):  # there are no control groups, or the quota is "max"
        return cores or 1
    return max(1, min(cores or 1, math.ceil(quota / period)))


@cache
def compiled_loop() -> ctypes.CDLL | None:
    """Return the compiled loop, None where it was not built with the package."""
    compiled = library.load()
    if compiled is None:
        return None
    pointer, size, flag = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_bool
    compiled.stanflow_log_density_gradient.restype = size
    compiled.stanflow_log_density_gradient.argtypes = [
        pointer, pointer, flag, flag, size, size, *[pointer] * 4, ctypes.c_int,
    ]  # fmt: skip
    compiled.stanflow_log_density.restype = None
    compiled.stanflow_log_density.argtypes = [
        pointer, pointer, flag, flag, size, size, pointer, pointer, ctypes.c_int,
    ]  # fmt: skip
    compiled.stanflow_constrain.restype = size
    compiled.stanflow_constrain.argtypes = [
        *[pointer] * 4, flag, flag, size, size, size, *[pointer] * 4, ctypes.c_int,
    ]  # fmt: skip
    return compiled


@dataclass(frozen=True)
class BatchEvaluator:
    """Evaluates a model on batches of draws, each batch in one call.

    Parameters
    ----------
    stan_model : bridgestan.StanModel
        The model; it must be safe to use from `threads` threads at once.
    threads : int
        How many threads share a batch.
    library : ctypes.CDLL or None
        The compiled loop; None for the loop in Python, which gives the same, slower.
    """

    stan_model: bridgestan.StanModel
    threads: int
    library: ctypes.CDLL | None

    def compiled_density(self) -> CompiledDensity | None:
        """Return the model's density for compiled code, None where none was built."""
        functions = self.stan_model.stanlib
        with_gradient = _address(functions.bs_log_density_gradient)
        alone = _address(functions.bs_log_density)
        if self.library is None or with_gradient is None or alone is None:
            return None
        return CompiledDensity(with_gradient, alone, self.stan_model.model, self.threads)

    def log_density_gradient(self, z: FloatArray) -> tuple[FloatArray, FloatArray, StatusArray]:
        """Evaluate log density and gradient, without Stan's dropped constants.

        Parameters
        ----------
        z : array of shape (B, D), C-contiguous

        Returns
        -------
        log_density : array of shape (B,)
        gradient : array of shape (B, D)
        status : array of shape (B,)
            OK, THREW, DENSITY_NOT_FINITE or GRADIENT_NOT_FINITE.
        """
        rows, dim = z.shape
        log_density = np.empty(rows)
        gradient = np.empty((rows, dim))
        status = np.empty(rows, dtype=np.uint8)
        function = self.stan_model.stanlib.bs_log_density_gradient
        if self.library is not None:
            self.library.stanflow_log_density_gradient(
                _address(function), self.stan_model.model, True, True, rows, dim,
                z.ctypes.data, log_density.ctypes.data, gradient.ctypes.data, status.ctypes.data,
                self.threads,
            )  # fmt: skip
            return log_density, gradient, status
        call = _untyped(function, ctypes.c_bool, ctypes.c_bool, *[ctypes.c_void_p] * 4)
        for row in range(rows):
            code = call(
                self.stan_model.model, True, True, z[row].ctypes.data,
                log_density[row:].ctypes.data, gradient[row].ctypes.data, None,
            )  # fmt: skip
            status[row] = _row_status(code, log_density[row], gradient[row])
        log_density[status == THREW] = np.nan
        gradient[status == THREW] = np.nan
        return log_density, gradient, status

    def log_density(self, z: FloatArray) -> FloatArray:
        """Evaluate the log density as `log_density_gradient` does, without the gradient.

        Parameters
        ----------
        z : array of shape (B, D), C-contiguous

        Returns
        -------
        array of shape (B,)
            NaN where the row threw.
        """
        rows, dim = z.shape
        log_density = np.empty(rows)
        function = self.stan_model.stanlib.bs_log_density
        if self.library is not None:
            self.library.stanflow_log_density(
                _address(function), self.stan_model.model, True, True, rows, dim,
                z.ctypes.data, log_density.ctypes.data, self.threads,
            )  # fmt: skip
            return log_density
        call = _untyped(function, ctypes.c_bool, ctypes.c_bool, *[ctypes.c_void_p] * 3)
        for row in range(rows):
            code = call(
                self.stan_model.model, True, True, z[row].ctypes.data,
                log_density[row:].ctypes.data, None,
            )  # fmt: skip
            if code != 0:
                log_density[row] = np.nan
        return log_density

    def constrain(
        self, z: FloatArray, seeds: SeedArray, *, include_tp: bool, include_gq: bool
    ) -> tuple[FloatArray, StatusArray]:
        """Evaluate constrained parameters, transformed parameters and generated quantities.

        Parameters
        ----------
        z : array of shape (B, D), C-contiguous
        seeds : array of shape (B,)
            One generator a row, so that no result depends on the number of threads.
        include_tp, include_gq : bool
            Include transformed parameters and generated quantities.

        Returns
        -------
        values : array of shape (B, n)
            In the order of ``param_names``; NaN where the row threw.
        status : array of shape (B,)
            OK or THREW.
        """
        rows, dim = z.shape
        model = self.stan_model
        n_values = model.param_num(include_tp=include_tp, include_gq=include_gq)
        values = np.empty((rows, n_values))
        status = np.empty(rows, dtype=np.uint8)
        if self.library is not None:
            self.library.stanflow_constrain(
                _address(model.stanlib.bs_param_constrain),
                _address(model.stanlib.bs_rng_construct),
                _address(model.stanlib.bs_rng_destruct),
                model.model, include_tp, include_gq, rows, dim, n_values,
                z.ctypes.data, seeds.ctypes.data, values.ctypes.data, status.ctypes.data,
                self.threads,
            )  # fmt: skip
            return values, status
        for row in range(rows):
            rng = model.new_rng(int(seeds[row])) if include_gq else None
            try:
                model.param_constrain(
                    z[row], include_tp=include_tp, include_gq=include_gq, rng=rng, out=values[row]
                )
                status[row] = OK
            except RuntimeError:
                values[row] = np.nan
                status[row] = THREW
        return values, status


def _address(function: Any) -> int | None:
    return ctypes.cast(function, ctypes.c_void_p).value


def _untyped(function: Any, *argument_types: Any) -> Callable[..., int]:
    """Return the function taking addresses as numbers: five times quicker than checked arrays."""
    prototype = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, *argument_types)
    return prototype(_address(function) or 0)


def _row_status(code: int, log_density: float, gradient: FloatArray) -> int:
    if code != 0:
        return THREW
    if not np.isfinite(log_density):
        return DENSITY_NOT_FINITE
    return OK if np.isfinite(gradient).all() else GRADIENT_NOT_FINITE
