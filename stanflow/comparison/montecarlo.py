"""Means, standard deviations and quantiles of draws, each with its Monte Carlo error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from stanflow.arrays import FloatArray
from stanflow.statistics.markov_chains import mcse_mean, mcse_quantile, mcse_sd
from stanflow.statistics.weighted_quantiles import weighted_quantiles

QUANTILES = (0.05, 0.5, 0.95)

_ONE_SIGMA = (0.1586553, 0.8413447)  # as ArviZ has them
_LARGEST_SHARE, _LARGEST_SHARE_OF_FEW = 0.1, 30.0


@dataclass(frozen=True)
class Estimates:
    """What draws say of n scalars.

    Attributes
    ----------
    mean, mean_se : arrays of shape (n,)
        With Monte Carlo standard error.
    sd, sd_se : arrays of shape (n,)
        Posterior standard deviation, with Monte Carlo standard error.
    quantiles, quantile_se : arrays of shape (3, n)
        At `QUANTILES`.
    ess, ess_sd : arrays of shape (n,)
        How many independent draws would give the mean, and the sd, as exactly.
    heavy : bool array of shape (n,)
        Where a single draw (a stretch of correlated draws) carries more than a tenth of the fourth
        moment, or 30 / `ess_sd` of it where that is more: there the error of the sd cannot be told
        from the draws, nor can the sd be where its moments do not exist. (The ratio of maximum to
        sum, Embrechts, Klueppelberg and Mikosch 1997, "Modelling extremal events", section 6.2.6.)
    """

    mean: FloatArray
    mean_se: FloatArray
    sd: FloatArray
    sd_se: FloatArray
    quantiles: FloatArray
    quantile_se: FloatArray
    ess: FloatArray
    ess_sd: FloatArray
    heavy: npt.NDArray[np.bool_]

    def only(self, kept: npt.NDArray[np.bool_]) -> Estimates:
        """Return the estimates of some of the scalars."""
        return Estimates(**{name: values[..., kept] for name, values in vars(self).items()})


def from_chains(values: FloatArray) -> Estimates:
    """Estimate from Markov chains, with the errors of `statistics.markov_chains`.

    Parameters
    ----------
    values : array of shape (chains, draws, n)
        Finite, at least 4 draws a chain, no column constant.

    Examples
    --------
    >>> import numpy as np
    >>> found = from_chains(np.random.default_rng(1).normal(size=(4, 1000, 1)))
    >>> bool(abs(found.mean[0]) < 4 * found.mean_se[0] < 0.1)
    True
    """
    n = values.shape[-1]
    mean_se, sd_se, heavy = np.empty(n), np.empty(n), np.empty(n, dtype=np.bool_)
    ess, ess_sd = np.empty(n), np.empty(n)
    quantiles, quantile_se = np.empty((3, n)), np.empty((3, n))
    with np.errstate(all="ignore"):  # chains that do not move, squares that overflow
        mean, sd = values.mean(axis=(0, 1)), values.std(axis=(0, 1), ddof=1)
        for j in range(n):
            x = np.ascontiguousarray(values[..., j])
            mean_se[j] = mcse_mean(x)
            sd_se[j] = mcse_sd(x)
            quantiles[:, j] = np.quantile(x, QUANTILES)
            quantile_se[:, j] = [mcse_quantile(x, p) for p in QUANTILES]
            square = (x - mean[j]) ** 2
            ess[j] = (sd[j] / mean_se[j]) ** 2
            ess_sd[j] = np.var(square) / (4 * sd[j] ** 2 * sd_se[j] ** 2)
            stretch = x.shape[1] if not ess_sd[j] > len(x) else round(x.size / ess_sd[j])
            starts = np.arange(0, x.shape[1], max(stretch, 1))
            fourth = np.add.reduceat(square**2, starts, axis=1)
            heavy[j] = _share_of_largest(fourth) > _largest_share(ess_sd[j])
    return Estimates(mean, mean_se, sd, sd_se, quantiles, quantile_se, ess, ess_sd, heavy)


def from_independent(values: FloatArray, weights: FloatArray | None = None) -> Estimates:
    """Estimate from independent draws, weighted or not, errors by the delta method.

    With weights w that add up to one (1/S where there are none), ``m = sum w x``,

        ``v = sum w (x - m)^2 / (1 - sum w^2)``,
        ``se(m)^2 = sum w^2 (x - m)^2 / (1 - sum w^2)``,
        ``se(sd)^2 = sum w^2 ((x - m)^2 - v)^2 / (4 v)``;

    the p-quantile q is worth ``p (1 - p) / sum w^2 (1[x <= q] - p)^2`` draws, and its error is half
    the width of the 68 % interval of the corresponding order statistics, as in ArviZ (Owen 2013,
    "Monte Carlo theory, methods and examples", chapter 9; Vehtari et al. 2021, arXiv 1903.08008).

    Parameters
    ----------
    values : array of shape (S, n)
        Finite, at least 2 draws.
    weights : array of shape (S,), optional
        Not negative; normalised here.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[0.0], [1.0], [5.0]])
    >>> from_independent(x, np.array([1.0, 1.0, 0.0])).mean
    array([0.5])
    """
    draws, n = values.shape
    w = np.full(draws, 1 / draws) if weights is None else weights / weights.sum()
    correction = 1 - (w**2).sum()
    mean, sd = w @ values, np.empty(n)
    mean_se, sd_se, heavy = np.empty(n), np.empty(n), np.empty(n, dtype=np.bool_)
    ess, ess_sd = np.empty(n), np.empty(n)
    quantiles, quantile_se = np.empty((3, n)), np.empty((3, n))
    with np.errstate(all="ignore"):  # weights that are all on one draw, squares that overflow
        for j in range(n):
            x = values[:, j]
            square = (x - mean[j]) ** 2
            variance = w @ square / correction
            terms = (w * (square - variance)) ** 2
            mean_variance = (w**2) @ square / correction
            mean_se[j], sd[j] = np.sqrt(mean_variance), np.sqrt(variance)
            sd_se[j] = np.sqrt(terms.sum() / (4 * variance))
            ess[j] = variance / mean_variance
            ess_sd[j] = w @ (square - variance) ** 2 / terms.sum()
            heavy[j] = _share_of_largest((w * square) ** 2) > _largest_share(ess_sd[j])
            quantiles[:, j], quantile_se[:, j] = _quantiles(x, w)
    return Estimates(mean, mean_se, sd, sd_se, quantiles, quantile_se, ess, ess_sd, heavy)


def _quantiles(x: FloatArray, w: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return quantiles and their errors, of shape (3,) each."""
    p = np.array(QUANTILES)
    quantiles = weighted_quantiles(x, w, p)
    square_of_those_below = (x <= quantiles[:, None]) @ w**2
    spread = (1 - 2 * p) * square_of_those_below + p**2 * (w @ w)
    worth = np.clip(p * (1 - p) / spread, 1.0, None)
    interval = stats.beta.ppf(np.array(_ONE_SIGMA)[:, None], worth * p + 1, worth * (1 - p) + 1)
    low, high = weighted_quantiles(x, w, interval)
    return quantiles, (high - low) / 2


def _largest_share(ess: float) -> float:
    """Return the share that one of so many draws may carry; of few normal draws it is large."""
    return max(_LARGEST_SHARE, _LARGEST_SHARE_OF_FEW / ess)


def _share_of_largest(x: FloatArray) -> float:
    return float(x.max() / x.sum())
