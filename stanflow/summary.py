"""A fit's summary, as text for people and as a table for programs."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd

from stanflow.target.loaded import FloatArray

_ROWS_SHOWN = 40
_QUANTILES = {"5%": 0.05, "50%": 0.5, "95%": 0.95}


def summarize(
    columns: list[str], values: FloatArray, weights: FloatArray | None = None
) -> pd.DataFrame:
    """Return mean, sd, and 5 %, 50 %, 95 % quantiles of each scalar, of the draws that have it.

    Parameters
    ----------
    columns : list of str
        Names.
    values : array of shape (S, n)
        Draws.
    weights : array of shape (S,), optional
        Their importance weights.
    """
    if weights is not None:
        return _weighted(columns, values, weights)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of columns that are NaN throughout
        quantiles = np.nanquantile(values, list(_QUANTILES.values()), axis=0)
        means, deviations = np.nanmean(values, axis=0), np.nanstd(values, axis=0, ddof=1)
    return pd.DataFrame(
        {"Mean": means, "StdDev": deviations, **dict(zip(_QUANTILES, quantiles, strict=True))},
        index=pd.Index(columns, name="name"),
    )


def _weighted(columns: list[str], values: FloatArray, weights: FloatArray) -> pd.DataFrame:
    rows = []
    for column in values.T:
        there = np.isfinite(column)
        if not there.any():
            rows.append([np.nan] * (2 + len(_QUANTILES)))
            continue
        x, w = column[there], weights[there] / weights[there].sum()
        mean = w @ x
        # The reliability weights' unbiased form; it is ddof=1 where all weights are equal.
        deviation = np.sqrt(w @ (x - mean) ** 2 / max(1 - (w**2).sum(), np.finfo(float).tiny))
        quantiles = np.quantile(x, list(_QUANTILES.values()), weights=w, method="inverted_cdf")
        rows.append([mean, deviation, *quantiles])
    return pd.DataFrame(
        rows, columns=["Mean", "StdDev", *_QUANTILES], index=pd.Index(columns, name="name")
    )


@dataclass(frozen=True)
class FitSummary:
    """A summary that prints itself; `table` is the pandas DataFrame behind it.

    Attributes
    ----------
    heading : str
        What was fitted, and how.
    table : pandas.DataFrame
        Indexed by the scalars' names.
    findings : tuple of str
        Lines under the table: the ELBO, rejected draws, and what else must be known.
    """

    heading: str
    table: pd.DataFrame
    findings: tuple[str, ...]

    def __str__(self) -> str:
        shown = self.table.head(_ROWS_SHOWN)
        formatters = dict.fromkeys(self.table.columns, number)
        body = shown.to_string(index_names=False, formatters=formatters)
        hidden = len(self.table) - len(shown)
        lines = [self.heading, "", body]
        if hidden > 0:
            lines.append(f"... and {hidden} more, in the table of fit.summary()")
        return "\n".join([*lines, "", *self.findings])

    __repr__ = __str__


def number(x: float) -> str:
    """Return a number with four significant digits or three decimals, as is shorter to read.

    Examples
    --------
    >>> number(0.25), number(12345.6), number(1e-7)
    ('0.250', '12345.6', '1e-07')
    """
    if not np.isfinite(x) or x == 0 or 1e-3 <= abs(x) < 1e5:
        return f"{x:.3f}" if abs(x) < 1000 else f"{x:.1f}"
    return f"{x:.3g}"
