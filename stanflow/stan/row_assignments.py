"""Where a program's text assigns a whole row of a two-dimensional int array, ``b[i] = a;``.

A reader of Stan's statements, not of its expressions: what an assignment's left-hand side is
follows from declarations alone, which are always written out. The program is one that the Stan
compiler takes; in any other the rows found mean nothing.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Generator, Iterator
from dataclasses import dataclass

from stanflow.stan.tokens import Tokens, is_name

_WITH_BODY = {"if", "while", "for", "profile"}
_NOT_A_TYPE = {"return", "else", "break", "continue", "in"}

Scope = ChainMap[str, int]
"""Of each variable in scope, the dimensions of its int array; 0 for other types and scalars."""


@dataclass(frozen=True)
class RowAssignment:
    """An assignment to a row of a two-dimensional int array.

    Attributes
    ----------
    name : str
        The array.
    start, end : int
        The statement in the text, without its semicolon.
    bracket : int
        The bracket that closes the row's index.
    """

    name: str
    start: int
    end: int
    bracket: int


def row_assignments(code: str) -> tuple[RowAssignment, ...]:
    """Find the assignments to rows of two-dimensional int arrays, in the order written.

    Parameters
    ----------
    code : str
        A Stan program with its includes expanded.

    Notes
    -----
    Whether an index is one number or an array of them is told for names and array literals;
    any other expression is taken as one number.

    Examples
    --------
    >>> code = "transformed data { array[2, 3] int b; b[1] = {1, 2, 3}; b[2, :] = b[1]; }"
    >>> [code[row.start:row.end] for row in row_assignments(code)]
    ['b[1] = {1, 2, 3}']
    """
    return tuple(sorted(_Statements(code).rows(), key=lambda row: row.start))


class _Statements(Tokens):
    """The walk over a program's statements."""

    def rows(self) -> Iterator[RowAssignment]:
        scope: Scope = ChainMap()
        position = 0
        while (opening := self.next("{", position)) is not None:
            closing = self.partner[opening]
            block = " ".join(self.text[position:opening])
            if block == "functions":
                yield from self._functions(opening + 1, closing)
            else:
                # What data and parameters blocks declare is seen by all later blocks; what a model
                # block declares ends with it.
                inner = scope.new_child() if block == "model" else scope
                yield from self._sequence(opening + 1, closing, inner)
            position = closing + 1

    def _functions(self, position: int, end: int) -> Iterator[RowAssignment]:
        while (opening := self.next("(", position, end)) is not None:
            closing = self.partner[opening]
            if self.text[opening - 1] == "tuple":  # a returned type, not yet the arguments
                position = closing + 1
                continue
            body = closing + 1
            if self.at(body) == "{":
                arguments = self._arguments(opening + 1, closing)
                yield from self._sequence(body + 1, self.partner[body], arguments)
                body = self.partner[body]
            position = body + 1

    def _arguments(self, position: int, end: int) -> Scope:
        scope: Scope = ChainMap()
        for start, stop in self.split(position, end):
            begin = start + 1 if self.at(start) == "data" else start
            dimensions, _ = self._type(begin)
            scope[self.text[stop - 1]] = dimensions
        return scope

    def _sequence(self, position: int, end: int, scope: Scope) -> Iterator[RowAssignment]:
        while position < end:
            position = yield from self._statement(position, scope)

    def _statement(self, position: int, scope: Scope) -> Generator[RowAssignment, None, int]:
        """Walk over a statement and return where the next one begins."""
        first = self.text[position]
        if first == "{":
            yield from self._sequence(position + 1, self.partner[position], scope.new_child())
            return self.partner[position] + 1
        if first == "else":
            return (yield from self._statement(position + 1, scope))
        if first in _WITH_BODY and self.at(position + 1) == "(":
            inner = scope.new_child()
            if first == "for":
                inner[self.text[position + 2]] = 0  # a loop's variable cannot be assigned to
            return (yield from self._statement(self.partner[position + 1] + 1, inner))
        end = self.next(";", position)
        if end is None:  # cannot be in a program that compiles
            return len(self.text)
        if not self._declare(position, end, scope):
            yield from self._row(position, end, scope)
        return end + 1

    def _declare(self, position: int, end: int, scope: Scope) -> bool:
        """Put what a declaration declares into scope; return False for another statement."""
        if not is_name(self.text[position]) or self.text[position] in _NOT_A_TYPE:
            return False
        dimensions, after = self._type(position)
        if not is_name(self.at(after)):
            return False
        for start, _ in self.split(after, end):
            scope[self.text[start]] = dimensions
        return True

    def _type(self, position: int) -> tuple[int, int]:
        """Return the dimensions of the int array of which a type begins here, and its end."""
        first, after = self.text[position], position + 1
        if first == "array" and self.at(after) == "[":
            closing = self.partner[after]
            dimensions = sum(1 for _ in self.split(after + 1, closing, empty=True))
            inner, end = self._type(closing + 1)
            is_int = self.text[closing + 1] == "int" or inner > 0
            return (dimensions + inner if is_int else 0), end
        if first == "tuple" and self.at(after) == "(":
            return 0, self.partner[after] + 1
        if self.at(after) == "<":
            after = (self.next(">", after) or after) + 1
        if self.at(after) == "[":
            after = self.partner[after] + 1
        return 0, after

    def _row(self, position: int, end: int, scope: Scope) -> Iterator[RowAssignment]:
        name = self.text[position]
        if self.at(position + 1) != "[" or scope.get(name) != 2:
            return
        closing = self.partner[position + 1]
        if self.at(closing + 1) == "=" and self._is_one_number(position + 2, closing, scope):
            yield RowAssignment(name, self.start[position], self.start[end], self.start[closing])

    def _is_one_number(self, position: int, end: int, scope: Scope) -> bool:
        """Whether what stands between two brackets is one index, and that a single number."""
        if sum(1 for _ in self.split(position, end, empty=True)) != 1 or position == end:
            return False
        if self.is_range(position, end):
            return False
        if self.text[position] == "{":
            return self.partner[position] + 1 != end
        return not (position + 1 == end and scope.get(self.text[position], 0) > 0)
