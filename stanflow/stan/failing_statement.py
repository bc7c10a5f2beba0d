"""Which statement of a program an engine fails at, where it does not say so itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from stanflow.stan.edits import Edit, edited
from stanflow.stan.program import StanProgram
from stanflow.stan.statements import Statement, outline
from stanflow.stan.tokens import Tokens

_SECONDS = 5.0


def failing_statement(program: StanProgram, fails: Callable[[str], bool | None]) -> str | None:
    r"""Return the file and line of the first statement without which a program does not fail.

    Parameters
    ----------
    program : StanProgram
        It fails.
    fails : callable
        Whether a text fails as the program does; None where the Stan compiler refuses it.

    Returns
    -------
    str or None
        ``"model.stan, line 3"``; None where there is no such statement, or it is not found in 5
        seconds.

    Examples
    --------
    >>> program = StanProgram.from_string("model {\n real a = 1;\n real b = f();\n}")
    >>> failing_statement(program, lambda code: "f()" in code)
    'the Stan program, line 3'
    """
    code = program.expanded
    tokens = Tokens(code)
    deadline = time.monotonic() + _SECONDS
    for statement in _simple_statements(tokens):
        if time.monotonic() > deadline:
            return None
        if any(fails(edited(code, [edit])) is False for edit in _removals(tokens, statement)):
            label, line = program.origin(code.count("\n", 0, tokens.start[statement.start]) + 1)
            return f"{label}, line {line}"
    return None


def _simple_statements(tokens: Tokens) -> Iterator[Statement]:
    program = outline(tokens)
    return (each for each in program.walk() if not each.parts and each.word != "{")


def _removals(tokens: Tokens, statement: Statement) -> Iterator[Edit]:
    """Yield what makes a statement say nothing, or a declaration give no value."""
    last = statement.end - 1
    begins = [statement.start]
    if (sign := tokens.next("=", statement.start, last)) is not None:
        begins.append(sign)
    for begin in begins:
        start = tokens.start[begin]
        yield Edit(start, tokens.start[last] - start, "")
