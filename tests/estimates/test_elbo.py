import numpy as np
import pytest
import torch

from stanflow.errors import NumericsError
from stanflow.estimates.draws import LogDensities, draw, draw_log_densities
from stanflow.estimates.elbo import estimate_elbo
from stanflow.flow.config import FlowConfig
from stanflow.flow.realnvp import build_flow
from stanflow.stan.density import NormalizingConstant
from stanflow.stan.model import StanModel

NOTHING = NormalizingConstant(0.0, known=True, reason="")


def gaussian_flow(dim):
    return build_flow(FlowConfig(family="meanfield", base="gaussian"), dim, 1).double()


def model(statements):
    return StanModel(
        stan_code=f"parameters {{ vector[2] x; }} model {{ {statements} }}", engine="embedded"
    )


def test_a_flow_equal_to_the_posterior_has_the_evidence_without_error():
    target = model("x ~ normal(0, 1);")
    elbo = estimate_elbo(
        draw(gaussian_flow(2), target, 500, 1).densities, target.normalizing_constant
    )
    assert elbo.value == pytest.approx(0, abs=1e-12)
    assert elbo.se == pytest.approx(0, abs=1e-12)
    assert elbo.normalized


def test_the_elbo_is_the_evidence_less_the_divergence():
    """N(0, 1) against 3 N(1, 1): log 3 - KL, and KL is 1/2 for each of two coordinates."""
    target = model("x ~ normal(1, 1); target += log(3);")
    draws = draw(gaussian_flow(2), target, 20_000, 1).densities
    elbo = estimate_elbo(draws, target.normalizing_constant)
    assert elbo.value == pytest.approx(np.log(3) - 1, abs=4 * elbo.se)
    assert elbo.se == pytest.approx(np.sqrt(2 / 20_000), rel=0.05)  # log p - log q has variance 2


def test_draws_outside_the_support_are_left_out_counted_and_paid_for():
    """N(0, 1) restricted to x > 0 is the posterior exactly, and half the draws are rejected."""
    target = model("if (x[1] < 0) reject(x[1]); x ~ normal(0, 1); target += log(2);")
    draws = draw(gaussian_flow(2), target, 10_000, 1)
    elbo = estimate_elbo(draws.densities, target.normalizing_constant)
    assert draws.z.shape == (10_000, 2)
    assert (draws.z[:, 0] > 0).all()
    assert draws.densities.rejected == pytest.approx(10_000, abs=4 * np.sqrt(20_000))
    assert elbo.se > 0
    assert elbo.value == pytest.approx(0, abs=4 * elbo.se)


def test_a_flow_outside_the_support_is_an_error_in_words():
    target = model("if (x[1] < 9) reject(x[1]); x ~ normal(0, 1);")
    with pytest.raises(NumericsError, match=r"only 0 of \d+ draws .* finite log density"):
        draw(gaussian_flow(2), target, 100, 1)


def test_draws_follow_the_seed_and_do_not_depend_on_rejections_elsewhere():
    target = model("x ~ normal(0, 1);")
    one, again, other = (draw(gaussian_flow(2), target, 5000, seed).z for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
    assert len(np.unique(one[:, 0])) == 5000  # chunks do not repeat


def test_the_standard_error_counts_the_share_left_out():
    """Delta method: log(1 - r) with r binomial over n draws has variance r / ((1 - r) n)."""
    draws = LogDensities(np.zeros(300), np.zeros(300), rejected=100)
    elbo = estimate_elbo(draws, NOTHING)
    assert elbo.value == pytest.approx(np.log(0.75))
    assert elbo.se == pytest.approx(np.sqrt(0.25 / (0.75 * 400)))


def test_draws_after_the_last_one_used_count_for_nothing():
    """So the share left out is not biased by the size of the chunks."""
    target = model("if (x[1] < 0) reject(x[1]); x ~ normal(0, 1);")
    rejected = [draw(gaussian_flow(2), target, 10, seed).densities.rejected for seed in range(200)]
    # Failures before the tenth success: negative binomial, mean 10, variance 20.
    assert np.mean(rejected) == pytest.approx(10, abs=4.5 * np.sqrt(20 / 200))


def test_draws_without_a_finite_density_of_their_own_are_left_out():
    class Odd(torch.nn.Module):
        def sample(self, n, generator):
            log_q = torch.zeros(n, dtype=torch.float64)
            log_q[::4] = -torch.inf
            return torch.randn(n, 2, generator=generator, dtype=torch.float64), log_q

    draws = draw(Odd(), model("x ~ normal(0, 1);"), 300, 1).densities
    assert np.isfinite(draws.log_q).all()
    assert draws.rejected == 100


def test_an_unknown_constant_is_not_called_normalized():
    draws = LogDensities(np.zeros(3), np.zeros(3), 0)
    unknown = NormalizingConstant(0.0, known=False, reason="")
    assert not estimate_elbo(draws, unknown).normalized
    assert estimate_elbo(draws, NOTHING).normalized


def test_log_densities_are_those_of_flow_and_target():
    target = model("x ~ normal(0.5, 2);")
    flow = gaussian_flow(2)
    draws = draw(flow, target, 50, 3)
    with torch.no_grad():
        np.testing.assert_allclose(flow.log_prob(torch.from_numpy(draws.z)), draws.densities.log_q)
    np.testing.assert_array_equal(
        target.log_density_gradient(draws.z).log_density, draws.densities.log_p
    )


def test_log_densities_alone_are_those_of_the_draws():
    target, flow = model("if (x[1] < 0) reject(x[1]); x ~ normal(0, 1);"), gaussian_flow(2)
    densities = draw(flow, target, 5000, 3).densities
    alone = draw_log_densities(flow, target, 5000, 3)
    np.testing.assert_array_equal(alone.log_ratio, densities.log_ratio)
    assert alone.rejected == densities.rejected
