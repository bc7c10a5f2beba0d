"""Gaussian process kernels with one length scale per dimension, which the embedded engine lacks."""

import numpy as np
import pytest
from scipy import stats

from stanflow.errors import BeyondEmbeddedError
from stanflow.stan.guard import find_faults
from stanflow.stan.mending import mend
from stanflow.stan.program import StanProgram
from tests.stan.test_guard import NO_PARAMETERS, load, mended, quantity, texts

KERNELS = {
    "gp_exp_quad_cov": lambda r: np.exp(-(r**2) / 2),
    "gp_exponential_cov": lambda r: np.exp(-r),
    "gp_matern32_cov": lambda r: (1 + np.sqrt(3) * r) * np.exp(-np.sqrt(3) * r),
    "gp_matern52_cov": lambda r: (1 + np.sqrt(5) * r + 5 / 3 * r**2) * np.exp(-np.sqrt(5) * r),
}
POINTS = np.random.default_rng(1).normal(size=(5, 2))
POINTS[3] = POINTS[1]  # where a square root's derivative is infinite
OTHERS = np.vstack([POINTS[2], [[0.3, -1.0]]])
GP_DATA = {"x": POINTS.tolist(), "x2": OTHERS.tolist(), "y": np.arange(5.0).tolist()}
GP_HEADER = "data { array[5] vector[2] x; array[2] vector[2] x2; vector[5] y; } "
SCALES = np.array([0.5, 4.0])


def covariance(kernel, x1, x2, magnitude, scales):
    r = np.sqrt((((x1[:, None] - x2[None]) / scales) ** 2).sum(-1))
    return magnitude**2 * KERNELS[kernel](r)


@pytest.mark.parametrize("kernel", KERNELS)
def test_all_length_scales_count_once_mended(kernel):
    code = (
        f"{GP_HEADER} transformed data {{ matrix[5, 5] K = {kernel}(x, 1.5, {{0.5, 4}}); }} "
        f"{NO_PARAMETERS} generated quantities {{ matrix[5, 5] out = K; }}"
    )
    expected = covariance(kernel, POINTS, POINTS, 1.5, SCALES)
    assert not np.allclose(quantity(code, GP_DATA), expected.ravel())
    assert texts(code) == [f"{kernel}(x, 1.5, {{0.5, 4}})"]
    out = quantity(mended(code), GP_DATA).reshape(5, 5)
    np.testing.assert_allclose(out, expected, rtol=1e-13)
    assert (np.diag(out) == 1.5**2).all()
    assert (out == out.T).all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_two_sets_of_points(kernel):
    code = (
        f"{GP_HEADER} {NO_PARAMETERS} "
        f"generated quantities {{ matrix[5, 2] out = {kernel}(x, x2, 1.5, {{0.5, 4}}); }}"
    )
    expected = covariance(kernel, POINTS, OTHERS, 1.5, SCALES)
    out = quantity(mended(code), GP_DATA)
    np.testing.assert_allclose(out, expected.ravel(order="F"), rtol=1e-13)


@pytest.mark.parametrize("kernel", KERNELS)
def test_gradients_by_finite_differences(kernel):
    """In magnitude, length scales and a point, with points that coincide with others."""
    code = (
        f"{GP_HEADER} parameters {{ real<lower=0> s; array[2] real<lower=0> l; vector[2] shift; }} "
        f"model {{ array[5] vector[2] z = x; z[1] = x[1] + shift; "
        f"target += quad_form({kernel}(z, s, l), y) + sum({kernel}(z, x2, s, l)); }}"
    )
    model = load(mended(code), GP_DATA)

    def log_density(u):
        s, scales, moved = np.exp(u[0]), np.exp(u[1:3]), POINTS.copy()
        moved[0] += u[3:]
        y = np.arange(5.0)
        within = y @ covariance(kernel, moved, moved, s, scales) @ y
        return within + covariance(kernel, moved, OTHERS, s, scales).sum() + u[:3].sum()

    for u in np.random.default_rng(2).normal(scale=0.5, size=(3, 5)):
        value, gradient = model.log_density_gradient(u)
        steps = 1e-6 * np.eye(5)
        differences = [(log_density(u + h) - log_density(u - h)) / 2e-6 for h in steps]
        assert value == pytest.approx(log_density(u), rel=1e-12)
        np.testing.assert_allclose(gradient, differences, rtol=1e-6, atol=1e-6)


def test_a_gaussian_process_of_two_dimensions():
    rng = np.random.default_rng(3)
    x = rng.uniform(-2, 2, size=(40, 2))
    noise = 0.3
    y = rng.multivariate_normal(
        np.zeros(40), covariance("gp_exp_quad_cov", x, x, 1.0, SCALES) + noise**2 * np.eye(40)
    )
    code = """
    data { int n; array[n] vector[2] x; vector[n] y; }
    parameters { real<lower=0> s; array[2] real<lower=0> l; }
    model {
      matrix[n, n] K = add_diag(gp_exp_quad_cov(x, s, l), square(0.3));
      target += multi_normal_cholesky_lpdf(y | rep_vector(0, n), cholesky_decompose(K));
    }
    """
    data = {"n": 40, "x": x.tolist(), "y": y.tolist()}
    u = np.array([0.2, np.log(0.5), np.log(4.0)])
    matrix = covariance("gp_exp_quad_cov", x, x, np.exp(0.2), SCALES) + noise**2 * np.eye(40)
    expected = stats.multivariate_normal.logpdf(y, np.zeros(40), matrix) + u.sum()
    assert load(mended(code), data).log_density(u) == pytest.approx(expected, rel=1e-10)
    assert load(code, data).log_density(u) != pytest.approx(expected, rel=1e-2)


def test_only_calls_with_a_scale_per_dimension_are_replaced():
    code = """functions {
  matrix gp_matern32_cov_by_dimension(matrix K) { return K; }
  matrix gp_matern32_cov(matrix K) { return gp_matern32_cov_by_dimension(K); }
}
data { array[5] vector[2] x; array[2] real<lower=0> l; array[2] int k; }
parameters { real<lower=0> s; vector<lower=0>[2] v; }
model {
  // gp_matern32_cov(x, s, l)
  target += sum(gp_matern32_cov(x, s, l[1]) + gp_matern32_cov(x, s, 2));
  target += sum(gp_matern32_cov(x, s, size(l) > 2 ? l : {1.0, 2.0})
                + gp_matern32_cov(gp_matern32_cov(x, s, to_array_1d(v))));
  target += sum(gp_exp_quad_cov(x, s, k) + gp_exp_quad_cov(x, s, 1.0));
  print("gp_matern32_cov(x, s, l)", s);
}
"""
    faults = find_faults(StanProgram.from_string(code))
    assert [(fault.line, fault.column, fault.text) for fault in faults] == [
        (10, 16, "gp_matern32_cov(x, s, size(l) > 2 ? l : {1.0, 2.0})"),
        (11, 34, "gp_matern32_cov(x, s, to_array_1d(v))"),
        (12, 16, "gp_exp_quad_cov(x, s, k)"),
    ]
    after = mended(code)
    assert after.splitlines()[4:9] == code.splitlines()[4:9]
    assert after.splitlines()[9:12] == [
        "  target += sum(gp_matern32_cov_by_dimension2(x, s, size(l) > 2 ? l : {1.0, 2.0})",
        "                + gp_matern32_cov(gp_matern32_cov_by_dimension2(x, s, to_array_1d(v))));",
        "  target += sum(gp_exp_quad_cov_by_dimension(x, s, k) + gp_exp_quad_cov(x, s, 1.0));",
    ]


@pytest.mark.parametrize(
    ("z", "message"),
    [
        ([-1.0, 1.0, 1.0], "magnitude is -1, but must be positive finite"),
        ([1.0, 1.0, 0.0], r"length scale\[2\] is 0, but must be positive finite"),
        ([1.0, np.inf, 1.0], r"length scale\[1\] is inf, but must be positive finite"),
    ],
)
def test_what_stan_refuses_is_refused(z, message):
    code = (
        f"{GP_HEADER} parameters {{ real s; array[2] real l; }} "
        "model { target += sum(gp_matern52_cov(x, s, l)); }"
    )
    model = load(mended(code), GP_DATA)
    assert np.isfinite(model.log_density(np.ones(3)))
    with pytest.raises(RuntimeError, match=message):
        model.log_density(np.array(z))


def test_as_many_scales_as_dimensions_are_wanted():
    code = (
        f"{GP_HEADER} transformed data {{ matrix[5, 5] K = gp_exp_quad_cov(x, 1, {{1, 2, 3}}); }} "
        f"{NO_PARAMETERS}"
    )
    with pytest.raises(RuntimeError, match="number of length scales"):
        load(mended(code), GP_DATA)


@pytest.mark.parametrize(
    ("scales", "refused"),
    [
        ("w", True), ("d .* w", True), ("f(w)", True), ("d", False), ("d / 2", False),
        ("[1.5, 0.5]'", False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("density", ["multi_gp", "multi_gp_cholesky"])
def test_densities_with_parameters_for_scales_are_refused(density, scales, refused):
    code = (
        "functions { vector f(vector x) { return 2 * x; } } "
        "data { matrix[2, 3] y; matrix[3, 3] S; vector[2] d; } "
        "parameters { vector<lower=0>[2] w; } "
        f"model {{ w ~ exponential(1); y ~ {density}(S, {scales}); }}"
    )
    if refused:
        with pytest.raises(BeyondEmbeddedError, match=f"kernel scales wrongly .{density}_lpdf"):
            mended(code)
    else:
        program = StanProgram.from_string(code)
        assert mend(program) is program
