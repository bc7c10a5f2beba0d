"""Whether chains have converged, and what their draws are worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stanflow.arrays import FloatArray
from stanflow.statistics.markov_chains import bfmi, ess_bulk, ess_tail, mcse_mean, rhat

_DIAGNOSTICS: dict[str, Callable[[FloatArray], float]] = {
    "MCSE": mcse_mean,
    "ESS_bulk": ess_bulk,
    "ESS_tail": ess_tail,
    "R_hat": rhat,
}
_ROUNDING = 8 * np.finfo(np.float64).eps


@dataclass(frozen=True)
class Convergence:
    """Diagnostics of each scalar.

    Attributes
    ----------
    columns : mapping of str to array of shape (n,)
        MCSE (of the mean), ESS_bulk, ESS_tail and R_hat (rank-normalized, split; Vehtari et al.
        2021) of each scalar. NaN where they mean nothing: for a scalar that never changes, such
        as the fixed element of a Cholesky factor, or that is not finite in some draw; R_hat also
        with a single chain.
    constant, not_finite : int
        How many scalars these are.
    """

    columns: dict[str, FloatArray]
    constant: int
    not_finite: int

    @property
    def max_rhat(self) -> float | None:
        """The largest R-hat; None where there is none."""
        return _extreme(self.columns["R_hat"], np.max)

    @property
    def min_ess_bulk(self) -> float | None:
        """The smallest bulk effective sample size; None where there is none."""
        return _extreme(self.columns["ESS_bulk"], np.min)


def convergence(values: FloatArray) -> Convergence:
    """Diagnose each scalar.

    Parameters
    ----------
    values : array of shape (chains, draws, n)
        Draws.

    Examples
    --------
    >>> draws = np.random.default_rng(1).normal(size=(4, 500, 2))
    >>> draws[..., 1] = 1.0
    >>> found = convergence(draws)
    >>> bool(found.max_rhat < 1.02), found.constant
    (True, 1)
    """
    finite = np.asarray(np.isfinite(values).all(axis=(0, 1)))
    varies = np.zeros_like(finite)
    varies[finite] = _varies(values[..., finite])
    columns = {name: np.full(len(finite), np.nan) for name in _DIAGNOSTICS}
    with np.errstate(all="ignore"):  # of values whose squares overflow
        for j in np.flatnonzero(varies):
            for name, diagnose in _DIAGNOSTICS.items():
                columns[name][j] = diagnose(values[..., j])
    return Convergence(columns, int((finite & ~varies).sum()), int((~finite).sum()))


def min_bfmi(energy: FloatArray) -> float | None:
    """Return the smallest E-BFMI of the chains, whose energies have shape (chains, draws)."""
    if not np.isfinite(energy).all() or not (np.ptp(energy, axis=1) > 0).all():
        return None
    return _extreme(bfmi(energy), np.min)


def _varies(values: FloatArray) -> npt.NDArray[np.bool_]:
    """Whether each scalar varies by more than rounding."""
    low, high = values.min(axis=(0, 1)), values.max(axis=(0, 1))
    with np.errstate(over="ignore"):
        varies: npt.NDArray[np.bool_] = high - low > _ROUNDING * np.maximum(abs(low), abs(high))
    return varies


def _extreme(values: FloatArray, of: Callable[[FloatArray], float]) -> float | None:
    known = values[~np.isnan(values)]
    extreme = float(of(known)) if len(known) else np.nan
    return extreme if np.isfinite(extreme) else None
