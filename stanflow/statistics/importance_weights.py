"""Importance weights as logarithms: normalised, and Pareto-smoothed."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from stanflow.arrays import FloatArray

_FEWEST_FOR_A_TAIL = 25
_FEWEST_TAIL_DRAWS = 5
_HIGHEST_WITHOUT_A_TAIL = 3.0  # times the mean weight
_LIGHTEST_CUTOFF = math.log(np.finfo(np.float64).tiny)


def log_sum_exp(x: FloatArray) -> float:
    """Return ``log sum exp(x)`` without overflow, the largest terms apart from the others.

    Examples
    --------
    >>> round(log_sum_exp(np.log([1.0, 2.0, 3.0])), 12) == round(math.log(6), 12)
    True
    >>> log_sum_exp(np.full(3, -np.inf))
    -inf
    """
    largest = float(np.max(x, initial=-math.inf))
    if not math.isfinite(largest):
        return float(np.sum(x)) if math.isnan(largest) else largest
    is_largest = x == largest
    count = int(is_largest.sum())
    rest = float(np.exp(np.where(is_largest, -math.inf, x - largest)).sum())
    return math.log1p(rest / count) + math.log(count) + largest


def normalized(log_weights: FloatArray) -> FloatArray:
    """Return log weights whose exponentials add up to one.

    Examples
    --------
    >>> import numpy as np
    >>> np.exp(normalized(np.zeros(4)))
    array([0.25, 0.25, 0.25, 0.25])
    """
    return np.asarray(log_weights - log_sum_exp(log_weights))


def effective_sample_size(log_weights: FloatArray) -> float:
    """Return ``1 / sum w^2`` of normalised log weights: the draws that theirs are worth."""
    return float(1 / np.exp(2 * log_weights).sum())


def pareto_smoothed(log_ratio: FloatArray) -> tuple[FloatArray, float]:
    """Return Pareto-smoothed log weights, normalised, and the shape k-hat of their upper tail.

    The largest ``min(S / 5, 3 sqrt(S))`` weights are replaced by the expected order statistics of a
    generalized Pareto distribution fitted to them (PSIS: Vehtari, Simpson, Gelman, Yao, Gabry 2024,
    "Pareto smoothed importance sampling", arXiv 1507.02646).

    Parameters
    ----------
    log_ratio : array of shape (S,)
        ``log p - log q`` of each draw.

    Returns
    -------
    log_weights : array of shape (S,)
    pareto_k : float
        Infinity where there are too few draws to tell, and 0 where no weight is more than 3 times
        their mean: there is no tail then that draws could rest on, and its shape may come out as
        anything.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> log_weights, pareto_k = pareto_smoothed(rng.exponential(0.5, size=10_000))
    >>> bool(abs(pareto_k - 0.5) < 0.1), round(float(np.exp(log_weights).sum()), 12)
    (True, 1.0)
    """
    log_weights = normalized(log_ratio)
    draws = len(log_ratio)
    if draws < _FEWEST_FOR_A_TAIL:
        return log_weights, math.inf
    if log_weights.max() <= math.log(_HIGHEST_WITHOUT_A_TAIL / draws):
        return log_weights, 0.0
    smoothed = log_ratio - np.max(log_ratio)
    order = np.argsort(smoothed)
    in_tail = math.ceil(min(draws / 5, 3 * math.sqrt(draws)))
    cutoff = max(float(smoothed[order[-in_tail - 1]]), _LIGHTEST_CUTOFF)
    tail = np.flatnonzero(smoothed > cutoff)
    if len(tail) < _FEWEST_TAIL_DRAWS:
        return log_weights, math.inf
    tail = tail[np.argsort(smoothed[tail])]
    pareto_k, scale = _fit_generalized_pareto(np.exp(smoothed[tail]) - math.exp(cutoff))
    if math.isfinite(pareto_k):
        probabilities = (np.arange(len(tail)) + 0.5) / len(tail)
        quantiles = _generalized_pareto_quantiles(probabilities, pareto_k, scale)
        smoothed[tail] = np.minimum(np.log(quantiles + math.exp(cutoff)), 0.0)
    return normalized(smoothed), pareto_k


@np.errstate(all="ignore")  # in sums of which the reciprocal is taken
def _fit_generalized_pareto(excesses: FloatArray) -> tuple[float, float]:
    """Return shape and scale for sorted excesses (Zhang and Stephens 2009, Technometrics 51).

    The shape is drawn to 0.5 as by ten more observations.
    """
    n = len(excesses)
    points = 30 + int(math.sqrt(n))
    b = 1 - np.sqrt(points / (np.arange(1, points + 1) - 0.5))
    b = b / (3 * excesses[int(n / 4 + 0.5) - 1]) + 1 / excesses[-1]
    k = np.log1p(-b[:, None] * excesses).mean(axis=1)
    log_likelihood = n * (np.log(-(b / k)) - k - 1)
    weights = 1 / np.exp(log_likelihood - log_likelihood[:, None]).sum(axis=1)
    counted = weights >= 10 * np.finfo(np.float64).eps
    weights, b = weights[counted], b[counted]
    mean_b = float(np.sum(b * (weights / weights.sum())))
    mean_k = float(np.log1p(-mean_b * excesses).mean())
    return (n * mean_k + 5) / (n + 10), -mean_k / mean_b


def _generalized_pareto_quantiles(
    probabilities: FloatArray, shape: float, scale: float
) -> npt.NDArray[np.float64]:
    log_survival = np.log1p(-probabilities)
    if abs(shape) < np.finfo(np.float64).eps:
        return np.asarray(-scale * log_survival)
    return np.asarray(scale * np.expm1(-shape * log_survival) / shape)


def pareto_k_error(pareto_k: float, draws: int) -> float:
    """Return the standard error of a k-hat: ``(1 + k) / sqrt(M)`` for M weights in the tail.

    It is the maximum likelihood estimator's (Smith 1987, "Estimating tails of probability
    distributions", Annals of Statistics 15); M is ``min(S / 5, 3 sqrt(S))`` (Vehtari et al. 2024).

    Examples
    --------
    >>> round(pareto_k_error(0.5, 4000), 2), round(pareto_k_error(0.5, 20_000), 2)
    (0.11, 0.07)
    """
    return (1 + pareto_k) / math.sqrt(min(draws / 5, 3 * math.sqrt(draws)))
