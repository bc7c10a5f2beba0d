"""The log density of each applied model against the same model in numpy and scipy.

Transforms and Jacobians are written from the Stan Reference Manual, "Constraint Transforms".
"""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from scipy import special, stats

import stanflow

SIMULATE_STIFF_ODE = Path(__file__).parents[2] / "stan_models/stiff_ode/simulate.py"
# Points far out, and near the origin, where rounding of large terms hides no small one.
RADII = np.repeat([1.0, 0.2], 5)


class Parameters:
    """Reads parameters off an unconstrained draw in the order of the program's declarations."""

    def __init__(self, z):
        self.left = np.asarray(z)
        self.log_jacobian = 0.0

    def reals(self, n):
        taken, self.left = self.left[:n], self.left[n:]
        assert len(taken) == n
        return taken

    def real(self, offset=0.0, multiplier=1.0):
        self.log_jacobian += np.log(multiplier)
        return offset + multiplier * self.reals(1)[0]

    def positives(self, n):
        z = self.reals(n)
        self.log_jacobian += z.sum()
        return np.exp(z)

    def positive(self):
        return self.positives(1)[0]

    def between(self, lower, upper):
        u = special.expit(self.reals(1)[0])
        self.log_jacobian += np.log((upper - lower) * u * (1 - u))
        return lower + (upper - lower) * u

    def ordered(self, n):
        z = self.reals(n)
        self.log_jacobian += z[1:].sum()
        return np.cumsum(np.concatenate([z[:1], np.exp(z[1:])]))

    def simplex(self, n):
        """The inverse isometric log ratio; its columns sum to zero and are orthonormal."""
        z = self.reals(n - 1)
        columns = np.zeros((n, n - 1))
        for i in range(1, n):
            columns[:i, i - 1] = 1
            columns[i, i - 1] = -i
        x = special.softmax(columns / np.linalg.norm(columns, axis=0) @ z)
        self.log_jacobian += np.log(x).sum() + 0.5 * np.log(n)
        return x

    def cholesky_factor_corr(self, n):
        """Row by row: partial correlations, each a share of what the row's length has left."""
        L = np.zeros((n, n))  # noqa: N806
        for i in range(n):
            left = 1.0
            for j in range(i):
                partial = np.tanh(self.reals(1)[0])
                self.log_jacobian += np.log1p(-(partial**2)) + 0.5 * np.log(left)
                L[i, j] = partial * np.sqrt(left)
                left -= L[i, j] ** 2
            L[i, i] = np.sqrt(left)
        return L


def lkj_cholesky(L, shape):  # noqa: N803
    """Lewandowski, Kurowicka, Joe (2009): partial correlations are 2 Beta(b, b) - 1."""
    n = len(L)
    value = 0.0
    for column in range(1, n):  # its n - column partial correlations
        b = shape + (n - 1 - column) / 2
        value -= (n - column) * ((2 * b - 1) * np.log(2) + special.betaln(b, b))
    powers = n - np.arange(1, n + 1) + 2 * shape - 2
    return value + powers @ np.log(np.diag(L))


def normal(x, mean=0.0, sd=1.0):
    return stats.norm.logpdf(x, mean, sd).sum()


def exponential(x, rate):
    return stats.expon.logpdf(x, scale=1 / rate).sum()


def lognormal(x, location, scale):
    return stats.lognorm.logpdf(x, scale, scale=np.exp(location)).sum()


def hierarchical_schools(p, data):
    mu, tau, L = p.reals(2), p.positives(2), p.cholesky_factor_corr(2)  # noqa: N806
    eta, sigma = p.reals(2 * data["J"]).reshape(-1, 2), p.positive()
    covariance_factor = np.diag(tau) @ L
    beta = np.array([mu + covariance_factor @ school for school in eta])
    of_pupil = beta[data["school"] - 1]
    prior = normal(mu, 0, 2) + exponential(tau, 1) + lkj_cholesky(L, 2)
    prior += normal(eta) + exponential(sigma, 1)
    return prior + normal(data["y"], of_pupil[:, 0] + of_pupil[:, 1] * data["x"], sigma)


def item_response(p, data):
    ability, difficulty = p.reals(data["I"]), p.reals(data["J"])
    discrimination = p.positives(data["J"])
    logits = discrimination * (ability[:, None] - difficulty)
    signs = 2 * data["y"] - 1
    log_likelihood = special.log_expit(signs * logits[data["person"] - 1, data["item"] - 1]).sum()
    prior = normal(ability) + normal(difficulty, 0, 1.5) + lognormal(discrimination, 0, 0.5)
    return prior + log_likelihood


def gaussian_process(p, data):
    mu, length_scale, amplitude, phi = p.real(), p.positive(), p.positive(), p.positive()
    eta = p.reals(data["N"])
    difference = np.subtract.outer(data["x"], data["x"])
    K = amplitude**2 * np.exp(-(difference**2) / (2 * length_scale**2))  # noqa: N806
    mean = np.exp(mu + np.linalg.cholesky(K + 1e-6 * np.eye(data["N"])) @ eta)
    prior = normal(mu, 1, 2) + stats.invgamma.logpdf(length_scale, 4, scale=6)
    prior += exponential(amplitude, 1) + stats.gamma.logpdf(phi, 2, scale=10) + normal(eta)
    return prior + stats.nbinom.logpmf(data["y"], phi, phi / (phi + mean)).sum()


def stochastic_volatility(p, data):
    mu, phi, sigma = p.real(), p.between(-1, 1), p.positive()
    eta = p.reals(data["T"])
    h = [mu + sigma / np.sqrt(1 - phi**2) * eta[0]]
    for innovation in eta[1:]:
        h.append(mu + phi * (h[-1] - mu) + sigma * innovation)
    prior = normal(mu, 0, 2) + stats.beta.logpdf((phi + 1) / 2, 20, 1.5) + exponential(sigma, 3)
    return prior + normal(eta) + normal(data["y"], 0, np.exp(np.array(h) / 2))


def poisson_random_effects(p, data):
    alpha, beta, tau = p.real(), p.reals(data["d"]), p.positive()
    eta = p.reals(data["J"])
    rate = np.exp(alpha + data["X"] @ beta + tau * eta[data["group"] - 1])
    prior = normal(alpha, 0, 2) + normal(beta) + exponential(tau, 1) + normal(eta)
    return prior + stats.poisson.logpmf(data["y"], data["exposure"] * rate).sum()


def ordered_logit(p, data):
    beta, cutpoints = p.reals(data["d"]), p.ordered(data["K"] - 1)
    location = data["X"] @ beta
    bounds = np.concatenate([[-np.inf], cutpoints, [np.inf]])
    lower, upper = bounds[data["y"] - 1] - location, bounds[data["y"]] - location
    # The logistic distribution between lower and upper, without cancellation in the tails.
    log_likelihood = special.log_expit(upper) + special.log_expit(-lower)
    log_likelihood += np.log(-np.expm1(lower - upper))
    prior = normal(beta, 0, 2) + stats.logistic.logpdf(cutpoints).sum()
    return prior + log_likelihood.sum()


def simplex_mixture(p, data):
    K = data["K"]  # noqa: N806
    weights, mu, sigma = p.simplex(K), p.ordered(K), p.positives(K)
    density = stats.norm.pdf(data["y"][:, None], mu, sigma) @ weights
    prior = stats.dirichlet.logpdf(weights, np.full(K, 2.0)) + normal(mu, 0, 5)
    return prior + lognormal(sigma, 0, 0.5) + np.log(density).sum()


def covariance(p, data):
    K = data["K"]  # noqa: N806
    mu, sigma, L = p.reals(K), p.positives(K), p.cholesky_factor_corr(K)  # noqa: N806
    matrix = np.outer(sigma, sigma) * (L @ L.T)
    prior = normal(mu, 0, 5) + exponential(sigma, 1) + lkj_cholesky(L, 2)
    return prior + stats.multivariate_normal.logpdf(data["y"], mu, matrix).sum()


def ode(p, data):
    """With the system's solution in closed form."""
    log_absorption, log_clearance, log_volume = (
        p.real(offset, 0.5) for offset in np.log([1, 5, 40])
    )
    sigma = p.positive()
    absorption, volume = np.exp(log_absorption), np.exp(log_volume)
    elimination = np.exp(log_clearance) / volume
    decays = np.exp(-elimination * data["time"]) - np.exp(-absorption * data["time"])
    amount = data["dose"] * absorption / (absorption - elimination) * decays
    prior = normal(log_absorption, 0, 0.5) + normal(log_clearance, np.log(5), 0.5)
    prior += normal(log_volume, np.log(40), 0.5) + exponential(sigma, 5)
    return prior + lognormal(data["y"], np.log(amount / volume), sigma)


def stiff_ode(p, data):
    """With scipy's Radau, much more accurate than the program's solver is asked to be."""
    log_rates = [p.real(np.log(rate), 0.5) for rate in (0.04, 3e7, 1e4)]
    sigma = p.positive()
    shares = runpy.run_path(str(SIMULATE_STIFF_ODE))["shares"](data["time"], *np.exp(log_rates))
    prior = normal(np.array(log_rates), np.log([0.04, 3e7, 1e4]), 0.5)
    return prior + exponential(sigma, 5) + lognormal(data["y"], np.log(shares), sigma)


def hidden_markov(p, data):
    """By products of matrices, scaled at each step."""
    K = int(data["K"])  # noqa: N806
    transition = np.stack([p.simplex(K) for _ in range(K)])
    mu, sigma = p.ordered(K), p.positives(K)
    emitted = stats.norm.pdf(data["y"][:, None], mu, sigma)
    prior = sum(stats.dirichlet.logpdf(row, np.full(K, 2.0)) for row in transition)
    prior += normal(mu, 0, 5) + lognormal(sigma, 0, 0.5)
    forward, log_likelihood = np.full(K, 1 / K) * emitted[0], 0.0
    for at_t in emitted[1:]:
        log_likelihood += np.log(forward.sum())
        forward = forward / forward.sum() @ transition * at_t
    return prior + log_likelihood + np.log(forward.sum())


def logistic_regression(p, data):
    alpha, beta = p.real(), p.reals(data["d"])
    sign = 2 * data["y"] - 1
    prior = normal(alpha, 0, 2) + normal(beta)
    return prior + special.log_expit(sign * (alpha + data["X"] @ beta)).sum()


def survival(p, data):
    shape, alpha, beta = p.positive(), p.real(), p.reals(data["d"])
    scale_event = np.exp(alpha + data["X_event"] @ beta)
    scale_censored = np.exp(alpha + data["X_censored"] @ beta)
    prior = lognormal(shape, 0, 0.5) + normal(alpha, 0, 2) + normal(beta)
    return (
        prior
        + stats.weibull_min.logpdf(data["t_event"], shape, scale=scale_event).sum()
        + stats.weibull_min.logsf(data["t_censored"], shape, scale=scale_censored).sum()
    )


def robust_regression(p, data):
    alpha, beta, sigma, nu = p.real(), p.reals(data["d"]), p.positive(), p.positive()
    prior = normal(alpha, 0, 5) + normal(beta, 0, 2) + exponential(sigma, 1)
    prior += stats.gamma.logpdf(nu, 2, scale=10)
    return prior + stats.t.logpdf(data["y"], nu, alpha + data["X"] @ beta, sigma).sum()


# The model, its data, D, how simulate.py makes the data, and the largest relative error.
CASES = [
    (hierarchical_schools, "hierarchical_schools", 30, "", 1e-11),
    (item_response, "item_response", 36, "", 1e-11),
    (gaussian_process, "gaussian_process", 24, "", 1e-9),  # a nearly singular covariance
    (gaussian_process, "gaussian_process_100", 104, "--n 100", 1e-6),
    (stochastic_volatility, "stochastic_volatility", 43, "--T 40", 1e-11),
    (stochastic_volatility, "stochastic_volatility_500", 503, "--T 500", 1e-11),
    (poisson_random_effects, "poisson_random_effects", 20, "", 1e-11),
    (
        poisson_random_effects,
        "poisson_random_effects_200",
        204,
        "--groups 200 --counts 600",
        1e-11,
    ),
    (ordered_logit, "ordered_logit", 8, "", 1e-11),
    (simplex_mixture, "simplex_mixture", 8, "", 1e-11),
    (covariance, "covariance", 20, "", 1e-11),
    (ode, "ode", 4, "", 1e-7),  # the solver's tolerance is 1e-8 a step
    (stiff_ode, "stiff_ode", 4, "", 1e-5),  # the solver's tolerance is 1e-8 a step
    (hidden_markov, "hidden_markov", 12, "", 1e-11),
    (logistic_regression, "logistic_regression", 11, "", 1e-11),
    (survival, "survival", 6, "", 1e-11),
    (robust_regression, "robust_regression", 6, "", 1e-11),
]
NAMES = [data for _, data, *_ in CASES]


@pytest.mark.parametrize(("density", "data", "dim", "_", "tolerance"), CASES, ids=NAMES)
def test_log_density_is_the_formulas(zoo, density, data, dim, _, tolerance):
    folder = zoo / density.__name__
    file = folder / f"{data}.json"
    model = stanflow.StanModel(folder / f"{folder.name}.stan", file, engine="embedded")
    assert model.dim == dim
    z = RADII[:, None] * np.random.default_rng(1).standard_normal((len(RADII), dim))
    constant = model.normalizing_constant_at(z[RADII < 1])
    assert constant.known, constant.reason
    ours = model.log_density_gradient(z).log_density + constant.value

    values = {name: np.array(value) for name, value in json.loads(file.read_text()).items()}
    for point, log_density in zip(z, ours, strict=True):
        parameters = Parameters(point)
        expected = density(parameters, values) + parameters.log_jacobian
        assert len(parameters.left) == 0
        assert log_density == pytest.approx(expected, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize(("density", "data", "_", "options", "__"), CASES, ids=NAMES)
def test_data_are_what_simulate_writes(zoo, tmp_path, monkeypatch, density, data, _, options, __):
    folder = zoo / density.__name__
    out = tmp_path / "data.json"
    monkeypatch.setattr("sys.argv", ["simulate.py", *options.split(), "--out", str(out)])
    runpy.run_path(str(folder / "simulate.py"), run_name="__main__")
    committed, simulated = (
        json.loads((folder / f"{data}.json").read_text()),
        json.loads(out.read_text()),
    )
    assert simulated.keys() == committed.keys()
    for name, value in committed.items():
        ours, theirs = np.array(simulated[name]), np.array(value)
        assert ours.dtype == theirs.dtype
        # The sixth digit may round another way on another processor.
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1.5e-6, err_msg=name)
