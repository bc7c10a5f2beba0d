"""All cases: statements, which are written down, and expressions, which follow from signatures."""

from __future__ import annotations

from collections.abc import Iterable

from . import (
    constraints,
    containers,
    control_flow,
    expressions,
    functions,
    indexing,
    solvers,
    statements,
)
from .cases import Case

_WRITTEN = (containers, indexing, control_flow, functions, statements, constraints, solvers)

Topics = dict[str, tuple[Case, ...]]


def _by_topic(cases: Iterable[Case]) -> Topics:
    topics: dict[str, list[Case]] = {}
    for case in cases:
        topics.setdefault(case.topic, []).append(case)
    return {topic: tuple(cases) for topic, cases in topics.items()}


CASES: tuple[Case, ...] = tuple(case for module in _WRITTEN for case in module.cases())
TOPICS: Topics = _by_topic(CASES)


def expression_topics() -> Topics:
    """Return the cases of Stan's mathematical functions, distributions and random numbers."""
    return _by_topic(
        [
            *expressions.function_cases(),
            *expressions.density_cases(),
            *expressions.random_cases(),
        ]
    )
