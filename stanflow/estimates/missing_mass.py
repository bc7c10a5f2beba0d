"""How much of the posterior lies where the flow has practically no mass."""

from __future__ import annotations

import math

import numpy as np
import torch

from stanflow.arrays import FloatArray
from stanflow.estimates.local_draws import draw_locally
from stanflow.flow.realnvp import Flow
from stanflow.stan.density import Density
from stanflow.statistics.importance_weights import log_sum_exp

IMPORTANCE_UP_TO = 400  # dimensions
_DRAWS_A_CHAIN = 400
_MOST_CHAINS = 8
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
    if points.shape[-1] > IMPORTANCE_UP_TO:
        return _log_mass_by_entropy(points, log_p) - log_evidence
    chains = range(min(points.shape[1], _MOST_CHAINS))
    drawn = draw_locally(target, [points[:, chain] for chain in chains], _DRAWS_A_CHAIN, rng)
    log_weight = log_weights_at(flow, drawn.z, drawn.log_p) - log_evidence
    missing = np.isfinite(drawn.log_p) & ~(log_weight <= LOG_WEIGHT_OF_MISSING)
    if not missing.any():
        return -math.inf
    total = log_sum_exp(drawn.log_ratio[missing])
    return total - math.log(len(drawn.z)) - log_evidence


def log_weights_at(flow: Flow, points: FloatArray, log_p: FloatArray) -> FloatArray:
    """Return ``log p - log q`` at points of shape (..., D), of the shape of their log_p."""
    with torch.no_grad():
        flat = torch.from_numpy(np.ascontiguousarray(points.reshape(-1, points.shape[-1])))
        return np.asarray(log_p - flow.log_prob(flat).numpy().reshape(log_p.shape))


def _log_mass_by_entropy(points: FloatArray, log_p: FloatArray) -> float:
    visited = points.reshape(-1, points.shape[-1])
    n = max(_EFFECTIVE_SHARE * len(visited), 3)
    # A sample's log variance is too low on average; Wishart's expectation corrects it.
    half = (n - 1) / 2
    bias = float(torch.digamma(torch.tensor(half, dtype=torch.float64))) - math.log(half)
    variance = np.maximum(visited.var(axis=0, ddof=1), np.finfo(np.float64).tiny)
    entropy = 0.5 * (np.log(2 * np.pi * math.e * variance) - bias).sum()
    return float(log_p.mean() + entropy + _SLACK_A_DIMENSION * points.shape[-1])
