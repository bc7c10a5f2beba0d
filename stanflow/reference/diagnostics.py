"""Whether chains have converged, and what their draws are worth: by ArviZ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from stanflow.target.loaded import FloatArray

_DIAGNOSTICS = ("MCSE", "ESS_bulk", "ESS_tail", "R_hat")
_ROUNDING = 8 * np.finfo(np.float64).eps
_FEWEST_DRAWS = 4  # that ArviZ takes


@dataclass(frozen=True)
class Convergence:
    """Diagnostics of each scalar.

    Attributes
    ----------
    table : pandas.DataFrame
        MCSE (of the mean), ESS_bulk, ESS_tail and R_hat (rank-normalized, split; Vehtari et al.
        2021), one row a scalar. NaN where they mean nothing: for a scalar that never changes, such
        as the fixed element of a Cholesky factor, or that is not finite in some draw; R_hat also
        with a single chain.
    constant, not_finite : int
        How many scalars these are.
    """

    table: pd.DataFrame
    constant: int
    not_finite: int

    @property
    def max_rhat(self) -> float | None:
        """The largest R-hat; None where there is none."""
        return _extreme(self.table["R_hat"].max())

    @property
    def min_ess_bulk(self) -> float | None:
        """The smallest bulk effective sample size; None where there is none."""
        return _extreme(self.table["ESS_bulk"].min())


def convergence(columns: list[str], values: FloatArray) -> Convergence:
    """Diagnose each scalar.

    Parameters
    ----------
    columns : list of str
        Names.
    values : array of shape (chains, draws, n)
        Draws.

    Examples
    --------
    >>> draws = np.random.default_rng(1).normal(size=(4, 500, 2))
    >>> draws[..., 1] = 1.0
    >>> found = convergence(["x", "one"], draws)
    >>> bool(found.max_rhat < 1.02), found.constant
    (True, 1)
    """
    import xarray as xr

    az = _arviz()

    finite = np.isfinite(values).all(axis=(0, 1))
    varies = np.zeros_like(finite)
    varies[finite] = _varies(values[..., finite])
    found = {name: np.full(len(columns), np.nan) for name in _DIAGNOSTICS}
    chains, draws, _ = values.shape
    if varies.any() and draws >= _FEWEST_DRAWS:
        some = xr.Dataset({"x": (("chain", "draw", "column"), values[..., varies])})
        with np.errstate(all="ignore"):  # of values whose squares overflow
            found["MCSE"][varies] = az.mcse(some, method="mean").x.values
            found["ESS_bulk"][varies] = az.ess(some, method="bulk").x.values
            found["ESS_tail"][varies] = az.ess(some, method="tail").x.values
            if chains > 1:
                found["R_hat"][varies] = az.rhat(some).x.values
    table = pd.DataFrame(found, index=pd.Index(columns, name="name"))
    return Convergence(table, int((finite & ~varies).sum()), int((~finite).sum()))


def min_bfmi(energy: FloatArray) -> float | None:
    """Return the smallest E-BFMI of the chains, whose energies have shape (chains, draws)."""
    if not np.isfinite(energy).all() or not (np.ptp(energy, axis=1) > 0).all():
        return None
    return _extreme(float(np.min(_arviz().bfmi(energy))))


def _varies(values: FloatArray) -> npt.NDArray[np.bool_]:
    """Whether each scalar varies by more than rounding."""
    low, high = values.min(axis=(0, 1)), values.max(axis=(0, 1))
    with np.errstate(over="ignore"):
        varies: npt.NDArray[np.bool_] = high - low > _ROUNDING * np.maximum(abs(low), abs(high))
    return varies


def _arviz() -> Any:
    """ArviZ, without types."""
    from stanflow.quiet_arviz import arviz

    return arviz


def _extreme(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
