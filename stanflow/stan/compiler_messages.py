"""The Stan compiler's messages, as one sentence that points into the user's file."""

from __future__ import annotations

import re

from stanflow.errors import ProgramError
from stanflow.stan.program import StanProgram

_MESSAGE = re.compile(
    r"""
    ^(?P<kind>\w+\ error)\ in\ '(?P<file>[^']*)',\s*(?P<where>line\ \d+[^:]*?)
    (?:,\ (?:parsing|include|lexing)\ error)?:\s*\n
    (?P<excerpt>\ *-{10,}\n.*?\n\ *-{10,}\n)
    (?P<explanation>.*)
    """,
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)
_POSITION = re.compile(r"line (\d+), column (\d+)")
_LINE = re.compile(r"line (\d+)")
_LINE_OF_EXCERPT = re.compile(r"^ *(\d+)(?=:)", re.MULTILINE)
_RAISED_AT = re.compile(r"in '[^'\n]*', (line (\d+)[^)]*)")


def compiler_error(program: StanProgram, message: str) -> ProgramError | None:
    """Return the error that the Stan compiler reported, None where the text has none.

    Parameters
    ----------
    program : StanProgram
        The program compiled, its includes expanded; the message is told as of the file and line
        where the text is from.
    message : str
        What the compiler printed, possibly among other output.
    """
    match = _MESSAGE.search(message)
    if match is None:
        return None
    explanation = match["explanation"].partition("\nmake:")[0]
    place = " ".join(match["where"].split())
    label, _ = program.origin(_line_number(place))
    where = _with_own_lines(program, _LINE, place)
    position = _POSITION.match(where) if label == program.label else None
    line, column = (None, None) if position is None else map(int, position.groups())
    excerpt = _with_own_lines(program, _LINE_OF_EXCERPT, match["excerpt"])
    return ProgramError(
        f"{match['kind']} in {label}, {where}: {' '.join(explanation.split())}",
        detail=f"{excerpt}\n{explanation}".strip("\n"),
        line=line,
        column=column,
    )


def with_own_places(program: StanProgram, message: str) -> str:
    """Return what a program said while it ran, with the files and lines where its text is from.

    Examples
    --------
    >>> program = StanProgram.from_string("parameters { real x; }")
    >>> with_own_places(program, "x is 0 (in 'string', line 1, column 2 to column 3)")
    "x is 0 (in 'the Stan program', line 1, column 2 to column 3)"
    """

    def own(raised: re.Match[str]) -> str:
        label, _ = program.origin(int(raised[2]))
        return f"in '{label}', {_with_own_lines(program, _LINE, raised[1])}"

    return _RAISED_AT.sub(own, message)


def _with_own_lines(program: StanProgram, line: re.Pattern[str], text: str) -> str:
    def own(found: re.Match[str]) -> str:
        start, end = (index - found.start() for index in found.span(1))
        number = str(program.origin(int(found[1]))[1])
        return found[0][:start] + number + found[0][end:]

    return line.sub(own, text)


def _line_number(where: str) -> int:
    found = _LINE.search(where)
    return 1 if found is None else int(found[1])
