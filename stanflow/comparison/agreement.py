"""Whether two sides agree: what counts as a difference, and what as one that matters.

A difference counts only where it is larger than its Monte Carlo error would explain, over all
scalars together, and it matters only beyond a tolerance. Of each scalar:

- *agree*: no difference of location or spread counts, or it is at most 0.05 reference sds (means),
  at most 5 % (sds);
- *close*: differences that count are at most 0.1 reference sds and 10 %;
- *differ*: beyond that.

Where nothing differs but the draws are so few that even 0.25 sds would not have been seen of some
scalar, the verdict is *undecided* rather than *agree*.

Rank correlations of parameters are judged likewise, with tolerances of 0.05 and 0.1. The worst of
all is the verdict. Where nothing of this differs but the joint distributions do, by a permutation
test of the maximum mean discrepancy, the sides are close at best, and differ if the sliced
Wasserstein distance exceeds what draws of one distribution show by more than 0.1.

Each of the three kinds of test raises a false alarm about once in a thousand comparisons.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from stanflow.arrays import FloatArray
from stanflow.comparison.joint import MmdTest, SlicedWasserstein

Level = Literal["agree", "close", "differ"]
LEVELS: tuple[Level, ...] = ("agree", "close", "differ")
"""Of a scalar, from good to bad."""

FALSE_ALARMS = 0.001
TOLERANCE, CLOSE_TOLERANCE = 0.05, 0.1
"""Of differences of means in reference sds, of correlations, and relative ones of sds."""

_POOREST_RESOLUTION = 0.25
_REASONS_NAMED = 3


@dataclass(frozen=True)
class Resolution:
    """The smallest differences that would count, of the scalar that is known least.

    Attributes
    ----------
    location, spread : float
        In reference sds, and of the log of an sd; NaN where there is no error.
    scalar : str
        The scalar that `location` is of.
    """

    location: float
    spread: float
    scalar: str

    @property
    def suffices(self) -> bool:
        """Whether differences that matter would have been seen.

        Means and medians decide: where tails are heavy, the spread is never known well.
        """
        return self.location <= _POOREST_RESOLUTION


@dataclass(frozen=True)
class Agreement:
    """The verdict on two sides.

    Attributes
    ----------
    level : {"agree", "undecided", "close", "differ"}
    reasons : tuple of str
        What differs, the gravest first; empty where all agrees.
    """

    level: Level | Literal["undecided"]
    reasons: tuple[str, ...]


def threshold(tests: int) -> float:
    """Return the |z| that one of so many comparisons exceeds once in a thousand times.

    Bonferroni's, of the normal distribution.

    Examples
    --------
    >>> round(threshold(1), 2), round(threshold(20), 2)
    (3.29, 4.06)
    """
    return float(stats.norm.isf(FALSE_ALARMS / (2 * max(tests, 1))))


def resolution(table: pd.DataFrame, suffix: str = "") -> Resolution:
    """Return what differences a `metrics.difference_table` can show."""
    z = threshold(2 * len(table))
    location, spread = table[f"location_se{suffix}"], table[f"spread_se{suffix}"]
    scalar = "" if location.isna().all() else str(location.idxmax())
    return Resolution(z * float(location.max()), z * float(spread.max()), scalar)


def overall_level(table: pd.DataFrame, suffix: str = "") -> Level | Literal["undecided"]:
    """Return the verdict on all scalars of a `metrics.difference_table`."""
    worst = int(scalar_levels(table, suffix).max())
    return LEVELS[worst] if worst or resolution(table, suffix).suffices else "undecided"


def scalar_levels(table: pd.DataFrame, suffix: str = "") -> npt.NDArray[np.int_]:
    """Judge each row of a `metrics.difference_table`: positions in `LEVELS`."""
    z = threshold(2 * len(table))
    location = _levels(
        np.abs(table[f"location_error{suffix}"].to_numpy()),
        np.abs(table[f"location_z{suffix}"].to_numpy()) > z,
    )
    spread = _levels(
        np.expm1(np.abs(table[f"spread_error{suffix}"].to_numpy())),
        np.abs(table[f"spread_z{suffix}"].to_numpy()) > z,
    )
    return np.maximum(location, spread)


def judge(
    table: pd.DataFrame,
    pairs: pd.DataFrame,
    pair_count: int,
    *,
    sliced: SlicedWasserstein | None,
    mmd: MmdTest | None,
    alarms: Iterable[str] = (),
) -> Agreement:
    """Judge both sides as a whole.

    Parameters
    ----------
    table : pandas.DataFrame
        From `metrics.difference_table` with a column ``level``, worst first.
    pairs : pandas.DataFrame
        From `correlations.correlation_table`.
    pair_count : int
        Pairs that were looked at.
    sliced, mmd : optional
        Of the parameters' joint distribution.
    alarms : iterable of str
        Differences found elsewhere, each of them grave.
    """
    reasons = [(2, alarm) for alarm in alarms]
    reasons += _scalar_reasons(table)
    reasons += _pair_reasons(pairs, pair_count)
    if mmd is not None and sliced is not None and mmd.p_value <= FALSE_ALARMS:
        excess = sliced.value - sliced.null_mean
        level = 2 if excess > CLOSE_TOLERANCE else 1
        reasons.append(
            (
                level,
                "the joint distributions of the parameters differ "
                f"(MMD test, p = {mmd.p_value:.3f}; sliced Wasserstein distance "
                f"{sliced.value:.3f} sds, {sliced.null_mean:.3f} for draws of one distribution)",
            )
        )
    reasons.sort(key=lambda reason: -reason[0])
    seen = resolution(table)
    if not reasons and not seen.suffices:
        return Agreement("undecided", (_describe_resolution(seen),))
    worst = max((level for level, _ in reasons), default=0)
    return Agreement(LEVELS[worst], tuple(text for _, text in reasons))


def _describe_resolution(seen: Resolution) -> str:
    if not seen.scalar:
        return "no Monte Carlo error can be told from these draws"
    return (
        f"these draws would not show a location that is off by less than {seen.location:.2f} sds "
        f"({seen.scalar})"
    )


def _describe(name: str, row: pd.Series[Any], z: float) -> str:
    """Say in words how far one scalar is off, in location or spread, whichever is worse."""
    location, spread = float(row["location_error"]), float(row["spread_error"])
    heavy = row["judged_by"] == "quantiles"
    counts = abs(row["location_z"]) > z
    if counts and (abs(location) >= abs(spread) or not abs(row["spread_z"]) > z):
        what = "median" if heavy else "mean"
        direction = "above" if location > 0 else "below"
        return (
            f"the {what} of {name} is {abs(location):.2f} sds {direction} the reference's "
            f"(z = {row['location_z']:.1f})"
        )
    what = "90 % interval" if heavy else "sd"
    return (
        f"the {what} of {name} is {np.exp(spread):.2f} times the reference's "
        f"(z = {row['spread_z']:.1f})"
    )


def _levels(error: FloatArray, counts: npt.NDArray[np.bool_]) -> npt.NDArray[np.int_]:
    matters = (error > TOLERANCE).astype(int) + (error > CLOSE_TOLERANCE)
    return np.where(counts, matters, 0)


def _scalar_reasons(table: pd.DataFrame) -> list[tuple[int, str]]:
    reasons: list[tuple[int, str]] = []
    z = threshold(2 * len(table))
    for level in (2, 1):
        rows = table[table["level"] == LEVELS[level]]
        named = rows.head(_REASONS_NAMED)
        reasons += [(level, _describe(str(name), row, z)) for name, row in named.iterrows()]
        if len(rows) > len(named):
            more = len(rows) - len(named)
            scalars = "scalar is" if more == 1 else "scalars are"
            off = "off by more than the tolerances" if level == 2 else "slightly off"
            reasons.append((level, f"{more} more {scalars} {off}"))
    return reasons


def _pair_reasons(pairs: pd.DataFrame, pair_count: int) -> list[tuple[int, str]]:
    if pairs.empty:
        return []
    counts = np.abs(pairs["z"].to_numpy()) > threshold(pair_count)
    levels = _levels(np.abs(pairs["difference"].to_numpy()), counts)
    reasons = []
    for position in np.argsort(-levels, kind="stable")[:_REASONS_NAMED]:
        pair, level = pairs.iloc[position], int(levels[position])
        if level > 0:
            reasons.append(
                (
                    level,
                    f"the rank correlation of {pair['a']} and {pair['b']} is "
                    f"{pair['correlation']:.2f}, the reference's "
                    f"{pair['reference_correlation']:.2f} (z = {pair['z']:.1f})",
                )
            )
    return reasons
