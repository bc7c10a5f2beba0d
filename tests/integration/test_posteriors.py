"""Fits with default settings against exact posteriors and against long runs of Stan's NUTS.

Bounds are four and a half standard errors of the Monte Carlo estimates compared: about one in
150,000 correct comparisons would break one.
"""

import json
from importlib.util import module_from_spec, spec_from_file_location

import arviz
import numpy as np
import pytest
import stanli
from scipy import stats

import stanflow
from stanflow.stan import stanc
from tests.one_of import one_of

STANDARD_ERRORS = 4.5
DRAWS = 4000


def fit(zoo, program, data, seed=1, **settings):
    model = stanflow.StanModel(zoo / program, zoo / data, engine="embedded")
    return stanflow.fit(
        model,
        seed=seed,
        draws=DRAWS,
        training=stanflow.TrainConfig(**settings),
        progress=False,
    )


def se_of_mean(x):
    return x.std(axis=0) / np.sqrt(len(x))


def se_of_log_sd(x):
    """By the delta method, with the sample's own kurtosis."""
    kurtosis = stats.kurtosis(x, axis=0, fisher=False)
    return np.sqrt((kurtosis - 1) / len(x)) / 2


def assert_close(name, ours, truth, se):
    error = np.abs(ours - truth)
    assert (error < STANDARD_ERRORS * se).all(), (
        f"{name}: off by up to {np.max(error / se):.1f} standard errors"
    )


@pytest.fixture(scope="module")
def nuts(zoo):
    """Long NUTS runs of the non-centered program; both programs have this posterior."""
    program = zoo / "eight_schools/eight_schools_noncentered.stan"
    model = stanli.Model(
        mir=stanc.to_mir(program.read_text()),
        data=str(zoo / "eight_schools/eight_schools.json"),
    )
    run = model.sample(seed=11, chains=4, warmup=2000, samples=10_000, delta=0.99, refresh=0)
    columns = ["mu", "tau", *(f"theta[{j}]" for j in range(1, 9))]
    assert sum(run.divergences) == 0
    return {name: run.draws(name) for name in columns}


@one_of("form", "noncentered", "centered")
def test_eight_schools_agrees_with_nuts(zoo, nuts, form):
    result = fit(
        zoo, f"eight_schools/eight_schools_{form}.stan", "eight_schools/eight_schools.json"
    )
    draws = result.draws_pd(["mu", "tau", "theta"])
    for name, reference in nuts.items():
        ours, theirs = draws[name].to_numpy(), np.ravel(reference)
        mean_se = np.hypot(se_of_mean(ours), arviz.mcse(reference, method="mean"))
        assert_close(f"mean of {name}", ours.mean(), theirs.mean(), mean_se)
        sd_se = arviz.mcse(reference, method="sd") / theirs.std()
        sd_se = np.hypot(se_of_log_sd(ours), sd_se)
        assert_close(f"sd of {name}", np.log(ours.std()), np.log(theirs.std()), sd_se)


def test_bernoulli_has_its_beta_posterior(zoo):
    result = fit(zoo, "bernoulli/bernoulli.stan", "bernoulli/bernoulli.json")
    y = json.loads((zoo / "bernoulli/bernoulli.json").read_text())["y"]
    posterior = stats.beta(1 + sum(y), 1 + len(y) - sum(y))
    theta = result.stan_variable("theta")
    assert_close("mean", theta.mean(), posterior.mean(), se_of_mean(theta))
    assert_close("sd", np.log(theta.std()), np.log(posterior.std()), se_of_log_sd(theta))
    # The evidence is B(3, 9) / B(1, 1); the ELBO is at most that.
    evidence = stats.betabinom.logpmf(sum(y), len(y), 1, 1) - np.log(
        stats.binom.pmf(sum(y), len(y), 0.5) * 2 ** len(y)
    )
    of_noise = np.sqrt(-np.log(0.5e-4) / (2 * len(theta)))  # with a chance of 1e-4
    of_flow = np.sqrt((evidence - result.elbo + 3 * result.elbo_se) / 2)  # Pinsker
    assert stats.kstest(theta, posterior.cdf).statistic < of_noise + of_flow
    assert evidence - 0.01 < result.elbo < evidence + STANDARD_ERRORS * result.elbo_se + 1e-9


def test_linear_regression_has_its_conjugate_posterior(zoo):
    folder = zoo / "linear_regression"
    result = fit(zoo, folder / "linear_regression.stan", folder / "linear_regression.json")
    data = json.loads((folder / "linear_regression.json").read_text())
    X, y = np.array(data["X"]), np.array(data["y"])  # noqa: N806
    precision = X.T @ X + np.eye(data["d"]) / data["prior_scale"] ** 2
    mean = np.linalg.solve(precision, X.T @ y)
    shape = data["a"] + len(y) / 2
    scale = data["b"] + 0.5 * (y @ y - mean @ precision @ mean)
    sd = np.sqrt(np.diag(np.linalg.inv(precision)) * scale / (shape - 1))
    variance = stats.invgamma(shape, scale=scale)

    beta, sigma2 = result.stan_variable("beta"), result.stan_variable("sigma2")
    assert_close("mean of beta", beta.mean(0), mean, se_of_mean(beta))
    assert_close("sd of beta", np.log(beta.std(0)), np.log(sd), se_of_log_sd(beta))
    assert_close("mean of sigma2", sigma2.mean(), variance.mean(), se_of_mean(sigma2))
    assert_close("sd of sigma2", np.log(sigma2.std()), np.log(variance.std()), se_of_log_sd(sigma2))

    covariance = np.eye(len(y)) + data["prior_scale"] ** 2 * X @ X.T
    evidence = stats.multivariate_t(
        shape=data["b"] / data["a"] * covariance, df=2 * data["a"]
    ).logpdf(y)
    assert evidence - 0.02 < result.elbo < evidence + STANDARD_ERRORS * result.elbo_se + 1e-9


@one_of("seed", 1, 2, 3)
def test_a_line_over_calendar_years(zoo, seed):
    """Intercept and slope are correlated by -0.99999."""
    folder = zoo / "year_regression"
    spec = spec_from_file_location("exact", folder / "exact.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    log_evidence, mean, sd = module.exact(json.loads((folder / "year_regression.json").read_text()))
    model = stanflow.StanModel(
        folder / "year_regression.stan", folder / "year_regression.json", engine="embedded"
    )
    result = stanflow.fit(model, seed=seed, progress=False)
    assert result.verdict == "good"
    assert abs(result.log_evidence - log_evidence) < 0.01
    assert np.corrcoef(result.values[:, :2].T)[0, 1] < -0.99998
    assert_close("means", result.values.mean(0) / sd, mean / sd, se_of_mean(result.values / sd))
    assert_close("sds", np.log(result.values.std(0)), np.log(sd), se_of_log_sd(result.values))


@pytest.mark.slow
def test_the_funnel_has_its_normal_neck(zoo):
    """Harder than its ten dimensions: longer training, and a bound that is not only Monte Carlo.

    v is N(0, 3) exactly. Reverse KL leaves the far ends of the funnel thin, so mean and sd are
    allowed 0.1 prior standard deviations beside Monte Carlo error; the evidence is 1.
    """
    result = fit(zoo, "funnel/funnel.stan", "funnel/funnel.json", max_steps=4000)
    v = result.stan_variable("v") / 3
    assert_close("mean of v", v.mean(), 0, se_of_mean(v) + 0.1 / STANDARD_ERRORS)
    assert_close("sd of v", np.log(v.std()), 0, se_of_log_sd(v) + 0.1 / STANDARD_ERRORS)
    assert -0.06 < result.elbo < STANDARD_ERRORS * result.elbo_se
