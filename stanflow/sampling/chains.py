"""Hamiltonian chains that move together, one batch of gradients a move.

They are not a sampler to report draws of, as NUTS is: they are a cheap look at where a posterior's
mass is, before there is a flow (`start`) and after (`estimates.probe`).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from stanflow.arrays import FloatArray
from stanflow.sampling.metric import Metric
from stanflow.sampling.trajectories import Phase, trajectories
from stanflow.stan.density import Density, DensityBatch

MOST_CLIMBS = 500
_TARGET_ACCEPTANCE = 0.8
_GROW, _SHRINK = 1.2, 0.5
_LOST, _LOST_A_DIMENSION = 100.0, 10.0  # nats


class Chains:
    """C chains at points of a target.

    Parameters
    ----------
    target : Density
        The density.
    start : array of shape (C, D)
        Where they are.
    metric : Metric
        May be replaced while they run.
    rng : numpy.random.Generator
        Source of momenta, trajectory lengths and decisions.

    Attributes
    ----------
    z : array of shape (C, D)
        Where they are.
    there : DensityBatch
        The target there.
    """

    def __init__(
        self, target: Density, start: FloatArray, metric: Metric, rng: np.random.Generator
    ) -> None:
        self._target, self._rng = target, rng
        self.metric = metric
        self.z = start
        self.there = target.log_density_gradient(start)
        self._log_step = np.full(len(start), math.log(0.5 / start.shape[1] ** 0.25))
        self._since_adapted = 0

    def climb(self, level: float, first_step: float) -> None:
        """Climb by Rprop steps (see `warmstart`) until the log density reaches a level.

        Steps are in the metric's units, the first ones of a given size.
        """
        steps = np.full_like(self.z, first_step)
        signs = np.zeros_like(self.z)
        for _ in range(MOST_CLIMBS):
            below = ~(self.there.log_density >= level)
            if not below.any():
                return
            new_signs = np.sign(self.metric.pull_back(np.nan_to_num(self.there.gradient)))
            steps *= np.where(new_signs * signs < 0, _SHRINK, _GROW)
            signs = new_signs
            tried = self.z + self.metric.to_space(np.where(below[:, None], steps * signs, 0.0))
            there = self._evaluated(tried, below)
            steps[~there.accepted] *= _SHRINK**2
            self._move(tried, there, there.accepted & below)

    def lost(self, level: float) -> npt.NDArray[np.bool_]:
        """Return which chains are below a level by more than 100 nats and 10 a dimension, (C,).

        Mass where the density is that low would have to be ``exp(10)`` times as wide in every
        coordinate. Such chains tell of no mass but of a climb that failed.
        """
        lowest = level - _LOST - _LOST_A_DIMENSION * self.z.shape[1]
        return np.asarray(~(self.there.log_density >= lowest))

    def restart(self, chosen: npt.NDArray[np.bool_], points: FloatArray) -> None:
        """Put the chosen chains, (C,), at points of their own: rows of shape (C, D)."""
        if chosen.any():
            there = self._evaluated(points, chosen)
            self._move(points, there, there.accepted & chosen)

    def transition(self, leapfrog_steps: int) -> None:
        """Move each chain by a trajectory of its own step size, which adapts."""
        step = np.exp(self._log_step) * self._rng.uniform(0.8, 1.2)
        acceptance = self._trajectory(step, leapfrog_steps)
        self._log_step += (acceptance - _TARGET_ACCEPTANCE) / math.sqrt(1 + self._since_adapted)
        self._since_adapted += 1

    def adapt(self, metric: Metric) -> None:
        """Go on with another metric, and step sizes that adapt anew from their common one."""
        self.metric = metric
        self._log_step[:] = self._log_step.mean()
        self._since_adapted = 0

    def _trajectory(self, step: FloatArray, leapfrog_steps: int) -> FloatArray:
        momentum = self._rng.standard_normal(self.z.shape)
        before = self.there.log_density - 0.5 * (momentum**2).sum(axis=1)
        start = Phase(self.z, momentum, self.there)
        ends = trajectories(self._target, self.metric, start, step, leapfrog_steps)
        with np.errstate(all="ignore"):  # a trajectory that diverges is refused
            after = ends.there.log_density - 0.5 * (ends.momentum**2).sum(axis=1)
            log_ratio = np.where(ends.there.accepted, after - before, -np.inf)
            acceptance = np.exp(np.minimum(np.nan_to_num(log_ratio, nan=-np.inf), 0.0))
        self._move(ends.points, ends.there, self._rng.uniform(size=len(self.z)) < acceptance)
        return np.asarray(acceptance)

    def _evaluated(self, z: FloatArray, chosen: npt.NDArray[np.bool_]) -> DensityBatch:
        """Evaluate the target at the chosen chains' points only; the others' stays what it was."""
        log_density, gradient = self.there.log_density.copy(), self.there.gradient.copy()
        accepted = self.there.accepted.copy()
        there = self._target.log_density_gradient(np.ascontiguousarray(z[chosen]))
        log_density[chosen], gradient[chosen] = there.log_density, there.gradient
        accepted[chosen] = there.accepted
        return DensityBatch(log_density, gradient, accepted)

    def _move(self, z: FloatArray, there: DensityBatch, moved: npt.NDArray[np.bool_]) -> None:
        self.z = np.where(moved[:, None], z, self.z)
        self.there = DensityBatch(
            np.where(moved, there.log_density, self.there.log_density),
            np.where(moved[:, None], there.gradient, self.there.gradient),
            moved | self.there.accepted,
        )
