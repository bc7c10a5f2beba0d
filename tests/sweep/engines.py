"""The embedded engine held against Stan's own C++, case by case.

``python -m tests.sweep.engines`` sweeps everything and prints a table; topics may be named, and
``--every N`` takes one case in N. Real Stan computes many cases in one program.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from stanflow.stan import native
from stanflow.stan.model import StanModel
from stanflow.stan.program import StanProgram
from stanflow.stan.toolchain import Toolchain

from .assemble import together
from .cases import Case
from .compare import (
    Outcome,
    TogetherRefusedError,
    differences,
    embedded_outcome,
    native_outcomes,
    untruths,
)
from .corpus import TOPICS, expression_topics

_TOGETHER = 25
_TOLERANCE = 1e-8
# Solvers take other steps; Stan's normal_lcdf has a derivative by approximation.
_TOLERANCES = {"solvers": 1e-5, "truncation": 1e-6}
_EVERY_TOPIC = "all"


@dataclass(frozen=True)
class Finding:
    """What the engines make of a case.

    Attributes
    ----------
    case : Case
    refused : str
        Why the embedded engine does not run it; empty where it does.
    differs : list of str
        Where the engines differ.
    untrue : list of str
        Where real Stan is not what is known by hand.
    """

    case: Case
    refused: str
    differs: list[str]
    untrue: list[str]


def sweep(cases: Sequence[Case], toolchain: Toolchain) -> Iterator[Finding]:
    """Compare the engines on cases; those that real Stan is too old for are left out."""
    version = getattr(toolchain, "stan_version", "")
    known = [case for case in cases if _numbers(case.since) <= _numbers(version)]
    for start in range(0, len(known), _TOGETHER):
        group = known[start : start + _TOGETHER]
        outcomes = _native_outcomes(group, toolchain)
        for case in group:
            ours, theirs = embedded_outcome(case), outcomes[case.name]
            refused = ours if isinstance(ours, str) else ""
            tolerance = _TOLERANCES.get(case.topic, _TOLERANCE)
            yield Finding(
                case,
                refused,
                [] if refused else differences(ours, theirs, tolerance),
                untruths(case, theirs),
            )


def _native_outcomes(cases: Sequence[Case], toolchain: Toolchain) -> dict[str, Outcome]:
    native.compiled_libraries([StanProgram.from_string(together(cases)[0])], toolchain)
    try:
        return native_outcomes(cases, _open_native)
    except TogetherRefusedError:
        half = len(cases) // 2
        return _native_outcomes(cases[:half], toolchain) | _native_outcomes(cases[half:], toolchain)


def _open_native(code: str, data: dict[str, Any]) -> StanModel:
    return StanModel(stan_code=code, data=data or None, engine="native", threads=1)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part)


def main() -> None:
    """Sweep, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("topics", nargs="*", default=[_EVERY_TOPIC])
    parser.add_argument("--every", type=int, default=1)
    arguments = parser.parse_args()
    toolchain = native.find_toolchain()
    topics = TOPICS | expression_topics()
    chosen = topics if arguments.topics == [_EVERY_TOPIC] else arguments.topics
    told: list[str] = []
    print(f"| topic | cases | embedded engine runs | agree with {toolchain.name} | differ |")
    print("| --- | --- | --- | --- | --- |")
    for topic in chosen:
        counts: Counter[str] = Counter()
        for found in sweep(topics[topic][:: arguments.every], toolchain):
            counts["cases"] += 1
            counts["refused"] += bool(found.refused)
            counts["differ"] += bool(found.differs)
            told += [f"{found.case.name}: {line}" for line in (*found.differs, *found.untrue)]
        runs = counts["cases"] - counts["refused"]
        print(
            f"| {topic} | {counts['cases']} | {runs} | {runs - counts['differ']} | "
            f"{counts['differ']} |",
            flush=True,
        )
    print(*told, sep="\n")


if __name__ == "__main__":
    main()
