"""The words and signs of a Stan program, and which bracket closes which."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from stanflow.stan.comments import blank_comments_and_strings

_TOKEN = re.compile(
    r"[A-Za-z]\w*|(?:\d[\d_]*(?:\.\d*)?|\.\d[\d_]*)(?:[eE][-+]?\d+)?|[=<>!]=|[^\s\w]"
)
_CLOSING = {"(": ")", "[": "]", "{": "}"}


class Tokens:
    """A program's tokens, without comments and strings; positions below count tokens.

    Parameters
    ----------
    code : str
        A Stan program with its includes expanded.

    Attributes
    ----------
    text : list of str
        The tokens.
    start : list of int
        Where in the program each begins.
    partner : dict
        From the position of each opening bracket to that of the one that closes it.
    """

    def __init__(self, code: str) -> None:
        tokens = list(_TOKEN.finditer(blank_comments_and_strings(code)))
        self.text = [token[0] for token in tokens]
        self.start = [token.start() for token in tokens]
        self.partner = _partners(self.text)

    def at(self, position: int) -> str:
        """Return the token at a position, nothing past the end."""
        return self.text[position] if position < len(self.text) else ""

    def outer(self, position: int, end: int) -> Iterator[int]:
        """Yield the positions of the tokens that are in no bracket opened since `position`."""
        while position < end:
            yield position
            position = self.partner.get(position, position) + 1

    def next(self, text: str, position: int, end: int | None = None) -> int | None:
        """Return the position of the next such token that is in no bracket opened since."""
        outer = self.outer(position, len(self.text) if end is None else end)
        return next((i for i in outer if self.text[i] == text), None)

    def split(self, position: int, end: int, empty: bool = False) -> Iterator[tuple[int, int]]:
        """Yield start and end of the pieces between commas, the empty ones, too, if asked for."""
        for comma in [i for i in self.outer(position, end) if self.text[i] == ","] + [end]:
            if comma > position or empty:
                yield position, comma
            position = comma + 1

    def is_range(self, position: int, end: int) -> bool:
        """Whether what stands between two brackets is a range, ``1:n``."""
        outer = [self.text[i] for i in self.outer(position, end)]
        return outer.count(":") > outer.count("?")  # the rest belong to `a ? b : c`

    def end(self, position: int) -> int:
        """Return where in the program a token ends."""
        return self.start[position] + len(self.text[position])


def is_name(token: str) -> bool:
    """Whether a token is a word, be it one of Stan's own or the user's."""
    return token[:1].isalpha()


def unused_name(name: str, used: Iterable[str]) -> str:
    """Return a name, with a number at its end where it is used.

    Examples
    --------
    >>> unused_name("index", ["index", "x"])
    'index2'
    """
    taken = set(used)
    names = (f"{name}{suffix}" for suffix in ("", *range(2, 1000)))
    return next(each for each in names if each not in taken)


def _partners(tokens: list[str]) -> dict[int, int]:
    partners: dict[int, int] = {}
    unclosed: list[int] = []
    for i, token in enumerate(tokens):
        if token in _CLOSING:
            unclosed.append(i)
        elif unclosed and token == _CLOSING[tokens[unclosed[-1]]]:
            partners[unclosed.pop()] = i
    partners.update(dict.fromkeys(unclosed, len(tokens)))
    return partners
