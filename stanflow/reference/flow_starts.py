"""Chains that start from a fit: at draws of the flow, with the flow's scales as their metric.

Warmup has two tasks: to reach the bulk of the posterior, and to learn its scales. A flow that
was trained on the same posterior knows both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from stanflow.arrays import FloatArray
from stanflow.errors import DataError, UsageError
from stanflow.reference.run import ChainStarts, Metric, parameters_of
from stanflow.stan.model import StanModel
from stanflow.statistics.importance_weights import normalized

if TYPE_CHECKING:
    from stanflow.fitting.result import Fit

_PURPOSES = {"init": "start from", "through": "sample through"}
_STARTS_TRIED = 100
_ENOUGH_DRAWS = 100
_DRAWS_PER_DIMENSION = 5  # for a dense metric
_PRIOR_DRAWS, _PRIOR_VARIANCE = 5.0, 1e-3  # Stan's


def flow_starts(
    fit: Fit, model: StanModel, *, chains: int, seed: int, metric: Metric
) -> ChainStarts:
    """Choose starting points and an inverse metric from a fit's draws.

    Each chain gets a draw of its own, chosen with the fit's importance weights among the draws
    that are finite; the inverse metric is `inverse_metric` of these.

    Parameters
    ----------
    fit : Fit
        Of the same program and data.
    model : StanModel
        The program and its data.
    chains : int
        Starting points to choose.
    seed : int
        For the choice.
    metric : {"diag_e", "dense_e"}
        Form of the inverse metric.

    Raises
    ------
    UsageError
        The fit is of another program or other data, or too few of its draws can start a chain.
    """
    check_same_posterior(fit, model, "init")
    rows, weights = _finite_draws(fit)
    chosen = []
    parameters = []
    for row in draws_to_try(fit, seed):
        start = _startable(fit, model, row)
        if start is not None:
            chosen.append(row)
            parameters.append(start)
        if len(chosen) == chains:
            break
    else:
        raise UsageError(
            f"only {len(chosen)} draws of the fit can start a chain, and {chains} are needed; "
            "leave init out"
        )
    inverse, effective = inverse_metric(fit.z[rows], weights, metric)
    return ChainStarts(
        z=np.ascontiguousarray(fit.z[chosen]),
        parameters=tuple(parameters),
        inverse_metric=inverse,
        averaged_draws=len(rows),
        effective_draws=effective,
    )


def draws_to_try(fit: Fit, seed: int) -> npt.NDArray[np.intp]:
    """Return rows of a fit's draws in the order in which chains are to be started there.

    They are drawn by the fit's importance weights, without replacement, from the finite draws.

    Parameters
    ----------
    fit : Fit
        Of the posterior.
    seed : int
        For the choice.
    """
    rows, weights = _finite_draws(fit)
    return rows[_weighted_order(weights, np.random.default_rng(seed))][:_STARTS_TRIED]


def _finite_draws(fit: Fit) -> tuple[npt.NDArray[np.intp], FloatArray]:
    """Return the rows of the draws that are finite, and their weights."""
    rows = np.flatnonzero(np.isfinite(fit.z).all(axis=1))
    return rows, _weights(fit.log_weights[rows])


def inverse_metric(z: FloatArray, weights: FloatArray, metric: Metric) -> tuple[FloatArray, float]:
    """Estimate an inverse metric from weighted draws, regularised as Stan does.

    With n draws, or their importance effective sample size 1 / sum w^2, and their covariance C:
    n / (n + 5) C + 10^-3 5 / (n + 5) I (Stan reference manual, section "Euclidean metric"). Where
    the weights leave too few effective draws, 100 or for a dense metric 5 D, the covariance is
    that of the draws without weights: the flow's scales are then the better estimate.

    Parameters
    ----------
    z : array of shape (S, D)
        Unconstrained draws.
    weights : array of shape (S,)
        Adding up to one.
    metric : {"diag_e", "dense_e"}
        Variances, of shape (D,), or covariances, of shape (D, D).

    Returns
    -------
    array, float
        The inverse metric, and the effective number of draws behind it.

    Examples
    --------
    >>> z = np.array([[0.0], [2.0]] * 200)
    >>> inverse, effective = inverse_metric(z, np.full(400, 1 / 400), "diag_e")
    >>> inverse.round(3), round(effective)
    (array([0.99]), 400)
    """
    dim = z.shape[1]
    enough = _ENOUGH_DRAWS if metric == "diag_e" else max(_ENOUGH_DRAWS, _DRAWS_PER_DIMENSION * dim)
    if 1 / np.sum(weights**2) < enough:
        weights = np.full(len(z), 1 / len(z))
    squared = float(np.sum(weights**2))
    centred = z - weights @ z
    unbiased = max(1 - squared, np.finfo(float).tiny)
    n = 1 / squared
    shrunk, added = n / (n + _PRIOR_DRAWS), _PRIOR_VARIANCE * _PRIOR_DRAWS / (n + _PRIOR_DRAWS)
    if metric == "diag_e":
        return shrunk * (weights @ centred**2) / unbiased + added, n
    covariance = (centred * weights[:, None]).T @ centred / unbiased
    return shrunk * (covariance + covariance.T) / 2 + added * np.eye(dim), n


def check_same_posterior(fit: Fit, model: StanModel, option: Literal["init", "through"]) -> None:
    """Check that a fit is of a model's program and data.

    Parameters
    ----------
    fit : Fit
        Given as this option.
    model : StanModel
        The program and its data.
    option : {"init", "through"}
        The option's name.

    Raises
    ------
    UsageError
        It is not.
    """
    report: Mapping[str, Any] = fit.report
    for what, key, own in (
        (f"another program than {model.program.label}", "program_sha256", model.program.hash),
        ("other data than the model has", "data_sha256", model.data.hash),
    ):
        if report[key] != own:
            raise UsageError(
                f"the fit to {_PURPOSES[option]} is of {what}; give a fit of this posterior, or "
                f"leave {option} out"
            )


def _weights(log_weights: FloatArray) -> FloatArray:
    """Return weights that add up to one; draws without a usable weight get none."""
    usable = np.where(np.isfinite(log_weights), log_weights, -np.inf)
    if not np.isfinite(usable).any():
        return np.full(len(usable), 1 / max(len(usable), 1))
    return np.asarray(np.exp(normalized(usable)))


def _weighted_order(weights: FloatArray, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """Return positions in the order in which they are drawn without replacement.

    Efraimidis and Spirakis 2006: by exponential times of these rates; those without weight last.
    """
    times = rng.exponential(size=len(weights))
    with np.errstate(divide="ignore"):
        return np.argsort(times / weights, kind="stable")


def _startable(fit: Fit, model: StanModel, row: int) -> dict[str, Any] | None:
    """Return a draw's parameters where the engines can start there, None otherwise."""
    if not model.log_density_gradient(fit.z[row : row + 1]).accepted[0]:
        return None
    parameters = parameters_of(model, fit.values[row])
    try:
        model.unconstrain(parameters)
    except DataError:
        return None  # by rounding, on the boundary of a constraint
    return parameters
