"""What the embedded engine's compiled program says: which rows it assigns, what it passes on.

stanli writes a program's middle-level representation (MIR) as base64 of a binary form, in which
every expression carries its type, so these answers are the Stan compiler's own. Of that form only
expressions are read, and only as far as their types::

    expression := tag, content, type
    content    := name | 32-bit integer | 64-bit real | text          tags 0 to 3
                | kind, name, flag, count, that many expressions      tag 4, a call or an index
                | count, that many expressions                        tags 6 to 9
                | nothing: what this form lacks is the type's text    tag 10
    type       := name, array dimensions, base, data only, promoted, text
    name, text := 32-bit length, that many bytes

An assignment is the byte 1, a name, a count of indices, the indices as calls, and the value.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass

from stanflow.errors import BeyondEmbeddedError

_PREFIX = "STANLI2:"
_VARIABLE, _INTEGER, _REAL, _TEXT, _CALL = range(5)
_NESTED = (6, 7, 8, 9)  # indexing, ?:, ||, &&
_OTHER = 10
_INT_BASE = 1
_ROW_TARGET = re.compile(
    rb"\x01(?P<length>.{4})(?P<name>[A-Za-z]\w*)\x01\0\0\0(?P<index>\x04\0\x0b\0\0\0IndexSingle)",
    re.DOTALL,
)
_TWO_DIMENSIONS = re.compile(
    rb"(?P<length>.{4})(?P<name>[A-Za-z]\w*)\x06\0\0\0SArray\x02\0\0\0", re.DOTALL
)


class _UnreadableError(Exception):
    """Bytes that this module cannot follow."""


@dataclass(frozen=True)
class ArgumentType:
    """The type of an expression, as far as it is read.

    Attributes
    ----------
    array_dimensions : int
        0 for what is no array.
    base : int
        What it is an array of, or is.
    is_data : bool
        It depends on no parameter; what a user's function passes on does, unless declared ``data``.
    """

    array_dimensions: int
    base: int
    is_data: bool

    @property
    def is_int_row(self) -> bool:
        """Whether it is an array of int of one dimension."""
        return self.array_dimensions == 1 and self.base == _INT_BASE


def rows_assigned(mir: str) -> frozenset[str]:
    """Return the two-dimensional int arrays of which the program assigns a row by one index.

    Parameters
    ----------
    mir : str
        A program as `stanc.to_mir` writes it.

    Returns
    -------
    frozenset of str
        Names of variables; where an assigned value cannot be read, every two-dimensional int
        array of that name counts.

    Raises
    ------
    BeyondEmbeddedError
        This version of stanli writes another format.

    Examples
    --------
    >>> from stanflow.stan import stanc
    >>> data = "data { array[2, 3] int a; } "
    >>> rows_assigned(stanc.to_mir(
    ...     data + "transformed data { array[2, 3] int b = a; b[1] = a[2]; }"))
    frozenset({'b'})
    >>> rows_assigned(stanc.to_mir(
    ...     data + "transformed data { array[2, 3] int b = a; b[1, :] = a[2]; }"))
    frozenset()
    """
    payload = _payload(mir)
    return frozenset(
        match["name"].decode()
        for match in _named(_ROW_TARGET, payload)
        if _assigns_int_row(payload, match)
    )


def called_with_last(
    mir: str, functions: Collection[str], is_such: Callable[[ArgumentType], bool]
) -> frozenset[str]:
    """Return those of some functions that the program calls with such a last argument.

    Parameters
    ----------
    mir : str
        A program as `stanc.to_mir` writes it.
    functions : collection of str
        Names of Stan's own functions.
    is_such : callable
        Tells by its type whether an argument is one; what cannot be read is.

    Raises
    ------
    BeyondEmbeddedError
        This version of stanli writes another format.
    """
    payload = _payload(mir)
    names = b"|".join(re.escape(name.encode()) for name in functions)
    calls = re.compile(rb"\x04\0(?P<length>.{4})(?P<name>" + names + rb")[\0\1]", re.DOTALL)
    return frozenset(
        match["name"].decode()
        for match in _named(calls, payload)
        if (last := _last_argument(payload, match.end())) is None or is_such(last)
    )


def _payload(mir: str) -> bytes:
    if not mir.startswith(_PREFIX):
        raise BeyondEmbeddedError(
            "this version of the embedded engine compiles programs to a form that StanFlow cannot "
            "check (`stanflow doctor` names the version of stanli that it can)"
        )
    return base64.b64decode(mir.removeprefix(_PREFIX))


def _named(pattern: re.Pattern[bytes], payload: bytes) -> list[re.Match[bytes]]:
    """Return the matches whose length field is the length of their name."""
    return [
        match
        for match in pattern.finditer(payload)
        if int.from_bytes(match["length"], "little") == len(match["name"])
    ]


def _assigns_int_row(payload: bytes, target: re.Match[bytes]) -> bool:
    try:
        reader = _Reader(payload, target.start("index"))
        reader.expression()
        return reader.expression().is_int_row
    except _UnreadableError:
        return target["name"] in {
            match["name"] for match in _named(_TWO_DIMENSIONS, payload) if _is_int(payload, match)
        }


def _is_int(payload: bytes, declaration: re.Match[bytes]) -> bool:
    try:
        reader = _Reader(payload, declaration.end())
        reader.expression()
        reader.expression()
        return reader.text() == b"SInt"
    except _UnreadableError:
        return True


def _last_argument(payload: bytes, position: int) -> ArgumentType | None:
    """Return the type of a call's last argument, None where it cannot be read."""
    try:
        reader = _Reader(payload, position)
        return [reader.expression() for _ in range(reader.integer())][-1]
    except (_UnreadableError, IndexError):
        return None


class _Reader:
    """Reads expressions from a position on."""

    def __init__(self, payload: bytes, position: int) -> None:
        self._payload = payload
        self._position = position

    def expression(self) -> ArgumentType:
        """Read one expression, however deep, and return its type."""
        unread: list[int] = []  # of each enclosing expression, how many parts are still to come
        while True:
            parts = self._open()
            if parts:
                unread.append(parts)
                continue
            closed = self._type()
            while unread:
                unread[-1] -= 1
                if unread[-1]:
                    break
                unread.pop()
                closed = self._type()
            else:
                return closed

    def integer(self) -> int:
        return int(struct.unpack("<I", self._take(4))[0])

    def text(self) -> bytes:
        return self._take(self.integer())

    def _open(self) -> int:
        """Read an expression up to its parts, and return how many it has."""
        tag = self._take(1)[0]
        if tag in (_VARIABLE, _TEXT):
            self.text()
        elif tag == _INTEGER:
            self._take(4)
        elif tag == _REAL:
            self._take(8)
        elif tag == _CALL:
            self._take(1)
            self.text()
            self._take(1)
            return self.integer()
        elif tag in _NESTED:
            return self.integer()
        elif tag != _OTHER:
            raise _UnreadableError(tag)
        return 0

    def _type(self) -> ArgumentType:
        self.text()
        array_dimensions, base, is_data = self._take(4)[:3]
        self.text()
        return ArgumentType(array_dimensions, base, bool(is_data))

    def _take(self, count: int) -> bytes:
        taken = self._payload[self._position : self._position + count]
        if len(taken) < count:
            raise _UnreadableError(self._position)
        self._position += count
        return taken
