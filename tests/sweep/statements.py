"""Statements of the model block: densities, truncation, the target."""

# Rows of tables stay on a line each.
# ruff: noqa: E501

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from .cases import Case

# A name, the variate, its distribution with arguments that depend on a parameter, two bounds.
_TRUNCATED = (
    ("normal", "x@", "normal(theta@, exp(u@))", "-0.5 + u@", "4.5 + theta@"),
    ("student_t", "x@", "student_t(4, theta@, exp(u@))", "-0.5", "4.5"),
    ("cauchy", "x@", "cauchy(theta@, exp(u@))", "-0.5", "4.5 + u@"),
    ("exponential", "x@", "exponential(exp(u@))", "0.5", "4.5 + theta@"),
    ("gamma", "x@", "gamma(2.5, exp(u@))", "0.5", "4.5"),
    ("lognormal", "x@", "lognormal(theta@, exp(u@))", "0.5", "4.5"),
    ("weibull", "x@", "weibull(1.5, exp(u@))", "0.5", "4.5"),
    ("logistic", "x@", "logistic(theta@, exp(u@))", "-0.5", "4.5 + u@"),
    ("double_exponential", "x@", "double_exponential(theta@, exp(u@))", "-0.5", "4.5"),
    ("gumbel", "x@", "gumbel(theta@, exp(u@))", "-0.5", "4.5"),
    ("uniform", "x@", "uniform(-3 + theta@, 7)", "-0.5", "4.5"),
    ("beta", "p@", "beta(2.5, exp(u@))", "0.1", "0.8"),
    ("poisson", "k@", "poisson(exp(theta@))", "2", "6"),
    ("binomial", "k@", "binomial(9, inv_logit(theta@))", "2", "6"),
    ("neg_binomial_2", "k@", "neg_binomial_2(exp(theta@), 2.5)", "2", "6"),
    ("parameter", "theta@", "normal(u@, 1.5)", "-9", "9"),
)

_TARGET = (
    ("increments", "target += theta@; target += 2 * v@; target += {theta@, u@}; target += 3;"),
    ("matrix", "target += v@ * v@'; target += {v@, 2 * v@};"),
    ("tilde_scalar", "theta@ ~ normal(x@, 2); x@ ~ normal(theta@, exp(u@)); u@ ~ std_normal();"),
    ("tilde_vector", "v@ ~ normal(theta@, exp(u@)); w@ ~ normal(v@, 2.5); w@ ~ normal(theta@, s@);"),
    ("tilde_expression", "theta@ + u@ ~ normal(1, 2); v@[2:] ~ cauchy(0, 1.5); exp(u@) ~ gamma(2, 3);"),
    ("tilde_int_array", "ks@ ~ poisson(exp(theta@)); ks@ ~ poisson_log(v@[1:3]); k@ ~ poisson(exp(u@));"),
    ("tilde_array", "as@ ~ normal(theta@, 2); as@ ~ student_t(4, v@[1:3], exp(u@));"),
    ("against_lpdf", "target += normal_lpdf(v@ | theta@, exp(u@)); target += normal_lupdf(w@ | theta@, 2);"),
    ("discrete", "k@ ~ binomial(9, inv_logit(theta@)); b@ ~ bernoulli_logit(u@);"),
    ("categorical", "k@ ~ categorical_logit(v@); {3, 1, 4} ~ categorical_logit(v@); 2 ~ categorical(softmax(v@));"),
    ("ordered", "3 ~ ordered_logistic(theta@, [-1.5, 0.5, 2.5]'); 1 ~ ordered_probit(u@, [-1.5, 0.5]');"),
    ("multi_normal", "v@ ~ multi_normal(w@, add_diag(v@ * v@', 2.0)); {w@, 2 * w@} ~ multi_normal(v@, c@);"),
    ("multi_normal_cholesky", "v@ ~ multi_normal_cholesky(w@, exp(u@) * cholesky_decompose(c@));"),
    ("mixture", "target += log_mix(inv_logit(theta@), normal_lpdf(x@ | 0, 1), normal_lpdf(x@ | u@, 2));"),
    ("mixture_loop", "for (i in 1:4) target += log_sum_exp(normal_lpdf(w@[i] | theta@, 1) - 0.5, "
     "normal_lpdf(w@[i] | u@, 2) - 1.5);"),
    ("target_read", "real before = target(); target += 3 * theta@; real after = target(); "
     "target += (after - before)^2;"),
    ("loop", "for (i in 1:4) { v@[i] ~ normal(i * theta@, exp(u@)); if (i > 2) target += u@ * w@[i]; }"),
    ("profile", 'profile("a") { target += theta@^2; profile("b") { u@ ~ normal(0, 1); } }'),
    ("reject_untaken", 'if (x@ > 100) reject("x is ", x@); if (x@ > 100) fatal_error("no"); u@ ~ normal(1, 2);'),
    ("print_untaken", 'if (x@ > 100) print("x is ", x@, v@, {1, 2}); u@ ~ normal(1, 2);'),
    ("local_shadow", "vector[4] z; for (i in 1:4) { real z_ = v@[i]^2; z[i] = z_; } target += z; "
     "{ vector[2] y = z[2:3]; target += 2 * y; }"),
    ("branches", "if (theta@ > 0) target += theta@^2; else target += -3 * theta@; "
     "target += u@ > theta@ ? u@ : 2 * theta@;"),
    ("weights", "for (i in 1:3) target += ks@[i] * normal_lpdf(as@[i] | theta@, exp(u@));"),
    ("index_of_int", "target += v@[g@] .* w@[g@[{2, 1, 4, 3}]]; target += v@[g@[2]] * theta@;"),
    ("glm", "w@ ~ normal_id_glm(c@, theta@, v@, exp(u@)); b@ ~ bernoulli_logit_glm(c@, theta@, v@); "
     "g@ ~ poisson_log_glm(c@, u@, v@);"),
    ("wishart", "c@ ~ wishart(6.5, add_diag(v@ * v@', 1.5)); c@ ~ inv_wishart(7, add_diag(v@ * v@', 1.5));"),
    ("dirichlet", "softmax(v@) ~ dirichlet(exp(w@ / 3)); softmax(w@) ~ dirichlet(exp(v@));"),
    ("multinomial", "g@ ~ multinomial(softmax(v@)); target += multinomial_lpmf(g@ | softmax(v@));"),
    ("von_mises", "u@ ~ von_mises(theta@, 2.5); x@ ~ skew_normal(theta@, exp(u@), 1.5);"),
)  # fmt: skip
_TARGET_DATA = """
real x@; vector[4] w@; vector<lower=0>[4] s@; int k@; array[3] int ks@; array[3] real as@;
array[4] int g@; array[4] int b@; matrix[4, 4] c@;
"""
_TARGET_VALUES = {
    "x": 1.75,
    "w": [1.5, -2.25, 3.125, 0.0625],
    "s": [1.5, 2.25, 3.125, 4.0625],
    "k": 3,
    "ks": [3, 1, 4],
    "as": [0.5, -1.25, 2.75],
    "g": [2, 1, 4, 3],
    "b": [1, 0, 0, 1],
    "c": [[4, 1, 0.5, 0], [1, 3, 0.25, 0.2], [0.5, 0.25, 2, -0.5], [0, 0.2, -0.5, 2.5]],
}

_POINTS = "array[3] vector[2] x@;"
_POINT_VALUES = {"x": [[0.5, 1.5], [-1.25, 0.25], [2.0, -0.75]]}
_KERNELS = (
    "exp_quad(X, 1.5, L)",
    "matern32(X, 1.5, L)",
    "matern52(X, 1.5, L)",
    "exponential(X, 1.5, L)",
)


def _covariances(family: str, lengths: str) -> NDArray[np.float64]:
    points = np.array(_POINT_VALUES["x"]) / (1.25 if lengths == "one" else [0.75, 2.5])
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    near = distance * {"matern32": 3**0.5, "matern52": 5**0.5}.get(family, 1.0)
    decay = np.exp(-0.5 * distance**2 if family == "exp_quad" else -near)
    factor = 1 + near * family.startswith("matern") + near**2 / 3 * (family == "matern52")
    return 1.5**2 * factor * decay


def cases() -> Iterator[Case]:
    """Yield a case for each form of truncation, of increments and densities, and each kernel."""
    for name, variate, distribution, low, high in _TRUNCATED:
        bounds = (f"{low}, ", f", {high}", f"{low}, {high}")
        yield Case(
            f"truncated_{name}",
            "truncation",
            data="real x@; real p@; int k@;",
            values={"x": 1.75, "p": 0.375, "k": 3},
            parameters="real theta@; real u@;",
            model=" ".join(f"{variate} ~ {distribution} T[{form}];" for form in bounds),
        )
    for name, text in _TARGET:
        yield Case(
            f"target_{name}",
            "target",
            data=_TARGET_DATA,
            values=_TARGET_VALUES,
            parameters="real theta@; real u@; vector[4] v@;",
            model=text,
        )
    for kernel in _KERNELS:
        for lengths in ("one", "each"):
            family = kernel.partition("(")[0]
            call = f"gp_{kernel}".replace("(", "_cov(", 1)
            scale = "1.25" if lengths == "one" else "{0.75, 2.5}"
            varying = "exp(u@[1])" if lengths == "one" else "{exp(u@[1]), exp(u@[2])}"
            known, fitted = (
                call.replace("X", "x@").replace("L", value) for value in (scale, varying)
            )
            yield Case(
                f"kernel_{family}_{lengths}",
                "kernels",
                data=_POINTS,
                values=_POINT_VALUES,
                transformed_data=f"matrix[3, 3] t@ = {known};",
                parameters="vector[2] u@;",
                transformed_parameters=f"matrix[3, 3] p@ = {fitted};",
                model=f"target += sum({fitted} .* [[1, 2, 3], [4, 5, 6], [7, 8, 9]]);",
                generated=f"matrix[3, 3] s@ = t@; matrix[3, 3] g@ = {known};",
                truth=dict.fromkeys("sg", _covariances(family, lengths)),
            )
            yield Case(
                f"kernel_{family}_{lengths}_two",
                "kernels",
                data=_POINTS,
                values=_POINT_VALUES,
                parameters="vector[2] u@;",
                transformed_parameters=(
                    f"matrix[3, 2] q@ = {fitted.replace('x@,', 'x@, x@[{3, 1}],')};"
                ),
                model="target += sum(q@ .* [[1, 2], [3, 4], [5, 6]]);",
            )
    yield Case(
        "kernel_scalars",
        "kernels",
        data="array[4] real x@;",
        values={"x": [0.5, -1.25, 2.0, 0.75]},
        parameters="vector[2] u@;",
        transformed_parameters=("matrix[4, 4] p@ = gp_exp_quad_cov(x@, exp(u@[1]), exp(u@[2]));"),
        model="[1.5, -0.5, 2.5, 0.5]' ~ multi_normal(rep_vector(0, 4), add_diag(p@, 0.5));",
    )
    for name, text in (
        ("periodic", "gp_periodic_cov(x@, exp(u@[1]), exp(u@[2]), 1.75)"),
        ("dot_product", "gp_dot_prod_cov(x@, exp(u@[1]))"),
    ):
        yield Case(
            f"kernel_{name}",
            "kernels",
            data="array[4] real x@;",
            values={"x": [0.5, -1.25, 2.0, 0.75]},
            parameters="vector[2] u@;",
            transformed_parameters=f"matrix[4, 4] p@ = {text};",
            model="target += sum(p@[2] * u@[2]) + p@[3, 1];",
        )
