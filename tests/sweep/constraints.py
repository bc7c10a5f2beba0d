"""Constrained parameters of each type, alone and in arrays, and tuples and complex numbers."""

# Rows of tables stay on a line each.
# ruff: noqa: E501

from __future__ import annotations

import re
from collections.abc import Iterator

from .cases import Case

# A name, the type, and the type of its elements: a number, a vector, a row vector or a matrix.
_TYPES: tuple[tuple[str, str, str], ...] = (
    ("lower", "real<lower=lo@>", "real"),
    ("upper", "real<upper=hi@>", "real"),
    ("both", "real<lower=lo@, upper=hi@>", "real"),
    ("infinite", "real<lower=negative_infinity(), upper=hi@>", "real"),
    ("offset", "real<offset=lo@, multiplier=hi@>", "real"),
    ("offset_only", "real<offset=lo@>", "real"),
    ("multiplier_only", "real<multiplier=hi@>", "real"),
    ("vector", "vector[3]", "vector"),
    ("vector_lower", "vector<lower=lo@>[3]", "vector"),
    ("vector_lowers", "vector<lower=los@>[3]", "vector"),
    ("vector_uppers", "vector<upper=his@>[3]", "vector"),
    ("vector_both", "vector<lower=lo@, upper=his@>[3]", "vector"),
    ("vector_boths", "vector<lower=los@, upper=his@>[3]", "vector"),
    ("vector_offsets", "vector<offset=los@, multiplier=his@>[3]", "vector"),
    ("vector_multipliers", "vector<multiplier=his@>[3]", "vector"),
    ("row_vector_lowers", "row_vector<lower=los@'>[3]", "row_vector"),
    ("matrix_lower", "matrix<lower=lo@>[2, 3]", "matrix"),
    ("matrix_boths", "matrix<lower=lom@, upper=lom@ + 2>[2, 3]", "matrix"),
    ("matrix_offset", "matrix<offset=lom@, multiplier=hi@>[2, 3]", "matrix"),
    ("ordered", "ordered[4]", "vector"),
    ("positive_ordered", "positive_ordered[4]", "vector"),
    ("simplex", "simplex[4]", "vector"),
    ("unit_vector", "unit_vector[3]", "vector"),
    ("cholesky_corr", "cholesky_factor_corr[3]", "matrix"),
    ("cholesky_cov", "cholesky_factor_cov[3]", "matrix"),
    ("cholesky_cov_tall", "cholesky_factor_cov[4, 2]", "matrix"),
    ("corr_matrix", "corr_matrix[3]", "matrix"),
    ("cov_matrix", "cov_matrix[3]", "matrix"),
    ("sum_to_zero", "sum_to_zero_vector[4]", "vector"),
    ("sum_to_zero_matrix", "sum_to_zero_matrix[3, 4]", "matrix"),
    ("column_stochastic", "column_stochastic_matrix[3, 2]", "matrix"),
    ("row_stochastic", "row_stochastic_matrix[2, 3]", "matrix"),
)
_SINCE = {
    "sum_to_zero": "2.36",
    "sum_to_zero_matrix": "2.37",
    "column_stochastic": "2.36",
    "row_stochastic": "2.36",
}
_BOUND = re.compile(r"los@'?|his@|lom@ \+ 2|lom@")
_DATA = "real lo@; real hi@; vector[3] los@; vector[3] his@; matrix[2, 3] lom@;"
_VALUES = {
    "lo": -0.5,
    "hi": 1.75,
    "los": [-0.5, 0.25, 1.5],
    "his": [2.5, 0.75, 3.5],
    "lom": [[0.1, 0.2, 0.3], [1.1, 1.2, 1.3]],
}

_WEIGHED = {  # a density, each element with a weight of its own
    "real": "target += 3 * x - 0.5 * x^2;",
    "vector": "target += dot_product(x, linspaced_vector(rows(x), 1, 3)) - 0.5 * dot_self(x - 1);",
    "row_vector": "target += dot_product(x, linspaced_vector(cols(x), 1, 3)) - 0.5 * dot_self(x);",
    "matrix": (
        "target += dot_product(to_vector(x), linspaced_vector(num_elements(x), 1, 3)) "
        "- 0.5 * dot_self(to_vector(x));"
    ),
}

_OTHERS: tuple[tuple[str, dict[str, str], str], ...] = (
    (
        "bound_of_parameter",
        {
            "parameters": "real a@; real<lower=a@> b@; real<lower=a@, upper=a@ + exp(b@ / 4)> c@; "
            "vector<upper=b@>[2] d@; vector<offset=a@, multiplier=exp(c@ / 2)>[2] e@;",
            "model": "target += a@ + 2 * b@ - 3 * c@ + d@[1]^2 - e@[2]^2;",
        },
        "",
    ),
    (
        "array_bounds",
        {
            "parameters": "array[3] real<lower=lo@, upper=hi@> a@; array[2, 2] real<lower=lo@> b@;",
            "model": "target += a@[1] + 2 * a@[2] + 4 * a@[3]^2 - b@[1, 2] + 3 * b@[2, 1]^2;",
        },
        "",
    ),
    (
        "transformed_checked",
        {
            "parameters": "vector[3] u@;",
            "transformed_parameters": "simplex[3] s@ = softmax(u@); vector<lower=0>[3] e@ = exp(u@); "
            "ordered[3] o@ = cumulative_sum(e@); cov_matrix[3] c@ = add_diag(u@ * u@', 1.5); "
            "cholesky_factor_cov[3] l@ = cholesky_decompose(c@);",
            "model": "s@ ~ dirichlet(e@); o@ ~ normal(0, 3); u@ ~ multi_normal_cholesky(o@, l@);",
        },
        "",
    ),
    (
        "complex_locals",
        {
            "parameters": "vector[3] u@;",
            "transformed_parameters": "complex z@ = to_complex(u@[1], u@[2]); complex w@ = z@ * z@ + "
            "exp(z@) / (2 + 3i); real r@ = get_real(w@) + abs(z@); vector[2] p@ = [arg(z@), get_imag(conj(w@))]';",
            "model": "target += r@ - get_imag(w@)^2;",
        },
        "",
    ),
    (
        "complex_parameter",
        {"parameters": "complex z@; complex_vector[2] v@;", "model": "target += -abs(z@)^2 + get_real(z@ * v@[2]) "
         "- get_imag(v@[1]) - abs(v@[1])^2;"},
        "",
    ),
    (
        "complex_matrix",
        {
            "parameters": "complex_matrix[2, 2] m@; complex_row_vector[2] r@;",
            "generated": "complex_matrix[2, 2] p@ = m@ * m@; complex g@ = r@ * m@[, 2]; array[2] complex a@ = "
            "{g@, m@[2, 1]};",
            "model": "target += get_real(m@[1, 2] * r@[1]) + get_imag(m@[2, 1] * m@[2, 1]);",
        },
        "",
    ),
    (
        "complex_generated",
        {
            "generated": "complex a@ = (1 + 2i) * (3 - 1i); complex b@ = sqrt(to_complex(-4, 0)); "
            "complex_vector[2] v@ = [1 + 2i, 3i]'; real c@ = get_imag(v@[1] * v@[2]);",
        },
        "",
    ),
    (
        "tuple_parameter",
        {
            "parameters": "tuple(real<lower=0>, vector[2]) t@; array[2] tuple(real, simplex[3]) s@;",
            "model": "t@.1 ~ gamma(2, 3); t@.2 ~ normal(t@.1, 2); target += s@[1].1 * s@[2].2[3] - s@[2].1^2 "
            "+ s@[1].2[1];",
        },
        "",
    ),
    (
        "tuple_locals",
        {
            "parameters": "real a@;",
            "transformed_parameters": "tuple(real, array[2] real, vector[2]) t@ = (2 * a@, {3.5, a@}, [a@, a@^2]'); "
            "real r@; { tuple(int, real) q = (3, 0.5); q.2 += a@; r@ = q.1 * q.2; }",
            "generated": "tuple(int, tuple(real, int)) n@ = (1, (2.5, 3)); real s@ = n@.2.1 + n@.2.2; int x@; "
            "real y@; (x@, y@) = (4, 5.5);",
            "model": "target += t@.3[2] * t@.2[1] + r@;",
        },
        "",
    ),
    (
        "transform_functions",
        {
            "parameters": "vector[3] u@;",
            "transformed_parameters": "vector[4] s@ = simplex_jacobian(u@); vector[3] o@ = ordered_jacobian(u@); "
            "real l@ = lower_bound_jacobian(u@[1], 0.5); vector[3] b@ = lower_upper_bound_jacobian(u@, -1, 2);",
            "model": "target += s@[2] + o@[3] - l@ + b@[2];",
        },
        "2.37",
    ),
)  # fmt: skip


def cases() -> Iterator[Case]:
    """Yield a case for each type of parameter, alone and in an array."""
    for name, kind, element in _TYPES:
        yield Case(
            f"constrained_{name}",
            "constraints",
            data=_DATA,
            values=_VALUES,
            parameters=f"{kind} x@; array[2] {_BOUND.sub(_two_bounds, kind)} y@;",
            model=" ".join(
                f"{{ {_local(kind, element)} x = {scale} * {variable}; {_WEIGHED[element]} }}"
                for scale, variable in ((1, "x@"), (2, "y@[1]"), (3, "y@[2]"))
            ),
            generated=f"array[2] {_local(kind, element)} seen@ = y@[{{2, 1}}];",
            since=_SINCE.get(name, ""),
        )
    for name, blocks, since in _OTHERS:
        yield Case(
            f"constrained_{name}",
            "constraints",
            data=_DATA,
            values=_VALUES,
            since=since,
            **blocks,
        )


def _two_bounds(match: re.Match[str]) -> str:
    """Return a bound of each element of an array, for one that is a container."""
    return f"{{{match[0]}, {match[0]} {'+' if match[0].endswith(('2', 'his@')) else '-'} 1}}"


def _local(kind: str, element: str) -> str:
    """Return the type, without its constraint."""
    sizes = kind[kind.rindex("[") :].strip("[]") if kind.endswith("]") else ""
    if element == "matrix" and "," not in sizes:
        sizes = f"{sizes}, {sizes}"
    return element + (f"[{sizes}]" if sizes else "")
