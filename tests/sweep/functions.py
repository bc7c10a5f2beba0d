"""Functions that programs define, and densities among them."""

# Rows of tables stay on a line each.
# ruff: noqa: E501

from __future__ import annotations

from collections.abc import Iterator

from .cases import Case

_DATA = "int n@; array[4] int a@; array[2, 3] int b@; vector[4] v@; matrix[2, 3] m@; real x@;"
_VALUES = {
    "n": 5,
    "a": [3, 1, 4, 2],
    "b": [[3, 1, 4], [2, 7, 5]],
    "v": [1.5, 2.25, 3.125, 4.0625],
    "m": [[1.1, 1.2, 1.3], [2.1, 2.2, 2.3]],
    "x": 2.5,
}

# A name, the functions, an expression of data, and its truth.
_PURE: tuple[tuple[str, str, str, float], ...] = (
    ("real_scalar", "real f@(real x, real y) { return x - 2 * y; }", "f@(x@, v@[2])", -2.0),
    ("int_scalar", "int f@(int x, int y) { return x / y; }", "f@(n@, 2)", 2),
    ("int_promoted", "real f@(real x) { return x / 2; }", "f@(n@)", 2.5),
    ("int_divides", "real f@(int x) { return x / 2; }", "f@(n@)", 2),
    ("vector_to_real", "real f@(vector x) { return x[2] - x[4]; }", "f@(v@)", -1.8125),
    ("vector_to_vector", "vector f@(vector x) { return x[{3, 1}]; }", "f@(v@)[1]", 3.125),
    ("row_vector", "row_vector f@(vector x) { return 2 * x'; }", "f@(v@)[3]", 6.25),
    ("matrix", "matrix f@(matrix x) { return x' * x; }", "f@(m@)[2, 3]", 1.2 * 1.3 + 2.2 * 2.3),
    ("int_array", "array[] int f@(array[] int x) { return x[2:]; }", "f@(a@)[2]", 4),
    ("int_array2", "array[,] int f@(array[,] int x) { return x[{2, 1}]; }", "f@(b@)[1, 3]", 5),
    ("int_array2_row", "int f@(array[,] int x) { return sum(x[2]); }", "f@(b@)", 14),
    ("int_array2_made",
     "array[,] int f@(int n) { array[2, n] int z; for (i in 1:2) z[i] = linspaced_int_array(n, i, "
     "i + n - 1); return z; }", "sum(f@(n@)[2])", 20),
    ("real_array3",
     "array[,,] real f@(real x) { array[2, 2, 3] real z; for (i in 1:2) for (j in 1:2) for (k in 1:3) "
     "z[i, j, k] = x * (100 * i + 10 * j + k); return z; }", "f@(x@)[2, 1, 3]", 532.5),
    ("vectors", "array[] vector f@(vector x) { return {x, 2 * x, x[{4, 3, 2, 1}]}; }", "f@(v@)[2][4]", 8.125),
    ("matrices", "array[] matrix f@(matrix x) { return {x, x * 3}; }", "f@(m@)[2, 2, 1]", 6.3),
    ("of_vectors", "real f@(array[] vector x) { return x[2, 3] - x[1][1]; }", "f@({v@, 2 * v@})", 4.75),
    ("arguments_order", "real f@(real x, int i, vector z, array[] int k) { return x * i + z[k[2]]; }",
     "f@(x@, n@, v@, a@)", 14.0),
    ("argument_expression", "real f@(real x) { return x + 1; }", "f@(f@(x@) * f@(v@[1]))", 9.75),
    ("early_return", "real f@(real x) { if (x > 2) return 10 * x; return x; }", "f@(x@) + f@(v@[1])", 26.5),
    ("return_branches",
     "int f@(int x) { if (x > 3) return 1; else if (x > 1) return 2; else return 3; }",
     "f@(a@[1]) * 1000 + f@(a@[2]) * 100 + f@(a@[3]) * 10 + f@(a@[4])", 2312),
    ("return_in_loop", "int f@(array[] int x) { for (i in 1:size(x)) if (x[i] == 4) return i; return 0; }",
     "f@(a@)", 3),
    ("return_in_nested_loop",
     "int f@(array[,] int x) { for (i in 1:2) for (j in 1:3) if (x[i, j] == 7) return 10 * i + j; "
     "return 0; }", "f@(b@)", 22),
    ("return_in_while", "int f@(int x) { int i = 0; while (1) { i += 1; if (i * i > x) return i; } return 0; }",
     "f@(20)", 5),
    ("recursive", "int f@(int x); int f@(int x) { return x <= 1 ? 1 : x * f@(x - 1); }", "f@(n@)", 120),
    ("recursive_real", "real f@(int k, real x); real f@(int k, real x) { if (k == 0) return 1; "
     "return x * f@(k - 1, x); }", "f@(3, x@)", 15.625),
    ("recursive_int_array",
     "int f@(array[] int x); int f@(array[] int x) { if (size(x) == 0) return 0; "
     "return x[1] + 10 * f@(x[2:]); }", "f@(a@)", 2413),
    ("mutual", "int odd@(int x); int even@(int x) { return x == 0 ? 1 : odd@(x - 1); } "
     "int odd@(int x) { return x == 0 ? 0 : even@(x - 1); }", "even@(n@) * 10 + odd@(n@)", 1),
    ("overloaded",
     "real f@(real x) { return x; } real f@(int x) { return 10 * x; } real f@(vector x) { return 100 * x[1]; } "
     "real f@(array[] int x) { return 1000 * x[1]; }", "f@(x@) + f@(n@) + f@(v@) + f@(a@)", 3202.5),
    ("overloaded_number", "real f@(real x) { return x; } real f@(real x, real y) { return x * y; }",
     "f@(x@) + f@(x@, v@[1])", 6.25),
    ("copies_argument", "real f@(vector x) { vector[4] z = x; z[1] = 100; return x[1] + z[2]; }", "f@(v@)", 3.75),
    ("local_arrays", "real f@(int n) { array[n] vector[2] z; for (i in 1:n) z[i] = [i, 10 * i]'; return z[3, 2]; }",
     "f@(n@)", 30),
    ("local_sizes", "real f@(vector x) { int k = rows(x) - 1; vector[k] z = x[2:]; return z[k]; }", "f@(v@)", 4.0625),
    ("data_only", "real f@(data real x, data vector z) { return x + z[2]; }", "f@(x@, v@)", 4.75),
    ("int_from_sizes", "int f@(matrix x) { return 10 * rows(x) + cols(x); }", "f@(m@)", 23),
    ("tuple_result", "tuple(int, real) f@(int x) { return (x + 1, x / 2.0); }", "f@(n@).1 + f@(n@).2", 8.5),
    ("tuple_argument", "real f@(tuple(int, vector) x) { return x.2[x.1]; }", "f@((3, v@))", 3.125),
    ("calls_later", "real g@(real x); real f@(real x) { return 2 * g@(x); } real g@(real x) { return x + 1; }",
     "f@(x@)", 7.0),
)  # fmt: skip

_ARGUMENTS = (
    ("real_of_parameter", "real f@(real x, real y) { return x^2 * y; }", "f@(theta@, x@)"),
    ("vector_of_parameter", "vector f@(real x, vector v) { vector[4] z = v; z[2] = x * z[1]; return z .* z; }",
     "sum(f@(theta@, v@))"),
    ("mixed_calls", "real f@(real x, real y) { return exp(x) * y; }", "f@(theta@, x@) + f@(x@, theta@)"),
    ("loop_of_parameter", "real f@(real x, int n) { real s = 0; for (i in 1:n) { s = s * x + i; } return s; }",
     "f@(theta@, n@)"),
    ("branch_of_parameter", "real f@(real x) { if (x > 0) return x^2; return -x; }", "f@(theta@) + f@(theta@ - 3)"),
    ("while_of_parameter", "real f@(real x) { real z = exp(x); while (z < 10) z *= 1.5; return z; }", "f@(theta@)"),
    ("recursive_of_parameter", "real f@(int k, real x); real f@(int k, real x) { if (k == 0) return 1; "
     "return 1 + x * f@(k - 1, x); }", "f@(n@, theta@)"),
    ("matrix_of_parameter", "matrix f@(matrix m, real x) { matrix[2, 3] z = m; z[, 2] *= x; z[1] += x; return z; }",
     "sum(f@(m@, theta@) .* m@)"),
    ("array_of_parameter", "array[] real f@(real x, int n) { array[n] real z; z[1] = x; for (i in 2:n) z[i] = "
     "z[i - 1] * x + i; return z; }", "sum(f@(theta@, n@)) + f@(theta@, n@)[2]"),
    ("void", "void f@(real x) { if (x > 100) reject(\"too large: \", x); }", ""),
)  # fmt: skip

_DENSITIES: tuple[tuple[str, str, str], ...] = (
    ("pdf", "real d@_lpdf(real x, real m) { return -0.5 * (x - m)^2; }",
     "theta@ ~ d@(x@); target += d@_lpdf(x@ | theta@^2);"),
    ("lpdf_vector", "real d@_lpdf(vector x, real m, real s) { return normal_lpdf(x | m, s); }",
     "v@ ~ d@(theta@, exp(theta@));"),
    ("unnormalized", "real d@_lpdf(real x, real m) { return normal_lupdf(x | m, 2.5); }",
     "theta@ ~ d@(1.5); target += d@_lpdf(theta@ | 0.5); target += d@_lupdf(theta@ | -0.5);"),
    ("lupdf_twice", "real e@_lpdf(real x, real m) { return cauchy_lupdf(x | m, 2.5); } "
     "real d@_lpdf(real x, real m) { return e@_lupdf(x | m) + e@_lpdf(x | 2 * m); }",
     "theta@ ~ d@(1.5); target += d@_lpdf(theta@ | 0.5);"),
    ("pmf", "real d@_lpmf(int k, real r) { return poisson_lpmf(k | exp(r)); }",
     "n@ ~ d@(theta@); target += d@_lpmf(a@[3] | theta@);"),
    ("lpmf_array", "real d@_lpmf(array[] int k, real r) { real s = 0; for (i in 1:size(k)) s += i * k[i] * r; "
     "return s; }", "a@ ~ d@(theta@); b@[2] ~ d@(theta@);"),
    ("unnormalized_pmf", "real d@_lpmf(int k, real r) { return poisson_lupmf(k | exp(r)); }",
     "n@ ~ d@(theta@); target += d@_lupmf(4 | theta@); target += d@_lpmf(3 | theta@);"),
    ("lp", "void d@_lp(real x) { target += -x^2; x ~ normal(1, 2); }", "d@_lp(theta@); target += theta@;"),
    ("lp_result", "real d@_lp(real x, vector z) { z ~ normal(x, 2); target += x; return 2 * x; }",
     "real z = d@_lp(theta@, v@); target += z^2;"),
    ("lp_target", "real d@_lp(real x) { real before = target(); target += 3 * x; return target() - before; }",
     "target += 10 * d@_lp(theta@);"),
    ("lcdf", "real d@_lpdf(real x, real m) { return exponential_lpdf(x | m); } "
     "real d@_lcdf(real x, real m) { return exponential_lcdf(x | m); } "
     "real d@_lccdf(real x, real m) { return exponential_lccdf(x | m); }",
     "x@ ~ d@(exp(theta@)) T[0.5, ]; x@ ~ d@(exp(theta@)) T[, 4.5]; x@ ~ d@(exp(theta@)) T[1, 3];"),
    ("overloaded", "real d@_lpdf(real x, real m) { return -(x - m)^2; } "
     "real d@_lpdf(vector x, real m) { return -3 * sum((x - m) .* x); }",
     "theta@ ~ d@(1); v@ ~ d@(theta@);"),
    ("data_argument", "real d@_lpdf(real x, data real m) { return -(x - m)^4; }", "theta@ ~ d@(x@);"),
    ("local_after_density", "real d@_lpdf(real x, vector m) { real s = 0; for (e in m) { if (e > 4) return s; "
     "s += normal_lpdf(x | e, 1.5); } return s; }", "theta@ ~ d@(v@);"),
)  # fmt: skip


def cases() -> Iterator[Case]:
    """Yield a case for each function, called with data and with parameters, and each density."""
    for name, functions, text, truth in _PURE:
        yield Case(
            f"function_{name}",
            "functions",
            functions,
            data=_DATA,
            values=_VALUES,
            transformed_data=f"real t@ = {text};",
            parameters="real theta@;",
            transformed_parameters=f"real p@ = theta@ * ({text});",
            model=f"target += theta@ * ({text});",
            generated=f"real g@ = {text}; real s@ = t@; real ratio@ = p@ / theta@;",
            truth=dict.fromkeys(("g", "s", "ratio"), truth),
            slope=float(truth),
        )
    for name, functions, text in _ARGUMENTS:
        call = f"{text};" if text else "theta@;"
        before = "" if text else "f@(theta@); "
        yield Case(
            f"function_{name}",
            "functions",
            functions,
            data=_DATA,
            values=_VALUES,
            parameters="real theta@;",
            transformed_parameters=f"real p@ = {call} {before}",
            model=f"{before}target += 3 * p@; target += {call}",
            generated=f"{before}real g@ = {call}".replace("f@(theta@); real", "real"),
        )
    for name, functions, text in _DENSITIES:
        yield Case(
            f"density_{name}",
            "densities",
            functions,
            data=_DATA,
            values=_VALUES,
            parameters="real theta@;",
            model=text,
        )
    yield Case(
        "function_rng",
        "functions",
        "real f@_rng(real m) { return normal_rng(m, 1); } "
        "array[] int g@_rng(int n, real r) { array[n] int z; for (i in 1:n) z[i] = poisson_rng(r); "
        "return z; }",
        data=_DATA,
        values=_VALUES,
        transformed_data="real t@ = f@_rng(x@);",
        parameters="real theta@;",
        model="theta@ ~ normal(0, 1);",
        generated="real a_@ = f@_rng(theta@ + t@); array[4] int k_@ = g@_rng(4, x@);",
        random=True,
    )
    yield Case(
        "function_lp_above_model",
        "functions",
        "real d@_lp(real x) { target += -x^2; return exp(x); }",
        parameters="real theta@;",
        transformed_parameters="real p@ = d@_lp(theta@);",
        model="p@ ~ gamma(2, 3);",
    )
    yield Case(
        "function_jacobian",
        "functions",
        "real d@_jacobian(real x) { jacobian += x; return exp(x); }",
        parameters="real theta@;",
        transformed_parameters="real p@ = d@_jacobian(theta@); jacobian += 2 * theta@;",
        model="p@ ~ gamma(2, 3);",
        since="2.37",
    )
