"""The programs that tests have run in the embedded engine, held against real Stan.

``python -m tests.sweep.programs FOLDER``, where `tests.recording` has kept them, prints a row of
the sweep's table and what differs, and fails where something does.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

from stanflow.errors import StanFlowError
from stanflow.stan import judge, native
from stanflow.stan.model import StanModel
from stanflow.stan.program import StanProgram
from stanflow.stan.toolchain import Toolchain

_TOGETHER = 20  # programs that one compiler reads Stan's headers for


def recorded(folder: Path) -> list[tuple[str, dict[str, object]]]:
    """Return programs and data, each pair once."""
    kept = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))]
    return [(pair["program"], json.loads(pair["data"] or "{}")) for pair in kept]


def compile_together(codes: list[str], toolchain: Toolchain) -> None:
    """Compile programs, some at a time; those that this Stan refuses are left for later."""
    for start in range(0, len(codes), _TOGETHER):
        group = [StanProgram.from_string(code) for code in codes[start : start + _TOGETHER]]
        try:
            native.compiled_libraries(group, toolchain)
        except StanFlowError:
            continue


def main() -> int:
    """Compare, and print what differs."""
    toolchain = native.find_toolchain()
    pairs = recorded(Path(sys.argv[1]))
    codes = sorted({code for code, _ in pairs})
    compile_together(codes, toolchain)
    counts: Counter[str] = Counter()
    told: list[str] = []
    for code, data in pairs:
        try:
            embedded = StanModel(stan_code=code, data=data or None, engine="embedded")
            found = judge.compare(embedded, embedded.in_engine("native"))
        except StanFlowError as error:  # no parameters, say, or no point to start from
            counts["not compared"] += 1
            told.append(f"not compared: {error}\n{code}")
            continue
        counts["agree" if found.agrees else "differ"] += 1
        if not found.agrees:
            told.append(f"differs: {found}\n{code}\n{json.dumps(data)[:500]}")
    print(
        f"| programs of the tests | {len(pairs)} ({len(codes)} programs) "
        f"| {counts['agree'] + counts['differ']} | {counts['agree']} | {counts['differ']} |"
    )
    print(*told, sep="\n")
    return int(bool(counts["differ"]))


if __name__ == "__main__":
    sys.exit(main())
