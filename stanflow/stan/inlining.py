"""What becomes wrong where the compiler inlines a user's function.

The embedded engine's compiler puts the bodies of nearly all functions in place of their calls,
outside transformed data. Three things then go wrong:

- ``return`` within ``while``; within ``for`` where the function returns nothing; and a function's
  only ``return`` where it is not the last that is done. What follows is done nevertheless.
- A call in the condition of ``while``, or the bounds of ``for``, where the loop's body says
  ``continue``: the condition is not computed anew.
- Arguments, and the first part of ``a && b``, ``a || b`` and ``a ? b : c`` with a call of a
  function: they are computed more than once, which matters to random numbers and ``target()``.

It does not inline a function that has another of the same name, nor calls of a function in itself
and ahead of its definition. Then the engine is right, but for two things:

- ``return`` within a loop where the function is called within ``while``.
- What leaves a branch early of ``if`` and ``else`` that both leave the function or a loop at their
  end, unless nothing follows.

In both, what follows is done nevertheless.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from stanflow.stan.comments import blank_comments_and_strings
from stanflow.stan.declarations import block_spans
from stanflow.stan.edits import Edit
from stanflow.stan.statements import Function, Outline, Statement, outline
from stanflow.stan.tokens import Tokens

InliningFault = Literal[
    "early return from a function",
    "`continue` of a loop whose condition calls a function",
    "random number or `target()` next to a call of a function",
]
_RETURN: InliningFault = "early return from a function"
_CONTINUE: InliningFault = "`continue` of a loop whose condition calls a function"
_TWICE: InliningFault = "random number or `target()` next to a call of a function"

_LOOPS = ("while", "for")
_CHANGES_AT_EACH_CALL = re.compile(r"\w+_(rng|lp|jacobian)|target")
_DENSITY = re.compile(r"(\w+)_(lpdf|lpmf)")
_VARIATE = re.compile(r"\w+_(lpdf|lpmf|cdf|lcdf|lccdf)")
_NO_ARGUMENT = "tuple(int, int, int, int, int, int, int) unused"


@dataclass(frozen=True)
class Inlined:
    """A piece of a program that goes wrong where a function is inlined.

    Attributes
    ----------
    kind : str
        What it is.
    start, end : int
        The piece in the text.
    functions : tuple of str
        The functions concerned.
    return_to_add : int or None
        Where in the text one more ``return;`` puts it right.
    """

    kind: InliningFault
    start: int
    end: int
    functions: tuple[str, ...]
    return_to_add: int | None = None


def wrongly_inlined(code: str) -> tuple[Inlined, ...]:
    """Find what goes wrong where functions are inlined.

    Parameters
    ----------
    code : str
        A Stan program with its includes expanded.

    Notes
    -----
    Blocks are not told apart, so that what stands in transformed data, where all is right, is
    found, too. Functions that are only passed to others, as to a solver, are not.

    Examples
    --------
    >>> code = "functions { int f(int n) { int i = 0; while (1) { i += 1; if (i^2 > n) return i; } "
    >>> code += "return 0; } } model { target += f(20); }"
    >>> [code[found.start:found.end] for found in wrongly_inlined(code)]
    ['return i']
    """
    tokens = Tokens(code)
    program = outline(tokens)
    names = [function.name for function in program.functions]
    functions = [function for function in program.functions if names.count(function.name) == 1]
    calls = _Calls(tokens, program, functions)
    called = calls.functions()
    found = [
        *_early_returns(tokens, (each for each in functions if each.name in called)),
        *_lost_without_inlining(tokens, program),
        *calls.found(),
    ]
    pieces = {(piece.start, piece.end, piece.kind): piece for piece in reversed(found)}
    return tuple(pieces[key] for key in sorted(pieces))


def kept_from_inlining(code: str, found: Iterable[Inlined]) -> list[Edit]:
    """Return the edits that make the compiler, or the engine, do right, on the same lines.

    Each function gets another of its name, with arguments that no call has. A function that returns
    nothing, which the engine cannot run unless inlined, gets one more ``return;`` where that helps.

    Parameters
    ----------
    code : str
        The program that `found` were found in.
    found : iterable of Inlined
        Pieces of it.
    """
    found = tuple(found)
    program = outline(Tokens(code))
    void = {function.name for function in program.functions if function.is_void}
    returns = {piece.return_to_add for piece in found} - {None}
    edits = [Edit(place, 0, " return;") for place in returns if place is not None]
    names = sorted({name for piece in found for name in piece.functions} - void)
    block = block_spans(blank_comments_and_strings(code)).get("functions")
    if names and block is not None:
        edits.append(Edit(block[1], 0, "".join(map(_another, names))))
    return edits


def changes_at_each_call(tokens: Tokens, positions: range) -> bool:
    """Whether a call there gives another result each time, or does something besides."""
    return any(
        _CHANGES_AT_EACH_CALL.fullmatch(tokens.text[i]) and tokens.at(i + 1) == "("
        for i in positions
    )


def _another(name: str) -> str:
    arguments = _NO_ARGUMENT
    if _VARIATE.fullmatch(name):
        arguments = f"{'int' if name.endswith('_lpmf') else 'real'} variate, {arguments}"
    return f" real {name}({arguments}) {{ return 0; }}"


# ---- Returns ----------------------------------------------------------------------------------


def _early_returns(tokens: Tokens, functions: Iterable[Function]) -> Iterator[Inlined]:
    for function in functions:
        body = function.body
        returns = [each for each in body.walk() if each.word == "return"]
        if len(returns) == 1:
            last = {id(each) for each in _last_done(body)}
            wrong = [each for each in returns if id(each) not in last]
        else:
            wrong = list(_returns_in_loops(body, _LOOPS if function.is_void else ("while",)))
        in_loops = {id(each) for each in _returns_in_loops(body, _LOOPS)}
        for each in wrong:
            addable = function.is_void and id(each) not in in_loops
            yield Inlined(
                _RETURN,
                tokens.start[each.start],
                tokens.start[each.end - 1],
                (function.name,),
                tokens.start[body.end - 1] if addable else None,
            )


def _lost_without_inlining(tokens: Tokens, program: Outline) -> Iterator[Inlined]:
    """Yield what goes wrong in functions that are not inlined, or may not be."""
    calls = _Calls(tokens, program, program.functions)
    names = [function.name for function in program.functions]
    left = {name for name in names if names.count(name) > 1}
    calls_of: dict[str, set[str]] = {name: set() for name in names}
    for i, function in enumerate(program.functions):
        called = calls.within(function.body)
        calls_of[function.name] |= called
        left |= called.intersection(names[i:])
    repeated = _reached(
        (
            name
            for statement in program.walk()
            if statement.word == "while"
            for name in calls.within(statement)
        ),
        calls_of,
    )
    for function in program.functions:
        if function.name in left:
            lost = list(_passed_over(function.body))
            if function.name in repeated:
                lost += _returns_in_loops(function.body, _LOOPS)
            for each in lost:
                start, end = tokens.start[each.start], tokens.start[each.end - 1]
                yield Inlined(_RETURN, start, end, (function.name,))


def _reached(names: Iterable[str], calls_of: dict[str, set[str]]) -> set[str]:
    """Return those functions, those they call, those these call, and so on."""
    reached: set[str] = set()
    unvisited = list(names)
    while unvisited:
        name = unvisited.pop()
        if name not in reached:
            reached.add(name)
            unvisited += calls_of[name]
    return reached


def _passed_over(body: Statement) -> Iterator[Statement]:
    """Yield what leaves a branch before its end, where both branches leave at theirs."""
    last = {id(statement) for statement in _last_done(body)}
    for statement in body.walk():
        if len(statement.parts) == 2 and statement.word == "if" and _leaves(statement):
            for branch in statement.parts:
                ends = {id(each) for each in _last_done(branch)}
                for each, in_loop in _leaving(branch):
                    if id(each) not in ends and (in_loop or id(statement) not in last):
                        yield each


def _leaves(statement: Statement) -> bool:
    """Whether nothing after the statement is done, as far as can be told."""
    if statement.word == "if":
        return len(statement.parts) == 2 and all(map(_leaves, statement.parts))
    if statement.parts:
        return any(map(_leaves, statement.parts))
    return statement.word in ("return", "break", "continue", "reject", "fatal_error")


def _leaving(statement: Statement, in_loop: bool = False) -> Iterator[tuple[Statement, bool]]:
    """Yield what leaves a statement, and whether that is in a loop within."""
    if statement.word == "return" or (statement.word in ("break", "continue") and not in_loop):
        yield statement, in_loop
    for part in statement.parts:
        yield from _leaving(part, in_loop or statement.is_loop)


def _last_done(statement: Statement) -> Iterator[Statement]:
    """Yield those statements after which nothing else of the function is done."""
    yield statement
    if statement.word in ("{", "profile"):
        for part in statement.parts[-1:]:
            yield from _last_done(part)
    elif statement.word == "if":
        for part in statement.parts:
            yield from _last_done(part)


def _returns_in_loops(
    statement: Statement, loops: tuple[str, ...], within: bool = False
) -> Iterator[Statement]:
    if statement.word == "return" and within:
        yield statement
    for part in statement.parts:
        yield from _returns_in_loops(part, loops, within or statement.word in loops)


# ---- Calls ------------------------------------------------------------------------------------


class _Calls:
    """Calls of functions that are inlined."""

    def __init__(self, tokens: Tokens, program: Outline, functions: Iterable[Function]) -> None:
        self._tokens = tokens
        self._program = program
        self._called: dict[str, str] = {}  # from the name in a call to the function's
        self._distributed: dict[str, str] = {}  # the same, after `~`
        for name in (function.name for function in functions):
            self._called[name] = name
            if density := _DENSITY.fullmatch(name):
                self._called[f"{density[1]}_lu{density[2][1:]}"] = name
                self._distributed[density[1]] = name

    def functions(self) -> set[str]:
        """Return the functions that may be called, rather than just passed to another."""
        densities = {name for name in self._called.values() if _VARIATE.fullmatch(name)}
        bodies = [function.body for function in self._program.functions]
        return densities.union(*map(self.within, (*bodies, *self._program.blocks)))

    def within(self, statement: Statement) -> set[str]:
        """Return the functions that a statement calls."""
        return {name for _, name in self._calls(statement.start, statement.end)}

    def found(self) -> Iterator[Inlined]:
        """Yield the pieces that depend on how calls are inlined."""
        for statement in self._program.walk():
            if statement.word == "{":
                continue
            start, end = statement.header  # `end` is a closing parenthesis, or a semicolon
            changes = changes_at_each_call(self._tokens, range(start, end))
            calls = list(self._calls(start, end))
            names = tuple(sorted({name for _, name in calls}))
            if names and statement.is_loop and _continues(statement.parts[0]):
                yield self._piece(_CONTINUE, statement.start, end + 1, names)
            if names and self._is_conditional(start, end) and changes:
                yield self._piece(_TWICE, statement.start, end + (start > statement.start), names)
                continue
            for position, name in calls:
                closing = self._tokens.partner.get(position + 1, end)
                if changes_at_each_call(self._tokens, range(position + 1, closing)):
                    yield self._piece(_TWICE, position, closing + 1, (name,))

    def _calls(self, start: int, end: int) -> Iterator[tuple[int, str]]:
        """Yield the position and the function of each call between two tokens."""
        for i in range(start, end):
            if self._tokens.at(i + 1) == "(":
                distributed = i > 0 and self._tokens.text[i - 1] == "~"
                names = self._distributed if distributed else self._called
                if (name := names.get(self._tokens.text[i])) is not None:
                    yield i, name

    def _is_conditional(self, start: int, end: int) -> bool:
        return any(self._tokens.text[i] in ("?", "&", "|") for i in range(start, end))

    def _piece(
        self, kind: InliningFault, start: int, end: int, functions: tuple[str, ...]
    ) -> Inlined:
        return Inlined(kind, self._tokens.start[start], self._tokens.end(end - 1), functions)


def _continues(statement: Statement) -> bool:
    """Whether it says ``continue`` to the loop that it is in."""
    return statement.word == "continue" or (
        not statement.is_loop and any(map(_continues, statement.parts))
    )
