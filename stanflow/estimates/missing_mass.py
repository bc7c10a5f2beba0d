"""How much of the posterior lies where the flow has practically no mass."""

from __future__ import annotations

import math

import numpy as np
import torch

from stanflow.arrays import FloatArray
from stanflow.flow.realnvp import Flow
from stanflow.stan.curvature import second_derivatives, symmetric
from stanflow.stan.density import Density
from stanflow.statistics.importance_weights import log_sum_exp

_IMPORTANCE_UP_TO = 400  # dimensions
_NEWTON_FROM = 20  # dimensions
_DRAWS_A_CHAIN = 400
_MOST_CHAINS = 8
_DEGREES_OF_FREEDOM = 5
_FLATTEST = 0.05  # curvature in units of a chain's own standard deviations
_DIFFERENCE = 0.01  # in the same units
LOG_WEIGHT_OF_MISSING = math.log(100)
_SLACK_A_DIMENSION = 0.01
_EFFECTIVE_SHARE = 0.5  # of a chain's recorded points


def log_missing_mass(
    flow: Flow,
    target: Density,
    points: FloatArray,
    log_p: FloatArray,
    log_evidence: float,
    *,
    rng: np.random.Generator,
) -> float:
    """Estimate the log of the mass where ``p / q`` is above 100 times the flow's evidence, over it.

    Up to 400 dimensions by importance sampling: draws come from Student-t distributions at the
    chains' means, shaped by the curvature of log p there, and are weighted by the balance heuristic
    (Veach and Guibas 1995). The estimate tells of the chains' surroundings only, so it is at most
    the share that is missing, up to its error.

    Above, where such draws miss, by entropy: a density that integrates to M has
    ``log M = E[log p] + H``, and no distribution of given variances has a higher entropy H than
    the independent Gaussian. So it is too high where coordinates are correlated; a hundredth of a
    nat a dimension is added for what the variances of short chains lack.

    Parameters
    ----------
    flow : Flow
        In float64.
    target : Density
        The density p.
    points, log_p : arrays of shape (n, C, D) and (n, C)
        What each of C chains has visited where the flow has practically no mass.
    log_evidence : float
        The flow's estimate, without Stan's dropped constants.
    rng : numpy.random.Generator
        Source of the draws.
    """
    if points.shape[-1] > _IMPORTANCE_UP_TO:
        return _log_mass_by_entropy(points, log_p) - log_evidence
    proposals = [
        _local_proposal(target, points[:, chain])
        for chain in range(min(points.shape[1], _MOST_CHAINS))
    ]
    z = np.concatenate([proposal.draw(rng) for proposal in proposals])
    log_density = target.log_density(z)
    log_mixture = np.logaddexp.reduce([proposal.log_density(z) for proposal in proposals])
    log_mixture -= math.log(len(proposals))
    log_weight = log_weights_at(flow, z, log_density) - log_evidence
    missing = np.isfinite(log_density) & ~(log_weight <= LOG_WEIGHT_OF_MISSING)
    if not missing.any():
        return -math.inf
    total = log_sum_exp((log_density - log_mixture)[missing])
    return total - math.log(len(z)) - log_evidence


def log_weights_at(flow: Flow, points: FloatArray, log_p: FloatArray) -> FloatArray:
    """Return ``log p - log q`` at points of shape (..., D), of the shape of their log_p."""
    with torch.no_grad():
        flat = torch.from_numpy(np.ascontiguousarray(points.reshape(-1, points.shape[-1])))
        return np.asarray(log_p - flow.log_prob(flat).numpy().reshape(log_p.shape))


class _LocalStudentT:
    """A multivariate Student-t: ``z = centre + shape @ t``."""

    def __init__(self, centre: FloatArray, shape: FloatArray) -> None:
        self._centre, self._shape = centre, shape
        self._inverse = np.linalg.inv(shape)

    def draw(self, rng: np.random.Generator) -> FloatArray:
        df = _DEGREES_OF_FREEDOM
        spread = np.sqrt(df / rng.chisquare(df, size=(_DRAWS_A_CHAIN, 1)))
        normal = rng.standard_normal((_DRAWS_A_CHAIN, len(self._centre)))
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


def _log_mass_by_entropy(points: FloatArray, log_p: FloatArray) -> float:
    visited = points.reshape(-1, points.shape[-1])
    n = max(_EFFECTIVE_SHARE * len(visited), 3)
    # A sample's log variance is too low on average; Wishart's expectation corrects it.
    half = (n - 1) / 2
    bias = float(torch.digamma(torch.tensor(half, dtype=torch.float64))) - math.log(half)
    variance = np.maximum(visited.var(axis=0, ddof=1), np.finfo(np.float64).tiny)
    entropy = 0.5 * (np.log(2 * np.pi * math.e * variance) - bias).sum()
    return float(log_p.mean() + entropy + _SLACK_A_DIMENSION * points.shape[-1])
