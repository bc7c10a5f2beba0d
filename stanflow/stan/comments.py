"""Comments, strings and includes of a Stan program, as the Stan compiler tells them apart.

A form feed is a space, and an include's file name may be lines below its ``#include``; a comment
ends with its line however the file ends lines (stanc3's ``src/frontend/lexer.mll``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_NEWLINE = re.compile(r"\r*\n|\r")
_COMMENT_STRING_OR_INCLUDE = re.compile(
    r"""(?P<comment> //[^\n]* | /\*.*?(?:\*/|\Z) )
      | "[^"\n]*"
      | \#include[ \t\f\n]+(?:(?P<quoted>"[^"\n]*"|<[^>\n]*>)|(?P<bare>[^ \t\f\n]*))""",
    re.VERBOSE | re.DOTALL,
)
_BARE_NAME = re.compile(r"[^ \t\f\n]*")
_INCLUDE = "#include"


@dataclass(frozen=True)
class Include:
    """An ``#include`` directive.

    Attributes
    ----------
    start, end : int
        Where it is in the text.
    file : str
        What it names.
    """

    start: int
    end: int
    file: str


def with_newlines(text: str) -> str:
    r"""Return a text whose every line ends as the Stan compiler counts them, by ``\n``.

    Examples
    --------
    >>> with_newlines("data {\r\n}\rmodel {\n}")
    'data {\n}\nmodel {\n}'
    """
    return _NEWLINE.sub("\n", text)


def includes(text: str) -> Iterator[Include]:
    r"""Yield the includes of a text that has passed `with_newlines`.

    Examples
    --------
    >>> [i.file for i in includes('#include a.stan\n// #include b.stan\n#include\n\f"c d.stan"')]
    ['a.stan', 'c d.stan']
    """
    position = 0
    while (found := _COMMENT_STRING_OR_INCLUDE.search(text, position)) is not None:
        position = found.end()
        if not found[0].startswith(_INCLUDE):
            continue
        if found["quoted"] is None:
            yield Include(found.start(), position, found["bare"])
            continue
        bare = _BARE_NAME.match(text, found.start("quoted"))
        assert bare is not None
        if bare.end() > position:  # the compiler takes the longest
            position = bare.end()
            yield Include(found.start(), position, bare[0])
        else:
            yield Include(found.start(), position, found["quoted"][1:-1])


def blank_comments_and_strings(text: str) -> str:
    """Return code of the same length and lines with comments and strings made of spaces."""
    return _replaced(text, lambda found: re.sub(r"[^\n]", " ", found[0]))


def without_includes_in_comments(text: str) -> str:
    r"""Return code of the same length in whose comments no compiler finds an include.

    Examples
    --------
    >>> without_includes_in_comments('// #include a.stan\nmodel { print("#include"); }')
    '// #Include a.stan\nmodel { print("#include"); }'
    """

    def capitalised(found: re.Match[str]) -> str:
        return found[0] if found["comment"] is None else found[0].replace(_INCLUDE, "#Include")

    return _replaced(text, capitalised)


def _replaced(text: str, replacement: Callable[[re.Match[str]], str]) -> str:
    def replace(found: re.Match[str]) -> str:
        return found[0] if found[0].startswith(_INCLUDE) else replacement(found)

    return _COMMENT_STRING_OR_INCLUDE.sub(replace, text)
