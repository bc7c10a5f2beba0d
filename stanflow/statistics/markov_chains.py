"""What the draws of Markov chains are worth, and whether the chains have come together.

After Vehtari, Gelman, Simpson, Carpenter, Buerkner 2021, "Rank-normalization, folding, and
localization: an improved R-hat for assessing convergence of MCMC", Bayesian Analysis 16 (arXiv
1903.08008), for one scalar: draws have the shape (chains, draws). Results are NaN where a draw is
not finite, or for fewer than four draws a chain.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from stanflow.arrays import FloatArray
from stanflow.statistics.ranks import normal_scores

FEWEST_DRAWS = 4
_RANK_OFFSET = 3 / 8  # Blom (1958)
_TAILS = (0.05, 0.95)
_WITHIN_ONE_SD = (0.1586553, 0.8413447)


def rhat(draws: FloatArray) -> float:
    """Return R-hat: the larger one of bulk and tails, rank-normalised, of split chains.

    Examples
    --------
    >>> draws = np.random.default_rng(1).normal(size=(4, 500))
    >>> rhat(draws) < 1.01, rhat(draws + np.arange(4)[:, None]) > 1.5
    (True, True)
    """
    if len(draws) < 2 or not _are_usable(draws):
        return math.nan
    halves = _split(draws)
    folded = np.abs(halves - np.median(halves))
    return max(_rhat(rank_normalized(halves)), _rhat(rank_normalized(folded)))


def ess_bulk(draws: FloatArray) -> float:
    """Return the effective sample size of the rank-normalised draws of split chains.

    Examples
    --------
    >>> bool(1500 < ess_bulk(np.random.default_rng(1).normal(size=(4, 500))) < 2500)
    True
    """
    return _ess(rank_normalized(_split(draws))) if _are_usable(draws) else math.nan


def ess_tail(draws: FloatArray) -> float:
    """Return the smaller one of the effective sample sizes of the 5 % and 95 % quantiles."""
    return min(ess_quantile(draws, probability) for probability in _TAILS)


def ess_mean(draws: FloatArray) -> float:
    """Return the effective sample size of the mean."""
    return _ess(_split(draws)) if _are_usable(draws) else math.nan


def ess_quantile(draws: FloatArray, probability: float) -> float:
    """Return the effective sample size of a quantile."""
    if not _are_usable(draws):
        return math.nan
    return _ess(_split((draws <= np.quantile(draws, probability)).astype(np.float64)))


def mcse_mean(draws: FloatArray) -> float:
    """Return the Monte Carlo standard error of the mean.

    Examples
    --------
    >>> draws = np.random.default_rng(1).normal(size=(4, 500))
    >>> bool(abs(mcse_mean(draws) * np.sqrt(2000) - 1) < 0.2)
    True
    """
    return float(np.std(draws, ddof=1) / np.sqrt(ess_mean(draws)))


def mcse_sd(draws: FloatArray) -> float:
    """Return the Monte Carlo standard error of the standard deviation."""
    squares = (draws - draws.mean()) ** 2
    variance = squares.mean()
    variance_of_variance = ((squares**2).mean() - variance**2) / ess_mean(squares)
    return float(np.sqrt(variance_of_variance / variance / 4))


def mcse_quantile(draws: FloatArray, probability: float) -> float:
    """Return the Monte Carlo standard error of a quantile, by those of its order statistics."""
    from scipy.special import betaincinv

    ess = ess_quantile(draws, probability)
    if not math.isfinite(ess):
        return math.nan
    ordered = np.sort(draws, axis=None)
    low, high = betaincinv(
        ess * probability + 1, ess * (1 - probability) + 1, np.array(_WITHIN_ONE_SD)
    )
    first = math.floor(max(low * ordered.size - 1, 0))
    last = math.ceil(min(high * ordered.size - 1, ordered.size - 1))
    return float(ordered[last] - ordered[first]) / 2


def bfmi(energy: FloatArray) -> FloatArray:
    """Return each chain's estimated Bayesian fraction of missing information, (chains,).

    Betancourt 2016, "Diagnosing suboptimal cotangent disintegrations in Hamiltonian Monte Carlo",
    arXiv 1604.00695; energies have the shape (chains, draws).
    """
    return np.asarray((np.diff(energy, axis=1) ** 2).mean(axis=1) / np.var(energy, axis=1, ddof=1))


def _are_usable(draws: FloatArray) -> bool:
    return draws.shape[1] >= FEWEST_DRAWS and bool(np.isfinite(draws).all())


def _split(draws: FloatArray) -> FloatArray:
    half = draws.shape[1] // 2
    return np.concatenate([draws[:, :half], draws[:, -half:]])


def rank_normalized(draws: FloatArray) -> FloatArray:
    """Return the normal scores of all draws' ranks, of the draws' shape."""
    return normal_scores(draws.ravel(), _RANK_OFFSET).reshape(draws.shape)


def _rhat(chains: FloatArray) -> float:
    draws = chains.shape[1]
    between = draws * np.var(chains.mean(axis=1), ddof=1)
    within = np.var(chains, axis=1, ddof=1).mean()
    return float(np.sqrt((between / within + draws - 1) / draws))


def _ess(chains: FloatArray) -> float:
    """Return the effective sample size by Geyer's initial monotone sequence of pairs of lags."""
    if np.ptp(chains) < np.finfo(np.float64).resolution:
        return float(chains.size)
    correlation = _autocorrelation(chains)
    pairs = correlation[: len(correlation) // 2 * 2].reshape(-1, 2).sum(axis=1)
    last = min(_first(pairs <= 0), max((len(correlation) - 3) // 2, 0))
    even = correlation[2 * last]
    beyond = even if even > 0 or pairs[last] >= 0 else 0.0
    tau = -1 + 2 * float(np.minimum.accumulate(pairs[:last]).sum()) + beyond
    if math.isnan(tau):
        return math.nan
    return float(chains.size / max(tau, 1 / math.log10(chains.size)))


def _first(which: npt.NDArray[np.bool_]) -> int:
    return int(np.argmax(which)) if which.any() else len(which)


def _autocorrelation(chains: FloatArray) -> FloatArray:
    """Return the chains' common autocorrelation at each lag, (draws,)."""
    draws = chains.shape[1]
    covariance = _autocovariance(chains).mean(axis=0)
    within = covariance[0] * draws / (draws - 1)
    total = covariance[0] + (np.var(chains.mean(axis=1), ddof=1) if len(chains) > 1 else 0.0)
    correlation = 1 - (within - covariance) / total
    correlation[0] = 1
    return np.asarray(correlation)


def _autocovariance(chains: FloatArray) -> FloatArray:
    draws = chains.shape[1]
    padded = 2 ** math.ceil(math.log2(2 * draws))
    spectrum = np.fft.rfft(chains - chains.mean(axis=1, keepdims=True), n=padded, axis=1)
    power = spectrum * np.conjugate(spectrum)
    return np.asarray(np.fft.irfft(power, n=padded, axis=1)[:, :draws] / draws)
