"""Programs that the embedded engine cannot run, or runs wrongly unless mended: against closed forms
and twins that it runs."""

from pathlib import Path

import numpy as np
import pytest
from scipy import special, stats

import stanflow
from tests.stan_programs import compile_programs_of

TUPLE = """
data { real y; }
parameters { tuple(real, vector[2]) t; }
model { t.1 ~ normal(0, 1); t.2 ~ normal(t.1, 2); y ~ normal(t.1, 1); }
"""
COMPLEX = """
data { real y; }
parameters { complex z; }
model {
  get_real(z) ~ normal(0, 1);
  get_imag(z) ~ normal(0, 2);
  y ~ normal(get_real(z) + get_imag(z), 1);
}
"""
JACOBIAN = """
data { real y; }
parameters { real x; }
transformed parameters { real s = exp(x); jacobian += x; }
model { s ~ gamma(2, 3); y ~ exponential(s); }
"""
SUM_TO_ZERO = """
parameters { sum_to_zero_matrix[2, 3] m; }
model { to_vector(m) ~ normal(0, 1); }
"""
ROWS = """
data { array[8] int y; }
transformed data { array[2, 4] int visits; visits[1] = y[1:4]; visits[2] = y[5:8]; }
parameters { real<lower=0, upper=1> p; }
model {
  p ~ beta(1, 1);
  for (i in 1:2) for (j in 1:4) (visits[i, j] > 2) ~ bernoulli(p);
}
"""
Y = 1.3
COUNTS = [4, 1, 7, 3, 2, 5, 1, 6]

HMM = """
data { int T; vector[T] y; }
parameters { ordered[2] mu; }
model {
  matrix[2, T] log_omega;
  for (t in 1:T) for (k in 1:2) log_omega[k, t] = normal_lpdf(y[t] | mu[k], 1);
  mu ~ normal(0, 3);
  target += hmm_marginal(log_omega, [[0.9, 0.1], [0.3, 0.7]], [0.5, 0.5]');
}
"""
HMM_TWIN = """
data { int T; vector[T] y; }
parameters { ordered[2] mu; }
model {
  matrix[2, 2] G = [[0.9, 0.1], [0.3, 0.7]];
  vector[2] a;
  mu ~ normal(0, 3);
  for (k in 1:2) a[k] = log(0.5) + normal_lpdf(y[1] | mu[k], 1);
  for (t in 2:T) {
    vector[2] b = a;
    for (k in 1:2)
      a[k] = log_sum_exp(b[1] + log(G[1, k]), b[2] + log(G[2, k])) + normal_lpdf(y[t] | mu[k], 1);
  }
  target += log_sum_exp(a);
}
"""
DLM = """
data { int T; matrix[1, T] y; }
parameters { real<lower=0, upper=4> a; }
model {
  a ~ uniform(0, 4);
  y ~ gaussian_dlm_obs([[1]], [[1]], [[0.5]], [[a]], [0.2]', [[1.5]]);
}
"""
DLM_TWIN = """
data { int T; matrix[1, T] y; }
parameters { real<lower=0, upper=4> a; }
model {
  matrix[T, T] S;
  for (i in 1:T) for (j in 1:T) S[i, j] = 1.5 + min(i, j) * a + (i == j ? 0.5 : 0);
  a ~ uniform(0, 4);
  to_vector(y) ~ multi_normal(rep_vector(0.2, T), S);
}
"""
KERNEL = """
data { int N; array[N] vector[2] x; vector[N] y; }
parameters { array[2] real<lower=0> l; }
model {
  l ~ gamma(2, 1);
  y ~ multi_normal(rep_vector(0, N), add_diag(gp_exp_quad_cov(x, 1.0, l), 0.05));
}
"""
KERNEL_TWIN = """
data { int N; array[N] vector[2] x; vector[N] y; }
parameters { array[2] real<lower=0> l; }
model {
  matrix[N, N] K;
  for (i in 1:N)
    for (j in 1:N)
      K[i, j] = exp(-(((x[i, 1] - x[j, 1]) / l[1])^2 + ((x[i, 2] - x[j, 2]) / l[2])^2) / 2);
  l ~ gamma(2, 1);
  y ~ multi_normal(rep_vector(0, N), add_diag(K, 0.05));
}
"""
LAPLACE = """
functions {
  real likelihood(vector f, vector y, real s) { return normal_lpdf(y | f, s); }
  matrix kernel(real a, int N) { return add_diag(rep_matrix(a, N, N), 1.0); }
}
data { int N; vector[N] y; }
parameters { real<lower=0, upper=4> a; }
model { a ~ uniform(0, 4); target += laplace_marginal(likelihood, (y, 0.5), 1, kernel, (a, N)); }
"""
LAPLACE_TWIN = """
data { int N; vector[N] y; }
parameters { real<lower=0, upper=4> a; }
model {
  a ~ uniform(0, 4);
  target += multi_normal_lpdf(y | rep_vector(0, N), add_diag(rep_matrix(a, N, N), 1.25));
}
"""
NEWER = {"JACOBIAN", "SUM_TO_ZERO", "LAPLACE"}  # than Stan 2.35


def points_of_a_process():
    rng = np.random.default_rng(1)
    x = rng.uniform(size=(40, 2)) * 2
    r2 = (((x[:, None] - x) / [0.5, 4.0]) ** 2).sum(-1)
    y = rng.multivariate_normal(np.zeros(40), np.exp(-r2 / 2) + 0.05 * np.eye(40))
    return {"N": 40, "x": x, "y": y}


SERIES = {"T": 6, "y": np.array([-1.0, -0.6, 2.1, 1.7, 2.4, -0.8])}
DATA = {
    "TUPLE": {"y": Y},
    "COMPLEX": {"y": Y},
    "JACOBIAN": {"y": Y},
    "SUM_TO_ZERO": {},
    "ROWS": {"y": COUNTS},
    "HMM": SERIES,
    "DLM": {"T": 6, "y": SERIES["y"][None]},
    "KERNEL": points_of_a_process(),
    "LAPLACE": {"N": 6, "y": SERIES["y"]},
}
EVIDENCE = {
    "TUPLE": stats.norm.logpdf(Y, 0, np.sqrt(2)),
    "COMPLEX": stats.norm.logpdf(Y, 0, np.sqrt(6)),
    "JACOBIAN": np.log(2 * 3**2 / (3 + Y) ** 3),
    "SUM_TO_ZERO": -2 * np.log(2 * np.pi),
    "ROWS": special.betaln(6, 4),  # of the eight, five are above 2
}
TWINS = {"HMM": HMM_TWIN, "DLM": DLM_TWIN, "KERNEL": KERNEL_TWIN, "LAPLACE": LAPLACE_TWIN}


@pytest.fixture(scope="module")
def compiled(headers):
    compile_programs_of(Path(__file__), headers)
    return headers


def model(name, engine, code=None):
    return stanflow.StanModel(
        stan_code=code or globals()[name], data=DATA[name] or None, engine=engine
    )


def skip_where_newer(name, headers):
    if name in NEWER and tuple(map(int, headers.stan_version.split("."))) < (2, 38):
        pytest.skip(f"Stan {headers.stan_version} has no such thing")


@pytest.mark.slow
@pytest.mark.parametrize("name", TWINS)
def test_densities_and_gradients_are_those_of_the_twin(compiled, name):
    skip_where_newer(name, compiled)
    twin = model(name, "embedded", TWINS[name])
    z = np.random.default_rng(2).normal(size=(20, twin.dim))
    expected = twin.log_density_gradient(z)
    for engine in ("native", "auto"):
        tried = model(name, engine)
        found = tried.log_density_gradient(z)
        full = found.log_density + tried.normalizing_constant.value
        np.testing.assert_allclose(
            full, expected.log_density + twin.normalizing_constant.value, rtol=1e-8
        )
        np.testing.assert_allclose(found.gradient, expected.gradient, rtol=1e-6, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["native", "auto"])
@pytest.mark.parametrize("name", DATA)
def test_fits_have_the_evidence_of_a_closed_form_or_twin(compiled, name, engine):
    skip_where_newer(name, compiled)
    fit = stanflow.fit(model(name, engine), seed=1, progress=False)
    assert fit.verdict == "good", fit.summary()
    if name in TWINS:
        twin = stanflow.fit(model(name, "embedded", TWINS[name]), seed=2, progress=False)
        assert twin.verdict == "good", twin.summary()
        exact, error = twin.log_evidence, np.hypot(twin.log_evidence_se, fit.log_evidence_se)
    else:
        exact, error = EVIDENCE[name], fit.log_evidence_se
    assert abs(fit.log_evidence - exact) < 5 * error + 1e-3
    assert fit.report["normalized"]
