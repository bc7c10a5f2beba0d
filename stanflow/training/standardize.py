"""A target in units of its own scale, so that training sees numbers of order one.

Training runs in float32, which cannot tell 10,000 from 10,000.0005, and its steps suit parameters
of order one. So the flow is trained on ``u = (z - location) / scale`` with location and scale held
in float64, and its output layer takes them up, in float64, when training is over.
"""

from __future__ import annotations

import numpy as np
import torch
from typing_extensions import override

from stanflow.flow.realnvp import Flow
from stanflow.target.density import DensityBatch, NormalizingConstant, Target
from stanflow.target.loaded import FloatArray


class StandardizedTarget(Target):
    """The density of u where z = location + exp(log_scale) * u has the target's.

    Parameters
    ----------
    target : Target
        The density of z.
    location, log_scale : arrays of shape (D,)
        In float64.
    """

    def __init__(self, target: Target, location: FloatArray, log_scale: FloatArray) -> None:
        self._target = target
        self._location = location
        self._log_scale = log_scale
        self._scale = np.exp(log_scale)

    @property
    @override
    def dim(self) -> int:
        return self._target.dim

    @property
    @override
    def normalizing_constant(self) -> NormalizingConstant:
        return self._target.normalizing_constant

    @override
    def log_density_gradient(self, z: FloatArray) -> DensityBatch:
        batch = self._target.log_density_gradient(self._location + self._scale * z)
        return DensityBatch(
            batch.log_density + self._log_scale.sum(), batch.gradient * self._scale, batch.accepted
        )

    @override
    def starting_points(self, n: int, rng: np.random.Generator) -> FloatArray:
        return self.in_units(self._target.starting_points(n, rng))

    def in_units(self, z: FloatArray) -> FloatArray:
        """Return the u of points z of shape (n, D)."""
        return (z - self._location) / self._scale

    @torch.no_grad()
    def restore_units(self, flow: Flow) -> None:
        """Turn a flow of u, in place, into the float64 flow of z on the CPU."""
        flow.release_gradient()
        flow.to(device="cpu", dtype=torch.float64)
        output = flow.output
        output.shift.mul_(torch.from_numpy(self._scale)).add_(torch.from_numpy(self._location))
        output.log_scale.add_(torch.from_numpy(self._log_scale))
