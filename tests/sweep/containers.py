"""Containers of each kind, filled in each way, in each block that allows it.

The ways are written once, with markers for what depends on the container: ``A`` is its name,
``B`` that of another one, ``#3`` a number, ``R(3, 1)`` a row, ``C(3, 2)`` a column and ``D(3, 2)``
an array of numbers, ``O(R(...), R(...))`` all rows, ``S`` the scale of real numbers, which is data
in some blocks and a parameter in others, and ``G(1)`` a call that returns a row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .cases import Case

_UNIT = 1.25  # what #1 stands for among real numbers


@dataclass(frozen=True)
class Kind:
    """A kind of container.

    Attributes
    ----------
    name : str
    declare : str
        Its declaration, with ``A`` for the name.
    unsized : str
        Its type as that of an argument.
    row, column, outer : str
        Literals, with ``%s`` for the elements.
    row_type : str
        The unsized type of a row.
    full, repeated : str
        Expressions that fill it with a number, and with a row, ``%s``.
    """

    name: str
    declare: str
    unsized: str
    row: str
    row_type: str
    full: str
    column: str = "{%s}"
    outer: str = "{%s}"
    repeated: str = ""

    @property
    def whole(self) -> bool:
        """Whether it holds integers."""
        return self.name.startswith("int")

    @property
    def unit(self) -> float:
        """What #1 stands for."""
        return 1.0 if self.whole else _UNIT


@dataclass(frozen=True)
class Fill:
    """A way to fill a container, and what it then holds, in units of the container."""

    name: str
    text: str
    holds: object
    only: str = ".*"


_A, _V, _T = "{%s}", "[%s]'", "[%s]"

KINDS_1 = (
    Kind("int1", "array[4] int A", "array[] int", _A, "int", "rep_array(%s, 4)"),
    Kind("real1", "array[4] real A", "array[] real", _A, "real", "rep_array(%s, 4)"),
    Kind("vec1", "vector[4] A", "vector", _V, "real", "rep_vector(%s, 4)"),
    Kind("row1", "row_vector[4] A", "row_vector", _T, "real", "rep_row_vector(%s, 4)"),
)
KINDS_2 = (
    Kind(
        "int2", "array[2, 3] int A", "array[,] int", _A, "array[] int",
        "rep_array(%s, 2, 3)", repeated="rep_array(%s, 2)",
    ),
    Kind(
        "real2", "array[2, 3] real A", "array[,] real", _A, "array[] real",
        "rep_array(%s, 2, 3)", repeated="rep_array(%s, 2)",
    ),
    Kind(
        "vec2", "array[2] vector[3] A", "array[] vector", _V, "vector",
        "rep_array(rep_vector(%s, 3), 2)", repeated="rep_array(%s, 2)",
    ),
    Kind(
        "row2", "array[2] row_vector[3] A", "array[] row_vector", _T, "row_vector",
        "rep_array(rep_row_vector(%s, 3), 2)", repeated="rep_array(%s, 2)",
    ),
    Kind(
        "mat2", "matrix[2, 3] A", "matrix", _T, "row_vector",
        "rep_matrix(%s, 2, 3)", column=_V, outer=_T, repeated="rep_matrix(%s, 2)",
    ),
)  # fmt: skip
KINDS_3 = (
    Kind(
        "int3", "array[2, 2, 3] int A", "array[,,] int", _A, "array[] int",
        "rep_array(%s, 2, 2, 3)", repeated="rep_array(%s, 2, 2)",
    ),
    Kind(
        "real3", "array[2, 2, 3] real A", "array[,,] real", _A, "array[] real",
        "rep_array(%s, 2, 2, 3)", repeated="rep_array(%s, 2, 2)",
    ),
    Kind(
        "vec3", "array[2, 2] vector[3] A", "array[,] vector", _V, "vector",
        "rep_array(rep_vector(%s, 3), 2, 2)", repeated="rep_array(%s, 2, 2)",
    ),
    Kind(
        "mat3", "array[2] matrix[2, 3] A", "array[] matrix", _T, "row_vector",
        "rep_array(rep_matrix(%s, 2, 3), 2)", column=_V, outer=_T,
        repeated="rep_array(rep_matrix(%s, 2), 2)",
    ),
)  # fmt: skip

_V1 = [3, 1, 4, 2]
_FILLS_1 = (
    Fill("elements", "A[1] = #3; A[2] = #1; A[3] = #4; A[4] = #2;", _V1),
    Fill("literal", "A = R(3, 1, 4, 2);", _V1),
    Fill("slice", "A[] = R(3, 1, 4, 2);", _V1),
    Fill("ranges", "A[1:2] = R(3, 1); A[3:] = R(9, 2); A[:3] = R(3, 1, 4);", _V1),
    Fill("multi", "A[{4, 2, 1, 3}] = R(2, 1, 3, 4);", _V1),
    Fill("loop", "for (i in 1:4) A[5 - i] = #1 * (10 * i + 3);", [43, 33, 23, 13]),
    Fill(
        "while",
        "{ int k = 0; while (k < 4) { k += 1; A[k] = k * #2; if (k == 3) A[k] = #9; } }",
        [2, 4, 9, 8],
    ),
    Fill("rep", "A = FULL(7); A[3] = #5;", [7, 7, 5, 7]),
    Fill("ternary", "A = size(A) > 2 ? R(3, 1, 4, 2) : R(9, 8, 7, 6);", _V1),
    Fill("copy", "B = R(3, 1, 4, 2); A = B; B[2] = #9; A[4] = B[2];", [3, 1, 4, 9]),
    Fill("shift", "A = R(3, 1, 4, 2); A[2:4] = A[1:3];", [3, 3, 1, 4]),
    Fill("permute", "A = R(3, 1, 4, 2); A = A[{3, 4, 1, 1}];", [4, 2, 3, 3]),
    Fill("compound", "A = R(3, 1, 4, 2); A[2] += #6; A[1] -= #2; A[4] *= 3;", [1, 7, 4, 6]),
    Fill(
        "foreach", "{ int k = 5; for (x in R(2, 4, 1, 3)) { k -= 1; A[k] = x; } }", [3, 1, 4, 2]
    ),
    Fill("call", "for (i in 1:4) A[i] = G(i);", [11, 21, 31, 41]),
    Fill("cumulate", "A[1] = #2; for (i in 2:4) A[i] = A[i - 1] + i * #1;", [2, 4, 7, 11]),
)  # fmt: skip

_V2 = [[3, 1, 4], [2, 7, 5]]
_LITERAL_2 = "A = O(R(3, 1, 4), R(2, 7, 5));"
_FILLS_2 = (
    Fill(
        "elements",
        "A[1, 1] = #3; A[1, 2] = #1; A[1, 3] = #4; A[2, 1] = #2; A[2, 2] = #7; A[2, 3] = #5;",
        _V2,
    ),
    Fill(
        "chained",
        "A[1][1] = #3; A[1][2] = #1; A[1][3] = #4; A[2][1] = #2; A[2][2] = #7; A[2][3] = #5;",
        _V2,
    ),
    Fill("rows", "A[1] = R(3, 1, 4); A[2] = R(2, 7, 5);", _V2),
    Fill("rows_slice", "A[1, ] = R(3, 1, 4); A[2, :] = R(2, 7, 5);", _V2),
    Fill("rows_range", "A[1, 1:3] = R(3, 1, 4); A[2, :2] = R(2, 7); A[2, 3:] = R(5);", _V2),
    Fill("rows_multi", "A[2, {3, 1, 2}] = R(5, 2, 7); A[1, {2, 3, 1}] = R(1, 4, 3);", _V2),
    Fill("columns", "A[ , 1] = C(3, 2); A[:, 2] = C(1, 7); A[1:2, 3] = C(4, 5);", _V2),
    Fill("literal", _LITERAL_2, _V2),
    Fill("outer_range", "A[1:2] = O(R(3, 1, 4), R(2, 7, 5));", _V2),
    Fill("outer_open", "A[2:] = O(R(2, 7, 5)); A[:1] = O(R(3, 1, 4));", _V2),
    Fill("outer_multi", "A[{2, 1}] = O(R(2, 7, 5), R(3, 1, 4));", _V2),
    Fill("sub", "A[1:2, 2:3] = O(R(1, 4), R(7, 5)); A[:, 1:1] = O(R(3), R(2));", _V2),
    Fill(
        "loop",
        "for (i in 1:2) for (j in 1:3) A[3 - i, 4 - j] = #1 * (10 * i + j);",
        [[23, 22, 21], [13, 12, 11]],
    ),
    Fill(
        "loop_rows",
        "for (i in 1:2) { A[i] = R(3, 1, 4); A[i, 2] = i * #6; }",
        [[3, 6, 4], [3, 12, 4]],
    ),
    Fill(
        "while",
        "{ int k = 0; while (k < 2) { k += 1; A[k] = R(3, 1, 4); A[k, k] = #9; } }",
        [[9, 1, 4], [3, 9, 4]],
    ),
    Fill("rep", "A = FULL(7); A[2, 3] = #5; A[1, 2] = #4;", [[7, 4, 7], [7, 7, 5]]),
    Fill("rep_rows", "A = REPEAT(R(3, 1, 4)); A[1, 3] = #8;", [[3, 1, 8], [3, 1, 4]]),
    Fill(
        "ternary",
        "A = size(A) > 1 ? O(R(3, 1, 4), R(2, 7, 5)) : O(R(9, 9, 9), R(8, 8, 8));",
        _V2,
    ),
    Fill(
        "ternary_rows",
        "for (i in 1:2) A[i] = i > 1 ? R(2, 7, 5) : R(3, 1, 4);",
        _V2,
    ),
    Fill("copy", "B = O(R(3, 1, 4), R(2, 7, 5)); A = B; B[1, 1] = #9; A[2, 2] = B[1, 1];",
         [[3, 1, 4], [2, 9, 5]]),
    Fill(
        "row_copy",
        "A[1] = R(3, 1, 4); A[2] = A[1]; A[2, 3] = #8; A[1, 1] = #6;",
        [[6, 1, 4], [3, 1, 8]],
    ),
    Fill("swap", f"{_LITERAL_2} A[{{1, 2}}] = A[{{2, 1}}];", [[2, 7, 5], [3, 1, 4]]),
    Fill(
        "if_rows",
        "for (i in 1:2) { if (i == 1) A[i] = R(3, 1, 4); else { A[i] = R(2, 7, 5); } }",
        _V2,
    ),
    Fill(
        "compound",
        f"{_LITERAL_2} A[1, 2] += #6; A[2, 1] -= #1; A[1, 3] *= 2;",
        [[3, 7, 8], [1, 7, 5]],
    ),
    Fill(
        "foreach",
        "{ int k = 3; for (r in O(R(2, 7, 5), R(3, 1, 4))) { k -= 1; A[k] = r; } }",
        _V2,
        only="int|real|vec|row",
    ),
    Fill("call", "for (i in 1:2) A[i] = G(i);", [[11, 12, 13], [21, 22, 23]]),
    Fill("cumulate", f"{_LITERAL_2} for (j in 2:3) A[1, j] = A[1, j - 1] + A[2, j];",
         [[3, 10, 15], [2, 7, 5]]),
    Fill(
        "multi_both",
        f"{_LITERAL_2} A[{{1, 2}}, {{3, 1}}] = A[{{2, 1}}, {{1, 2}}];",
        [[7, 1, 2], [1, 7, 3]],
    ),
)  # fmt: skip

_V3 = [[[3, 1, 4], [2, 7, 5]], [[8, 6, 9], [11, 12, 10]]]
_P1, _P2 = "O(R(3, 1, 4), R(2, 7, 5))", "O(R(8, 6, 9), R(11, 12, 10))"
_FILLS_3 = (
    Fill(
        "loop",
        "for (i in 1:2) for (j in 1:2) for (k in 1:3) A[i, j, k] = #1 * (100 * i + 10 * j + k);",
        [[[111, 112, 113], [121, 122, 123]], [[211, 212, 213], [221, 222, 223]]],
    ),
    Fill("rows", "A[1, 1] = R(3, 1, 4); A[1, 2] = R(2, 7, 5); A[2, 1] = R(8, 6, 9); "
         "A[2, 2] = R(11, 12, 10);", _V3),
    Fill("rows_slice", "A[1, 1, ] = R(3, 1, 4); A[1][2] = R(2, 7, 5); A[2, 1, :] = R(8, 6, 9); "
         "A[2, 2, 1:3] = R(11, 12, 10);", _V3),
    Fill("planes", f"A[1] = {_P1}; A[2, ] = {_P2};", _V3),
    Fill("literal", f"A = {{{_P1}, {_P2}}};", _V3),
    Fill("planes_multi", f"A[{{2, 1}}] = {{{_P2}, {_P1}}};", _V3),
    Fill("columns", f"A[1] = {_P1}; A[2] = A[1]; A[1, :, 2] = C(17, 19); A[:, 2, 3] = D(23, 29);",
         [[[3, 17, 4], [2, 19, 23]], [[3, 1, 4], [2, 7, 29]]]),
    Fill("sub", f"A[1] = {_P1}; A[2] = {_P2}; A[:, 2, 1:2] = {{R(17, 19), R(23, 29)}};",
         [[[3, 1, 4], [17, 19, 5]], [[8, 6, 9], [23, 29, 10]]]),
    Fill("rep", "A = FULL(7); A[2, 1, 3] = #5;", [[[7, 7, 7]] * 2, [[7, 7, 5], [7, 7, 7]]]),
    Fill("rep_rows", "A = REPEAT(R(3, 1, 4)); A[1, 2, 3] = #5;",
         [[[3, 1, 4], [3, 1, 5]], [[3, 1, 4]] * 2]),
    Fill("copy", f"B[1] = {_P1}; B[2] = {_P2}; A = B; B[1, 1, 1] = #9; A[1, 2, 2] = B[1, 1, 1];",
         [[[3, 1, 4], [2, 9, 5]], [[8, 6, 9], [11, 12, 10]]]),
    Fill("plane_copy", f"A[1] = {_P1}; A[2] = A[1]; A[2, 1, 1] = #9; A[2, 2] = A[1, 1];",
         [[[3, 1, 4], [2, 7, 5]], [[9, 1, 4], [3, 1, 4]]]),
    Fill("loop_rows", "for (i in 1:2) for (j in 1:2) { A[i, j] = R(3, 1, 4); A[i, j, 2] = "
         "(10 * i + j) * #1; }", [[[3, 11, 4], [3, 12, 4]], [[3, 21, 4], [3, 22, 4]]]),
    Fill("compound", f"A[1] = {_P1}; A[2] = {_P2}; A[1, 2, 3] += #6; A[2, 1, 1] *= 3;",
         [[[3, 1, 4], [2, 7, 11]], [[24, 6, 9], [11, 12, 10]]]),
)  # fmt: skip

# Of the ways to fill in two dimensions, those tried on vectors and matrices, too.
_ESSENTIAL = (
    "chained|rows|rows_range|rows_multi|columns|literal|outer_multi|sub|loop_rows|rep_rows|"
    "ternary|copy|row_copy|swap|compound|foreach|call|multi_both"
)
_ROWS = frozenset({"rows", "columns", "literal", "foreach", "copy", "multi_both", "sub"})
_PLANES = frozenset({"loop", "rows_slice", "columns", "sub", "planes_multi", "plane_copy", "copy"})


def cases() -> Iterator[Case]:
    """Yield a case for each kind of container and each way to fill it."""
    for kind in KINDS_1:
        for fill in _FILLS_1:
            if kind.name != "row1" or fill.name in {"multi", "shift", "ternary", "foreach"}:
                yield _case(kind, fill, (4,))
    for kind in KINDS_2:
        for fill in _FILLS_2:
            if kind.name == "row2" and fill.name not in _ROWS:
                continue
            essential = re.fullmatch(_ESSENTIAL, fill.name) is not None
            if re.match(fill.only, kind.name) and (essential or kind.name == "int2"):
                yield _case(kind, fill, (2, 3))
    for kind in KINDS_3:
        for fill in _FILLS_3:
            if kind.name in {"real3", "vec3"} and fill.name not in _PLANES:
                continue
            yield _case(kind, fill, (2, 2, 3))


_READINGS = {
    1: ("sum(A)", "sum(A[2:])", "sum(A[{4, 1}])", "sum(A[:2])"),
    2: ("sum(A[1])", "sum(A[2])", "sum(A[1, 2:])", "sum(A[ , 3])", "sum(A[2, {3, 1}])"),
    3: ("sum(A[2, 1])", "sum(A[1, 2, 2:])", "sum(A[2, : , 3])", "sum(A[: , 1, 2])", "sum(A[1, 2])"),
}


def _readings(a: NDArray[np.float64]) -> list[float]:
    """Return the truth of `_READINGS`."""
    read = {
        1: lambda: (a, a[1:], a[[3, 0]], a[:2]),
        2: lambda: (a[0], a[1], a[0, 1:], a[:, 2], a[1, [2, 0]]),
        3: lambda: (a[1, 0], a[0, 1, 1:], a[1, :, 2], a[:, 0, 1], a[0, 1]),
    }[a.ndim]()
    return [float(np.sum(part)) for part in read]


def _case(kind: Kind, fill: Fill, shape: tuple[int, ...]) -> Case:
    indices = "ijk"[: len(shape)]
    loops = " ".join(f"for ({i} in 1:{n})" for i, n in zip(indices, shape, strict=True))
    index = "[" + ", ".join(indices) + "]"
    weight = " + ".join(f"{10 ** (2 - at)} * {i}" for at, i in enumerate(indices))
    sizes = ", ".join(map(str, shape))
    number = "int" if kind.whole else "real"
    copied = f"array[{sizes}] {number}"
    readings = _READINGS[len(shape)]

    def filled(name: str, scale: str) -> str:
        declared = [_declared(kind, name)]
        if "B" in re.findall(r"\w+", fill.text):
            declared.append(_declared(kind, _other(name)))
        return " ".join((*declared, _written(kind, fill.text, name, scale)))

    def sums(name: str) -> str:
        elements = ", ".join(re.sub(r"\bA\b", name, reading) for reading in readings)
        return f"to_vector({{{elements}}})"

    scaled = "theta@ * " if kind.whole else ""
    declared = f"array[{sizes}] real tp@; vector[{len(readings)}] tpsums@;"
    transformed = (
        f"{declared} {{ {filled('a', 'theta@')} {loops} tp@{index} = {scaled}a{index}; "
        f"tpsums@ = {scaled}{sums('a')}; }}"
    )
    if not kind.whole:
        transformed += filled("top@", "theta@")
    truth = np.asarray(fill.holds) * kind.unit
    sums_truth = _readings(truth)
    weights = sum(10.0 ** (2 - at) * (1 + np.indices(shape)[at]) for at in range(len(shape)))
    steps = np.arange(1, len(readings) + 1)
    return Case(
        name=f"{kind.name}_{fill.name}",
        topic=f"{kind.name[:-1]}_{kind.name[-1]}d",
        functions=(
            _row_function(kind, len(shape))
            + f"{kind.unsized} filled@(real s) {{ {filled('a', 's')} return a; }} "
            + f"vector sums@(real s) {{ {filled('a', 's')} return {sums('a')}; }}"
        ),
        data="real<lower=0> one@;",
        values={"one": 1.0},
        transformed_data=(
            f"{filled('td@', 'one@')} vector[{len(readings)}] tdsums@ = {sums('td@')};"
        ),
        parameters="real theta@;",
        transformed_parameters=transformed,
        model=(
            f"{filled('a', 'theta@')} {loops} target += {scaled}a{index} * ({weight}); "
            f"target += {scaled}dot_product({sums('a')}, linspaced_vector({len(readings)}, 1, "
            f"{len(readings)}));"
        ),
        generated=(
            f"{filled('gq@', '1.0')} {_declared(kind, 'seen@', '= td@')} "
            f"{copied} read@; {loops} read@{index} = td@{index}; "
            f"vector[{len(readings)}] gqsums@ = {sums('gq@')}; "
            f"vector[{len(readings)}] tdsumsseen@ = tdsums@; "
            f"vector[{len(readings)}] fnsums@ = sums@(1.0); "
            f"vector[{len(readings)}] ratiosums@ = tpsums@ / theta@; "
            f"{_declared(kind, 'returned@', '= filled@(1.0)')} "
            f"array[{sizes}] real ratio@; {loops} ratio@{index} = tp@{index} / theta@;"
        ),
        truth=dict.fromkeys(("gq", "seen", "read", "returned", "ratio"), truth)
        | dict.fromkeys(("gqsums", "tdsumsseen", "fnsums", "ratiosums"), sums_truth),
        slope=float(np.sum(weights * truth) + np.sum(steps * sums_truth)),
    )


def _row_function(kind: Kind, dimensions: int) -> str:
    row = "(10 * i + 1) * #1" if dimensions == 1 else "R(10 * i + 1, 10 * i + 2, 10 * i + 3)"
    if dimensions != 1:
        elements = ", ".join(f"(10 * i + {j}) * #1" for j in (1, 2, 3))
        row = kind.row % elements
    return f"{kind.row_type} row@(int i, real s) {{ return {_written(kind, row, '', 's')}; }} "


def _declared(kind: Kind, name: str, value: str = "") -> str:
    return f"{re.sub(r'A$', name, kind.declare)} {value};"


def _other(name: str) -> str:
    return f"{name.removesuffix('@')}b" + "@" * name.endswith("@")


def _written(kind: Kind, text: str, name: str, scale: str) -> str:
    numbers: Callable[[str], str] = lambda inner: ", ".join(  # noqa: E731
        f"#{number.strip()}" for number in inner.split(",")
    )
    literals = {"R": kind.row, "C": kind.column, "D": _A}
    text = re.sub(
        r"\b([RCD])\(([\d, ]+)\)", lambda found: literals[found[1]] % numbers(found[2]), text
    )
    text = re.sub(r"FULL\((\d)\)", lambda found: kind.full % f"#{found[1]}", text)
    nested = r"\(((?:[^()]|\([^()]*\))*)\)"
    text = re.sub(rf"REPEAT{nested}", lambda found: kind.repeated % found[1], text)
    text = re.sub(rf"\bO{nested}", lambda found: kind.outer % found[1], text)
    text = re.sub(r"\bG\((\w)\)", rf"row@(\1, {'1.0' if kind.whole else scale})", text)
    number = r"\1" if kind.whole else rf"(\1 * {_UNIT} * {scale})"
    text = re.sub(r"#(\d+)", number, text)
    text = re.sub(r"\bB\b", _other(name), text)
    return re.sub(r"\bA\b", name, text)
