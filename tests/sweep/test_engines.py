"""The embedded engine against Stan's own C++: a part of the sweep, and all of it in `test-all`."""

from __future__ import annotations

from itertools import chain

import pytest

from stanflow.stan.toolchain import Toolchain

from .cases import Case
from .corpus import TOPICS, expression_topics
from .engines import sweep

EXPRESSIONS = expression_topics()
# Containers are filled in all blocks and read back in all ways: seconds each for a compiler.
_ALWAYS = ("int2_rows", "int2_if_rows", "kernel_exp_quad_each", "kernel_matern32_each")
_QUICK = {
    "index_read": 6,
    "index_write": 6,
    "loops": 6,
    "operators": 6,
    "functions": 6,
    "densities": 5,
    "truncation": 5,
    "target": 6,
    "kernels": 5,
    "constraints": 6,
}


def _quick() -> list[Case]:
    """Return one case in so many of each topic, and what was found wrong before."""
    thinned = chain.from_iterable(TOPICS[topic][::step] for topic, step in _QUICK.items())
    known = (case for case in chain(*TOPICS.values()) if case.name in _ALWAYS)
    return list({case.name: case for case in (*thinned, *known)}.values())


@pytest.mark.slow
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
