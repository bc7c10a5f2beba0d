"""Draws around places that chains have visited, to weigh what is there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stanflow.arrays import FloatArray
from stanflow.stan.curvature import second_derivatives, symmetric
from stanflow.stan.density import Density

_NEWTON_FROM = 20  # dimensions
_DEGREES_OF_FREEDOM = 5
_FLATTEST = 0.05  # curvature in units of the visited points' own standard deviations
_DIFFERENCE = 0.01  # in the same units


class LocalDraws(NamedTuple):
    """Draws from K proposals, an equal number of each.

    Attributes
    ----------
    z : array of shape (n, D)
    log_p : array of shape (n,)
        Log density of the target there.
    log_shares : array of shape (K, n)
        Log density of each proposal there, over K.
    """

    z: FloatArray
    log_p: FloatArray
    log_shares: FloatArray

    @property
    def log_ratio(self) -> FloatArray:
        """Log of target over proposals, all of them together, (n,): the balance heuristic."""
        return np.asarray(self.log_p - np.logaddexp.reduce(self.log_shares))


def draw_locally(
    target: Density, visited: Sequence[FloatArray], draws: int, rng: np.random.Generator
) -> LocalDraws:
    """Draw from Student-t distributions at the means of points, shaped by the curvature there.

    Parameters
    ----------
    target : Density
    visited : sequence of K arrays of shape (n, D)
        Points of each place.
    draws : int
        From each.
    rng : numpy.random.Generator
    """
    proposals = [_local_proposal(target, points) for points in visited]
    z = np.concatenate([proposal.draw(draws, rng) for proposal in proposals])
    log_shares = np.stack([proposal.log_density(z) for proposal in proposals])
    return LocalDraws(z, target.log_density(z), log_shares - math.log(len(proposals)))


class _LocalStudentT:
    """A multivariate Student-t: ``z = centre + shape @ t``."""

    def __init__(self, centre: FloatArray, shape: FloatArray) -> None:
        self._centre, self._shape = centre, shape
        self._inverse = np.linalg.inv(shape)

    def draw(self, n: int, rng: np.random.Generator) -> FloatArray:
        df = _DEGREES_OF_FREEDOM
        spread = np.sqrt(df / rng.chisquare(df, size=(n, 1)))
        normal = rng.standard_normal((n, len(self._centre)))
        return np.asarray(self._centre + spread * normal @ self._shape.T)

    def log_density(self, z: FloatArray) -> FloatArray:
        df, dim = _DEGREES_OF_FREEDOM, len(self._centre)
        squared = (((z - self._centre) @ self._inverse.T) ** 2).sum(axis=1)
        log_constant = math.lgamma((df + dim) / 2) - math.lgamma(df / 2)
        log_constant -= dim / 2 * math.log(df * math.pi) + np.linalg.slogdet(self._shape)[1]
        return np.asarray(log_constant - (df + dim) / 2 * np.log1p(squared / df))


def _local_proposal(target: Density, visited: FloatArray) -> _LocalStudentT:
    """Shape a proposal by the curvature of log p at the mean of a chain's points, (n, D)."""
    centre, dim = visited.mean(axis=0), visited.shape[1]
    scale = np.maximum(visited.std(axis=0), 1e-12 * (1 + np.abs(centre)))
    hessian = second_derivatives(target, centre, scale, _DIFFERENCE)
    curvatures, directions = np.linalg.eigh(-symmetric(hessian))
    shape = scale[:, None] * directions / np.sqrt(np.maximum(curvatures, _FLATTEST))
    if dim >= _NEWTON_FROM:
        centre = _newton_step(target, centre, shape)
    return _LocalStudentT(centre, shape)


def _newton_step(target: Density, centre: FloatArray, shape: FloatArray) -> FloatArray:
    """Step from the mean of a few draws, which in many dimensions is far out, towards the mode."""
    gradient = target.log_density_gradient(centre[None]).gradient[0]
    ends = np.stack([centre, centre + shape @ (shape.T @ np.nan_to_num(gradient))])
    log_density = target.log_density(ends)
    return np.asarray(ends[1] if log_density[1] > log_density[0] else centre)
