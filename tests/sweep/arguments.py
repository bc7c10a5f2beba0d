"""Arguments for Stan's functions: values that each of them accepts, at rest and moving.

An argument is made of cells, each a value and the same as an expression of a parameter, whose
value at 0 it is. `FUNCTIONS` and `DISTRIBUTIONS` say which values suit each position.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from .signatures import Signature, Type

PARAMETER = "{t}"  # stands for the parameter in the code of a cell
_SUFFIX = re.compile("_(lpdf|lpmf|cdf|lcdf|lccdf|rng)$")
_WITH_PRECISION = {
    "wiener_lpdf": (7, 9),
    "wiener_lcdf_unnorm": (6, 9),
    "wiener_lccdf_unnorm": (6, 9),
}
_SLOPES = (1.0, -0.6, 0.8, 0.5, -0.9, 0.7, 0.4)


@dataclass(frozen=True)
class Cell:
    """One number of an argument.

    Attributes
    ----------
    value : float or int
    code : str
        An expression of the parameter whose value at 0 is `value`.
    """

    value: float | int
    code: str


Cells: TypeAlias = "Cell | list[Cells]"
Structure: TypeAlias = Callable[[tuple[int, ...], int], Cells]


@dataclass(frozen=True)
class Argument:
    """The value of an argument of a call.

    Parameters
    ----------
    type : Type
    cells : Cell or nested list of Cell
        Outermost dimension first.
    """

    type: Type
    cells: Cells

    @property
    def shape(self) -> tuple[int, ...]:
        """Its dimensions."""
        return shape_of(self.cells)

    @property
    def value(self) -> Any:
        """Its value, as nested lists."""
        return _mapped(self.cells, lambda cell: cell.value)

    @property
    def literal(self) -> str:
        """Its value, as an expression of constants."""
        return _expression(self.type, _mapped(self.cells, _constant))

    def moving(self, parameter: str) -> str:
        """Return it as an expression of a parameter."""
        cells = _mapped(self.cells, lambda cell: cell.code.replace(PARAMETER, parameter))
        return _expression(self.type, cells)


def shape_of(nested: Any) -> tuple[int, ...]:
    """Return the dimensions of nested lists."""
    return (len(nested), *shape_of(nested[0])) if isinstance(nested, list) else ()


def _mapped(nested: Cells, function: Callable[[Cell], Any]) -> Any:
    if isinstance(nested, list):
        return [_mapped(part, function) for part in nested]
    return function(nested)


def _constant(cell: Cell) -> str:
    return repr(cell.value)


def _expression(type_: Type, texts: Any) -> str:
    if type_.depth:
        inner = Type(type_.kind, type_.depth - 1)
        return "{" + ", ".join(_expression(inner, part) for part in texts) + "}"
    if type_.kind == "m":
        return "[" + ", ".join("[" + ", ".join(row) + "]" for row in texts) + "]"
    if type_.kind in "vw":
        return "[" + ", ".join(texts) + "]" + ("'" if type_.kind == "v" else "")
    return str(texts)


# ---- values that suit a position --------------------------------------------------------------


@dataclass(frozen=True)
class Domain:
    """Values that suit a position.

    Attributes
    ----------
    reals, ints : tuple
        Numbers to take in turn; none where a type does not suit.
    step : float
        How far a parameter moves a number at most; it is of standard deviation 0.5.
    size, rows, columns, length, outer : int
        Of vectors, of matrices, of arrays of numbers, and of arrays of all else.
    structure : callable, optional
        Makes the cells of a vector or a matrix of a shape; each of an array has a number. Where
        there are `reals`, too, vectors are made of these.
    turns : bool
        Integers begin with another one at each position.
    """

    reals: tuple[float, ...] = ()
    ints: tuple[int, ...] = ()
    step: float = 0.05
    size: int = 3
    rows: int = 2
    columns: int = 3
    length: int = 3
    outer: int = 2
    structure: Structure | None = None
    turns: bool = True

    def suits(self, type_: Type) -> bool:
        """Whether there are values of the type."""
        return bool(self.ints) if type_.is_int else bool(self.reals or self.structure)

    def argument(self, type_: Type, offset: int) -> Argument:
        """Return values of a type; each offset begins with another number."""
        first = offset if self.turns else 0
        return Argument(type_, self._cells(type_, type_.depth, first))

    def _cells(self, type_: Type, depth: int, offset: int) -> Cells:
        if depth:
            scalars = type_.kind in "ir"
            length = self.length if scalars and depth == 1 else self.outer
            stride = 3 if not (scalars and depth == 1) else 1
            return [self._cells(type_, depth - 1, offset + stride * i) for i in range(length)]
        if type_.is_int:
            value = self.ints[offset % len(self.ints)]
            return Cell(value, str(value))
        if type_.kind == "r":
            return moving(self.reals[offset % len(self.reals)], self.step * _slope(offset))
        shape = (self.rows, self.columns) if type_.kind == "m" else (self.size,)
        if self.structure is not None and (len(shape) == 2 or not self.reals):
            return self.structure(shape, offset)
        return self._plain(shape, offset)

    def _plain(self, shape: tuple[int, ...], offset: int) -> Cells:
        if len(shape) > 1:
            return [self._plain(shape[1:], offset + shape[1] * i) for i in range(shape[0])]
        numbers = range(offset, offset + shape[0])
        return [moving(self.reals[i % len(self.reals)], self.step * _slope(i)) for i in numbers]


def _slope(i: int) -> float:
    return _SLOPES[i % len(_SLOPES)]


def moving(base: float, slope: float) -> Cell:
    """Return a cell that moves along a line."""
    if slope == 0:
        return Cell(base, repr(base))
    return Cell(base, f"{base!r} + {slope:.6g} * {PARAMETER}")


def _grid(shape: tuple[int, ...], entry: Callable[[int, int], tuple[float, float]]) -> list[Cells]:
    """Make a matrix from base and slope of each entry."""
    rows, columns = shape
    return [[moving(*entry(i, j)) for j in range(columns)] for i in range(rows)]


def _simplex(shape: tuple[int, ...], offset: int) -> Cells:
    size = shape[0]
    total = sum(i + 2 for i in range(size))
    order = [(i + offset) % size for i in range(size)]
    slopes = [0.03 * (i - (size - 1) / 2) for i in range(size)]
    return [moving((i + 2) / total, slope) for i, slope in zip(order, slopes, strict=True)]


def _ordered(shape: tuple[int, ...], offset: int) -> Cells:
    return [moving(-0.6 + 0.9 * i + 0.05 * offset, 0.05 * _slope(i)) for i in range(shape[0])]


def _positive_ordered(shape: tuple[int, ...], offset: int) -> Cells:
    return [moving(0.5 + 0.9 * i + 0.05 * offset, 0.05 * _slope(i)) for i in range(shape[0])]


def _unit_vector(shape: tuple[int, ...], offset: int) -> Cells:
    return _on_sphere(shape[0], offset)


def _on_sphere(size: int, offset: int) -> list[Cells]:
    """A point at distance 1 of 0, by its angles; its last coordinate is positive."""
    cells: list[Cells] = []
    value, code = 1.0, ""
    for i in range(size - 1):
        angle = moving(0.5 - 0.3 * ((i + offset) % 3), 0.1 * _slope(i + offset))
        cells.append(Cell(value * math.sin(angle.value), f"{code}sin({angle.code})"))
        value, code = value * math.cos(angle.value), f"{code}cos({angle.code}) * "
    return [*cells, Cell(value, code.removesuffix(" * ") or "1.0")]


def _cholesky_correlation(shape: tuple[int, ...], offset: int) -> Cells:
    size = shape[0]
    return [
        [*_on_sphere(i + 1, offset + i), *[Cell(0.0, "0.0")] * (size - i - 1)] for i in range(size)
    ]


def _correlation(shape: tuple[int, ...], offset: int) -> Cells:
    def entry(i: int, j: int) -> tuple[float, float]:
        pair = i + j + offset
        return (1.0, 0.0) if i == j else (0.2 - 0.15 * (pair % 3), 0.05 * _slope(pair))

    return _grid(shape, entry)


def _positive_definite(shape: tuple[int, ...], offset: int) -> Cells:
    def entry(i: int, j: int) -> tuple[float, float]:
        pair = i + j + offset
        if i == j:
            return 1.6 + 0.3 * (pair % 4), 0.05 * _slope(pair)
        return 0.3 - 0.2 * (pair % 3), 0.05 * _slope(pair)

    return _grid(shape, entry)


def _cholesky(shape: tuple[int, ...], offset: int) -> Cells:
    def entry(i: int, j: int) -> tuple[float, float]:
        if i < j:
            return 0.0, 0.0
        k = 2 * i + j + offset
        base = 1.1 + 0.2 * (k % 3) if i == j else 0.4 - 0.3 * (k % 3)
        return base, 0.05 * _slope(k)

    return _grid(shape, entry)


def _regular(shape: tuple[int, ...], offset: int) -> Cells:
    def entry(i: int, j: int) -> tuple[float, float]:
        k = 2 * i + j + offset
        return (1.7 if i == j else 0.0) + 0.5 - 0.3 * (k % 4), 0.05 * _slope(k)

    return _grid(shape, entry)


def _sparse(shape: tuple[int, ...], offset: int) -> Cells:
    def entry(i: int, j: int) -> tuple[float, float]:
        return (1.2 - 0.4 * j, 0.05 * _slope(i + offset)) if (i + j) % 2 == 0 else (0.0, 0.0)

    return _grid(shape, entry)


def _stochastic_rows(shape: tuple[int, ...], offset: int) -> Cells:
    return [_simplex(shape[1:], offset + i) for i in range(shape[0])]


def _stochastic_columns(shape: tuple[int, ...], offset: int) -> Cells:
    columns = [_simplex(shape[:1], offset + j) for j in range(shape[1])]
    return [list(row) for row in zip(*columns, strict=True)]


def _zero_sum(shape: tuple[int, ...], offset: int) -> Cells:
    if len(shape) == 1:
        numbers = [0.4 - 0.7 * ((i + offset) % 3) for i in range(shape[0] - 1)]
        slopes = [0.05 * _slope(i) for i in range(shape[0] - 1)]
        ends = (moving(-sum(numbers), -sum(slopes)),)
        return [*map(moving, numbers, slopes), *ends]

    def entry(i: int, j: int) -> tuple[float, float]:
        rows, columns = shape
        a = 1.0 - rows if i == rows - 1 else 1.0
        b = 1.0 - columns if j == columns - 1 else 1.0
        return 0.3 * a * b, 0.05 * a * b

    return _grid(shape, entry)


REAL = Domain((0.3, -0.7, 1.2, 0.45, -0.25, 0.9, -1.6), (1, -2, 3, 2, -1))
POSITIVE = Domain((0.8, 1.7, 0.5, 2.3, 1.1, 0.65, 3.2), (2, 1, 3, 5, 4))
LARGE = Domain((5.3, 6.7, 7.4, 5.9, 8.2), (6, 7, 5, 8, 9))
NEGATIVE = Domain((-0.8, -1.7, -0.4, -2.3, -1.1), (-1, -3, -2))
PROBABILITY = Domain((0.3, 0.62, 0.45, 0.71, 0.25), step=0.03)
UNIT = Domain((0.35, -0.5, 0.6, -0.2, 0.15), (0,), step=0.03)
ABOVE_ONE = Domain((1.5, 2.2, 3.1, 1.8, 4.7), (2, 3, 5))
ABOVE_TWO = Domain((2.4, 3.3, 2.9, 4.1), (3, 4, 5))
LOW = Domain((-1.3, -0.9, -2.1, -1.7), (-2, -3, -1))
HIGH = Domain((2.6, 3.4, 2.2, 4.5), (3, 5, 4))
SMALL = Domain((0.15, 0.22, 0.11, 0.18), step=0.01)
GENTLE = Domain((0.6, 0.9, 0.4, 0.7, 1.1), (1,), step=0.03)
COUNT = Domain(ints=(2, 0, 3, 1, 5))
TRIALS = Domain(ints=(6, 7, 9, 8))
BINARY = Domain(ints=(1, 0, 1, 1, 0))
CATEGORY = Domain(ints=(2, 3, 1))
SIMPLEX = Domain(structure=_simplex)
ORDERED = Domain(structure=_ordered, size=2, outer=3)
POSITIVE_ORDERED = Domain(structure=_positive_ordered)
UNIT_VECTOR = Domain(structure=_unit_vector)
SQUARE = Domain(REAL.reals, structure=_regular, rows=3)
POSITIVE_DEFINITE = Domain(structure=_positive_definite, rows=3)
CHOLESKY = Domain(structure=_cholesky, rows=3)
CORRELATION = Domain(structure=_correlation, rows=3)
CHOLESKY_CORRELATION = Domain(structure=_cholesky_correlation, rows=3)
COEFFICIENTS = replace(REAL, size=2)
PREDICTORS = replace(REAL, rows=3, columns=2, size=2)

Domains: TypeAlias = tuple[Domain, ...]


def _given(*numbers: int) -> Domain:
    return Domain(ints=numbers, length=len(numbers), turns=False)


def _sizes(*values: int) -> tuple[Domain, ...]:
    return tuple(Domain(ints=(value,)) for value in values)


_SPARSE_INDICES = (_given(1, 3, 2), _given(1, 3, 4))
_WIENER = (
    ABOVE_ONE,
    ABOVE_ONE,
    SMALL,
    PROBABILITY,
    REAL,
    SMALL,
    SMALL,
    SMALL,
)
_PRECISION = Domain((1e-7,), step=0)

# Functions none of whose arguments can be a parameter.
DATA_ONLY = frozenset(
    {
        "hmm_hidden_state_prob",
        "linspaced_array",
        "linspaced_row_vector",
        "linspaced_vector",
        "quantile",
    }
)

# Where a function is not here, its arguments are real.
FUNCTIONS: dict[str, Domains] = {
    **dict.fromkeys(("acos", "asin", "atanh", "log1m"), (UNIT,)),
    **dict.fromkeys(
        (
            "digamma",
            "trigamma",
            "tgamma",
            "lgamma",
            "inv_sqrt",
            "lambert_w0",
            "log",
            "log10",
            "log2",
            "log1p",
            "sqrt",
            "beta",
            "lbeta",
            "lmultiply",
            "fmod",
            "log_modified_bessel_first_kind",
            "log_rising_factorial",
            "rising_factorial",
            "gamma_p",
            "gamma_q",
            "divide",
            "elt_divide",
            "modulus",
        ),
        (POSITIVE, POSITIVE),
    ),
    "rising_factorial": (POSITIVE, COUNT),
    "falling_factorial": (LARGE, COUNT),
    "log_falling_factorial": (LARGE, POSITIVE),
    "lchoose": (LARGE, POSITIVE),
    "choose": (TRIALS, COUNT),
    "pow": (POSITIVE, REAL),
    "acosh": (ABOVE_ONE,),
    "log1m_exp": (NEGATIVE,),
    "std_normal_log_qf": (NEGATIVE,),
    "lambert_wm1": (Domain((-0.2, -0.1, -0.3, -0.15, -0.25), step=0.01),),
    **dict.fromkeys(("logit", "inv_Phi", "std_normal_qf", "inv_erfc"), (PROBABILITY,)),
    "log_diff_exp": (ABOVE_TWO, UNIT),
    "log_inv_logit_diff": (ABOVE_TWO, UNIT),
    **dict.fromkeys(("bessel_first_kind", "bessel_second_kind"), (COUNT, POSITIVE)),
    **dict.fromkeys(
        ("modified_bessel_first_kind", "modified_bessel_second_kind"), (COUNT, POSITIVE)
    ),
    "lmgamma": (CATEGORY, LARGE),
    "binary_log_loss": (BINARY, PROBABILITY),
    "ldexp": (REAL, COUNT),
    "inc_beta": (POSITIVE, POSITIVE, PROBABILITY),
    "inv_inc_beta": (POSITIVE, POSITIVE, PROBABILITY),
    "hypergeometric_1F0": (REAL, UNIT),
    "hypergeometric_2F1": (POSITIVE, POSITIVE, POSITIVE, PROBABILITY),
    "hypergeometric_3F2": (POSITIVE, replace(POSITIVE, size=2, length=2), PROBABILITY),
    "hypergeometric_pFq": (
        replace(POSITIVE, size=2, length=2),
        replace(POSITIVE, size=2, length=2),
        PROBABILITY,
    ),
    "log_mix": (PROBABILITY, REAL, REAL),
    "to_int": (REAL,),
    "add_diag": (SQUARE, REAL),
    "append_row": (SQUARE, SQUARE),
    "append_col": (SQUARE, SQUARE),
    "block": (REAL, *_sizes(1, 2, 2, 2)),
    "col": (REAL, *_sizes(2)),
    "row": (REAL, *_sizes(2)),
    "sub_col": (REAL, *_sizes(1, 2, 2)),
    "sub_row": (REAL, *_sizes(2, 1, 2)),
    "head": (REAL, *_sizes(2)),
    "tail": (REAL, *_sizes(2)),
    "segment": (REAL, *_sizes(1, 2)),
    "rank": (REAL, *_sizes(2)),
    "chol2inv": (CHOLESKY,),
    "cholesky_decompose": (POSITIVE_DEFINITE,),
    "inverse_spd": (POSITIVE_DEFINITE,),
    "log_determinant_spd": (POSITIVE_DEFINITE,),
    "eigenvalues_sym": (POSITIVE_DEFINITE,),
    "eigenvectors_sym": (POSITIVE_DEFINITE,),
    "eigendecompose_sym": (POSITIVE_DEFINITE,),
    **dict.fromkeys(
        (
            "determinant",
            "inverse",
            "log_determinant",
            "matrix_exp",
            "matrix_exp_multiply",
            "mdivide_left",
            "mdivide_right",
            "multiply_lower_tri_self_transpose",
            "symmetrize_from_lower_tri",
            "trace",
            "trace_dot",
        ),
        (SQUARE, SQUARE),
    ),
    "matrix_power": (SQUARE, *_sizes(3)),
    "scale_matrix_exp_multiply": (REAL, SQUARE, SQUARE),
    "mdivide_left_spd": (POSITIVE_DEFINITE, SQUARE),
    "mdivide_right_spd": (SQUARE, POSITIVE_DEFINITE),
    "mdivide_left_tri_low": (CHOLESKY, SQUARE),
    "mdivide_right_tri_low": (SQUARE, CHOLESKY),
    "multiply": (REAL, replace(REAL, rows=3, columns=2)),
    "quad_form": (SQUARE, replace(REAL, rows=3, columns=2)),
    "quad_form_sym": (POSITIVE_DEFINITE, replace(REAL, rows=3, columns=2)),
    "quad_form_diag": (SQUARE, REAL),
    "trace_quad_form": (SQUARE, replace(REAL, rows=3, columns=2)),
    "trace_gen_quad_form": (
        replace(SQUARE, rows=2, columns=2),
        SQUARE,
        replace(REAL, rows=3, columns=2),
    ),
    "diag_pre_multiply": (replace(REAL, size=2), REAL),
    **dict.fromkeys(
        ("qr", "qr_Q", "qr_R", "qr_thin", "qr_thin_Q", "qr_thin_R"),
        (replace(SQUARE, columns=2),),
    ),
    **dict.fromkeys(
        ("csr_extract_u", "csr_extract_v", "csr_extract_w", "csr_extract"),
        (Domain(structure=_sparse),),
    ),
    "csr_matrix_times_vector": (*_sizes(2, 3), REAL, *_SPARSE_INDICES, REAL),
    "csr_to_dense_matrix": (*_sizes(2, 3), REAL, *_SPARSE_INDICES),
    **dict.fromkeys(("identity_matrix", "uniform_simplex"), _sizes(3)),
    **dict.fromkeys(
        (
            f"{value}_{kind}"
            for value in ("ones", "zeros")
            for kind in ("array", "int_array", "vector", "row_vector")
        ),
        _sizes(3),
    ),
    **dict.fromkeys(
        (f"one_hot_{kind}" for kind in ("array", "int_array", "vector", "row_vector")),
        _sizes(3, 2),
    ),
    **dict.fromkeys(
        ("linspaced_array", "linspaced_vector", "linspaced_row_vector"), (*_sizes(4), LOW, HIGH)
    ),
    "linspaced_int_array": _sizes(4, 2, 11),
    "rep_vector": (REAL, *_sizes(3)),
    "rep_row_vector": (REAL, *_sizes(3)),
    "rep_matrix": (REAL, *_sizes(2, 3)),
    "rep_array": (REAL, *_sizes(2, 3, 2)),
    "to_matrix": (replace(REAL, size=6, length=6), *_sizes(2, 3, 0)),
    "quantile": (replace(REAL, size=5, length=5), PROBABILITY),
    "gp_dot_prod_cov": (REAL, replace(POSITIVE, outer=3, length=2), POSITIVE),
    "gp_periodic_cov": (REAL, replace(POSITIVE, outer=3, length=2), POSITIVE),
    **dict.fromkeys(
        (f"gp_{kind}_cov" for kind in ("exp_quad", "exponential", "matern32", "matern52")),
        (REAL, replace(POSITIVE, outer=3, length=2), POSITIVE),
    ),
    "hmm_marginal": (REAL, Domain(structure=_stochastic_rows, columns=2), replace(SIMPLEX, size=2)),
    "hmm_hidden_state_prob": (
        REAL,
        Domain(structure=_stochastic_rows, columns=2),
        replace(SIMPLEX, size=2),
    ),
    "lower_bound_constrain": (REAL, REAL),
    "lower_bound_unconstrain": (ABOVE_TWO, REAL),
    "upper_bound_unconstrain": (LOW, POSITIVE),
    "lower_upper_bound_unconstrain": (UNIT, LOW, HIGH),
    **dict.fromkeys(
        ("lower_upper_bound_constrain", "lower_upper_bound_jacobian"), (REAL, LOW, HIGH)
    ),
    **dict.fromkeys(
        (f"offset_multiplier_{way}" for way in ("constrain", "unconstrain", "jacobian")),
        (REAL, REAL, POSITIVE),
    ),
    "cholesky_factor_corr_unconstrain": (CHOLESKY_CORRELATION,),
    "cholesky_factor_cov_unconstrain": (CHOLESKY,),
    "corr_matrix_unconstrain": (CORRELATION,),
    "cov_matrix_unconstrain": (POSITIVE_DEFINITE,),
    "ordered_unconstrain": (replace(ORDERED, size=3, outer=2),),
    "positive_ordered_unconstrain": (POSITIVE_ORDERED,),
    "simplex_unconstrain": (SIMPLEX,),
    "unit_vector_unconstrain": (UNIT_VECTOR,),
    "sum_to_zero_unconstrain": (Domain(structure=_zero_sum),),
    "stochastic_row_unconstrain": (Domain(structure=_stochastic_rows),),
    "stochastic_column_unconstrain": (Domain(structure=_stochastic_columns),),
    **{
        f"{kind}_{way}": (replace(REAL, size=size), *_sizes(*sizes))
        for way in ("constrain", "jacobian")
        for kind, size, sizes in (
            ("cholesky_factor_corr", 3, (3,)),
            ("cholesky_factor_cov", 6, (3, 3)),
            ("corr_matrix", 3, (3,)),
            ("cov_matrix", 6, (3,)),
        )
    },
    "wiener_lcdf_unnorm": _WIENER,
    "wiener_lccdf_unnorm": _WIENER,
}

# The outcome first, then the arguments after the bar.
DISTRIBUTIONS: dict[str, Domains] = {
    "bernoulli": (BINARY, PROBABILITY),
    "bernoulli_logit": (BINARY, REAL),
    "bernoulli_logit_glm": (BINARY, PREDICTORS, REAL, COEFFICIENTS),
    "beta": (PROBABILITY, POSITIVE, POSITIVE),
    "beta_binomial": (COUNT, TRIALS, POSITIVE, POSITIVE),
    "beta_neg_binomial": (COUNT, POSITIVE, ABOVE_ONE, POSITIVE),
    "beta_proportion": (PROBABILITY, PROBABILITY, POSITIVE),
    "binomial": (COUNT, TRIALS, PROBABILITY),
    "binomial_logit": (COUNT, TRIALS, REAL),
    "binomial_logit_glm": (COUNT, TRIALS, PREDICTORS, REAL, COEFFICIENTS),
    "categorical": (CATEGORY, SIMPLEX),
    "categorical_logit": (CATEGORY, REAL),
    "categorical_logit_glm": (CATEGORY, PREDICTORS, REAL, REAL),
    "cauchy": (REAL, REAL, POSITIVE),
    "chi_square": (POSITIVE, POSITIVE),
    "dirichlet": (SIMPLEX, POSITIVE),
    "dirichlet_multinomial": (COUNT, POSITIVE),
    "discrete_range": (COUNT, Domain(ints=(-1, -2, 0)), Domain(ints=(6, 7, 9))),
    "double_exponential": (REAL, REAL, POSITIVE),
    # Stan loses all digits of the cumulative forms where scale and rate are large.
    "exp_mod_normal": (REAL, REAL, GENTLE, GENTLE),
    "exponential": (POSITIVE, POSITIVE),
    "frechet": (POSITIVE, POSITIVE, POSITIVE),
    "gamma": (POSITIVE, POSITIVE, POSITIVE),
    "gaussian_dlm_obs": (
        REAL,
        replace(REAL, rows=3, columns=2),
        SQUARE,
        Domain(POSITIVE.reals, size=2, rows=2, columns=2, structure=_positive_definite),
        POSITIVE_DEFINITE,
        REAL,
        POSITIVE_DEFINITE,
    ),
    "gumbel": (REAL, REAL, POSITIVE),
    "hypergeometric": (Domain(ints=(2,)), *_sizes(4, 3, 5)),
    "inv_chi_square": (POSITIVE, POSITIVE),
    "inv_gamma": (POSITIVE, POSITIVE, POSITIVE),
    "inv_wishart": (POSITIVE_DEFINITE, LARGE, POSITIVE_DEFINITE),
    "inv_wishart_cholesky": (CHOLESKY, LARGE, CHOLESKY),
    "lkj_corr": (CORRELATION, POSITIVE),
    "lkj_corr_cholesky": (CHOLESKY_CORRELATION, POSITIVE),
    "lkj_cov": (POSITIVE_DEFINITE, REAL, POSITIVE, POSITIVE),
    "logistic": (REAL, REAL, POSITIVE),
    "loglogistic": (POSITIVE, POSITIVE, POSITIVE),
    "lognormal": (POSITIVE, REAL, POSITIVE),
    "multi_gp": (REAL, POSITIVE_DEFINITE, replace(POSITIVE, size=2)),
    "multi_gp_cholesky": (REAL, CHOLESKY, replace(POSITIVE, size=2)),
    "multi_normal": (REAL, REAL, POSITIVE_DEFINITE),
    "multi_normal_cholesky": (REAL, REAL, CHOLESKY),
    "multi_normal_prec": (REAL, REAL, POSITIVE_DEFINITE),
    "multi_student_t": (REAL, POSITIVE, REAL, POSITIVE_DEFINITE),
    "multi_student_t_cholesky": (REAL, POSITIVE, REAL, CHOLESKY),
    "multinomial": (COUNT, SIMPLEX),
    "multinomial_logit": (COUNT, REAL),
    "neg_binomial": (COUNT, POSITIVE, POSITIVE),
    "neg_binomial_2": (COUNT, POSITIVE, POSITIVE),
    "neg_binomial_2_log": (COUNT, REAL, POSITIVE),
    "neg_binomial_2_log_glm": (COUNT, PREDICTORS, REAL, COEFFICIENTS, POSITIVE),
    "normal": (REAL, REAL, POSITIVE),
    "normal_id_glm": (REAL, PREDICTORS, REAL, COEFFICIENTS, POSITIVE),
    "ordered_logistic": (CATEGORY, REAL, ORDERED),
    "ordered_logistic_glm": (CATEGORY, PREDICTORS, COEFFICIENTS, ORDERED),
    "ordered_probit": (CATEGORY, REAL, ORDERED),
    "pareto": (ABOVE_TWO, Domain((0.8, 1.7, 0.5, 1.1)), POSITIVE),
    "pareto_type_2": (POSITIVE, LOW, POSITIVE, POSITIVE),
    "poisson": (COUNT, POSITIVE),
    "poisson_log": (COUNT, REAL),
    "poisson_log_glm": (COUNT, PREDICTORS, REAL, COEFFICIENTS),
    "rayleigh": (POSITIVE, POSITIVE),
    "scaled_inv_chi_square": (POSITIVE, POSITIVE, POSITIVE),
    "skew_double_exponential": (REAL, REAL, POSITIVE, PROBABILITY),
    "skew_normal": (REAL, REAL, POSITIVE, REAL),
    "std_normal": (REAL,),
    "student_t": (REAL, POSITIVE, REAL, POSITIVE),
    "uniform": (UNIT, LOW, HIGH),
    "von_mises": (REAL, REAL, POSITIVE),
    "weibull": (POSITIVE, POSITIVE, POSITIVE),
    "wiener": _WIENER,
    "wishart": (POSITIVE_DEFINITE, LARGE, POSITIVE_DEFINITE),
    "wishart_cholesky": (CHOLESKY, LARGE, CHOLESKY),
    "yule_simon": (Domain(ints=(2, 1, 4, 3)), POSITIVE),
}

# Of cumulative forms, where an outcome of the density has none that is finite.
_CUMULATIVE: dict[str, Domains] = {"bernoulli_lccdf": (Domain(ints=(0,)), PROBABILITY)}

# Of functions that draw, where these are not the distribution's arguments after the bar.
_RANDOM: dict[str, Domains] = {
    "dirichlet_multinomial": (POSITIVE, TRIALS),
    "hmm_latent": FUNCTIONS["hmm_marginal"],
    "lkj_corr": (*_sizes(3), POSITIVE),
    "lkj_corr_cholesky": (*_sizes(3), POSITIVE),
    "multinomial": (SIMPLEX, TRIALS),
    "multinomial_logit": (REAL, TRIALS),
}


def domains_of(signature: Signature) -> Domains | None:
    """Return values for each position of a signature; None where some type has none."""
    name, suffix = split_name(signature.function)
    count = len(signature.arguments)
    if suffix == "_rng":
        domains = _RANDOM[name] if name in _RANDOM else DISTRIBUTIONS[name][1:]
    elif suffix:
        domains = _CUMULATIVE.get(signature.function, DISTRIBUTIONS[name])
    else:
        domains = FUNCTIONS.get(name, (REAL,))
    domains += domains[-1:] * (count - len(domains))
    if count in _WITH_PRECISION.get(signature.function, ()):
        domains = (*domains[: count - 1], _PRECISION)
    found = domains[:count]
    suits = all(d.suits(t) for d, t in zip(found, signature.arguments, strict=True))
    return found if suits else None


def split_name(function: str) -> tuple[str, str]:
    """Return the name of a distribution and the suffix of one of its functions."""
    match = _SUFFIX.search(function)
    return (function, "") if match is None else (function[: match.start()], match[0])
