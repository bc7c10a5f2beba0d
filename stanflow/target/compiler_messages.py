"""The Stan compiler's messages, as one sentence that points into the user's file."""

from __future__ import annotations

import re

from stanflow.errors import ProgramError
from stanflow.target.program import StanProgram

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


def compiler_error(program: StanProgram, message: str) -> ProgramError | None:
    """Return the error that the Stan compiler reported, None where the text has none.

    Parameters
    ----------
    program : StanProgram
        The program compiled; its label replaces the compiler's name for the text it was given.
    message : str
        What the compiler printed, possibly among other output.
    """
    match = _MESSAGE.search(message)
    if match is None:
        return None
    explanation = " ".join(match["explanation"].partition("\nmake:")[0].split())
    where = " ".join(match["where"].split())
    included = any(
        match["file"].endswith(f"/{name}") or match["file"] == name
        for name in _included_names(program)
    )
    label = match["file"].rpartition("/")[2] if included else program.label
    position = None if included else _POSITION.match(where)
    line, column = (None, None) if position is None else map(int, position.groups())
    return ProgramError(
        f"{match['kind']} in {label}, {where}: {explanation}",
        detail=f"{match['excerpt']}\n{match['explanation'].partition(chr(10) + 'make:')[0]}".strip(
            "\n"
        ),
        line=line,
        column=column,
    )


def _included_names(program: StanProgram) -> set[str]:
    return set(re.findall(r'#include\s+["<]?([^">\s]+)', program.expanded + program.code))
