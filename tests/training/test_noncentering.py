"""Hierarchies found in derivatives: those that are there, and none where there are none."""

import numpy as np
import pytest
import torch

import stanflow
from stanflow.flow.config import FlowConfig
from stanflow.flow.noncentering import NonCentering
from stanflow.sampling.pullback import PulledBack, images
from stanflow.stan.model import StanModel
from stanflow.training.config import TrainConfig
from stanflow.training.noncentering import find_noncentering, noncenter, points_for_hierarchy
from stanflow.training.start import begin
from stanflow.training.warmstart import LocationScale, mean_field_start

SCHOOLS = """
parameters { real mu; real<lower=0> tau; vector[8] theta; }
model {
  mu ~ normal(0, 5);
  tau ~ cauchy(0, 5);
  theta ~ normal(mu, tau);
  [28, 8, -3, 7, -1, 1, 18, 12] ~ normal(theta, [15, 10, 16, 11, 9, 11, 10, 18]);
}
"""
PRODUCT = """
parameters { real<lower=0> tau; vector<lower=0>[6] lambda; vector[6] beta; }
model { tau ~ lognormal(0, 1); lambda ~ lognormal(0, 1); beta ~ normal(3, tau * lambda); }
"""
LEVELS = """
parameters { real v; vector[4] s; vector[4] x; }
model { v ~ normal(0, 1); s ~ normal(0, exp(0.5 * v)); x ~ normal(0, exp(s)); }
"""
NONE = {
    "a normal": "parameters { vector[4] x; } model { x ~ multi_normal([1, 2, 3, 4]', "
    "add_diag(rep_matrix(0.5, 4, 4), 0.5)); }",
    "heavy tails": "parameters { vector[4] x; } model { x ~ student_t(2, 0, 1); }",
    "a logistic regression": "parameters { vector[3] b; } model { b ~ normal(0, 1); "
    "{1, 0, 1, 1} ~ bernoulli_logit([[1, 2, 0], [0, 1, 1], [-1, 0, 1], [2, 1, 1]] * b); }",
}


def model(code):
    return StanModel(stan_code=code, engine="embedded")


def points(dim, n=16, seed=1):
    return np.random.default_rng(seed).normal(size=(n, dim))


def weights_of(layer, coordinate):
    """Return scale weights, location weights and the constants of a coordinate."""
    row = layer.moved.tolist().index(coordinate)
    of_row = layer.parents[row].tolist()
    scale, location = layer.scale_weights[row], layer.location_weights[row]
    return (
        {p: float(w) for p, w in zip(of_row, scale, strict=True) if w != 0},
        {p: float(w) for p, w in zip(of_row, location, strict=True) if abs(w) > 1e-9},
        float(layer.location[row]),
    )


def test_groups_hang_on_their_mean_and_scale_whatever_the_data_say():
    of_prior, with_shares = find_noncentering(model(SCHOOLS), points(10), np.ones(10))
    assert of_prior.moved.tolist() == list(range(2, 10))
    for school in range(2, 10):
        scale, location, constant = weights_of(of_prior, school)
        assert scale == pytest.approx({1: 1.0}, rel=1e-2)
        assert location == pytest.approx({0: 1.0}, rel=1e-6)
        assert constant == pytest.approx(0, abs=1e-6)
        share, _, _ = weights_of(with_shares, school)
        assert 0.5 < share[1] <= 1.0


def test_a_share_is_that_of_the_prior_in_the_precision():
    code = (
        "parameters { real s; vector[3] x; } "
        "model { s ~ normal(0, 1); x ~ normal(0, exp(s)); [1, 1, 1] ~ normal(x, 0.5); }"
    )
    at = points(4)
    _, with_shares = find_noncentering(model(code), at, np.ones(4))
    share = np.median(np.exp(-2 * at[:, 0]) / (np.exp(-2 * at[:, 0]) + 4))
    assert weights_of(with_shares, 1)[0] == pytest.approx({0: share}, rel=1e-3)


def test_a_scale_may_be_a_product():
    of_prior, _ = find_noncentering(model(PRODUCT), points(13), np.ones(13))
    assert of_prior.moved.tolist() == list(range(7, 13))
    for k in range(6):
        scale, location, constant = weights_of(of_prior, 7 + k)
        assert scale == pytest.approx({0: 1.0, 1 + k: 1.0}, rel=1e-2)
        assert location == {}
        assert constant == pytest.approx(3, abs=1e-6)


def test_a_scale_may_have_a_scale():
    of_prior, _ = find_noncentering(model(LEVELS), points(9), np.ones(9))
    assert of_prior.moved.tolist() == list(range(1, 9))
    assert weights_of(of_prior, 1)[0] == pytest.approx({0: 0.5}, rel=1e-2)
    assert weights_of(of_prior, 5)[0] == pytest.approx({1: 1.0}, rel=1e-2)


@pytest.mark.parametrize("name", NONE)
def test_there_is_none_where_there_is_none(name):
    target = model(NONE[name])
    rng = np.random.default_rng(1)
    assert noncenter(target, mean_field_start(target, rng), rng) is None


def test_a_hierarchy_that_data_rule_stays_as_it_is():
    code = """
    parameters { real s; vector[20] x; }
    model {
      s ~ normal(0, 1);
      x ~ normal(0, exp(s));
      linspaced_vector(20, -2, 2) ~ normal(x, 0.01);
    }
    """
    target, rng = model(code), np.random.default_rng(1)
    assert noncenter(target, mean_field_start(target, rng), rng) is None


def test_points_that_are_rejected_are_left_out():
    code = "parameters { real s; vector[3] x; } model { if (s > 0.5) reject(s); "
    code += "s ~ normal(0, 1); x ~ normal(0, exp(s)); }"
    at = points(4)
    of_prior, _ = find_noncentering(model(code), np.where(at > 0.4, at + 1, at), np.ones(4))
    assert weights_of(of_prior, 1)[0] == pytest.approx({0: 1.0}, rel=1e-2)


def test_points_without_derivatives_say_nothing():
    target = model("parameters { real x; } model { if (x > 0) reject(x); x ~ normal(0, 1); }")
    assert find_noncentering(target, np.full((16, 1), 1.0), np.ones(1)) == []


def test_a_start_in_units_of_scales_is_the_posterior_there():
    target = model(SCHOOLS)
    start = begin(target, TrainConfig(), seed=1)
    assert isinstance(start.noncentering, NonCentering)
    assert start.points.shape == (256, 10)
    assert np.isfinite(target.log_density(start.points)).all()
    taus = start.points[:, 1]
    spread = start.points[:, 2:].std(axis=1)
    assert np.corrcoef(taus, np.log(spread))[0, 1] > 0.7  # the points are in the target's space
    assert begin(target, TrainConfig(noncenter=False), seed=1).noncentering is None


@pytest.fixture(scope="module")
def fitted():
    return stanflow.fit(model(SCHOOLS), seed=1, progress=False)


def test_a_fit_of_schools_needs_no_moves(fitted):
    assert fitted.report["verdict"] == "good"
    assert fitted.report["pareto_k"] < 0.5
    assert fitted.flow.noncentering is not None


def test_the_flow_that_is_returned_is_of_the_programs_own_coordinates(fitted):
    flow, target = fitted.flow, model(SCHOOLS)
    z, log_q = flow.sample(2000, torch.Generator().manual_seed(1))
    torch.testing.assert_close(flow.log_prob(z).detach(), log_q, rtol=1e-6, atol=1e-6)
    log_weights = target.log_density(z.numpy()) - log_q.numpy()
    assert log_weights.std() < 0.5
    e = flow.base.sample(50, torch.Generator().manual_seed(2)).detach().numpy()
    z, log_q = images(flow, e)
    pulled = PulledBack(flow, target)
    base = flow.base.log_prob(torch.from_numpy(e)).detach().numpy()
    np.testing.assert_allclose(
        pulled.log_density(e) - base, target.log_density(z) - log_q, atol=1e-3
    )


def test_it_is_read_back_as_it_was(fitted, tmp_path):
    fitted.save(tmp_path / "fit")
    again = stanflow.load(tmp_path / "fit").flow
    z, _ = fitted.flow.sample(20, torch.Generator().manual_seed(1))
    assert torch.equal(again.log_prob(z), fitted.flow.log_prob(z))
    assert torch.equal(again.noncentering.parents, fitted.flow.noncentering.parents)


def test_gaussian_families_stay_in_the_programs_coordinates():
    fit = stanflow.fit(model(SCHOOLS), flow=FlowConfig(family="meanfield"), seed=1, progress=False)
    assert fit.flow.noncentering is None


def test_a_search_ends_where_it_is_told_to():
    target = model(SCHOOLS)
    fitted = LocationScale(np.zeros(10), np.zeros(10))
    assert noncenter(target, fitted, np.random.default_rng(1), lambda: True) is None


def test_a_coordinate_that_data_tell_is_the_others_sibling():
    """Its prior is one of many factors of its precision, and yet has the others' parents."""
    target = model(
        "parameters { real<lower=0> tau; vector<lower=0>[6] lambda; vector[6] beta; } "
        "model { tau ~ lognormal(0, 1); lambda ~ lognormal(0, 1); "
        "beta ~ normal(0, tau * lambda); 1.0 ~ normal(beta[1] + 0.1 * beta[1]^3, 0.05); }"
    )
    at = points(13)
    at[:, 7] = 0.9 + 0.03 * at[:, 7]
    scale = np.ones(13)
    scale[7] = 0.03
    layer, of_shares = find_noncentering(target, at, scale)
    scale_weights, location_weights, _ = weights_of(layer, 7)
    assert scale_weights == pytest.approx({0: 1, 1: 1}, abs=0.02)
    assert not location_weights
    assert max(weights_of(of_shares, 7)[0].values()) < 0.05


def test_of_a_million_pairs_none_is_found_by_chance():
    """Scales of coefficients that outcomes say little of are nobody's children."""
    d, n = 1000, 30
    rng = np.random.default_rng(1)
    target = StanModel(
        stan_code="data { int n; int d; matrix[n, d] X; array[n] int y; } "
        "parameters { vector[d] beta; real<lower=0> tau; vector<lower=0>[d] lambda; } "
        "model { tau ~ cauchy(0, 1); lambda ~ cauchy(0, 1); beta ~ normal(0, tau * lambda); "
        "y ~ bernoulli_logit(X * beta); }",
        data={"n": n, "d": d, "X": rng.normal(size=(n, d)), "y": rng.integers(2, size=n)},
        engine="embedded",
    )
    log_lambda = np.log(np.abs(rng.standard_cauchy(size=(100, d))))
    log_tau = rng.normal(-10, 1, size=(100, 1))
    beta = np.exp(log_tau + log_lambda) * rng.normal(size=(100, d))
    at = np.concatenate([beta, log_tau, log_lambda], axis=1)
    few = at[: points_for_hierarchy(target.dim)]
    layer, _ = find_noncentering(target, few, at.std(axis=0))
    assert layer.moved.tolist() == list(range(d))
