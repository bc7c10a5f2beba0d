"""Hamiltonian trajectories: compiled (trajectories.c) where the density is, in numpy otherwise."""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import numpy as np

from stanflow.arrays import FloatArray
from stanflow.kernels import library
from stanflow.sampling.metric import Metric
from stanflow.stan.density import CompiledDensity, Density, DensityBatch

_pointer, _integer = ctypes.c_void_p, ctypes.c_int64


class _Trajectories(ctypes.Structure):
    """``struct trajectories`` of trajectories.c, where each member is described."""

    _fields_ = (
        ("log_density_gradient", _pointer), ("model", _pointer), ("rows", _integer),
        ("dim", _integer), ("steps", _integer), ("threads", _integer), ("scale", _pointer),
        ("step", _pointer), ("z", _pointer), ("momentum", _pointer), ("gradient", _pointer),
        ("log_density", _pointer), ("accepted", _pointer), ("evaluated", _pointer),
    )  # fmt: skip


class Phase(NamedTuple):
    """Where trajectories start, or end.

    Attributes
    ----------
    points, momentum : arrays of shape (N, D)
    there : DensityBatch
        The density. At an end rows are accepted where all that was met on the way was finite.
    """

    points: FloatArray
    momentum: FloatArray
    there: DensityBatch


@np.errstate(all="ignore")  # what is not finite is not accepted
def trajectories(
    density: Density,
    metric: Metric,
    start: Phase,
    step: FloatArray,
    steps: int,
) -> Phase:
    """Follow Hamilton's equations by leapfrog steps.

    Parameters
    ----------
    density : Density
    metric : Metric
        The units, in which momenta have unit mass.
    start : Phase
        N points.
    step : array of shape (N,)
        Size of each one's steps.
    steps : int
        How many.

    Examples
    --------
    A quarter of a period takes a standard normal's momentum to its point.

    >>> from stanflow.stan.model import StanModel
    >>> model = StanModel(
    ...     stan_code="parameters { real x; } model { x ~ normal(0, 1); }", engine="embedded"
    ... )
    >>> points, momentum, step = np.array([[0.0]]), np.array([[2.0]]), np.array([np.pi / 200])
    >>> start = Phase(points, momentum, model.log_density_gradient(points))
    >>> trajectories(model, Metric.of_scale(np.ones(1)), start, step, 100).points.round(3)
    array([[2.]])
    """
    compiled = density.compiled()
    if compiled is not None and metric.factor is None and steps > 0:
        return _compiled(compiled, metric.scale, start, step, steps)
    points, momentum, there = start
    step = step[:, None]
    accepted = np.ones(len(points), dtype=bool)
    for _ in range(steps):
        momentum = momentum + 0.5 * step * metric.pull_back(there.gradient)
        points = points + metric.to_space(step * momentum)
        there = density.log_density_gradient(np.where(np.isfinite(points), points, start.points))
        accepted &= there.accepted & np.isfinite(points).all(axis=1)
        momentum = momentum + 0.5 * step * metric.pull_back(there.gradient)
    return Phase(points, momentum, DensityBatch(there.log_density, there.gradient, accepted))


def _compiled(
    density: CompiledDensity,
    scale: FloatArray,
    start: Phase,
    step: FloatArray,
    steps: int,
) -> Phase:
    at = (start.points, start.there.gradient, start.momentum)
    points, gradient, momentum = (np.array(x, dtype=np.float64, order="C") for x in at)
    rows, dim = points.shape
    scale, step = np.ascontiguousarray(scale), np.ascontiguousarray(step)
    log_density, accepted = np.empty(rows), np.empty(rows, dtype=np.bool_)
    evaluated = np.empty(rows, dtype=np.int64)
    arrays = (scale, step, points, momentum, gradient, log_density, accepted, evaluated)
    arguments = _Trajectories(
        density.log_density_gradient, density.model, rows, dim, steps, density.threads,
        *(x.ctypes.data for x in arrays),
    )  # fmt: skip
    loops = library.load()
    assert loops is not None
    loops.stanflow_trajectories.argtypes = [_pointer]
    loops.stanflow_trajectories.restype = None
    loops.stanflow_trajectories(ctypes.addressof(arguments))
    density.count_gradients(int(evaluated.sum()))
    return Phase(points, momentum, DensityBatch(log_density, gradient, accepted))
