"""A summary of draws, as text for people and as a table for programs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from stanflow.arrays import FloatArray
from stanflow.statistics.weighted_quantiles import weighted_quantiles

if TYPE_CHECKING:
    import pandas as pd

_ROWS_SHOWN = 40
_QUANTILES = {"5%": 0.05, "50%": 0.5, "95%": 0.95}
_BETWEEN_COLUMNS = " "


def summarize(values: FloatArray, weights: FloatArray | None = None) -> dict[str, FloatArray]:
    """Return mean, sd, and 5 %, 50 %, 95 % quantiles of each scalar, of the draws that have it.

    Parameters
    ----------
    values : array of shape (S, n)
        Draws.
    weights : array of shape (S,), optional
        Their importance weights.

    Returns
    -------
    dict of str to array of shape (n,)
        ``Mean``, ``StdDev``, ``5%``, ``50%`` and ``95%``.
    """
    if weights is not None:
        return _weighted(values, weights)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of columns that are NaN throughout
        quantiles = np.nanquantile(values, list(_QUANTILES.values()), axis=0)
        means, deviations = np.nanmean(values, axis=0), np.nanstd(values, axis=0, ddof=1)
    return {"Mean": means, "StdDev": deviations, **dict(zip(_QUANTILES, quantiles, strict=True))}


def _weighted(values: FloatArray, weights: FloatArray) -> dict[str, FloatArray]:
    rows = np.full((values.shape[1], 2 + len(_QUANTILES)), np.nan)
    for row, column in zip(rows, values.T, strict=True):
        there = np.isfinite(column)
        if not there.any():
            continue
        x, w = column[there], weights[there] / weights[there].sum()
        mean = w @ x
        # The reliability weights' unbiased form; it is ddof=1 where all weights are equal.
        deviation = np.sqrt(w @ (x - mean) ** 2 / max(1 - (w**2).sum(), np.finfo(float).tiny))
        quantiles = weighted_quantiles(x, w, list(_QUANTILES.values()))
        row[:] = [mean, deviation, *quantiles]
    return dict(zip(["Mean", "StdDev", *_QUANTILES], rows.T, strict=True))


@dataclass(frozen=True)
class Summary:
    """A summary that prints itself.

    Attributes
    ----------
    heading : str
        What was run, and how.
    names : tuple of str
        The scalars.
    columns : mapping of str to array of shape (n,)
        What is said of them.
    findings : tuple of str
        Lines under the table: the ELBO, rejected draws, and what else must be known.
    """

    heading: str
    names: tuple[str, ...]
    columns: Mapping[str, FloatArray]
    findings: tuple[str, ...]

    @cached_property
    def table(self) -> pd.DataFrame:
        """The same as a table, indexed by the scalars' names."""
        import pandas as pd

        return pd.DataFrame(dict(self.columns), index=pd.Index(list(self.names), name="name"))

    def __str__(self) -> str:
        shown = self.names[:_ROWS_SHOWN]
        hidden = len(self.names) - len(shown)
        lines = [self.heading, "", *_aligned(shown, self.columns)]
        if hidden > 0:
            lines.append(f"... and {hidden} more, in the table of fit.summary()")
        return "\n".join([*lines, "", *self.findings])

    __repr__ = __str__


def _aligned(names: tuple[str, ...], columns: Mapping[str, FloatArray]) -> list[str]:
    """Return a heading and a line for each name, names to the left and numbers to the right."""
    texts = [
        [heading, *(number(float(value)) for value in values[: len(names)])]
        for heading, values in columns.items()
    ]
    width = max(map(len, names), default=0)
    padded = [[f"{name:<{width}}" for name in ("", *names)]]
    padded += [[text.rjust(max(map(len, column))) for text in column] for column in texts]
    return [_BETWEEN_COLUMNS.join(row) for row in zip(*padded, strict=True)]


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
