"""Changes to a text, all given by their places in it as it was."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Edit:
    """A piece of a text and what takes its place.

    Attributes
    ----------
    start, length : int
        The piece; of length 0 where something is only put in.
    text : str
        What takes its place.
    """

    start: int
    length: int
    text: str


def edited(text: str, edits: Iterable[Edit]) -> str:
    """Return a text with edits made.

    Parameters
    ----------
    text : str
        As it was.
    edits : iterable of Edit
        In any order; no two may overlap.

    Examples
    --------
    >>> edited("b[1] = a;", [Edit(3, 0, ", :"), Edit(7, 1, "c")])
    'b[1, :] = c;'
    """
    for edit in sorted(edits, reverse=True):
        text = text[: edit.start] + edit.text + text[edit.start + edit.length :]
    return text
