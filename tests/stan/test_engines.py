"""One contract, held against both engines."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from stanflow.errors import (
    DataError,
    InitializationError,
    ProgramError,
    UsageError,
)
from stanflow.stan.gradient_check import check_gradient
from stanflow.stan.model import StanModel
from tests.stan_programs import compile_programs_of

DATA = {"N": 4, "y": [0.5, -1.0, 2.0, 1.5]}
PROGRAM = """
data { int<lower=0> N; vector[N] y; }
parameters { real mu; real<lower=0> sigma; simplex[3] p; matrix[2, 3] A; }
transformed parameters { vector[2] twice = [2 * mu, 2 * sigma]'; }
model {
  mu ~ normal(0, 2);
  sigma ~ exponential(0.5);
  p ~ dirichlet([2, 3, 4]');
  to_vector(A) ~ std_normal();
  y ~ normal(mu, sigma);
}
generated quantities { array[N] real y_rep = normal_rng(rep_vector(mu, N), sigma); }
"""


@pytest.fixture(params=["embedded", "native"], scope="module")
def engine(request):
    if request.param == "native":
        compile_programs_of(Path(__file__), request.getfixturevalue("toolchain"))
    return request.param


@pytest.fixture(scope="module")
def model(engine):
    return StanModel(stan_code=PROGRAM, data=DATA, engine=engine)


@pytest.fixture(scope="module")
def z(model):
    return np.random.default_rng(1).normal(size=(50, model.dim))


def test_it_says_which_engine(model, engine):
    assert model.engine == engine
    assert {"embedded": "stanli", "native": "Stan 2."}[engine] in model.engine_version
    assert model.engine_reason


def test_names_and_shapes(model):
    assert model.dim == 10
    assert model.parameter_columns[:5] == ("mu", "sigma", "p.1", "p.2", "p.3")
    assert model.parameter_columns[5:7] == ("A.1.1", "A.2.1")
    assert model.unconstrained_names[:2] == ("mu", "sigma")
    assert model.shapes == {
        "mu": (), "sigma": (), "p": (3,), "A": (2, 3), "twice": (2,), "y_rep": (4,)
    }  # fmt: skip


def test_log_density_equals_the_closed_form(engine, z):
    code = (
        "data { int N; vector[N] y; } parameters { real mu; real<lower=0> sigma; } "
        "model { mu ~ normal(0, 2); sigma ~ exponential(0.5); y ~ normal(mu, sigma); }"
    )
    model = StanModel(stan_code=code, data=DATA, engine=engine)
    mu, log_sigma = z[:, 0], z[:, 1]
    sigma = np.exp(log_sigma)
    exact = stats.norm.logpdf(mu, 0, 2) + stats.expon.logpdf(sigma, scale=2) + log_sigma
    exact += stats.norm.logpdf(np.array(DATA["y"])[:, None], mu, sigma).sum(0)
    constant = model.normalizing_constant
    assert constant.known
    computed = model.log_density_gradient(z[:, :2]).log_density + constant.value
    np.testing.assert_allclose(computed, exact, rtol=1e-12)


def test_gradients_equal_finite_differences(model):
    assert check_gradient(model, seed=1).error < 1e-8


def test_the_compiled_and_the_plain_call_agree(model, z):
    batch = model.log_density_gradient(z)
    for row, log_density, gradient in zip(z, batch.log_density, batch.gradient, strict=True):
        value, expected = model._loaded.stan_model.log_density_gradient(row)
        assert value == log_density
        np.testing.assert_array_equal(expected, gradient)
    np.testing.assert_allclose(model.log_density(z), batch.log_density, rtol=1e-14)


def test_constrained_draws_meet_their_constraints(model, z):
    draws = model.constrain(z, seed=1).variables()
    np.testing.assert_array_equal(draws["mu"], z[:, 0])
    np.testing.assert_allclose(draws["sigma"], np.exp(z[:, 1]), rtol=1e-14)
    np.testing.assert_allclose(draws["p"].sum(1), 1, rtol=1e-12)
    np.testing.assert_allclose(draws["twice"][:, 1], 2 * draws["sigma"], rtol=1e-14)
    assert draws["A"].shape == (50, 2, 3)
    np.testing.assert_array_equal(draws["A"][:, 1, 0], z[:, 5])  # column-major, as in Stan


def test_unconstrain_undoes_constrain(model, z):
    names = ("mu", "sigma", "p", "A")
    draws = model.constrain(z).variables()
    for i in range(10):
        parameters = {name: draws[name][i] for name in names}
        np.testing.assert_allclose(model.unconstrain(parameters), z[i], atol=1e-9)


@pytest.mark.parametrize(
    "change",
    [
        {"mu": float("nan")},
        {"sigma": 0.0},
        {"sigma": -1.0},
        {"p": [0.5, 0.4, 0.2]},
        {"A": [[1.0]]},
        {"mu": None},
    ],
)
def test_parameters_that_violate_constraints_are_refused(model, z, change):
    draws = model.constrain(z[:1]).variables()
    parameters = {name: draws[name][0] for name in ("mu", "sigma", "p", "A")} | change
    with pytest.raises(DataError, match="cannot be unconstrained"):
        model.unconstrain(parameters)


def test_generated_quantities_follow_the_seed_and_their_distribution(model):
    z = np.zeros((4000, model.dim))
    first, again, other = (model.constrain(z, seed=s).variables()["y_rep"] for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert stats.kstest(first.ravel(), "norm").pvalue > 1e-3
    assert stats.kstest(np.unique(first).size / first.size, "uniform").statistic == 1.0


def test_constants_of_every_kind_of_statement(engine):
    """Truncated, discrete, user-defined and unnormalised forms; checked against scipy."""
    code = """
    functions {
      real own_lpdf(real x, real m) { return normal_lupdf(x | m, 2); }
      real count_lpmf(int k, real r) { return poisson_lupmf(k | r); }
    }
    data { int k; }
    parameters { real x; real<lower=1> r; }
    model {
      x ~ own(3);               k ~ count(r);
      r ~ gamma(2, 3) T[1, ];   k ~ binomial(10, 0.3);
      target += normal_lupdf(x | 0, 1);
      target += normal_lpdf(x | 1, 1);
    }
    """
    model = StanModel(stan_code=code, data={"k": 4}, engine=engine)
    z = np.random.default_rng(0).normal(size=(20, 2))
    x, r = z[:, 0], 1 + np.exp(z[:, 1])
    exact = stats.norm.logpdf(x, 3, 2) + stats.norm.logpdf(x) + stats.norm.logpdf(x, 1)
    exact += stats.poisson.logpmf(4, r) + stats.binom.logpmf(4, 10, 0.3) + z[:, 1]
    exact += stats.gamma.logpdf(r, 2, scale=1 / 3) - stats.gamma.logsf(1, 2, scale=1 / 3)
    constant = model.normalizing_constant
    assert constant.known, constant.reason
    computed = model.log_density_gradient(z).log_density + constant.value
    np.testing.assert_allclose(computed, exact, rtol=1e-10)


def test_a_constant_that_varies_is_not_called_known(engine):
    code = """
    parameters { real x; }
    model { x ~ normal(0, 1); if (x > 0) target += normal_lupdf(x | 0, 2); }
    """
    constant = StanModel(stan_code=code, engine=engine).normalizing_constant
    assert not constant.known
    assert "varies" in constant.reason
    assert constant.value == 0


def test_a_small_variation_of_a_constant_is_noticed(engine):
    code = """
    parameters { real x; }
    model {
      x ~ normal(0, 1);
      if (x > 0) target += 1e-5 * (normal_lupdf(3 | 0, 2.5) - normal_lpdf(3 | 0, 2.5));
    }
    """
    assert not StanModel(stan_code=code, engine=engine).normalizing_constant.known


def test_a_density_that_is_not_a_number_has_no_constant(engine):
    code = """
    parameters { real x; }
    model { x ~ normal(0, 1); target += not_a_number() * normal_lupdf(0 | 0, exp(0 * x)); }
    """
    with pytest.raises(InitializationError):
        _ = StanModel(stan_code=code, engine=engine).normalizing_constant


def test_a_constant_that_is_not_a_number_is_not_known(engine, monkeypatch):
    model = StanModel(stan_code="parameters { real x; } model { x ~ normal(0, 1); }", engine=engine)
    loaded = replace(model._loaded, log_density_with_constants=lambda z: float("nan"))
    monkeypatch.setattr(model, "_loaded", loaded)
    assert not model.normalizing_constant.known


def test_where_rounding_hides_the_constants_they_are_looked_for_in_the_bulk(engine):
    """At random points the log density of unscaled data is -1e16: no difference shows there."""
    y = 1e8 + 1e7 * np.random.default_rng(0).standard_normal(500)
    code = (
        "data { int N; vector[N] y; } parameters { real mu; real<lower=0> sigma; } "
        "model { y ~ normal(mu, sigma); }"
    )
    model = StanModel(stan_code=code, data={"N": len(y), "y": y}, engine=engine)
    constant = model.normalizing_constant
    assert not constant.known
    assert "rounding hides" in constant.reason
    bulk = [1e8, np.log(1e7)] + np.random.default_rng(1).normal(size=(5, 2)) * [1e5, 0.03]
    constant = model.normalizing_constant_at(bulk)
    assert constant.known
    assert constant.value == pytest.approx(-len(y) * np.log(2 * np.pi) / 2, abs=1e-8)


def test_draws_can_be_had_without_generated_quantities(model, z):
    draws = model.constrain(z, include_generated=False)
    assert set(draws.variables()) == {"mu", "sigma", "p", "A", "twice"}
    everything = model.constrain(z).variables()
    for name, values in draws.variables().items():
        np.testing.assert_array_equal(values, everything[name])


def test_recovered_draws_use_the_models_own_transformed_data(engine):
    code = """
    transformed data { real m = normal_rng(0, 1); }
    parameters { real x; } transformed parameters { real y = x + m; }
    model { x ~ normal(0, 1); }
    generated quantities { real g = m; if (x < 0) reject("negative"); }
    """
    model = StanModel(stan_code=code, engine=engine, seed=2)
    draws = model.constrain([[1.0], [-1.0]]).values
    assert draws[1, 1] - draws[1, 0] == pytest.approx(draws[0, 1] - draws[0, 0], abs=1e-12)


def test_rows_that_fail_are_marked_and_disturb_no_other(engine):
    code = """
    parameters { real x; }
    model {
      if (x > 10) reject("too large");
      target += x > 5 ? negative_infinity() : -x^2;
      if (x < -5) target += not_a_number() * x;
    }
    """
    model = StanModel(stan_code=code, engine=engine)
    x = np.array([0.0, 11.0, 1.0, 6.0, 2.0, -6.0, 3.0])
    batch = model.log_density_gradient(x[:, None])
    good = np.array([True, False, True, False, True, False, True])
    np.testing.assert_array_equal(batch.accepted, good)
    np.testing.assert_allclose(batch.log_density[good], -(x[good] ** 2))
    np.testing.assert_allclose(batch.gradient[good, 0], -2 * x[good])
    assert np.isnan(batch.log_density[1])
    assert batch.log_density[3] == -np.inf
    assert "too large" in model.explain(np.array([11.0]))
    assert "inf" in model.explain(np.array([6.0]))


def test_a_draw_whose_generated_quantities_throw_keeps_its_parameters(engine):
    code = """
    parameters { real x; } transformed parameters { real twice = 2 * x; }
    model { x ~ normal(0, 1); }
    generated quantities { real root; if (x < 0) reject("negative"); root = sqrt(x); }
    """
    model = StanModel(stan_code=code, engine=engine)
    draws = model.constrain([[4.0], [-4.0], [9.0]])
    np.testing.assert_array_equal(draws.failed, [1])
    np.testing.assert_array_equal(draws.values, [[4, 8, 2], [-4, -8, np.nan], [9, 18, 3]])


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("parameters { real x }\nmodel { }", r"line 1, column \d+.*[Ee]xpected"),
        ("parameters { real x; }\nmodel {\n  x ~ normall(0, 1); }", r"line 3, column \d+"),
        ("parameters { real x; }\nmodel { x ~ normal(m, 1); }", r"line 2.*m.* not in scope"),
        ("parameters { real x; }\n\n#include gone.stan\n", r"line 3.*gone\.stan"),
        ("data { int N; } model { }", "has no parameters"),
    ],
)
def test_programs_that_do_not_compile_are_refused_at_their_line(engine, code, message):
    with pytest.raises(ProgramError, match=message) as caught:
        StanModel(stan_code=code, data={"N": 1} if "data" in code else None, engine=engine)
    assert "\n" not in str(caught.value)


def test_an_error_in_an_included_file_names_that_file(engine, tmp_path):
    (tmp_path / "part.stan").write_text("// fine\nparameters { real x }\n")
    (tmp_path / "main.stan").write_text("#include part.stan\nmodel { }\n")
    with pytest.raises(ProgramError, match=r"in part\.stan, line 2"):
        StanModel(tmp_path / "main.stan", engine=engine)


def test_data_that_only_the_engine_can_judge_are_refused(engine):
    code = """
    data { simplex[3] s; } transformed data { if (s[1] > 0.9) reject("lopsided"); }
    parameters { real x; } model { x ~ normal(0, 1); }
    """
    StanModel(stan_code=code, data={"s": [0.2, 0.3, 0.5]}, engine=engine)
    for s in ([0.2, 0.3, 0.6], [0.95, 0.03, 0.02]):
        with pytest.raises(DataError, match=r"refuses the data: .*(simplex|lopsided)"):
            StanModel(stan_code=code, data={"s": s}, engine=engine)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (1, "nowhere"),
        (2, "log density is -inf"),
        (3, "log density is nan"),
        (4, "[Ss]cale parameter is -1"),
    ],
)
def test_a_density_finite_nowhere_is_reported_in_stans_words(engine, case, message):
    code = """
    data { int which; } parameters { real x; }
    model {
      if (which == 1) reject("nowhere");
      if (which == 2) target += negative_infinity();
      if (which == 3) target += not_a_number() * x;
      if (which == 4) x ~ normal(0, -1);
      x ~ normal(0, 1);
    }
    """
    model = StanModel(stan_code=code, data={"which": case}, engine=engine)
    with pytest.raises(InitializationError, match=f"not finite at any .*{message}"):
        model.starting_points(3, np.random.default_rng(0))


def test_starting_points_are_found_in_a_small_support(engine):
    code = "parameters { real x; } model { if (abs(x) > 0.05) reject(x); x ~ normal(0, 1); }"
    points = StanModel(stan_code=code, engine=engine).starting_points(7, np.random.default_rng(0))
    assert points.shape == (7, 1)
    assert np.abs(points).max() <= 0.05


def test_transformed_data_follow_the_models_seed(engine):
    code = """
    transformed data { real m = normal_rng(0, 1); }
    parameters { real x; } model { x ~ normal(m, 1); }
    """
    gradient = [
        StanModel(stan_code=code, engine=engine, seed=s).log_density_gradient([[0.0]]).gradient
        for s in (1, 1, 2)
    ]
    assert gradient[0] == gradient[1] != gradient[2]


def test_two_models_of_one_program_keep_their_own_data(engine):
    code = "data { real y; } parameters { real x; } model { x ~ normal(y, 1); }"
    one, two = (StanModel(stan_code=code, data={"y": y}, engine=engine) for y in (1.0, 2.0))
    assert one.log_density_gradient([[0.0]]).gradient[0, 0] == 1
    assert two.log_density_gradient([[0.0]]).gradient[0, 0] == 2


@pytest.mark.parametrize("engine", ["native"], indirect=True)
@pytest.mark.usefixtures("engine")
def test_both_engines_agree():
    """Stan's versions differ in how they transform a simplex."""
    code = """
    data { int<lower=0> N; vector[N] y; }
    parameters { real mu; real<lower=0> sigma; matrix[2, 3] A; }
    transformed parameters { vector[2] twice = [2 * mu, 2 * sigma]'; }
    model {
      mu ~ normal(0, 2); sigma ~ exponential(0.5); to_vector(A) ~ std_normal();
      y ~ normal(mu, sigma);
    }
    generated quantities { array[N] real y_rep = normal_rng(rep_vector(mu, N), sigma); }
    """
    one, two = (StanModel(stan_code=code, data=DATA, engine=e) for e in ("embedded", "native"))
    z = np.random.default_rng(1).normal(size=(50, one.dim))
    first, second = one.log_density_gradient(z), two.log_density_gradient(z)
    np.testing.assert_allclose(first.log_density, second.log_density, rtol=1e-12)
    np.testing.assert_allclose(first.gradient, second.gradient, rtol=1e-9, atol=1e-9)
    assert one.columns == two.columns
    assert one.unconstrained_names == two.unconstrained_names
    assert one.normalizing_constant.value == pytest.approx(two.normalizing_constant.value, 1e-12)


def test_an_unknown_engine_is_refused():
    with pytest.raises(UsageError, match="no engine 'cmdstan'"):
        StanModel(stan_code="parameters { real x; } model { }", engine="cmdstan")
