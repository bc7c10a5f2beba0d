import json

import arviz
import numpy as np
import pytest
from scipy import stats

import stanflow
from stanflow.errors import EngineError, NumericsError, UsageError
from stanflow.reference.sampling import nuts

MCSES = 4.5
NORMAL = """
data { int N; vector[N] y; }
parameters { vector[2] mu; }
model { mu ~ normal(0, 3); y ~ normal(mu[1] + 2 * mu[2], 0.5); }
generated quantities { real ahead = normal_rng(mu[1] + 2 * mu[2], 0.5); }
"""
Y = [1.2, 0.3, 0.9, 1.4]


def posterior():
    """Precision and mean of mu, by conjugacy."""
    a = np.array([[1.0, 2.0]] * len(Y))
    precision = np.eye(2) / 9 + a.T @ a / 0.25
    return np.linalg.inv(precision), np.linalg.solve(precision, a.T @ np.array(Y) / 0.25)


@pytest.fixture(scope="module")
def normal():
    return stanflow.StanModel(stan_code=NORMAL, data={"N": len(Y), "y": Y}, engine="embedded")


def assert_moments(draws, mean, sd):
    """Draws of shape (chains, draws) against a true mean and sd, within Monte Carlo error."""
    assert abs(draws.mean() - mean) < MCSES * arviz.mcse(draws, method="mean")
    assert abs(draws.std() - sd) < MCSES * arviz.mcse(draws, method="sd")


@pytest.mark.parametrize("metric", ["diag_e", "dense_e"])
def test_a_conjugate_posterior_is_hit(normal, metric):
    run = nuts(normal, seed=3, draws=3000, engine="embedded", metric=metric, progress=False)
    covariance, mean = posterior()
    for i in range(2):
        assert_moments(run.values[..., i], mean[i], np.sqrt(covariance[i, i]))
    combined = run.values[..., 0] + 2 * run.values[..., 1]
    variance = np.array([1, 2]) @ covariance @ [1, 2]
    assert_moments(combined, mean @ [1, 2], np.sqrt(variance))
    assert_moments(run.values[..., 2], mean @ [1, 2], np.sqrt(variance + 0.25))
    assert run.report["max_rhat"] < 1.01
    assert run.report["metric"] == metric
    # lp__ is the log density, Jacobian included, without the dropped constants.
    z = run.values[0, :5, :2]
    np.testing.assert_allclose(
        normal.log_density_gradient(z).log_density, run.statistics["lp__"][0, :5]
    )


def test_a_constrained_parameter_has_its_density():
    model = stanflow.StanModel(
        stan_code="parameters { real<lower=0> s; } model { s ~ gamma(3, 2); }", engine="embedded"
    )
    run = nuts(model, seed=2, draws=4000, engine="embedded", progress=False)
    assert_moments(run.values[..., 0], 1.5, np.sqrt(3) / 2)
    thinned = run.values[:, ::20, 0].ravel()
    assert stats.kstest(thinned, stats.gamma(3, scale=0.5).cdf).pvalue > 1e-4


def test_the_seed_decides_the_draws(normal):
    runs = [
        nuts(normal, seed=s, warmup=100, draws=50, engine="embedded", progress=False)
        for s in (5, 5, 6)
    ]
    np.testing.assert_array_equal(runs[0].draws(), runs[1].draws())
    assert not (runs[0].values[..., 2] == runs[2].values[..., 2]).any()
    chains = runs[0].values[..., 0]
    assert not (chains[0] == chains[1]).any()


def test_the_report_counts_what_was_done(normal):
    settings = {"warmup": 200, "draws": 100, "chains": 3, "adapt_delta": 0.95, "max_treedepth": 2}
    run = nuts(normal, seed=1, engine="embedded", progress=False, **settings)
    report = run.report
    assert settings.items() <= report.items()
    assert run.values.shape == (3, 100, 3)
    leapfrogs = run.statistics["n_leapfrog__"]
    assert leapfrogs.max() <= 3  # of a treedepth of 2
    assert report["sampling_gradient_evaluations"] == leapfrogs.sum()
    assert 200 * 3 <= report["warmup_gradient_evaluations"] <= 200 * 3 * 3
    assert report["gradient_evaluations"] == (
        report["sampling_gradient_evaluations"] + report["warmup_gradient_evaluations"]
    )
    assert report["max_treedepth_hits"] == (run.statistics["treedepth__"] == 2).sum() > 0
    assert (report["engine"], report["initialized_from"]) == ("embedded", "random")
    assert report["engine_version"].startswith("stanli ")
    assert "asked for" in report["engine_reason"]
    assert report["step_size"] == [run.statistics["stepsize__"][c, -1] for c in range(3)]
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    needed = "model engine engine_version chains warmup draws divergences max_treedepth_hits"
    needed += " max_rhat min_ess_bulk seconds out program_sha256 data_sha256 versions columns"
    assert set(needed.split()) <= set(report)


def test_a_higher_adapt_delta_takes_smaller_steps(normal):
    sizes = [
        np.mean(nuts(normal, draws=10, engine="embedded", adapt_delta=d, progress=False).report[
            "step_size"
        ])
        for d in (0.6, 0.99)
    ]  # fmt: skip
    assert sizes[1] < sizes[0] / 2


def test_progress_and_prints_go_to_standard_error(capfd):
    model = stanflow.StanModel(
        stan_code='parameters { real x; } model { x ~ std_normal(); if (x > 1) print("big"); }',
        engine="embedded",
    )
    run = nuts(model, warmup=50, draws=50, chains=2, engine="embedded", progress=True)
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "iteration 200/200 of 2 chains" in shown.err
    assert "big\n" in shown.err
    quiet = nuts(model, warmup=50, draws=50, chains=2, engine="embedded", progress=False)
    assert "iteration" not in capfd.readouterr().err
    np.testing.assert_array_equal(quiet.draws(), run.draws())


def test_a_chain_that_cannot_start_is_an_error_in_one_sentence():
    model = stanflow.StanModel(
        stan_code='parameters { real x; } model { reject("never ", 7); }', engine="embedded"
    )
    with pytest.raises(NumericsError, match="NUTS in the embedded engine failed") as caught:
        nuts(model, engine="embedded", progress=False)
    assert "\n" not in str(caught.value)
    assert caught.value.detail


def test_generated_quantities_that_fail_are_nan_and_said(normal):
    model = stanflow.StanModel(
        stan_code="parameters { real x; } model { x ~ std_normal(); } "
        'generated quantities { real y = 1; if (x > 1) reject("too far"); }',
        engine="embedded",
    )
    run = nuts(model, engine="embedded", progress=False)
    x, y = run.stan_variable("x"), run.stan_variable("y")
    np.testing.assert_array_equal(np.isnan(y), x > 1)
    assert run.report["not_finite_columns"] == 1
    assert run.report["max_rhat"] < 1.02
    assert any("not finite" in line for line in run.report["warnings"])


@pytest.mark.slow
@pytest.mark.usefixtures("toolchain")
def test_a_program_that_the_embedded_engine_lacks_needs_cmdstan():
    code = """
    parameters { real x; } model { x ~ normal(0, 1); }
    generated quantities { complex z = to_complex(x, 2); }
    """
    model = stanflow.StanModel(stan_code=code, engine="native")
    with pytest.raises(EngineError, match=r"cannot run the Stan .*so NUTS needs the native one"):
        nuts(model, engine="embedded", progress=False)


@pytest.mark.slow
@pytest.mark.usefixtures("toolchain")
def test_a_model_loaded_natively_is_sampled_all_the_same(normal):
    native = stanflow.StanModel(stan_code=NORMAL, data={"N": len(Y), "y": Y}, engine="native")
    settings = {"seed": 5, "warmup": 100, "draws": 50, "engine": "embedded", "progress": False}
    np.testing.assert_array_equal(
        nuts(native, **settings).draws(), nuts(normal, **settings).draws()
    )


def test_random_data_of_another_seed_are_said():
    code = """
    transformed data { real y = normal_rng(0, 100); // normal_rng( }
    } parameters { real x; } model { x ~ normal(y, 0.01); }
    """
    model = stanflow.StanModel(stan_code=code, engine="embedded", seed=3)
    same, other = (nuts(model, seed=s, engine="embedded", progress=False) for s in (3, 4))
    said = "random numbers in its transformed data"
    assert not any(said in line for line in same.report["warnings"])
    assert any(said in line for line in other.report["warnings"])
    at_zero = model.log_density_gradient([[0.0]]).gradient[0, 0]
    assert same.values.mean() == pytest.approx(at_zero * 0.01**2, rel=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": -1}, "seed must be between 0 and 4294967295, not -1"),
        ({"chains": 0}, "chains must be at least 1, not 0"),
        ({"warmup": 0}, "warmup must be at least 1"),
        ({"draws": 0}, "draws must be at least 1"),
        ({"max_treedepth": 0}, "max_treedepth must be at least 1"),
        ({"adapt_delta": 1.0}, "adapt_delta must be between 0 and 1, not 1.0"),
        ({"metric": "unit_e"}, "no metric 'unit_e'"),
        ({"engine": "stan"}, "no engine 'stan'; choose one of auto, cmdstan, native, embedded"),
        ({"engine": "embedded", "exe": "model"}, "cannot be run by the embedded engine"),
    ],
)
def test_wrong_use_is_refused(normal, change, message):
    with pytest.raises(UsageError, match=message):
        nuts(normal, progress=False, **change)
