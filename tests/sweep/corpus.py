"""All cases."""

from __future__ import annotations

from . import constraints, containers, control_flow, functions, indexing, solvers, statements
from .cases import Case

CASES: tuple[Case, ...] = tuple(
    case
    for module in (
        containers,
        indexing,
        control_flow,
        functions,
        statements,
        constraints,
        solvers,
    )
    for case in module.cases()
)
TOPICS: dict[str, tuple[Case, ...]] = {
    topic: tuple(case for case in CASES if case.topic == topic)
    for topic in dict.fromkeys(case.topic for case in CASES)
}
