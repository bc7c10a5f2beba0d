"""The sweep's cases by themselves: valid Stan, and computed alike alone and together."""

from __future__ import annotations

import numpy as np
import pytest
import stanli

from stanflow.errors import EngineError

from .assemble import alone, together
from .cases import Case
from .compare import (
    Outcome,
    differences,
    embedded_outcome,
    native_outcomes,
    open_embedded,
    outcome_alone,
    untruths,
)
from .corpus import CASES, TOPICS

_TOGETHER = 6  # cases to a program, which the embedded engine compiles once a case
_by_name = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
_by_topic = pytest.mark.parametrize("topic", TOPICS)


def test_names_are_unique() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)


@pytest.mark.slow
@_by_name
def test_is_valid_alone(case: Case) -> None:
    assert stanli.stan_to_mir(alone(case)[0])


@_by_topic
def test_is_valid_together(topic: str) -> None:
    assert stanli.stan_to_mir(together(TOPICS[topic])[0])


@_by_name
def test_the_embedded_engine_gives_the_truth_or_refuses(case: Case) -> None:
    outcome = embedded_outcome(case)
    if isinstance(outcome, str):
        return
    assert untruths(case, outcome) == []
    assert np.isfinite(outcome.values).all()
    assert np.isfinite(outcome.density).all()
    assert np.isfinite(outcome.gradient).all()


@pytest.mark.slow
@_by_topic
def test_together_as_alone(topic: str) -> None:
    run = {case: embedded_outcome(case) for case in TOPICS[topic]}
    cases = [case for case, outcome in run.items() if isinstance(outcome, Outcome)]
    assembled: dict[str, Outcome] = {}
    for start in range(0, len(cases), _TOGETHER):
        assembled |= _assembled(cases[start : start + _TOGETHER])
    assert len(assembled) > 0.9 * len(cases)
    found = {
        case.name: differences(run[case], assembled[case.name])
        for case in cases
        if case.name in assembled
    }
    assert {name: lines for name, lines in found.items() if lines} == {}


def _assembled(cases: list[Case]) -> dict[str, Outcome]:
    """Return the outcomes of an assembled program, without cases that cannot be under an `if`."""
    try:
        return native_outcomes(cases, open_embedded)
    except EngineError:
        half = len(cases) // 2
        return _assembled(cases[:half]) | _assembled(cases[half:]) if half else {}


def test_differences_are_told_by_variable() -> None:
    case = Case(
        "told", "none", parameters="real<lower=0> x@;", model="x@ ~ exponential(2);",
        generated="real y@ = 3 * x@; int z@ = 4;", truth={"z": 4},
    )  # fmt: skip
    changed = Case(
        "told", "none", parameters="real<lower=1> x@;", model="x@ ~ exponential(3);",
        generated="real y@ = 3 * x@; int z@ = 5;",
    )  # fmt: skip
    one, other = (outcome_alone(each, open_embedded) for each in (case, changed))
    assert differences(one, one) == untruths(case, one) == []
    told = [line.partition(":")[0] for line in differences(one, other)]
    assert told == ["density", "gradient", "x_told", "y_told", "z_told"]
    assert untruths(case, other) == ["z: [5.], in truth [4.]"]
    assert differences("no such thing", one) == ["not run: no such thing"]


def test_a_name_shared_is_refused() -> None:
    first = Case("b", "none", generated="real x_a@ = 1;")
    second = Case("a_b", "none", generated="real x@ = 1;")
    with pytest.raises(ValueError, match="x_a_b"):
        together([first, second])
