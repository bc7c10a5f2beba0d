"""Programs of one case, and of many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from .cases import BLOCKS, Case

SELECTOR = "which"
PLACEHOLDER = "placeholder"  # the parameter of programs whose cases have none
_TITLES = {
    "transformed_data": "transformed data",
    "transformed_parameters": "transformed parameters",
    "generated": "generated quantities",
}


def alone(case: Case) -> tuple[str, dict[str, Any]]:
    """Return the program of one case and its data."""
    return _program({block: [case.text(block)] for block in BLOCKS}), case.own_data


def together(cases: Sequence[Case]) -> tuple[str, dict[str, Any]]:
    """Return the program of many cases and their data, which select none of them.

    The integer `which` selects the case whose statements the model block runs: 1 the first, and so
    on; 0 none. The parameters of the others are then flat, on their constrained scale. All else is
    computed for all cases, whichever is selected.

    Raises
    ------
    ValueError
        Two cases share a name.
    """
    uses = Counter(name for case in cases for name in case.names_in(*BLOCKS))
    shared = sorted(name for name, times in uses.items() if times > 1)
    if shared:
        raise ValueError(f"cases share the names {', '.join(shared)}")
    texts = {block: [case.text(block) for case in cases] for block in BLOCKS}
    texts["data"].insert(0, f"int<lower=0> {SELECTOR};")
    texts["model"] = [
        f"if ({SELECTOR} == {number}) {{\n{text}\n}}" if text else ""
        for number, text in enumerate(texts["model"], start=1)
    ]
    data: dict[str, Any] = {SELECTOR: 0}
    for case in cases:
        data |= case.own_data
    return _program(texts), data


def _program(texts: dict[str, list[str]]) -> str:
    if not any(texts["parameters"]):
        texts = texts | {"parameters": [f"real {PLACEHOLDER};"]}
    blocks = (
        f"{_TITLES.get(block, block)} {{\n" + "\n".join(filter(None, texts[block])) + "\n}\n"
        for block in BLOCKS
        if any(texts[block])
    )
    return "".join(blocks)
