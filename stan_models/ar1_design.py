"""The design of the regressions whose data are simulated.

Covariates are standard normal with the correlations of an AR(1) process, rho ** abs(i - j); three
of them matter. This is example 1 of Tibshirani (1996), "Regression shrinkage and selection via the
lasso", *Journal of the Royal Statistical Society B* 58(1), at any number of covariates.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stanflow.errors import UsageError

FloatArray = npt.NDArray[np.float64]

NONZERO = {1: 3.0, 2: 1.5, 5: 2.0}  # position, counted from 1: coefficient
SIGMA = 3.0  # sd of the noise of linear regressions


def covariates(
    n: int, d: int, rho: float, rng: np.random.Generator, digits: int | None = None
) -> FloatArray:
    """Draw AR(1)-correlated standard normal covariates.

    Parameters
    ----------
    n, d : int
        Observations and covariates.
    rho : float
        Correlation of neighbouring covariates, in (-1, 1).
    rng : numpy.random.Generator
    digits : int, optional
        Round to so many decimals, for files that are read by people.

    Returns
    -------
    array of shape (n, d)

    Raises
    ------
    UsageError
        There is no such design.
    """
    if n < 1:
        raise UsageError(f"n must be at least 1, not {n}")
    if not -1 < rho < 1:
        raise UsageError(f"rho must be between -1 and 1, not {rho}")
    innovations = rng.standard_normal((n, d))
    X = np.empty((n, d))  # noqa: N806
    X[:, 0] = innovations[:, 0]
    for j in range(1, d):
        X[:, j] = rho * X[:, j - 1] + np.sqrt(1 - rho**2) * innovations[:, j]
    return X if digits is None else np.round(X, digits)


def coefficients(d: int) -> FloatArray:
    """Return the d coefficients: 3, 1.5 and 2 at positions 1, 2 and 5, the rest zero.

    Parameters
    ----------
    d : int

    Returns
    -------
    array of shape (d,)

    Raises
    ------
    UsageError
        There are fewer covariates than positions.
    """
    if d < max(NONZERO):
        raise UsageError(f"d must be at least {max(NONZERO)}, not {d}")
    beta = np.zeros(d)
    for position, coefficient in NONZERO.items():
        beta[position - 1] = coefficient
    return beta


def linear_outcomes(
    X: FloatArray,  # noqa: N803
    rng: np.random.Generator,
    digits: int | None = None,
) -> FloatArray:
    """Draw the outcomes of a linear regression with intercept 0 and noise of sd 3.

    Parameters
    ----------
    X : array of shape (n, d)
    rng : numpy.random.Generator
    digits : int, optional
        Round to so many decimals.

    Returns
    -------
    array of shape (n,)

    Raises
    ------
    UsageError
        There are too few covariates.
    """
    y = X @ coefficients(X.shape[1]) + SIGMA * rng.standard_normal(len(X))
    return y if digits is None else np.round(y, digits)
