"""The embedded engine against Stan's own C++: a part of the sweep, and all of it in `test-all`."""

from __future__ import annotations

from itertools import chain

import pytest

from stanflow.target.toolchain import Toolchain

from .cases import Case
from .corpus import TOPICS, expression_topics
from .engines import sweep

EXPRESSIONS = expression_topics()
# Containers are filled in all blocks and read back in all ways: seconds each for a compiler.
_ALWAYS = ("int2_rows", "int2_swap", "int2_if_rows", "kernel_exp_quad_each", "kernel_matern32_each")
_COSTLY = frozenset(topic for topic in TOPICS if topic.split("_")[-1] in {"1d", "2d", "3d"})
_QUICK = {topic: 16 if topic in _COSTLY else 5 for topic in TOPICS} | {
    "mathematical functions": 70,
    "distributions": 120,
    "random numbers": 60,
}


def _quick() -> list[Case]:
    """Return one case in so many of each topic, and what was found wrong before."""
    topics = TOPICS | EXPRESSIONS
    thinned = chain.from_iterable(topics[topic][::step] for topic, step in _QUICK.items())
    known = (case for case in chain(*TOPICS.values()) if case.name in _ALWAYS)
    return list({case.name: case for case in (*thinned, *known)}.values())


def test_a_part_of_the_sweep(toolchain: Toolchain) -> None:
    _agree(_quick(), toolchain)


@pytest.mark.slow
@pytest.mark.parametrize("topic", TOPICS | EXPRESSIONS)
def test_all_of_the_sweep(toolchain: Toolchain, topic: str) -> None:
    _agree([*TOPICS.get(topic, ()), *EXPRESSIONS.get(topic, ())], toolchain)


def _agree(cases: list[Case], toolchain: Toolchain) -> None:
    found = list(sweep(cases, toolchain))
    assert {f.case.name: f.differs for f in found if f.differs} == {}
    assert {f.case.name: f.untrue for f in found if f.untrue} == {}
