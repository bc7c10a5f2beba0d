"""Posteriors on which a default fit once broke off, or was right and called unreliable."""

import numpy as np
import pytest
from scipy import integrate, stats
from scipy.special import betaln, logsumexp

import stanflow
from tests.one_of import one_of


def fitted(code, data, seed, **training):
    model = stanflow.StanModel(stan_code=code, data=data, engine="embedded")
    config = stanflow.TrainConfig(**training)
    return stanflow.fit(model, seed=seed, training=config, progress=False)


def close(fit, exact):
    return fit.log_evidence == pytest.approx(exact, abs=5 * fit.log_evidence_se + 1e-3)


@one_of("seed", 2, 1, 3)
@one_of("k", 10, 0, 4)
def test_a_density_that_is_infinite_at_a_boundary(k, seed):
    """Draws that are rounded to the boundary are no mass that the flow lacks."""
    fit = fitted(
        """
        data { int n; int k; } parameters { real<lower=0, upper=1> theta; }
        model { theta ~ beta(0.5, 0.5); k ~ binomial(n, theta); }
        """,
        {"n": 10, "k": k},
        seed,
    )
    chosen = -betaln(k + 1, 10 - k + 1) - np.log(11)
    assert close(fit, chosen + betaln(k + 0.5, 10 - k + 0.5) - betaln(0.5, 0.5))
    assert fit.verdict == "good", fit.report["reasons"]


@pytest.mark.slow
@one_of("seed", 6, 1, 2, 3, 4, 5, 7, 8, 9, 10)
def test_a_ridge_too_narrow_for_float32(seed):
    """Two parameters whose sum alone the data know: their correlation is -0.9999."""
    y = np.random.default_rng(1).normal(0, 1, 100)
    fit = fitted(
        """
        data { int N; vector[N] y; }
        parameters { real lambda1; real lambda2; real<lower=0> sigma; }
        transformed parameters { real mu = lambda1 + lambda2; }
        model { lambda1 ~ normal(0, 10); lambda2 ~ normal(0, 10); y ~ normal(mu, sigma); }
        """,
        {"N": len(y), "y": y},
        seed,
    )
    mu, sigma = np.linspace(-1, 1, 401)[:, None, None], np.linspace(0.5, 2, 601)[:, None]
    log_joint = stats.norm.logpdf(y, mu, sigma).sum(-1) + stats.norm.logpdf(mu[..., 0], 0, 200**0.5)
    area = 2 / 400 * 1.5 / 600
    assert close(fit, logsumexp(log_joint) + np.log(area))
    assert fit.verdict != "unreliable", fit.report["reasons"]


@one_of("seed", 1, 2, 3, 4)
def test_a_cliff_is_fitted_and_the_missing_bound_is_named(seed):
    y = np.random.default_rng(0).normal(1, 5, 20)
    fit = fitted(
        """
        data { int N; vector[N] y; } parameters { real mu; real sigma; }
        model { sigma ~ uniform(0, 2); mu ~ normal(0, 5); y ~ normal(mu, sigma); }
        """,
        {"N": len(y), "y": y},
        seed,
    )

    def of_sigma(sigma):
        covariance = sigma**2 * np.eye(len(y)) + 25
        return np.exp(stats.multivariate_normal.logpdf(y, np.zeros(len(y)), covariance) + 80) / 2

    exact = np.log(integrate.quad(of_sigma, 1, 2)[0]) - 80
    assert fit.log_evidence == pytest.approx(exact, abs=0.05)
    assert fit.report["rejected_draws"] > 0
    told = " ".join([*fit.report["reasons"], *fit.report["advice"]])
    assert "nearly all of them where sigma is above 2" in told
    assert "declare <upper=2> or so for sigma" in told


@pytest.mark.slow
def test_chains_that_do_not_mix_do_not_condemn_a_hierarchical_regression():
    """Half of those started elsewhere are stuck where there is no mass; all else is right."""
    rng = np.random.default_rng(3)
    groups, each = 12, 8
    g = np.repeat(np.arange(1, groups + 1), each)
    x = 10 * rng.normal(size=groups * each)
    slopes, levels = rng.normal(2, 0.3, groups), rng.normal(50, 5, groups)
    y = levels[g - 1] + slopes[g - 1] * x + rng.normal(0, 0.5, groups * each)
    fit = fitted(
        """
        data { int N; int J; array[N] int g; vector[N] x; vector[N] y; }
        parameters {
          real ma; real mb; real<lower=0> sa; real<lower=0> sb; real<lower=0> s;
          vector[J] a; vector[J] b;
        }
        model {
          ma ~ normal(0, 100); mb ~ normal(0, 10);
          sa ~ normal(0, 10); sb ~ normal(0, 5); s ~ normal(0, 5);
          a ~ normal(ma, sa); b ~ normal(mb, sb); y ~ normal(a[g] + b[g] .* x, s);
        }
        """,
        {"N": len(y), "J": groups, "g": g, "x": x, "y": y},
        seed=5,
    )
    assert fit.pareto_k < 0.5
    assert fit.verdict == "usable"
    assert "say less of what the flow may lack" in fit.report["reasons"][0]


IMPROPER = {
    "mu": ("parameters { real mu; real b; } model { b ~ normal(0, 1); }", {}),
    "a with b": (
        "data { vector[5] y; } parameters { real a; real b; } model { y ~ normal(a + b, 1); }",
        {"y": [1, 2, 3, 1, 2]},
    ),
    "b": (
        """
        data { vector[6] x; array[6] int y; } parameters { real a; real b; }
        model { y ~ bernoulli_logit(a + b * x); }
        """,
        {"x": [-3, -2, -1, 1, 2, 3], "y": [0, 0, 0, 1, 1, 1]},
    ),
}


@one_of("parameter", *IMPROPER)
def test_an_improper_posterior_is_told_along_which_parameters(parameter):
    """And without a RuntimeWarning, which here would be an error."""
    fit = fitted(*IMPROPER[parameter], seed=1, max_steps=300)
    assert fit.verdict == "unreliable"
    reason = f"may be improper: its density does not fall along {parameter}, however far"
    assert any(reason in said for said in fit.report["reasons"])
    assert fit.report["advice"] == [f"give {parameter} a proper prior"]


def test_heavy_tails_are_not_called_improper():
    fit = fitted(
        "parameters { vector[2] x; } model { x ~ student_t(1, 0, 1); }", {}, seed=1, max_steps=300
    )
    assert not any("improper" in said for said in fit.report["reasons"])


DEAR = """
data { int n; } parameters { vector[4] x; }
model { real s = 0; for (i in 1:n) s += sin(x[1] * i); target += 1e-9 * s; x ~ std_normal(); }
"""


@pytest.mark.slow
def test_a_fit_of_a_dear_program_keeps_to_its_time():
    """It takes ten times as long without; what is judged by fewer draws says so."""
    model = stanflow.StanModel(stan_code=DEAR, data={"n": 20_000}, engine="embedded")
    fit = stanflow.fit(
        model, draws=1000, training=stanflow.TrainConfig(max_seconds=30), progress=False
    )
    assert fit.report["stopped"] == "max_seconds"
    assert fit.report["seconds"] < 60
    assert 1000 <= fit.report["evidence_draws"] <= 20_000
