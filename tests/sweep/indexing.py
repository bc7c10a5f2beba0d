"""Reading and writing parts of vectors, matrices and arrays, on both sides of an assignment."""

# Rows of tables stay on a line each.
# ruff: noqa: E501

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from .cases import Case

_V = np.array([1.5, 2.25, 3.125, 4.0625, 5.75])
_M = np.array([[1.1, 1.2, 1.3, 1.4], [2.1, 2.2, 2.3, 2.4], [3.1, 3.2, 3.3, 3.4]])
_A = np.arange(24).reshape(2, 3, 4) * 1.5 + 0.25
_K = np.array([[[3, 1, 4], [2, 7, 5]], [[8, 6, 9], [11, 12, 10]]])
_DATA = """
vector[5] v@; row_vector[5] r@; matrix[3, 4] m@; array[2] matrix[3, 4] am@;
array[2, 3] vector[4] av@; array[2, 3, 4] real a@; array[2, 2, 3] int k@;
array[3] int ix@; array[2] int iy@; int lo@; int hi@;
"""
_VALUES = {
    "v": _V.tolist(),
    "r": _V.tolist(),
    "m": _M.tolist(),
    "am": _A.tolist(),
    "av": _A.tolist(),
    "a": _A.tolist(),
    "k": _K.tolist(),
    "ix": [3, 1, 3],
    "iy": [2, 1],
    "lo": 2,
    "hi": 3,
}
_IX, _IY = np.array([2, 0, 2]), np.array([1, 0])

# A name, the type of the result, the expression, its truth.
_READS: tuple[tuple[str, str, str, npt.ArrayLike], ...] = (
    ("vec_single", "real", "v@[lo@]", _V[1]),
    ("vec_range", "vector[2]", "v@[lo@:hi@]", _V[1:3]),
    ("vec_from", "vector[4]", "v@[lo@:]", _V[1:]),
    ("vec_to", "vector[3]", "v@[:hi@]", _V[:3]),
    ("vec_all", "vector[5]", "v@[:]", _V),
    ("vec_multi", "vector[3]", "v@[ix@]", _V[_IX]),
    ("vec_multi_chained", "vector[2]", "v@[ix@][2:]", _V[_IX][1:]),
    ("vec_empty", "real", "sum(v@[3:2])", 0.0),
    ("row_range", "row_vector[2]", "r@[lo@:hi@]", _V[1:3]),
    ("row_multi", "row_vector[3]", "r@[ix@]", _V[_IX]),
    ("mat_element", "real", "m@[lo@, hi@]", _M[1, 2]),
    ("mat_row", "row_vector[4]", "m@[lo@]", _M[1]),
    ("mat_row_comma", "row_vector[4]", "m@[lo@, ]", _M[1]),
    ("mat_column", "vector[3]", "m@[, hi@]", _M[:, 2]),
    ("mat_column_range", "vector[2]", "m@[lo@:, hi@]", _M[1:, 2]),
    ("mat_row_range", "row_vector[2]", "m@[hi@, lo@:hi@]", _M[2, 1:3]),
    ("mat_row_multi", "row_vector[3]", "m@[lo@, ix@]", _M[1, _IX]),
    ("mat_rows", "matrix[2, 4]", "m@[lo@:hi@]", _M[1:3]),
    ("mat_rows_multi", "matrix[3, 4]", "m@[ix@]", _M[_IX]),
    ("mat_block", "matrix[2, 3]", "m@[lo@:hi@, :hi@]", _M[1:3, :3]),
    ("mat_multi_multi", "matrix[3, 2]", "m@[ix@, iy@]", _M[np.ix_(_IX, _IY)]),
    ("mat_multi_range", "matrix[3, 2]", "m@[ix@, lo@:hi@]", _M[_IX, 1:3]),
    ("mat_range_multi", "matrix[2, 3]", "m@[lo@:hi@, ix@]", _M[1:3][:, _IX]),
    ("mat_column_multi", "vector[3]", "m@[ix@, lo@]", _M[_IX, 1]),
    ("mat_chained", "real", "m@[lo@][hi@]", _M[1, 2]),
    ("mat_transposed", "row_vector[3]", "(m@')[hi@]", _M[:, 2]),
    ("amat_element", "real", "am@[2, 3, 1]", _A[1, 2, 0]),
    ("amat_matrix", "matrix[3, 4]", "am@[lo@]", _A[1]),
    ("amat_row", "row_vector[4]", "am@[lo@, hi@]", _A[1, 2]),
    ("amat_column", "vector[3]", "am@[lo@, , hi@]", _A[1, :, 2]),
    ("amat_elements", "array[2] real", "am@[, hi@, lo@]", _A[:, 2, 1]),
    ("amat_rows", "array[2] row_vector[2]", "am@[, hi@, lo@:hi@]", _A[:, 2, 1:3]),
    ("amat_blocks", "array[2] matrix[2, 3]", "am@[iy@, lo@:, ix@]", _A[_IY][:, 1:][:, :, _IX]),
    ("avec_element", "real", "av@[2, 3, 1]", _A[1, 2, 0]),
    ("avec_vector", "vector[4]", "av@[lo@, hi@]", _A[1, 2]),
    ("avec_vectors", "array[3] vector[4]", "av@[lo@]", _A[1]),
    ("avec_column", "array[2] vector[4]", "av@[, hi@]", _A[:, 2]),
    ("avec_elements", "array[2, 3] real", "av@[, , lo@]", _A[:, :, 1]),
    ("avec_multi", "array[2, 3] vector[2]", "av@[iy@, ix@, :2]", _A[_IY][:, _IX][:, :, :2]),
    ("avec_chained", "real", "av@[2][3][1]", _A[1, 2, 0]),
    ("arr_plane", "array[3, 4] real", "a@[lo@]", _A[1]),
    ("arr_row", "array[4] real", "a@[lo@, hi@]", _A[1, 2]),
    ("arr_middle", "array[2, 4] real", "a@[, hi@]", _A[:, 2]),
    ("arr_last", "array[2, 3] real", "a@[, , hi@]", _A[:, :, 2]),
    ("arr_mixed", "array[2, 3] real", "a@[iy@, lo@, ix@]", _A[_IY][:, 1][:, _IX]),
    ("arr_ranges", "array[1, 2, 2] real", "a@[2:, lo@:hi@, :2]", _A[1:, 1:3, :2]),
    ("arr_multi_last", "array[3] real", "a@[lo@, hi@, ix@]", _A[1, 2, _IX]),
    ("int_plane", "array[2, 3] int", "k@[lo@]", _K[1]),
    ("int_row", "array[3] int", "k@[lo@, 1]", _K[1, 0]),
    ("int_last", "array[2, 2] int", "k@[, , hi@]", _K[:, :, 2]),
    ("int_middle", "array[2, 3] int", "k@[, lo@]", _K[:, 1]),
    ("int_mixed", "array[2, 3] int", "k@[iy@, 2, ix@]", _K[_IY][:, 1][:, _IX]),
    ("int_index", "real", "v@[k@[1, lo@, 1]]", _V[1]),
    ("int_index_row", "vector[2]", "v@[k@[1, 1, 1:2]]", _V[[2, 0]]),
    ("int_index_column", "vector[2]", "v@[k@[1, , 1]]", _V[[2, 1]]),
    ("nested", "vector[3]", "v@[ix@[{2, 1, 2}]]", _V[_IX[[1, 0, 1]]]),
)


def _m(*changes: tuple[object, npt.ArrayLike]) -> npt.NDArray[np.float64]:
    changed = _M.copy()
    for where, what in changes:
        changed[where] = what  # type: ignore[index]
    return changed


# A name, the type, the value before, the assignments to x, the truth.
_WRITES: tuple[tuple[str, str, str, str, npt.ArrayLike], ...] = (
    ("vec_single", "vector[5]", "v@", "x[hi@] = v@[1];", [1.5, 2.25, 1.5, 4.0625, 5.75]),
    ("vec_range", "vector[5]", "v@", "x[2:3] = v@[4:5];", [1.5, 4.0625, 5.75, 4.0625, 5.75]),
    ("vec_open", "vector[5]", "v@", "x[4:] = x[:2];", [1.5, 2.25, 3.125, 1.5, 2.25]),
    ("vec_multi", "vector[5]", "v@", "x[{5, 2, 1}] = x[ix@];", [3.125, 1.5, 3.125, 4.0625, 3.125]),
    ("vec_reverse", "vector[5]", "v@", "x = x[{5, 4, 3, 2, 1}];", _V[::-1]),
    ("vec_overlap", "vector[5]", "v@", "x[2:5] = x[1:4];", [1.5, 1.5, 2.25, 3.125, 4.0625]),
    ("vec_plus", "vector[5]", "v@", "x += v@; x[2] += 1; x[3:4] += 2;", [3, 5.5, 8.25, 10.125, 11.5]),
    ("vec_minus", "vector[5]", "v@", "x -= 0.5; x[1] -= 2; x[{2, 5}] -= v@[1:2];",
     [-1.0, 0.25, 2.625, 3.5625, 3.0]),
    ("vec_times", "vector[5]", "v@", "x *= 2; x[1] *= 3; x[4:5] *= 0.5;", [9, 4.5, 6.25, 4.0625, 5.75]),
    ("vec_divide", "vector[5]", "v@", "x /= 2; x[2] /= 4;", [0.75, 0.28125, 1.5625, 2.03125, 2.875]),
    ("vec_elt", "vector[5]", "v@", "x .*= v@; x[4:5] ./= v@[1:2];",
     [2.25, 5.0625, 9.765625, 4.0625**2 / 1.5, 5.75**2 / 2.25]),
    ("row_multi", "row_vector[5]", "r@", "x[{2, 4}] = r@[{5, 1}];", [1.5, 5.75, 3.125, 1.5, 5.75]),
    ("row_times_matrix", "row_vector[4]", "m@[1]", "x *= diag_matrix(v@[1:4]); x += r@[1:4];",
     _M[0] * _V[:4] + _V[:4]),
    ("mat_element", "matrix[3, 4]", "m@", "x[lo@, hi@] = 9;", _m(((1, 2), 9))),
    ("mat_row", "matrix[3, 4]", "m@", "x[2] = r@[2:]; x[3, ] = m@[1];", _m((1, _V[1:]), (2, _M[0]))),
    ("mat_column", "matrix[3, 4]", "m@", "x[, 2] = v@[3:5];", _m(((slice(3), 1), _V[2:]))),
    ("mat_column_range", "matrix[3, 4]", "m@", "x[2:3, 4] = v@[1:2];", _m(((slice(1, 3), 3), _V[:2]))),
    ("mat_row_multi", "matrix[3, 4]", "m@", "x[2, {4, 1}] = r@[1:2];", _m(((1, [3, 0]), _V[:2]))),
    ("mat_block", "matrix[3, 4]", "m@", "x[2:, :2] = m@[:2, 3:];",
     _m(((slice(1, 3), slice(2)), _M[:2, 2:]))),
    ("mat_multi", "matrix[3, 4]", "m@", "x[{3, 1}, {4, 2}] = m@[{1, 2}, {1, 3}];",
     _m((np.ix_([2, 0], [3, 1]), _M[np.ix_([0, 1], [0, 2])]))),
    ("mat_rows_multi", "matrix[3, 4]", "m@", "x[{3, 1}] = m@[{1, 2}];", _m(([2, 0], _M[[0, 1]]))),
    ("mat_swap", "matrix[3, 4]", "m@", "x[{1, 3}] = x[{3, 1}];", _M[[2, 1, 0]]),
    ("mat_compound", "matrix[3, 4]", "m@", "x[2] += r@[:4]; x[, 1] *= 2; x[1, 3] -= 5; x[3, 2:3] /= 2;",
     [[2.2, 1.2, -3.7, 1.4], [7.2, 4.45, 5.425, 6.4625], [6.2, 1.6, 1.65, 3.4]]),
    ("mat_elt", "matrix[3, 4]", "m@", "x .*= m@; x ./= m@ + 1; x += 1; x *= 2; x -= m@; x /= 4;",
     ((_M**2 / (_M + 1) + 1) * 2 - _M) / 4),
    ("mat_product", "matrix[3, 4]", "m@", "x *= diag_matrix(v@[1:4]);", _M * _V[:4]),
    ("mat_nested", "matrix[3, 4]", "m@", "x[2][3] = 7; x[1, 4] = 8;", None),
    ("amat_column", "array[2] matrix[3, 4]", "am@", "x[2, , 3] = v@[1:3]; x[1, 2] = r@[:4];", None),
    ("amat_block", "array[2] matrix[3, 4]", "am@", "x[{2, 1}, 2:3, {1, 4}] = am@[, 1:2, {2, 3}];", None),
    ("avec_multi", "array[2, 3] vector[4]", "av@", "x[2, {3, 1}] = av@[1, 1:2]; x[1, 2, 2:3] = v@[:2];",
     None),
    ("arr_multi", "array[2, 3, 4] real", "a@", "x[, 2, {1, 4}] = a@[{2, 1}, 3, 2:3]; x[1, 1, 1] += 3;",
     None),
    ("int_multi", "array[2, 2, 3] int", "k@", "x[{2, 1}, 2] = k@[, 1]; x[1, 1, {3, 1}] = ix@[1:2];", None),
)  # fmt: skip


def cases() -> Iterator[Case]:
    """Yield a case for each kind of reading, several types to a program, and each of writing."""
    for start in range(0, len(_READS), 3):
        reads = _READS[start : start + 3]
        name = f"read_{reads[0][0]}"
        yield Case(
            name,
            "index_read",
            data=_DATA,
            values=_VALUES,
            transformed_data=" ".join(f"{kind} t_{n}@ = {text};" for n, kind, text, _ in reads),
            parameters="real theta@;",
            model=" ".join(
                f"{{ {kind} x = {text}; target += theta@ * {_total(kind, 'x')}; }}"
                for _, kind, text, _ in reads
            ),
            generated=" ".join(
                f"{kind} g_{n}@ = {text}; {kind} s_{n}@ = t_{n}@;" for n, kind, text, _ in reads
            ),
            truth={f"{place}_{n}": truth for n, _, _, truth in reads for place in "gs"},
            slope=float(sum(np.sum(truth) for *_, truth in reads)),
        )
    for name, kind, before, text, truth in _WRITES:
        scaled = "" if "int" in kind else "top"
        yield Case(
            f"write_{name}",
            "index_write",
            functions=(
                "real raised@(real x, real by) { return x * by; } "
                "matrix raised@(matrix x, real by) { return x * by; } "
                "vector raised@(vector x, real by) { return x * by; } "
                "row_vector raised@(row_vector x, real by) { return x * by; }"
            ),
            data=_DATA,
            values=_VALUES,
            transformed_data=f"{kind} t@ = {before}; {_onto('t@', text)}",
            parameters="real theta@;",
            transformed_parameters=(
                f"{kind} p@ = {before}; {_onto('p@', text)} "
                f"{'p@[1] = raised@(p@[1], theta@);' if not kind.startswith('array') else ''}"
                if scaled
                else ""
            ),
            model=f"{kind} x = {before}; {text} target += theta@ * {_total(kind, 'x')};",
            generated=f"{kind} g@ = {before}; {_onto('g@', text)} {kind} s@ = t@;",
            truth={} if truth is None else {"g": truth, "s": truth},
            slope=None if truth is None else float(np.sum(truth)),
        )


def _onto(name: str, text: str) -> str:
    return text.replace("x[", f"{name}[").replace("x ", f"{name} ").replace(f"i{name}", "ix@")


def _total(kind: str, name: str) -> str:
    """Return an expression for the sum of all elements."""
    if kind in {"real", "int"}:
        return name
    if not kind.startswith("array"):
        return f"sum({name})"
    sizes, _, element = kind.removeprefix("array[").partition("] ")
    places = itertools.product(*(range(1, int(size) + 1) for size in sizes.split(",")))
    part = "%s" if element in {"real", "int"} else "sum(%s)"
    return " + ".join(part % f"{name}{list(place)}" for place in places).join("()")
