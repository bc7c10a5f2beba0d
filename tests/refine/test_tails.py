"""How much of the posterior is beyond the outermost draws."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from stanflow.refine.tails import mass_in_tails
from stanflow.stan.model import StanModel

DRAWS = 4000
CAUCHY = "parameters { vector[5] x; } model { x ~ student_t(1, 0, 1); }"
FUNNEL = (
    "parameters { real v; vector[4] x; } model { v ~ normal(0, 3); x ~ normal(0, exp(v / 2)); }"
)


def refined(target, z):
    return SimpleNamespace(
        z=z, log_p=target.log_density(z), settling=SimpleNamespace(ess=float(len(z)))
    )


def model(code):
    return StanModel(stan_code=code, engine="embedded")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_draws_of_the_posterior_lack_nothing(seed):
    target = model(CAUCHY)
    z = stats.cauchy.rvs(size=(DRAWS, 5), random_state=np.random.default_rng(seed))
    assert mass_in_tails(target, refined(target, z), seed=seed) == 0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_draws_that_end_early_lack_what_is_beyond(seed):
    target = model(CAUCHY)
    z = stats.cauchy.rvs(size=(4 * DRAWS, 5), random_state=np.random.default_rng(seed))
    z = z[np.abs(z).max(axis=1) < 30]
    expected = 5 * 2 * stats.cauchy.sf(30)
    missing = mass_in_tails(target, refined(target, z[:DRAWS]), seed=seed)
    assert missing == pytest.approx(expected, rel=0.25)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_one_tail_counts_as_well(seed):
    target = model(CAUCHY)
    z = stats.cauchy.rvs(size=(2 * DRAWS, 5), random_state=np.random.default_rng(seed))
    z = z[(z > -4).all(axis=1)]
    missing = mass_in_tails(target, refined(target, z[:DRAWS]), seed=seed)
    # each coordinate's own lower tail, given that the others are above it
    share = stats.cauchy.cdf(-4)
    assert missing == pytest.approx(5 * share / (1 - share), rel=0.25)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_funnel_whose_draws_are_all_there_lacks_nothing(seed):
    rng, target = np.random.default_rng(seed), model(FUNNEL)
    v = 3 * rng.normal(size=(DRAWS, 1))
    z = np.hstack([v, np.exp(v / 2) * rng.normal(size=(DRAWS, 4))])
    assert mass_in_tails(target, refined(target, z), seed=seed) < 0.01


def test_it_is_not_told_in_many_dimensions():
    target = model("parameters { vector[51] x; } model { x ~ std_normal(); }")
    z = np.random.default_rng(1).normal(size=(100, 51))
    assert np.isnan(mass_in_tails(target, refined(target, z), seed=1))
