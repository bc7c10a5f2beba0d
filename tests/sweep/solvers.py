"""Functions that take functions: differential and algebraic equations, integrals, and parallel sums.

Their results depend on the solver, to its tolerance.
"""

# Rows of tables stay on a line each.
# ruff: noqa: E501

from __future__ import annotations

from collections.abc import Iterator

from .cases import Case

_ODE = "vector f@(real t, vector y, real a, vector b) { return [-a * y[1] + b[1] * t, a * y[1] - b[2] * y[2]]'; }"
_ODE_CALL = "f@, y0@, 0.25, {0.5, 1.25, 2.0}, %s exp(a@ / 2), [0.5, 0.75]'"
_DATA = "int n@; array[6] int k@; vector[6] v@; vector[2] y0@;"
_VALUES = {
    "n": 6,
    "k": [3, 1, 4, 2, 5, 0],
    "v": [1.5, -2.25, 0.125, 2.0625, -0.75, 1.0],
    "y0": [1.5, 0.5],
}
_TOLERANCES = "1e-9, 1e-9, 100000,"

_SOLVED: tuple[tuple[str, str, str, str, str], ...] = (
    *(
        (
            f"ode_{solver}{'_tol' if tolerances else ''}",
            _ODE,
            f"array[3] vector[2] z@ = ode_{solver}{'_tol' if tolerances else ''}"
            f"({_ODE_CALL % tolerances});",
            "target += z@[1, 2] + 2 * z@[3, 1] - z@[2, 2]^2;",
            "",
        )
        for solver in ("rk45", "bdf", "adams", "ckrk")
        for tolerances in ("", _TOLERANCES)
    ),
    (
        "ode_adjoint",
        _ODE,
        "array[3] vector[2] z@ = ode_adjoint_tol_ctl(f@, y0@, 0.25, {0.5, 1.25, 2.0}, 1e-9, "
        "rep_vector(1e-9, 2), 1e-9, rep_vector(1e-9, 2), 1e-9, 1e-9, 100000, 200, 1, 2, 2, "
        "exp(a@ / 2), [0.5, 0.75]');",
        "target += z@[1, 2] + 2 * z@[3, 1] - z@[2, 2]^2;",
        "",
    ),
    (
        "ode_initial",
        _ODE,
        "array[2] vector[2] z@ = ode_rk45_tol(f@, [a@, exp(a@)]', 0.0, {0.5, 1.5}, 1e-9, 1e-9, 100000, "
        "0.75, [0.5, a@]');",
        "target += z@[1, 2] + 2 * z@[2, 1];",
        "",
    ),
    (
        "dae",
        "vector f@(real t, vector y, vector dy, real a) { return [dy[1] + a * y[1], y[1] + y[2] - 2]'; }",
        "array[2] vector[2] z@; { real k = exp(a@ / 2); z@ = dae_tol(f@, [1.5, 0.5]', [-1.5 * k, 1.5 * k]', "
        "0.0, {0.5, 1.5}, 1e-9, 1e-9, 100000, k); }",
        "target += z@[1, 2] + 2 * z@[2, 1];",
        "",
    ),
    *(
        (
            f"solve_{solver}{'_tol' if tolerances else ''}",
            "vector f@(vector y, real a, vector b) { return [y[1]^3 + y[1] - a, y[2] + exp(y[1]) - b[2]]'; }",
            f"vector[2] z@ = solve_{solver}{'_tol' if tolerances else ''}(f@, [0.5, 0.25]', "
            f"{tolerances} a@, [0.5, 0.75]');",
            "target += z@[1] + 2 * z@[2]^2;",
            "",
        )
        for solver, tolerances in (
            ("newton", ""), ("newton", "1e-10, 1e-10, 1000,"), ("powell", ""),
            ("powell", "1e-12, 1e-10, 1000,"),
        )
    ),
    (
        "integrate",
        "real f@(real x, real xc, array[] real p, data array[] real xr, data array[] int xi) "
        "{ return exp(-p[1] * x^2) * xr[1] + xi[2] * x; }",
        "real z@ = integrate_1d(f@, 0.0, 1.5, {exp(a@ / 2)}, {1.25}, {3, 1}, 1e-8);",
        "target += 2 * z@;",
        "",
    ),
    (
        "integrate_infinite",
        "real f@(real x, real xc, array[] real p, data array[] real xr, data array[] int xi) "
        "{ return exp(normal_lpdf(x | p[1], xr[1])) * inv_logit(x); }",
        "real z@ = integrate_1d(f@, negative_infinity(), positive_infinity(), {a@}, {1.25}, {3}, 1e-8);",
        "target += 2 * z@;",
        "",
    ),
    (
        "reduce_sum",
        "real f@(array[] int k, int first, int last, real a, vector v) "
        "{ return poisson_log_lpmf(k | a + v[first:last]) + first * a; }",
        "real z@ = reduce_sum(f@, k@, n@, a@, v@);",
        "target += 2 * z@;",
        "",
    ),
    (
        "reduce_sum_static",
        "real f@_lpmf(array[] int k, int first, int last, real a, vector v) "
        "{ return poisson_log_lupmf(k | a + v[first:last]); }",
        "real z@ = reduce_sum(f@_lpmf, k@, 6, a@, v@);",
        "target += reduce_sum_static(f@_lupmf, k@, 6, a@, v@);",
        "",
    ),
    (
        "map_rect",
        "vector f@(vector phi, vector theta, data array[] real xr, data array[] int xi) "
        "{ return [phi[1] * theta[1] + xr[1] * xi[2], theta[2]^2 * phi[2]]'; }",
        "vector[4] z@ = map_rect(f@, [a@, a@^2]', {[1.5, a@]', [exp(a@), 2.5]'}, {{0.5}, {0.75}}, "
        "{{3, 1}, {4, 2}});",
        "target += z@[1] + 2 * z@[2] - z@[3] + z@[4];",
        "",
    ),
    (
        "hmm",
        "",
        "matrix[2, 3] lo@; matrix[2, 2] g@; vector[2] r@; { for (t in 1:3) lo@[, t] = [normal_lpdf(v@[t] | a@, 1), "
        "normal_lpdf(v@[t] | 2, exp(a@ / 2))]'; g@[1] = [0.75, 0.25]; g@[2] = [inv_logit(a@), inv_logit(-a@)]; "
        "r@ = [0.375, 0.625]'; } real z@ = hmm_marginal(lo@, g@, r@);",
        "target += 2 * z@;",
        "",
    ),
    (
        "dlm",
        "",
        "real z@ = gaussian_dlm_obs_lpdf([[0.5, 1.25, -0.75], [1.5, 0.25, 0.125]] | [[1, 0.5], [0.25, a@]], "
        "[[0.75, 0.125], [0.25, 0.5]], [[exp(a@), 0.125], [0.125, 1.5]], [[0.75, 0.0625], [0.0625, 0.5]], "
        "[0.25, 0.5]', [[1.5, 0.125], [0.125, 1.25]]);",
        "target += 2 * z@;",
        "",
    ),
    (
        "laplace",
        "real f@(vector z, array[] int k, vector v) { return poisson_log_lpmf(k | z + v); } "
        "matrix g@(real a, vector v) { return add_diag(exp(a) * v * v', 0.5); }",
        "real z@ = laplace_marginal(f@, (k@, v@), 1, g@, (a@ / 2, v@ / 3));",
        "target += 2 * z@;",
        "2.38",
    ),
)  # fmt: skip


def cases() -> Iterator[Case]:
    """Yield a case for each solver."""
    for name, functions, transformed, model, since in _SOLVED:
        yield Case(
            f"solver_{name}",
            "solvers",
            functions,
            data=_DATA,
            values=_VALUES,
            parameters="real a@;",
            transformed_parameters=transformed,
            model=model,
            since=since,
        )
    yield Case(
        "solver_hmm_hidden",
        "solvers",
        generated="""
matrix[2, 3] h@ = hmm_hidden_state_prob(
  [[-1.5, -0.25, -2.0], [-0.5, -1.75, -0.125]], [[0.75, 0.25], [0.375, 0.625]], [0.25, 0.75]');
""",
    )
