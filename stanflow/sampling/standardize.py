"""A target in units of its own scale, so that training sees numbers of order one.

Training runs in float32, which cannot tell 10,000 from 10,000.0005, and its steps suit parameters
of order one. So the flow is trained on u, where ``z = location + scale * u`` or, in correlated
units, ``z = location + scale * F u``, with all of these held in float64. Where the program has a
hierarchy that is taken apart, this is what is placed by it (see `NonCentering`). When training is
over the flow takes all of it up, in float64.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Self

import numpy as np
import torch
from typing_extensions import override

from stanflow.arrays import FloatArray
from stanflow.flow.affine import FixedAffine
from stanflow.flow.noncentering import NonCentering
from stanflow.flow.realnvp import Flow
from stanflow.sampling.noncentered import NoncenteredDensity
from stanflow.stan.density import CompiledDensity, Density, DensityBatch


class StandardizedTarget(Density):
    """The density of u where ``T(location + exp(log_scale) * F u)`` has the target's.

    Parameters
    ----------
    target : Density
        The density of z.
    location, log_scale : arrays of shape (D,)
        In float64.
    factor : array of shape (D, D), optional
        F, lower-triangular; without it, the identity.
    noncentering : NonCentering, optional
        T, in float64; without it, the identity.

    Attributes
    ----------
    location, scale : arrays of shape (D,)
    factor : array of shape (D, D) or None
    log_det : float
        Log-determinant of ``exp(log_scale) * F``.
    """

    def __init__(
        self,
        target: Density,
        location: FloatArray,
        log_scale: FloatArray,
        factor: FloatArray | None = None,
        noncentering: NonCentering | None = None,
    ) -> None:
        apart = None if noncentering is None else NoncenteredDensity(target, noncentering)
        self._noncentered = apart
        self._target = target if apart is None else apart
        self.location = location
        self._log_scale = log_scale
        self.scale = np.exp(log_scale)
        self.factor = factor
        self.log_det = float(log_scale.sum())
        if factor is not None:
            self.log_det += float(np.log(np.diag(factor)).sum())

    @classmethod
    def of_flow(cls, flow: Flow, target: Density) -> tuple[Flow, Self]:
        """Return the flow of u and the target in its units, what training ran in.

        Parameters
        ----------
        flow : Flow
            In the target's units.
        target : Density
        """
        inner, location, log_scale, factor, noncentering = flow.without_units()
        return inner, cls(target, location, log_scale, factor, noncentering)

    @property
    @override
    def dim(self) -> int:
        return self._target.dim

    def compiled_without_units(self) -> CompiledDensity | None:
        """Return that of ``location + scale * F u``; the units are these attributes."""
        return self._target.compiled()

    @override
    def log_density_gradient(self, z: FloatArray) -> DensityBatch:
        factor = self.factor
        batch = self._target.log_density_gradient(self._scaled(z))
        gradient = batch.gradient * self.scale
        return DensityBatch(
            batch.log_density + self.log_det,
            gradient if factor is None else gradient @ factor,
            batch.accepted,
        )

    @override
    def log_density(self, z: FloatArray) -> FloatArray:
        return self._target.log_density(self._scaled(z)) + self.log_det

    def _scaled(self, u: FloatArray) -> FloatArray:
        scaled = u if self.factor is None else u @ self.factor.T
        return np.asarray(self.location + self.scale * scaled)

    def out_of_units(self, u: FloatArray) -> FloatArray:
        """Return the z of points u of shape (n, D)."""
        scaled = self._scaled(u)
        return scaled if self._noncentered is None else self._noncentered.carry(scaled)

    def in_units(self, z: FloatArray) -> FloatArray:
        """Return the u of points z of shape (n, D)."""
        apart = z if self._noncentered is None else self._noncentered.carry_back(z)
        scaled = (apart - self.location) / self.scale
        if self.factor is None:
            return scaled
        factor, right = torch.from_numpy(self.factor), torch.from_numpy(scaled.T)
        return np.asarray(torch.linalg.solve_triangular(factor, right, upper=False).numpy().T)

    @torch.no_grad()
    def restore_units(self, flow: Flow) -> None:
        """Turn a flow of u, in place, into the float64 flow of z on the CPU."""
        flow.release_gradient()
        flow.to(device="cpu", dtype=torch.float64)
        location, scale = torch.from_numpy(self.location), torch.from_numpy(self.scale)
        if self.factor is not None:
            factor = scale.unsqueeze(1) * torch.from_numpy(self.factor)
            flow.append(FixedAffine(location.clone(), factor))
        else:
            output = flow.output
            output.shift.mul_(scale).add_(location)
            output.log_scale.add_(torch.from_numpy(self._log_scale))
        if self._noncentered is not None:
            flow.append(deepcopy(self._noncentered.layer))
