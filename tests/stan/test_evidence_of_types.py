"""The evidence of each constrained type, against its closed form.

By importance sampling with Student-t draws, so without a flow.
"""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.special import gammaln, logsumexp

import stanflow

DRAWS = 200_000
HALF, LOG_2, LOG_2PI = math.log(0.5), math.log(2), math.log(2 * math.pi)


def log_sphere(n):
    """Log surface of the unit sphere in n dimensions."""
    return LOG_2 + n / 2 * math.log(math.pi) - gammaln(n / 2)


def log_evidence(parameters, model, engine="embedded"):
    """Return the log evidence of a program, and its standard error."""
    code = f"parameters {{ {parameters} }} model {{ {model} }}"
    target = stanflow.StanModel(stan_code=code, engine=engine)
    constant = target.normalizing_constant
    assert constant.known, constant.reason
    proposal = stats.multivariate_t(np.zeros(target.dim), 4.0, df=4, seed=1)
    z = proposal.rvs(DRAWS).reshape(DRAWS, target.dim)
    log_p = target.log_density_gradient(z).log_density + constant.value
    log_weights = np.where(np.isfinite(log_p), log_p, -np.inf) - proposal.logpdf(z)
    found = logsumexp(log_weights) - math.log(DRAWS)
    return found, np.std(np.exp(log_weights - found)) / math.sqrt(DRAWS)


# Each prior is normalized over the space of the type, or what it lacks is known.
EXACT = {
    "lower": ("real<lower=1> x;", "x - 1 ~ exponential(2);", 0.0),
    "upper": ("real<upper=-1> x;", "-1 - x ~ gamma(2, 3);", 0.0),
    "both": ("vector<lower=-1, upper=3>[2] x;", "x ~ uniform(-1, 3);", 0.0),
    "beta": ("real<lower=0, upper=1> x;", "x ~ beta(2, 3);", 0.0),
    "half": ("real<lower=0> x;", "x ~ normal(0, 2);", HALF),
    "offset and multiplier": ("vector<offset=3, multiplier=2>[2] x;", "x ~ normal(3, 1);", 0.0),
    "simplex": ("simplex[3] x;", "x ~ dirichlet([2, 3, 4]');", 0.0),
    "flat simplex": ("simplex[4] x;", "", -math.log(6)),
    "ordered": ("ordered[3] x;", "x ~ normal(0, 1);", -math.log(6)),
    "positive_ordered": ("positive_ordered[3] x;", "x ~ exponential(1);", -math.log(6)),
    "unit_vector 2": ("unit_vector[2] x;", "", log_sphere(2)),
    "unit_vector 3": ("unit_vector[3] x;", "", log_sphere(3)),
    "unit_vector 4": ("unit_vector[4] x;", "target += -log(2) - 2 * log(pi());", 0.0),
    "unit_vectors": (
        "array[2] unit_vector[2] x; real m;", "m ~ normal(0, 1);", 2 * log_sphere(2),
    ),
    "von Mises and Fisher": (
        "unit_vector[3] x;",
        "target += 2 * x[1] + log(2) - log(2 * pi()) - log(exp(2) - exp(-2));",
        0.0,
    ),
    "cholesky_factor_corr": ("cholesky_factor_corr[3] x;", "x ~ lkj_corr_cholesky(2);", 0.0),
    "corr_matrix": ("corr_matrix[3] x;", "x ~ lkj_corr(1.5);", 0.0),
    "cov_matrix": (
        "cov_matrix[2] x;", "x ~ inv_wishart(4, identity_matrix(2));", 0.0,
    ),
    "cholesky_factor_cov": (
        "cholesky_factor_cov[2] x;", "x ~ wishart_cholesky(4, identity_matrix(2));", 0.0,
    ),
    "cholesky_factor_cov 3 x 2": (
        "cholesky_factor_cov[3, 2] x;", "to_vector(x) ~ normal(0, 1);", 2 * HALF - LOG_2PI / 2,
    ),
    "sum_to_zero_vector": ("sum_to_zero_vector[3] x;", "x ~ normal(0, 1);", -LOG_2PI / 2),
    "sum_to_zero_matrix": (
        "sum_to_zero_matrix[2, 3] x;", "to_vector(x) ~ normal(0, 1);", -4 * LOG_2PI / 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EXACT)
def test_the_evidence_is_exact(name):
    parameters, model, exact = EXACT[name]
    found, error = log_evidence(parameters, model)
    assert error < 0.02
    assert abs(found - exact) < 4 * error + 1e-9


@pytest.mark.slow
def test_the_evidence_of_types_that_only_stans_own_engine_has(toolchain):
    parameters = """
      array[2] tuple(real, array[1] unit_vector[2]) a; column_stochastic_matrix[2, 2] c;
      row_stochastic_matrix[1, 3] r;
    """
    model = """
      for (i in 1:2) { a[i].1 ~ normal(0, 1); col(c, i) ~ dirichlet([2, 2]'); }
      r[1]' ~ dirichlet([2, 2, 2]');
    """
    found, error = log_evidence(parameters, model, "native")
    assert error < 0.05
    assert abs(found - 2 * log_sphere(2)) < 4 * error
