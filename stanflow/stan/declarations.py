"""The declarations of a Stan program's data block: names, types, sizes and bounds.

Only what checking data needs is read. The Stan compiler remains the judge of the program: text
that this module cannot follow yields fewer checks here, never an error.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from lark import Lark, LarkError, Token, Tree

from stanflow.stan.comments import blank_comments_and_strings

_GRAMMAR = r"""
    start: (declaration ";")*
    declaration: type NAME ("," NAME)*
    type: "array" sizes type            -> array
        | "tuple" "(" type ("," type)* ")" -> tuple
        | NAME bounds? sizes?           -> basic
    bounds: "<" bound ("," bound)* ">"
    bound: NAME "=" expression
    sizes: "[" expression ("," expression)* "]"
    expression: _piece+
    _piece: NAME | NUMBER | OPERATOR | group
    group: "(" _inner* ")" | "[" _inner* "]" | "{" _inner* "}"
    _inner: _piece | COMPARISON | "<" | ">" | "=" | ","
    NAME: /[A-Za-z]\w*/
    NUMBER: /\d[\d_]*(\.\d*)?([eE][-+]?\d+)?|\.\d+([eE][-+]?\d+)?/
    OPERATOR: /[-+*\/%^'?:.&|\\]+|!(?!=)/
    COMPARISON: /[<>=!]=/
    %import common.WS
    %ignore WS
"""

_SQUARE_MATRICES = {"cov_matrix", "corr_matrix", "cholesky_factor_corr", "cholesky_factor_cov"}


@dataclass(frozen=True)
class StanType:
    """The type of a declaration.

    Attributes
    ----------
    base : str
        ``"int"``, ``"real"``, ``"vector"``, ...; ``"tuple"`` for a tuple.
    sizes : tuple of str
        Size expressions, outermost first: those of the arrays around the base type, then its own.
    bounds : mapping of str to str
        ``lower``, ``upper``, ``offset`` and ``multiplier`` expressions.
    elements : tuple of StanType
        The types inside a tuple.
    """

    base: str
    sizes: tuple[str, ...] = ()
    bounds: tuple[tuple[str, str], ...] = ()
    elements: tuple[StanType, ...] = ()

    @property
    def is_integer(self) -> bool:
        """Whether values are whole numbers."""
        return self.base == "int"

    @property
    def is_complex(self) -> bool:
        """Whether values are complex numbers."""
        return self.base.startswith("complex")


@dataclass(frozen=True)
class Declaration:
    """One declared variable: its name, its type, and its text as written."""

    name: str
    type: StanType
    text: str


class UnknownValueError(Exception):
    """An expression whose value this module does not work out; the engine will."""


def find_blocks(code: str) -> dict[str, str]:
    """Return the text inside each top-level block, comments and strings blanked out.

    Parameters
    ----------
    code : str
        A Stan program with its includes expanded.

    Returns
    -------
    dict
        From block name (``"data"``, ``"transformed data"``, ...) to the text between its braces.

    Examples
    --------
    >>> find_blocks("data { int N; /* data { */ } model { { } }")["data"].split()
    ['int', 'N;']
    """
    text = blank_comments_and_strings(code)
    return {name: text[start:end] for name, (_, start, end) in block_spans(text).items()}


def block_spans(text: str) -> dict[str, tuple[int, int, int]]:
    """Locate each top-level block of a program without comments and strings.

    Returns
    -------
    dict
        From block name to where its header starts, its text starts, and its text ends.
    """
    spans: dict[str, tuple[int, int, int]] = {}
    depth, header_start, body_start = 0, 0, 0
    for brace in re.finditer(r"[{}]", text):
        if brace[0] == "{":
            if depth == 0:
                body_start = brace.end()
            depth += 1
        else:
            depth -= 1
            if depth == 0:
                header = " ".join(text[header_start : body_start - 1].split())
                spans.setdefault(header, (header_start, body_start, brace.start()))
                header_start = brace.end()
    return spans


def parse_declarations(block: str) -> tuple[Declaration, ...]:
    """Parse the declarations of a block whose comments are blanked out.

    Returns
    -------
    tuple of Declaration
        In the order written; empty where the text is not a sequence of declarations (the Stan
        compiler says why).

    Examples
    --------
    >>> [d.text for d in parse_declarations("int<lower=0> N; array[N] real y;")]
    ['int<lower=0> N', 'array[N] real y']
    """
    try:
        tree = _parser().parse(block)
    except LarkError:
        return ()
    return tuple(
        declaration
        for node in tree.children
        if isinstance(node, Tree)
        for declaration in _declarations(node, block)
    )


@cache
def _parser() -> Lark:
    return Lark(_GRAMMAR, parser="lalr", propagate_positions=True, maybe_placeholders=False)


def _source(node: Tree[Token], block: str) -> str:
    return " ".join(block[node.meta.start_pos : node.meta.end_pos].split())


def _declarations(node: Tree[Token], block: str) -> list[Declaration]:
    type_node, *names = node.children
    assert isinstance(type_node, Tree)
    kind, text = _type(type_node, block), _source(type_node, block)
    return [Declaration(str(name), kind, f"{text} {name}") for name in names]


def _type(node: Tree[Token], block: str) -> StanType:
    if node.data == "tuple":
        elements = [_type(child, block) for child in node.children if isinstance(child, Tree)]
        return StanType("tuple", elements=tuple(elements))
    if node.data == "array":
        sizes_node, inner_node = node.children
        assert isinstance(sizes_node, Tree)
        assert isinstance(inner_node, Tree)
        inner = _type(inner_node, block)
        outer = _expressions(sizes_node, block)
        return StanType(inner.base, (*outer, *inner.sizes), inner.bounds, inner.elements)
    base, *rest = node.children
    sizes: tuple[str, ...] = ()
    bounds: tuple[tuple[str, str], ...] = ()
    for part in rest:
        assert isinstance(part, Tree)
        if part.data == "sizes":
            sizes = _expressions(part, block)
        else:
            bounds = tuple(
                (str(bound.children[0]), _source(bound.children[1], block))  # type: ignore[arg-type]
                for bound in part.children
                if isinstance(bound, Tree)
            )
    if str(base) in _SQUARE_MATRICES and len(sizes) == 1:
        sizes = (sizes[0], sizes[0])
    return StanType(str(base), sizes, bounds)


def _expressions(node: Tree[Token], block: str) -> tuple[str, ...]:
    return tuple(_source(child, block) for child in node.children if isinstance(child, Tree))


# ---- The value of a size or bound -------------------------------------------------------------


def _divide(left: Any, right: Any) -> Any:
    """Stan's ``/``: between integers it truncates toward zero."""
    if isinstance(left, int) and isinstance(right, int):
        quotient = abs(left) // abs(right)
        return quotient if (left < 0) == (right < 0) else -quotient
    return left / right


def _remainder(left: Any, right: Any) -> Any:
    """Stan's ``%``, which has the sign of the dividend."""
    return left - right * _divide(left, right)


def _length(x: Any) -> int:
    """Stan's ``size`` of one-dimensional containers; of others it depends on their type."""
    if np.ndim(x) != 1:
        raise UnknownValueError("size")
    return len(x)


_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: _divide,
    ast.Mod: _remainder,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "size": _length,
    "num_elements": np.size,
    "max": lambda *x: np.max(x).item(),
    "min": lambda *x: np.min(x).item(),
    "sum": lambda x: np.sum(x).item(),
    "positive_infinity": lambda: math.inf,
    "negative_infinity": lambda: -math.inf,
}


def evaluate(expression: str, values: Mapping[str, Any]) -> Any:
    """Work out an expression of a declaration from the data read before it.

    Parameters
    ----------
    expression : str
        Stan text: numbers, data variables, arithmetic, indexing and a few functions are followed.
    values : mapping
        Data variables by name: Python numbers for scalars, numpy arrays otherwise.

    Raises
    ------
    UnknownValueError
        The expression uses something else (the engine will evaluate it).

    Examples
    --------
    >>> evaluate("(N + 1) / 2", {"N": 6})
    3
    """
    try:
        return _value(ast.parse(expression, mode="eval").body, values)
    except UnknownValueError:
        raise
    except Exception as error:  # anything odd in the text is the Stan compiler's to judge
        raise UnknownValueError(expression) from error


def _value(node: ast.expr, values: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
            return node.value
        case ast.Name(id=name) if name in values:
            return values[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, values)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _BINARY[type(op)](_scalar(left, values), _scalar(right, values))
        case ast.Subscript(value=array, slice=index):
            indices = index.elts if isinstance(index, ast.Tuple) else [index]
            return _index(array, indices, values)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            return _FUNCTIONS[name](*(_value(argument, values) for argument in arguments))
    raise UnknownValueError(ast.unparse(node))


def _scalar(node: ast.expr, values: Mapping[str, Any]) -> Any:
    """Return a number: between containers Stan's arithmetic is not numpy's."""
    value = _value(node, values)
    if np.ndim(value) != 0:
        raise UnknownValueError(ast.unparse(node))
    return value


def _index(array: ast.expr, indices: list[ast.expr], values: Mapping[str, Any]) -> Any:
    position = tuple(_value(index, values) for index in indices)
    if not all(isinstance(index, int) and index >= 1 for index in position):
        raise UnknownValueError(ast.unparse(array))
    element = np.asarray(_value(array, values))[tuple(index - 1 for index in position)]
    return element.item() if np.ndim(element) == 0 else element
