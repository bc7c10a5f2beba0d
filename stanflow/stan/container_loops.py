"""Loops over arrays of containers, ``for (row in rows)`` with rows that are vectors, say.

Where the embedded engine interprets a program, as it does in transformed data, it takes each number
within for an element of the array. The same loop over indices is right, with ``rows[row_index]`` in
place of ``row``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from stanflow.stan.edits import Edit, edited
from stanflow.stan.inlining import changes_at_each_call
from stanflow.stan.statements import Statement, outline
from stanflow.stan.tokens import Tokens, is_name, unused_name


@dataclass(frozen=True)
class ElementLoop:
    """A loop over elements, ``for (element in elements)``.

    Attributes
    ----------
    start, end : int
        From ``for`` to the parenthesis that closes its header, in the text.
    variable : str
        The element's name.
    statement : Statement
        The loop.
    """

    start: int
    end: int
    variable: str
    statement: Statement


def element_loops(code: str) -> tuple[ElementLoop, ...]:
    """Find the loops over elements, whatever these are, in the order written.

    Parameters
    ----------
    code : str
        A Stan program with its includes expanded.
    """
    tokens = Tokens(code)
    return tuple(
        ElementLoop(
            tokens.start[loop.start],
            tokens.end(loop.header[1]),
            tokens.text[loop.header[0] + 1],
            loop,
        )
        for loop in outline(tokens).walk()
        if loop.word == "for" and not tokens.is_range(loop.header[0] + 1, loop.header[1])
    )


def container_loops(code: str, compiles: Callable[[str], bool]) -> tuple[ElementLoop, ...]:
    """Find the loops over arrays of containers, in the order written.

    Parameters
    ----------
    code : str
        A Stan program that compiles, with its includes expanded.
    compiles : callable
        Whether a program compiles. That is how numbers are told from containers.
    """
    loops = element_loops(code)
    tokens = Tokens(code)

    def are_numbers(loops: Iterable[ElementLoop]) -> bool:
        return compiles(edited(code, _assigned_to_numbers(tokens, loops)))

    if not loops or are_numbers(loops):
        return ()
    return tuple(loop for loop in loops if not are_numbers((loop,)))


def _assigned_to_numbers(tokens: Tokens, loops: Iterable[ElementLoop]) -> list[Edit]:
    edits: list[Edit] = []
    for i, loop in enumerate(loops):
        body = loop.statement.parts[0]
        number = unused_name(f"number{i}", tokens.text)
        edits.append(Edit(tokens.start[body.start], 0, f"{{ complex {number} = {loop.variable}; "))
        edits.append(Edit(tokens.end(body.end - 1), 0, " }"))
    return edits


def looped_by_index(code: str, loops: Iterable[ElementLoop]) -> list[Edit]:
    """Return the edits that make loops over arrays of containers ones over indices.

    Parameters
    ----------
    code : str
        The program that `loops` were found in.
    loops : iterable of ElementLoop
        Some of its loops. Left alone are those over what changes at each call, as random numbers
        do, and those that assign to the array looped over, of which an element is a copy.
    """
    tokens = Tokens(code)
    edits: list[Edit] = []
    replaced: dict[int, str] = {}  # what takes the place of a token
    for loop in loops:  # an outer one before those within
        (opening, closing), body = loop.statement.header, loop.statement.parts[0]
        elements = range(opening + 3, closing)
        names = {tokens.text[i] for i in elements if is_name(tokens.text[i])}
        if changes_at_each_call(tokens, elements) or _assigns(tokens, body, names):
            continue
        index = unused_name(f"{loop.variable}_index", tokens.text)
        array = _with_replaced(tokens, elements, replaced)
        if len(elements) > 1:
            array = f"({array})"
        for i in range(body.start, body.end):
            if tokens.text[i] == loop.variable and tokens.at(i + 1) != "(":
                replaced[i] = f"{array}[{index}]"
        for i in elements:
            replaced.pop(i, None)
        start, end = tokens.start[opening + 1], tokens.start[closing]
        lines = "\n" * code.count("\n", start, end)
        edits.append(Edit(start, end - start, f"{index} in 1:size({array}){lines}"))
    edits += [Edit(tokens.start[i], len(tokens.text[i]), text) for i, text in replaced.items()]
    return edits


def _assigns(tokens: Tokens, body: Statement, names: set[str]) -> bool:
    return any(
        statement.word in names
        or (
            statement.word == "("  # parts of a tuple
            and not names.isdisjoint(tokens.text[statement.start : statement.end])
        )
        for statement in body.walk()
    )


def _with_replaced(tokens: Tokens, positions: range, replaced: dict[int, str]) -> str:
    """Return what is written there, on one line."""
    return "".join(
        (" " if i > positions.start and tokens.start[i] > tokens.end(i - 1) else "")
        + replaced.get(i, tokens.text[i])
        for i in positions
    )
