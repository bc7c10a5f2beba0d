"""What the engines make of the cases, and where they differ."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stanflow.arrays import FloatArray
from stanflow.errors import EngineError, StanFlowError
from stanflow.stan.model import StanModel

from .assemble import PLACEHOLDER, SELECTOR, alone, together
from .cases import Case

OpenModel = Callable[[str, dict[str, Any]], StanModel]

POINTS = 2
_SCALE = 0.5
_ROOT = re.compile(r"[^.:]+")


class TogetherRefusedError(EngineError):
    """Stan refuses a point in the program of many cases; which case it is for is not known."""


@dataclass(frozen=True)
class Outcome:
    """What an engine computes for a case at two points.

    Attributes
    ----------
    parameters : tuple of str
        Names of the unconstrained parameters.
    columns : tuple of str
        Names of all scalars of the parameters, transformed parameters and generated quantities.
    values : array of shape (2, number of columns)
    density : array of shape (2,)
        What the model block adds to the log density, with the constants that Stan drops: engines
        may drop more or fewer of them.
    change : float
        By how much the rest of the log density, the Jacobian, differs between the points.
    gradient : array of shape (2, number of parameters)
        Of the whole log density, Jacobian included.
    """

    parameters: tuple[str, ...]
    columns: tuple[str, ...]
    values: FloatArray
    density: FloatArray
    change: float
    gradient: FloatArray

    def variables(self) -> dict[str, FloatArray]:
        """Return the values of each variable, of shape (2, its number of scalars)."""
        roots = [_root(column) for column in self.columns]
        return {root: self.values[:, [r == root for r in roots]] for root in dict.fromkeys(roots)}


def embedded_outcome(case: Case) -> Outcome | str:
    """Return what the embedded engine computes for a case alone, or why it computes nothing."""
    try:
        return outcome_alone(case, open_embedded)
    except StanFlowError as error:
        return " ".join(str(error).split())


def open_embedded(code: str, data: dict[str, Any]) -> StanModel:
    """Open a program with the embedded engine."""
    return StanModel(stan_code=code, data=data or None, engine="embedded", threads=1)


def outcome_alone(case: Case, open_model: OpenModel) -> Outcome:
    """Return what an engine computes for the program of one case.

    Raises
    ------
    StanFlowError
        The engine does not open the program.
    """
    model = open_model(*alone(case))
    without = open_model(*alone(replace(case, model="", generated="")))
    points = points_of(case, model.dim)
    evaluated, rest = (m.log_density_gradient(points) for m in (model, without))
    own = [name != PLACEHOLDER for name in model.unconstrained_names]
    return Outcome(
        tuple(np.array(model.unconstrained_names)[own].tolist()),
        *_own_columns(case, model, points),
        _with_constants(model, points, evaluated.log_density) - rest.log_density,
        float(rest.log_density[1] - rest.log_density[0]),
        evaluated.gradient[:, own],
    )


def native_outcomes(cases: Sequence[Case], open_model: OpenModel) -> dict[str, Outcome]:
    """Return what an engine computes for each case of one program of them all, by case name.

    Parameters
    ----------
    cases : sequence of Case
    open_model : callable
        Opens a program, given as text, and data with the engine. It is called once a case, and once
        more, always with the same program.

    Raises
    ------
    StanFlowError
        The engine does not open the program.
    TogetherRefusedError
        It does not compute all of it.
    """
    code, data = together(cases)
    model = open_model(code, data)
    places = [_places(case, model) for case in cases]
    points = np.zeros((POINTS, model.dim))
    for case, own in zip(cases, places, strict=True):
        points[:, own] = points_of(case, len(own))
    unselected = model.log_density_gradient(points)
    computed = unselected.accepted.all() and model.constrain(points).failed.size == 0
    if len(cases) > 1 and not computed:
        raise TogetherRefusedError("a case is refused at one of its points, not known which")
    rest = unselected.log_density
    outcomes: dict[str, Outcome] = {}
    for number, (case, own) in enumerate(zip(cases, places, strict=True), start=1):
        selected = open_model(code, data | {SELECTOR: number}) if case.model else model
        evaluated = selected.log_density_gradient(points)
        moved = points[:1].copy()  # from the first point to the second in its own parameters only
        moved[:, own] = points[1:, own]
        outcomes[case.name] = Outcome(
            tuple(np.array(model.unconstrained_names)[own].tolist()),
            *_own_columns(case, model, points),
            _with_constants(selected, points, evaluated.log_density) - rest,
            float(model.log_density_gradient(moved).log_density[0] - rest[0]),
            evaluated.gradient[:, own],
        )
    return outcomes


def differences(a: Outcome | str, b: Outcome | str, rtol: float = 1e-8) -> list[str]:
    """Say where two outcomes of a case differ; nothing where they agree.

    Parameters
    ----------
    a, b : Outcome or str
        A string is the reason why an engine does not run the case.
    rtol : float
        The largest difference that is rounding, relative to the value and to 1.
    """
    if isinstance(a, str) or isinstance(b, str):
        return [f"not run: {reason}" for reason in (a, b) if isinstance(reason, str)]
    found = []
    if a.parameters != b.parameters:
        found.append(f"parameters: {a.parameters} and {b.parameters}")
    if a.columns != b.columns:
        found.append(f"columns: {a.columns} and {b.columns}")
    pairs = {
        "density": (a.density, b.density),
        "change of the Jacobian": (np.array(a.change), np.array(b.change)),
        "gradient": (a.gradient, b.gradient),
    }
    others = b.variables()
    pairs |= {
        name: (values, others[name]) for name, values in a.variables().items() if name in others
    }
    found += [
        f"{name}: {_shown(one)} and {_shown(other)}"
        for name, (one, other) in pairs.items()
        if not _same(one, other, rtol)
    ]
    return found


def untruths(case: Case, outcome: Outcome, rtol: float = 1e-8) -> list[str]:
    """Say where an outcome differs from what is known by hand."""
    variables = outcome.variables()
    found = []
    for name, value in case.truth.items():
        # Stan's columns run through the first index fastest.
        truth = np.ravel(np.asarray(value, dtype=float), order="F")
        computed = variables.get(case.named(name), np.full((POINTS, 0), np.nan))
        if not all(_same(row, truth, rtol) for row in computed):
            found.append(f"{name}: {_shown(computed[0])}, in truth {_shown(truth)}")
    if case.slope is not None and not _same(
        outcome.gradient, np.full((POINTS, 1), case.slope), rtol
    ):
        found.append(f"gradient: {_shown(outcome.gradient)}, in truth {case.slope}")
    return found


def points_of(case: Case, dim: int) -> FloatArray:
    """Return the points, of shape (2, dim), at which a case is computed."""
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    return _SCALE * rng.standard_normal((POINTS, dim))


def _with_constants(model: StanModel, points: FloatArray, density: FloatArray) -> FloatArray:
    return density + model.normalizing_constant_at(points).value


def _places(case: Case, model: StanModel) -> list[int]:
    own = case.names_in("parameters")
    return [i for i, name in enumerate(model.unconstrained_names) if _root(name) in own]


def _own_columns(
    case: Case, model: StanModel, points: FloatArray
) -> tuple[tuple[str, ...], FloatArray]:
    draws = model.constrain(points)
    own = case.names_in("parameters", "transformed_parameters", "generated")
    places = [i for i, name in enumerate(draws.columns) if _root(name) in own]
    values = draws.values[:, places]
    if case.random:
        values = np.isfinite(values).astype(float)
    return tuple(draws.columns[i] for i in places), values


def _root(column: str) -> str:
    match = _ROOT.match(column)
    return match[0] if match else column


def _same(a: FloatArray, b: FloatArray, rtol: float) -> bool:
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=rtol, atol=rtol, equal_nan=True))


def _shown(values: FloatArray) -> str:
    return np.array2string(values, precision=10, separator=", ", threshold=24).replace("\n", "")
