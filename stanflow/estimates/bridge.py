"""The evidence by bridge sampling between draws of the flow and of the posterior."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from stanflow.arrays import FloatArray
from stanflow.errors import NumericsError
from stanflow.statistics.importance_weights import log_sum_exp, pareto_smoothed
from stanflow.statistics.markov_chains import ess_mean

_MOST_ITERATIONS = 1000
_TOLERANCE = 1e-10


@dataclass(frozen=True)
class BridgeEstimate:
    """An estimate of the log evidence, without Stan's dropped constants.

    Attributes
    ----------
    value : float
        The estimate, in nats.
    se : float
        Its approximate standard error.
    converged : bool
        Whether the iteration came to rest.
    iterations : int
        How many there were.
    pareto_k : float
        Pareto k-hat of the terms of the two means, the larger: whether so many draws can tell the
        standard error (Micaletto and Vehtari 2025, arXiv 2508.14487).
    """

    value: float
    se: float
    converged: bool
    iterations: int
    pareto_k: float


def bridge_evidence(
    log_p_at_q: FloatArray,
    log_q_at_q: FloatArray,
    log_p_at_posterior: FloatArray,
    log_q_at_posterior: FloatArray,
) -> BridgeEstimate:
    """Estimate the evidence from both sides by the optimal bridge, iterated to its fixed point.

    With ``l = p / q``, n1 draws of the posterior and n2 of q, ``s_i = n_i / (n1 + n2)``,

        ``Z = mean_q[ l / (s1 l + s2 Z) ] / mean_p[ 1 / (s1 l + s2 Z) ]``

    (Meng and Wong 1996, "Simulating ratios of normalizing constants via a simple identity",
    Statistica Sinica 6; Gronau et al. 2017, arXiv 1703.05984). For n1 the effective sample size of
    the posterior draws is taken. The standard error is that of Fruehwirth-Schnatter (2004,
    Econometrics Journal 7), the posterior draws' part by their autocorrelation.

    Parameters
    ----------
    log_p_at_q, log_q_at_q : arrays of shape (n2,)
        Log densities of target and flow at independent draws of the flow; log p may be -infinity.
    log_p_at_posterior, log_q_at_posterior : arrays of shape (chains, draws)
        The same at draws of the posterior.

    Raises
    ------
    NumericsError
        A log density is NaN, or the two sets of draws do not overlap at all.

    Examples
    --------
    The flow N(0.5, 1), the target a standard normal without its constant: Z is sqrt(2 pi).

    >>> import numpy as np
    >>> rng = np.random.default_rng(1)
    >>> p = lambda z: -0.5 * z**2
    >>> q = lambda z: -0.5 * (z - 0.5) ** 2 - 0.5 * np.log(2 * np.pi)
    >>> x, y = rng.normal(0.5, 1, size=4000), rng.normal(size=(4, 1000))
    >>> estimate = bridge_evidence(p(x), q(x), p(y), q(y))
    >>> abs(estimate.value - 0.5 * np.log(2 * np.pi)) < 4 * estimate.se < 0.04
    True
    """
    at_q = np.asarray(log_p_at_q) - log_q_at_q
    at_p = np.asarray(log_p_at_posterior) - log_q_at_posterior
    if np.isnan(at_q).any() or not np.isfinite(at_p).all():
        raise NumericsError(
            "a log density is not finite at some of the draws, so they cannot be bridged"
        )
    n1, n2 = _effective_sample_size(at_p), len(at_q)
    log_s1, log_s2 = math.log(n1 / (n1 + n2)), math.log(n2 / (n1 + n2))
    median = float(np.median(at_p))
    at_q, at_p = at_q - median, at_p - median
    log_z, change, iterations = 0.0, math.inf, 0
    while change > _TOLERANCE and iterations < _MOST_ITERATIONS:
        numerator = at_q - np.logaddexp(log_s1 + at_q, log_s2 + log_z)
        denominator = -np.logaddexp(log_s1 + at_p, log_s2 + log_z)
        new = _log_mean(numerator) - _log_mean(denominator)
        if not math.isfinite(new):
            raise NumericsError(
                "the flow and the posterior draws do not overlap, so they cannot be bridged"
            )
        change, log_z, iterations = abs(new - log_z), new, iterations + 1
    f1 = np.exp(numerator - numerator.max())
    f2 = np.exp(denominator - denominator.max())
    relative_variance = _relative_variance(f1) / n2
    relative_variance += _relative_variance(f2) / _effective_sample_size(f2)
    return BridgeEstimate(
        log_z + median,
        math.sqrt(relative_variance),
        change <= _TOLERANCE,
        iterations,
        max(pareto_smoothed(terms.ravel())[1] for terms in (numerator, denominator)),
    )


def _log_mean(log_x: FloatArray) -> float:
    return log_sum_exp(log_x) - math.log(log_x.size)


def _relative_variance(x: FloatArray) -> float:
    return float(np.var(x, ddof=1) / np.mean(x) ** 2)


def _effective_sample_size(chains: FloatArray) -> float:
    if chains.shape[-1] < 4 or np.ptp(chains) == 0:
        return float(chains.size)
    ess = ess_mean(chains)
    return min(ess, float(chains.size)) if math.isfinite(ess) else float(chains.size)
