"""The exact evidence and posterior of linear_regression.stan.

With Lambda = X'X + I / prior_scale**2, m = Lambda^-1 X'y and C = I + prior_scale**2 XX':
sigma2 is inverse-gamma with shape a + N/2 and scale b + y' C^-1 y / 2, beta has mean m and
covariance E[sigma2] Lambda^-1, and y is multivariate Student-t with 2 a degrees of freedom and
scale matrix (b / a) C. See Gelman et al., *Bayesian Data Analysis*, 3rd edition, chapter 14.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import linalg, special, stats

FloatArray = npt.NDArray[np.float64]


class Posterior(NamedTuple):
    """Exact means and standard deviations; infinite where there are too few data for one.

    Attributes
    ----------
    beta_mean, beta_sd : array of shape (d,)
    sigma2_mean, sigma2_sd : float
    """

    beta_mean: FloatArray
    beta_sd: FloatArray
    sigma2_mean: float
    sigma2_sd: float


def log_evidence(data: Mapping[str, Any]) -> float:
    """Return the log marginal likelihood of y.

    Parameters
    ----------
    data : mapping
        The program's data block.
    """
    a, b, n = data["a"], data["b"], data["N"]
    factor, distance = _marginal(data)
    return float(
        special.gammaln(a + n / 2)
        - special.gammaln(a)
        - n / 2 * np.log(2 * np.pi * b)
        - np.log(np.diag(factor)).sum()
        - (a + n / 2) * np.log1p(distance / (2 * b))
    )


def posterior(data: Mapping[str, Any]) -> Posterior:
    """Return the posterior's means and standard deviations.

    Parameters
    ----------
    data : mapping
        The program's data block.
    """
    X, y = np.asarray(data["X"], float), np.asarray(data["y"], float)  # noqa: N806
    identity = np.eye(data["d"])
    precision = linalg.cho_factor(X.T @ X + identity / data["prior_scale"] ** 2)
    variance = np.diag(linalg.cho_solve(precision, identity))
    _, distance = _marginal(data)
    sigma2 = stats.invgamma(data["a"] + data["N"] / 2, scale=data["b"] + distance / 2)
    return Posterior(
        beta_mean=linalg.cho_solve(precision, X.T @ y),
        beta_sd=np.sqrt(variance * sigma2.mean()),
        sigma2_mean=float(sigma2.mean()),
        sigma2_sd=float(sigma2.std()),
    )


def _marginal(data: Mapping[str, Any]) -> tuple[FloatArray, float]:
    """Return the Cholesky factor of C, and y' C^-1 y.

    The latter equals y'y - m' Lambda m, which would cancel where the fit is close.
    """
    X, y = np.asarray(data["X"], float), np.asarray(data["y"], float)  # noqa: N806
    factor = linalg.cholesky(np.eye(data["N"]) + data["prior_scale"] ** 2 * X @ X.T, lower=True)
    whitened = linalg.solve_triangular(factor, y, lower=True)
    return factor, float(whitened @ whitened)
