"""The embedded engine against Stan's own C++."""

from __future__ import annotations

import pytest

from stanflow.stan.toolchain import Toolchain

from .corpus import TOPICS, expression_topics
from .engines import sweep

EXPRESSIONS = expression_topics()


@pytest.mark.slow
@pytest.mark.parametrize("topic", TOPICS | EXPRESSIONS)
def test_all_of_the_sweep(toolchain: Toolchain, topic: str) -> None:
    cases = [*TOPICS.get(topic, ()), *EXPRESSIONS.get(topic, ())]
    found = list(sweep(cases, toolchain))
    assert {f.case.name: f.differs for f in found if f.differs} == {}
    assert {f.case.name: f.untrue for f in found if f.untrue} == {}
