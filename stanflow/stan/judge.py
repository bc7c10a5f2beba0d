"""The engines held against each other: one program and its data, at several points.

One engine alone has nothing that tells when it is wrong. Two that were written apart hardly err in
the same way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from stanflow.arrays import FloatArray
from stanflow.errors import DataError
from stanflow.stan import native
from stanflow.stan.agreement import Agreement, keep_agreement
from stanflow.stan.comments import blank_comments_and_strings
from stanflow.stan.model import StanModel

_POINTS = 5
_SEEDS = (1, 2)  # a quantity that depends on them is drawn
_TOLERANCE = 1e-6  # relative: solvers of differential equations agree no better
_GRADIENT_TOLERANCE = 1e-5
_UNCONSTRAINED_ANEW = re.compile(r"\b(simplex|\w+_stochastic_matrix)\b")  # in Stan 2.37
_STEP = 1e-5  # of the differences that give a volume


def judge(model: StanModel) -> Agreement:
    """Compare the engine of a model with the other one, and keep what was found.

    Raises
    ------
    EngineError
        The other engine is not here, or cannot run the program.
    ProgramError, DataError
        The other engine, of another version of Stan, refuses the program or the data.
    InitializationError
        There is no point at which to compare them.
    """
    if model.engine == "native":
        found = compare(model.in_engine("embedded"), model)
    else:
        native.find_toolchain()  # for a comparison nothing is downloaded
        found = compare(model, model.in_engine("native"))
    keep_agreement(model.program, found)
    return found


def compare(embedded: StanModel, compiled: StanModel) -> Agreement:
    """Compare the embedded engine with the native one.

    At a few starting points: whether they are accepted, parameters, transformed parameters,
    generated quantities that draw nothing, the log density with its constants, and its gradient.
    Where the engines unconstrain differently (simplexes, before and after Stan 2.37), the points
    have the same constrained values, densities are compared per constrained volume, and gradients
    are not.

    Parameters
    ----------
    embedded, compiled : StanModel
        The same program and data.
    """
    differs, compared = _compare(embedded, compiled)
    return Agreement(
        compiled.stan_version, compared, tuple(dict.fromkeys(differs)), embedded.data.hash
    )


def _compare(embedded: StanModel, compiled: StanModel) -> tuple[list[str], str]:
    if embedded.columns != compiled.columns:
        unpaired = _variables(set(embedded.columns) ^ set(compiled.columns))
        return unpaired or ["the order of quantities"], "the names of all quantities"
    points = embedded.starting_points(_POINTS, np.random.default_rng(0))
    theirs = _same_draws(embedded, compiled, points)
    if theirs is None:
        return ["the constraints of parameters"], f"parameters at {_POINTS} points"
    first, second = (
        embedded.log_density_gradient(points),
        compiled.log_density_gradient(theirs),
    )
    densities = (
        first.log_density + embedded.normalizing_constant.value,
        second.log_density + compiled.normalizing_constant.value,
    )
    if not (embedded.normalizing_constant.known and compiled.normalizing_constant.known):
        densities = (
            first.log_density - first.log_density[0],
            second.log_density - second.log_density[0],
        )
    differs = _differing_quantities(embedded, compiled, points, theirs)
    if np.array_equal(points, theirs):
        compared = f"densities, gradients and all that draws nothing, at {_POINTS} points"
        unequal = ~_close(first.gradient, second.gradient, _GRADIENT_TOLERANCE).all(axis=0)
        differs += [
            f"gradient of {embedded.unconstrained_names[i]}" for i in np.flatnonzero(unequal)
        ]
    else:
        compared = f"densities by volume and all that draws nothing, at {_POINTS} points"
        densities = (
            densities[0] - _log_volume(embedded, points),
            densities[1] - _log_volume(compiled, theirs),
        )
    if not _close(*densities, _TOLERANCE).all():
        differs.insert(0, "log density")
    return differs, compared


def _same_draws(embedded: StanModel, compiled: StanModel, points: FloatArray) -> FloatArray | None:
    """Return where the native engine has the same constrained values; None where it has not."""
    n = len(embedded.parameter_columns)
    values = embedded.constrain(points, include_generated=False)
    if embedded.unconstrained_names == compiled.unconstrained_names:
        directly = compiled.constrain(points, include_generated=False).values[:, :n]
        if _close(values.values[:, :n], directly, _TOLERANCE).all():
            return points
    if _UNCONSTRAINED_ANEW.search(blank_comments_and_strings(embedded.program.expanded)) is None:
        return None
    variables = {
        name: array
        for name, array in values.variables().items()
        if name in set(_variables(embedded.parameter_columns))
    }
    try:
        rows = [
            compiled.unconstrain({name: array[i] for name, array in variables.items()})
            for i in range(len(points))
        ]
    except DataError:
        return None
    return np.array(rows)


def _differing_quantities(
    embedded: StanModel, compiled: StanModel, points: FloatArray, theirs: FloatArray
) -> list[str]:
    first, again = (embedded.constrain(points, seed=seed).values for seed in _SEEDS)
    second, once_more = (compiled.constrain(theirs, seed=seed).values for seed in _SEEDS)
    undrawn = _same(first, again).all(axis=0) & _same(second, once_more).all(axis=0)
    unequal = ~_close(first, second, _TOLERANCE).all(axis=0) & undrawn
    return _variables(np.array(embedded.columns)[unequal])


def _log_volume(model: StanModel, points: FloatArray) -> FloatArray:
    """Return the log of the constrained volume of a unit of unconstrained volume, shape (n,).

    It is half of log det J'J, J the derivatives of all constrained scalars.
    """
    n, dim = len(model.parameter_columns), model.dim
    steps = _STEP * np.concatenate([np.eye(dim), -np.eye(dim)])
    shifted = (points[:, None, :] + steps).reshape(-1, dim)
    values = model.constrain(shifted, include_generated=False).values[:, :n]
    up, down = np.split(values.reshape(len(points), 2, dim, n), 2, axis=1)
    jacobian = (up - down)[:, 0] / (2 * _STEP)
    log_volume: FloatArray = np.linalg.slogdet(jacobian @ jacobian.swapaxes(1, 2))[1] / 2
    return log_volume


def _close(a: FloatArray, b: FloatArray, tolerance: float) -> npt.NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        near: npt.NDArray[np.bool_] = np.abs(a - b) <= tolerance * (
            1 + np.maximum(np.abs(a), np.abs(b))
        )
    return near | _same(a, b)


def _same(a: FloatArray, b: FloatArray) -> npt.NDArray[np.bool_]:
    same: npt.NDArray[np.bool_] = (a == b) | (np.isnan(a) & np.isnan(b))
    return same


def _variables(columns: Iterable[str]) -> list[str]:
    """Return the names of the variables of columns such as ``theta.1`` and ``pair:2.3``."""
    return list(dict.fromkeys(column.split(".")[0].split(":")[0] for column in columns))
