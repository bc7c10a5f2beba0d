"""A density carried back through a flow, to where it is nearly the flow's base."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from typing_extensions import override

from stanflow.arrays import FloatArray
from stanflow.flow.realnvp import Flow
from stanflow.flow.sweep import Sweep
from stanflow.sampling.standardize import StandardizedTarget
from stanflow.stan.density import Density, DensityBatch

_MOST_AT_ONCE = 512
_NUMBERS_AT_ONCE = 1_000_000


class PulledBack(Density):
    """The density of base points e whose images ``z = T(e)`` have a target's density.

    Its log is ``log p(T(e)) + log|det dT/de|``: the base's where the flow is the target. The
    gradient goes through the flow's hand-derived passes, forward without a score and back without
    the networks' gradients, half the work of a training step. Base points, log densities and
    gradients are in float64; on the way points are rounded as `dtype` says, all but the units,
    as in training.

    Parameters
    ----------
    flow : Flow
        In float64 and in the target's units. It is copied.
    target : Density
        The density p.
    dtype : torch.dtype
        Of the passes.

    Examples
    --------
    >>> from stanflow.flow.config import FlowConfig
    >>> from stanflow.flow.realnvp import build_flow
    >>> class Normal(Density):
    ...     dim = 2
    ...
    ...     def log_density_gradient(self, z):
    ...         return DensityBatch(-0.5 * (z**2).sum(1), -z, np.ones(len(z), dtype=bool))
    >>> flow = build_flow(FlowConfig(layers=2, hidden=8), dim=2, seed=1).double()
    >>> PulledBack(flow, Normal()).log_density(np.array([[1.0, 2.0]])).round(3)  # the identity
    array([-2.5])
    """

    def __init__(self, flow: Flow, target: Density, dtype: torch.dtype = torch.float32) -> None:
        self._base = flow.base
        inner, self._target = StandardizedTarget.of_flow(flow, target)
        self._flow = inner.to(dtype)
        self._sweep: Sweep | None = None

    @property
    @override
    def dim(self) -> int:
        return self._flow.dim

    @override
    def log_density_gradient(self, z: FloatArray) -> DensityBatch:
        """Evaluate a batch.

        Parameters
        ----------
        z : array of shape (N, D)
            Base points.
        """
        log_density, accepted = np.empty(len(z)), np.empty(len(z), dtype=bool)
        gradient = np.empty_like(z)
        for part, sweep in self._pushed(z):
            there = self._target.log_density_gradient(_rows(sweep.z)[: len(z[part])])
            cotangent = torch.zeros_like(sweep.z)
            cotangent[:, : len(there.gradient)] = torch.from_numpy(there.gradient.T)
            weight = torch.full_like(sweep.log_q, -1.0)
            sweep.pull_to_base(cotangent, weight)
            gradient[part] = _rows(cotangent)[: len(there.gradient)]
            log_det = -sweep.log_q.numpy()[: len(there.gradient)]
            log_density[part] = there.log_density + log_det
            accepted[part] = there.accepted
        accepted &= np.isfinite(log_density) & np.isfinite(gradient).all(axis=1)
        return DensityBatch(log_density, gradient, accepted)

    @override
    def log_density(self, z: FloatArray) -> FloatArray:
        log_density = np.empty(len(z))
        for part, sweep in self._pushed(z):
            there = self._target.log_density(_rows(sweep.z)[: len(z[part])])
            log_density[part] = there - sweep.log_q.numpy()[: len(there)]
        return log_density

    @torch.no_grad()
    def log_weights(self, e: FloatArray, log_density: FloatArray) -> FloatArray:
        """Return ``log p - log q`` at the images of base points.

        Parameters
        ----------
        e : array of shape (N, D)
        log_density : array of shape (N,)
            This density there.
        """
        return np.asarray(log_density - self._base.log_prob(torch.from_numpy(e)).numpy())

    def _pushed(self, e: FloatArray) -> Iterator[tuple[slice, Sweep]]:
        """Take base points through the flow part by part; log q is that of a base of density 1."""
        most = max(1, min(_MOST_AT_ONCE, _NUMBERS_AT_ONCE // self.dim))
        at_once = math.ceil(len(e) / max(1, math.ceil(len(e) / most)))
        for first in range(0, len(e), at_once):
            part = slice(first, first + at_once)
            if self._sweep is None or self._sweep.batch != at_once:
                self._sweep = Sweep(self._flow, at_once, with_score=False, total=True)
            points = torch.zeros_like(self._sweep.z)
            points[:, : len(e[part])] = torch.from_numpy(e[part].T)
            self._sweep.carry(points, torch.zeros_like(self._sweep.log_q))
            yield part, self._sweep


def _rows(columns: torch.Tensor) -> FloatArray:
    rows: FloatArray = columns.T.contiguous().double().numpy()
    return rows


@torch.no_grad()
def images(flow: Flow, e: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the images of base points in float64, (N, D), and the flow's log density there, (N,).

    Parameters
    ----------
    flow : Flow
        In float64.
    e : array of shape (N, D)
    """
    z, log_q = np.empty_like(e), np.empty(len(e))
    sweep: Sweep | None = None
    for first in range(0, len(e), _MOST_AT_ONCE):
        part = torch.from_numpy(np.ascontiguousarray(e[first : first + _MOST_AT_ONCE]))
        if sweep is None or sweep.batch != len(part):
            sweep = Sweep(flow, len(part), memory="rebuild", with_score=False)
        sweep.carry(part.T, flow.base.log_prob(part))
        z[first : first + len(part)] = sweep.z.T.numpy()
        log_q[first : first + len(part)] = sweep.log_q.numpy()
    return z, log_q
