"""How far two sets of draws are apart, scalar by scalar, in units of the reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from stanflow.arrays import FloatArray
from stanflow.comparison.montecarlo import QUANTILES, Estimates

_NORMAL_WIDTH = float(stats.norm.ppf(0.95) - stats.norm.ppf(0.05))  # in standard deviations
_LABELS = tuple(f"{p:.0%}" for p in QUANTILES)

WEIGHTED = "_weighted"


def difference_table(
    names: Sequence[str], first: Estimates, reference: Estimates, suffix: str = ""
) -> pd.DataFrame:
    """Return differences of the first side from the reference, one row a scalar.

    Each difference comes with its z-score: divided by the Monte Carlo error of both sides.

    Parameters
    ----------
    names : sequence of str
        The n scalars.
    first, reference : Estimates
        Of both sides.
    suffix : str
        Of the columns that say something of the first side.

    Returns
    -------
    pandas.DataFrame
        ``mean_error`` is the difference of means in reference sds; ``log_sd_ratio`` the log of the
        first side's sd over the reference's. Where the tails are heavy on either side
        (``judged_by`` is ``"quantiles"``), moments are no basis for a judgement: ``location_*`` and
        ``spread_*`` are then of the median, in units of the reference's 90 % interval scaled to a
        normal's sd, and of the width of that interval; elsewhere they are those of mean and sd.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_error = (first.mean - reference.mean) / reference.sd
        mean_se = np.hypot(first.mean_se, reference.mean_se) / reference.sd
        log_sd_ratio = np.log(first.sd / reference.sd)
        log_sd_se = np.hypot(first.sd_se / first.sd, reference.sd_se / reference.sd)
        median_error, median_se, log_width_ratio, log_width_se = _by_quantiles(first, reference)
        heavy = first.heavy | reference.heavy
        location, location_se = (
            np.where(heavy, by_quantiles, by_moments)
            for by_quantiles, by_moments in ((median_error, mean_error), (median_se, mean_se))
        )
        spread, spread_se = (
            np.where(heavy, by_quantiles, by_moments)
            for by_quantiles, by_moments in (
                (log_width_ratio, log_sd_ratio),
                (log_width_se, log_sd_se),
            )
        )
        mean_z, log_sd_z = mean_error / mean_se, log_sd_ratio / log_sd_se
        location_z, spread_z = location / location_se, spread / spread_se
    columns = {
        "mean": first.mean,
        "mean_se": first.mean_se,
        "mean_error": mean_error,
        "mean_z": mean_z,
        "sd": first.sd,
        "sd_se": first.sd_se,
        "log_sd_ratio": log_sd_ratio,
        "log_sd_z": log_sd_z,
        **_quantile_columns(first),
        "ess": first.ess,
        "judged_by": np.where(heavy, "quantiles", "moments"),
        "location_error": location,
        "location_se": location_se,
        "location_z": location_z,
        "spread_error": spread,
        "spread_se": spread_se,
        "spread_z": spread_z,
    }
    return pd.DataFrame(
        {f"{name}{suffix}": values for name, values in columns.items()},
        index=pd.Index(names, name="name"),
    )


def reference_table(names: Sequence[str], reference: Estimates) -> pd.DataFrame:
    """Return the reference's own estimates, one row a scalar, in columns ``reference_*``."""
    columns = {
        "mean": reference.mean,
        "mean_se": reference.mean_se,
        "sd": reference.sd,
        "sd_se": reference.sd_se,
        **_quantile_columns(reference),
        "ess": reference.ess,
    }
    return pd.DataFrame(
        {f"reference_{name}": values for name, values in columns.items()},
        index=pd.Index(names, name="name"),
    )


def marginal_wasserstein(
    first: FloatArray,
    reference: FloatArray,
    reference_sd: FloatArray,
    weights: FloatArray | None = None,
) -> FloatArray:
    """Return each scalar's Wasserstein-1 distance in reference sds, of shape (n,).

    The distance is the area between the two distribution functions. It is not zero for two sets of
    draws of the same distribution, but of the order of ``1 / sqrt(draws)``.

    Parameters
    ----------
    first, reference : arrays of shape (S, n) and (R, n)
        Draws.
    reference_sd : array of shape (n,)
        What to measure in.
    weights : array of shape (S,), optional
        Of the first side's draws.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.linspace(0, 1, 11)[:, None]
    >>> marginal_wasserstein(x + 0.25, x, np.array([0.5]))
    array([0.5])
    """
    return np.array(
        [
            stats.wasserstein_distance(first[:, j], reference[:, j], u_weights=weights) / sd
            for j, sd in enumerate(reference_sd)
        ]
    )


def _by_quantiles(
    first: Estimates, reference: Estimates
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return differences of location and log spread, each followed by its Monte Carlo error."""
    low, middle, high = range(3)
    width = first.quantiles[high] - first.quantiles[low]
    reference_width = reference.quantiles[high] - reference.quantiles[low]
    shift = first.quantiles[middle] - reference.quantiles[middle]
    shift_se = np.hypot(first.quantile_se[middle], reference.quantile_se[middle])
    # The two ends of an interval hardly vary together, so their errors add in quadrature.
    width_se = np.hypot(first.quantile_se[low], first.quantile_se[high]) / width
    reference_se = np.hypot(reference.quantile_se[low], reference.quantile_se[high])
    return (
        shift * _NORMAL_WIDTH / reference_width,
        shift_se * _NORMAL_WIDTH / reference_width,
        np.log(width / reference_width),
        np.hypot(width_se, reference_se / reference_width),
    )


def _quantile_columns(estimates: Estimates) -> dict[str, FloatArray]:
    values = dict(zip(_LABELS, estimates.quantiles, strict=True))
    errors = {f"{label}_se": se for label, se in zip(_LABELS, estimates.quantile_se, strict=True)}
    return values | errors
