"""The statements of a Stan program and how they nest, as far as control flow goes.

The program is one that the Stan compiler takes; what is made of any other means nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from stanflow.stan.tokens import Tokens

_WITH_HEADER = ("if", "while", "for", "profile")


@dataclass(frozen=True)
class Statement:
    """A statement, declarations included.

    Attributes
    ----------
    word : str
        ``"if"``, ``"while"``, ``"for"``, ``"profile"``, ``"{"`` of a block, and else the first
        token.
    start, end : int
        Positions of its first token and of the one after its last.
    header : tuple of int
        Positions of the parentheses of ``if``, ``while``, ``for`` and ``profile``; of the first
        token and the semicolon of a statement without parts.
    parts : tuple of Statement
        Those within: a block's, a loop's one, the branches of ``if``.
    """

    word: str
    start: int
    end: int
    header: tuple[int, int]
    parts: tuple[Statement, ...] = ()

    @property
    def is_loop(self) -> bool:
        """Whether it is ``while`` or ``for``."""
        return self.word in ("while", "for")

    def walk(self) -> Iterator[Statement]:
        """Yield the statement and all within, in the order written."""
        unvisited = [self]
        while unvisited:
            statement = unvisited.pop()
            yield statement
            unvisited += reversed(statement.parts)


@dataclass(frozen=True)
class Function:
    """A function that a program defines.

    Attributes
    ----------
    name : str
        Its name.
    is_void : bool
        It returns nothing.
    body : Statement
        The block.
    """

    name: str
    is_void: bool
    body: Statement


@dataclass(frozen=True)
class Outline:
    """The statements of a program.

    Attributes
    ----------
    functions : tuple of Function
        Those it defines.
    blocks : tuple of Statement
        Its other blocks.
    """

    functions: tuple[Function, ...]
    blocks: tuple[Statement, ...]

    def walk(self) -> Iterator[Statement]:
        """Yield all statements."""
        for block in (*(function.body for function in self.functions), *self.blocks):
            yield from block.walk()


def outline(tokens: Tokens) -> Outline:
    """Find the functions and statements of a program.

    Examples
    --------
    >>> program = outline(Tokens("functions { void f() { return; } } model { while (1) f(); }"))
    >>> [function.name for function in program.functions]
    ['f']
    >>> [statement.word for statement in program.walk()]
    ['{', 'return', '{', 'while', 'f']
    """
    functions: list[Function] = []
    blocks: list[Statement] = []
    position = 0
    while (opening := tokens.next("{", position)) is not None:
        closing = tokens.partner[opening]
        if tokens.text[position:opening] == ["functions"]:
            functions += _functions(tokens, opening + 1, closing)
        else:
            blocks.append(_statement(tokens, opening))
        position = closing + 1
    return Outline(tuple(functions), tuple(blocks))


def _functions(tokens: Tokens, position: int, end: int) -> Iterator[Function]:
    first = position
    while (opening := tokens.next("(", position, end)) is not None:
        position = tokens.partner[opening] + 1
        name = tokens.text[opening - 1]
        if name == "tuple":  # a returned type, not yet the arguments
            continue
        if tokens.at(position) == "{":
            body = _statement(tokens, position)
            yield Function(name, tokens.text[first] == "void", body)
            position = body.end
        else:  # declared ahead of its definition
            position += 1
        first = position


def _statement(tokens: Tokens, position: int) -> Statement:
    word = tokens.text[position]
    if word == "{":
        end = tokens.partner[position] + 1
        return Statement(word, position, end, (position, end), _sequence(tokens, position + 1, end))
    if word in _WITH_HEADER and tokens.at(position + 1) == "(":
        header = (position + 1, tokens.partner[position + 1])
        parts = [_statement(tokens, header[1] + 1)]
        if word == "if" and tokens.at(parts[0].end) == "else":
            parts.append(_statement(tokens, parts[0].end + 1))
        return Statement(word, position, parts[-1].end, header, tuple(parts))
    end = (tokens.next(";", position) or position) + 1
    return Statement(word, position, end, (position, end - 1))


def _sequence(tokens: Tokens, position: int, end: int) -> tuple[Statement, ...]:
    statements: list[Statement] = []
    while position < end - 1:
        statements.append(_statement(tokens, position))
        position = statements[-1].end
    return tuple(statements)
