"""The exact evidence and posterior of year_regression.stan, by an integral over sigma.

Given sigma the model is conjugate. With X = (1, year - mean year), the prior of (alpha + beta mean
year, beta) is normal with precision L, and its posterior with precision X'X / sigma^2 + L. The sum
of squares is that of the least squares' residuals and what is beyond, so that nothing cancels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import integrate

FloatArray = npt.NDArray[np.float64]

_PRIOR_SDS = np.array([1000.0, 10.0])  # of alpha and beta; sigma's rate is 1
_LOG_SIGMA = np.linspace(np.log(0.005), np.log(50), 20_001)


class Exact(NamedTuple):
    """The log evidence, and mean and sd of (alpha, beta, sigma)."""

    log_evidence: float
    mean: FloatArray
    sd: FloatArray


def exact(data: Mapping[str, Any]) -> Exact:
    """Integrate over sigma on a grid.

    Parameters
    ----------
    data : mapping
        The program's data block.
    """
    year, y = (np.asarray(data[name], float) for name in ("year", "y"))
    n, middle = len(y), year.mean()
    from_centred = np.linalg.inv([[1, middle], [0, 1]])
    prior = from_centred.T @ np.diag(_PRIOR_SDS**-2.0) @ from_centred
    design = np.diag([n, np.sum((year - middle) ** 2)])
    least_squares = np.array([y.mean(), (year - middle) @ y / design[1, 1]])
    residuals = y - least_squares[0] - least_squares[1] * (year - middle)
    sigma = np.exp(_LOG_SIGMA)
    precision = design / sigma[:, None, None] ** 2 + prior
    centred = np.linalg.solve(precision, (design @ least_squares / sigma[:, None] ** 2)[..., None])
    centred = centred[..., 0]
    away = centred - least_squares
    square = residuals @ residuals + np.einsum("ni,ij,nj->n", away, design, away)
    log_p = (
        -n / 2 * np.log(2 * np.pi)
        - (n - 1) * _LOG_SIGMA  # the Jacobian of log sigma included
        - np.log(_PRIOR_SDS).sum()
        - np.linalg.slogdet(precision)[1] / 2
        - square / (2 * sigma**2)
        - np.einsum("ni,ij,nj->n", centred, prior, centred) / 2
        - sigma
    )
    mass = np.exp(log_p - log_p.max())
    total = integrate.trapezoid(mass, _LOG_SIGMA)
    weights = mass / mass.sum()
    means = np.column_stack([centred @ from_centred.T, sigma])
    covariance = from_centred @ np.linalg.inv(precision) @ from_centred.T
    variances = np.column_stack([np.diagonal(covariance, axis1=1, axis2=2), 0 * sigma])
    mean = weights @ means
    sd = np.sqrt(weights @ (variances + means**2) - mean**2)
    return Exact(float(log_p.max() + np.log(total)), mean, sd)
