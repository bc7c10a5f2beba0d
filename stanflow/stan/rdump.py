"""Data in R's dump format, which Stan took before JSON.

Assignments of numbers, ``c(...)``, ranges, ``integer(n)`` and ``structure(..., .Dim = ...)``, whose
elements are in column-major order (CmdStan 2.25 User's Guide, "RDump Format for CmdStan"). As
there, a number without decimal point and exponent is whole.
"""

from __future__ import annotations

import math
import re
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

_TOKEN = re.compile(
    r"""[\s;]+ | \#[^\n]*
      | (?P<number>[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?L?|NaN|NA|Inf(?:inity)?)(?![\w.]))
      | (?P<name>[A-Za-z.][\w.]*|"[^"\n]*"|'[^'\n]*'|`[^`\n]*`)
      | (?P<mark><-|[(),:=])""",
    re.VERBOSE,
)
_WHOLE = re.compile(r"[-+]?\d+L?")
_ZEROS: dict[str, type[int] | type[float]] = {"integer": int, "double": float, "numeric": float}
_DIMENSIONS = (".Dim", "dim")

Numbers = npt.NDArray[Any]


class RDumpError(ValueError):
    """The text is not in this format; the message says where."""


def read_rdump(text: str) -> dict[str, Any]:
    """Read variables from R's dump format.

    Parameters
    ----------
    text : str
        The file's text.

    Returns
    -------
    dict
        From variable names to ints, floats or arrays.

    Raises
    ------
    RDumpError
        The text is not in this format, or a variable is given twice.

    Examples
    --------
    >>> read_rdump('N <- 2L; "x" <- structure(c(1.5, 2, 3, 4), .Dim = c(2L, 2L))')
    {'N': 2, 'x': array([[1.5, 3. ],
           [2. , 4. ]])}
    """
    return _Reader(text).variables()


class _Reader:
    def __init__(self, text: str) -> None:
        self._text, self._start, self._next = text, 0, 0
        self._kind: str | None
        self._token: str
        self._advance()

    def variables(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while self._kind is not None:
            name = self._take("name").strip("\"'`")
            if name in found:
                raise RDumpError(f"{name} is given more than once")
            self._take("mark", "<-", "=")
            found[name] = self._value()
        return found

    def _value(self) -> Any:
        if self._kind == "number":
            return self._element()
        function = self._take("name")
        self._take("mark", "(")
        if function == "c":
            return self._concatenated()
        if function in _ZEROS:
            size = 0 if self._token == ")" else self._whole_number()
            self._take("mark", ")")
            return np.zeros(size, dtype=_ZEROS[function])
        if function == "structure":
            return self._structure()
        return self._refuse(f"{function}(...) is not read")

    def _concatenated(self) -> Numbers:
        elements: list[Any] = []
        while self._token != ")":
            element = self._element()
            elements += element.tolist() if isinstance(element, np.ndarray) else [element]
            if self._token != ")":
                self._take("mark", ",")
        self._take("mark", ")")
        whole = all(isinstance(element, int) for element in elements)
        return np.array(elements, dtype=np.int64 if whole else np.float64)

    def _element(self) -> Any:
        """Return a number, or the array of a range."""
        first = self._number()
        if self._token != ":":
            return first
        if not isinstance(first, int):
            self._refuse("a range must be of whole numbers")
        self._take("mark", ":")
        last = self._whole_number(negative=True)
        step = 1 if last >= first else -1
        return np.arange(first, last + step, step)

    def _number(self) -> int | float:
        token = self._take("number")
        if token.endswith("NA"):
            self._refuse("NA: Stan has no missing values, so leave such entries out")
        if _WHOLE.fullmatch(token):
            return int(token.removesuffix("L"))
        return float(token.removesuffix("L"))

    def _whole_number(self, *, negative: bool = False) -> int:
        number = self._number()
        if not isinstance(number, int) or (number < 0 and not negative):
            self._refuse(f"{number} must be a whole number{'' if negative else ', not negative'}")
        return number

    def _structure(self) -> Numbers:
        values, shape = np.atleast_1d(self._value()), None
        while self._token == ",":
            self._take("mark", ",")
            name = self._take("name")
            self._take("mark", "=")
            if name in _DIMENSIONS:
                shape = tuple(np.atleast_1d(self._value()).tolist())
            else:
                self._skip()
        self._take("mark", ")")
        if shape is None:
            return values
        if values.size != math.prod(shape) or min(shape) < 0:
            self._refuse(f"{values.size} numbers do not fill an array of shape {shape}")
        return values.reshape(shape, order="F")

    def _skip(self) -> None:
        """Pass over the value of an attribute that is of no use."""
        depth = 0
        while self._kind is not None and (depth > 0 or self._token not in (",", ")")):
            depth += (self._token == "(") - (self._token == ")")
            self._advance()

    def _take(self, kind: str, *expected: str) -> str:
        token = self._token
        if self._kind != kind or (expected and token not in expected):
            self._refuse(f"{token!r} is not expected" if self._kind else "the text breaks off")
        self._advance()
        return token

    def _advance(self) -> None:
        """Go to the next token that is no space or comment."""
        self._kind, self._token = None, ""
        while self._kind is None and self._next < len(self._text):
            self._start = self._next
            match = _TOKEN.match(self._text, self._next)
            if match is None:
                self._refuse(f"{self._text[self._next]!r} is not expected")
            self._next = match.end()
            self._kind, self._token = match.lastgroup, match[0]

    def _refuse(self, problem: str) -> NoReturn:
        line = self._text.count("\n", 0, self._start) + 1
        raise RDumpError(f"line {line}: {problem}")
