"""Log evidences against closed forms, Stan's dropped constants included."""

import json

import numpy as np
import pytest
from scipy import stats

import stanflow
from tests.one_of import one_of

MULTINORMAL = """
data { int D; vector[D] m; matrix[D, D] S; vector[D] y; matrix[D, D] R; }
parameters { vector[D] mu; }
model { mu ~ multi_normal(m, S); y ~ multi_normal(mu, R); }
"""


def fit(model, seed=1, **settings):
    return stanflow.fit(model, seed=seed, progress=False, **settings)


def assert_exact(result, exact, error):
    """Within three standard errors of the truth, and within an absolute error."""
    assert result.normalized
    assert abs(result.log_evidence - exact) < 3 * result.log_evidence_se
    assert abs(result.log_evidence - exact) < error
    assert result.elbo < result.log_evidence + 3 * result.elbo_se
    assert result.verdict in ("good", "usable")


def regression(d, n):
    """Data of the zoo's regression with d coefficients, and their exact log evidence."""
    rng = np.random.default_rng(d)
    X = rng.normal(size=(n, d))  # noqa: N806
    y = X[:, [0, 1, 4]] @ [3, 1.5, 2] + rng.normal(size=n)
    data = {"N": n, "d": d, "X": X, "y": y, "prior_scale": 2.0, "a": 2.0, "b": 2.0}
    covariance = np.eye(n) + data["prior_scale"] ** 2 * X @ X.T
    marginal = stats.multivariate_t(shape=data["b"] / data["a"] * covariance, df=2 * data["a"])
    return data, marginal.logpdf(y)


@one_of("seed", 1, 2, 3)
def test_linear_regression_in_ten_dimensions(zoo, seed):
    data, exact = regression(10, 200)
    model = stanflow.StanModel(
        zoo / "linear_regression/linear_regression.stan", data, engine="embedded"
    )
    assert_exact(fit(model, seed), exact, 0.02)


@pytest.mark.slow
def test_linear_regression_in_a_hundred_dimensions(zoo):
    data, exact = regression(100, 100)
    model = stanflow.StanModel(
        zoo / "linear_regression/linear_regression.stan", data, engine="embedded"
    )
    assert_exact(fit(model), exact, 0.05)


@one_of("seed", 1, 2)
def test_beta_bernoulli(zoo, seed):
    folder = zoo / "bernoulli"
    y = json.loads((folder / "bernoulli.json").read_text())["y"]
    model = stanflow.StanModel(
        folder / "bernoulli.stan", folder / "bernoulli.json", engine="embedded"
    )
    ones = sum(y)
    exact = stats.betabinom.logpmf(ones, len(y), 1, 1) - np.log(
        stats.binom.pmf(ones, len(y), 0.5) * 2 ** len(y)
    )
    assert_exact(fit(model, seed), exact, 0.02)


@one_of("seed", 1, 2)
def test_a_multivariate_normal(seed):
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(2, 10, 12))
    S, R = factors @ factors.transpose(0, 2, 1)  # noqa: N806
    m, y = rng.normal(size=(2, 10))
    model = stanflow.StanModel(
        stan_code=MULTINORMAL, data={"D": 10, "m": m, "S": S, "R": R, "y": y}, engine="embedded"
    )
    assert_exact(fit(model, seed), stats.multivariate_normal(m, S + R).logpdf(y), 0.02)


FORMS = {
    "tilde": "mu ~ normal(0, 2); s ~ gamma(2, 3); y ~ student_t(4, mu, s); k ~ poisson(s);",
    "target": "target += normal_lpdf(mu | 0, 2); target += gamma_lpdf(s | 2, 3); "
    "target += student_t_lpdf(y | 4, mu, s); target += poisson_lpmf(k | s);",
    "dropped": "target += normal_lupdf(mu | 0, 2); target += gamma_lupdf(s | 2, 3); "
    "target += student_t_lupdf(y | 4, mu, s); target += poisson_lupmf(k | s);",
}


def test_all_of_stans_forms_have_one_evidence():
    """The constants that each form keeps differ by some nats; the evidence does not."""
    data = {"y": [1.2, -0.3, 2.2, 0.8], "k": [1, 3, 0, 2]}
    results = {}
    for form, statements in FORMS.items():
        model = stanflow.StanModel(
            stan_code="data { vector[4] y; array[4] int k; } parameters { real mu; "
            f"real<lower=0> s; }} model {{ {statements} }}",
            data=data,
            engine="embedded",
        )
        results[form] = fit(model)
    constants = {
        form: result.report["normalizing_constant"]["value"] for form, result in results.items()
    }
    assert constants["target"] == pytest.approx(0, abs=1e-9)
    assert constants["tilde"] == pytest.approx(constants["dropped"])
    assert abs(constants["tilde"]) > 1
    exact = _by_quadrature(data)
    for result in results.values():
        assert_exact(result, exact, 0.02)


def _by_quadrature(data):
    """The evidence on a grid of mu and log s, fine enough for six digits."""
    mu, log_s = np.meshgrid(np.linspace(-15, 15, 1501), np.linspace(-6, 4, 1201), indexing="ij")
    s = np.exp(log_s)
    log_p = stats.norm.logpdf(mu, 0, 2) + stats.gamma.logpdf(s, 2, scale=1 / 3) + log_s
    for y, k in zip(data["y"], data["k"], strict=True):
        log_p += stats.t.logpdf(y, 4, mu, s) + stats.poisson.logpmf(k, s)
    cell = (30 / 1500) * (10 / 1200)
    return np.log(np.exp(log_p).sum() * cell)


def test_more_draws_for_the_evidence_are_not_kept(zoo):
    folder = zoo / "linear_regression"
    model = stanflow.StanModel(
        folder / "linear_regression.stan", folder / "linear_regression.json", engine="embedded"
    )
    short = {
        "training": stanflow.TrainConfig(max_steps=300),
        "refining": stanflow.RefineConfig(when="never"),
    }
    few = fit(model, draws=1000, evidence_draws=1000, **short)
    many = fit(model, draws=1000, evidence_draws=40_000, **short)
    np.testing.assert_array_equal(few.values, many.values)
    assert many.report["evidence_draws"] == 40_000
    assert many.log_evidence_se < few.log_evidence_se / 4
    assert np.exp(many.log_weights).sum() == pytest.approx(1)
    further = many.report["density_evaluations"] - few.report["density_evaluations"]
    assert further == 10 * 4096  # 39,000, by whole lots
    assert many.report["gradient_evaluations"] == few.report["gradient_evaluations"]
    with pytest.raises(stanflow.StanFlowError, match="evidence_draws must be at least draws"):
        fit(model, draws=1000, evidence_draws=10)


def test_an_evidence_without_constants_says_so():
    """Where rounding hides them, nothing is claimed."""
    model = stanflow.StanModel(
        stan_code="parameters { real x; } model { x ~ normal(0, 1); target += 1e13; }",
        engine="embedded",
    )
    result = fit(model, training=stanflow.TrainConfig(max_steps=200))
    assert not result.normalized
    assert result.report["normalized"] is False
    assert "WITHOUT Stan's dropped constants" in str(result.summary())
