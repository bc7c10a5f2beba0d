"""Modes that a flow has missed are learnt."""

import numpy as np
import pytest
from scipy import stats

import stanflow
from stanflow.fitting.modes import modes_of
from stanflow.stan.density import CountingTarget

DIM, WEIGHT = 3, 0.3


def model(zoo):
    data = {"D": DIM, "distance": 20, "weight": WEIGHT}
    return stanflow.StanModel(zoo / "two_modes/two_modes.stan", data, engine="embedded")


def fitted(zoo, **settings):
    return stanflow.fit(model(zoo), seed=1, progress=False, **settings)


@pytest.fixture(scope="module")
def told():
    return []


@pytest.fixture(scope="module")
def fit(zoo, told):
    return fitted(zoo, on_step=told.append)


def test_both_modes_have_their_weights(fit):
    assert fit.verdict == "good"
    assert abs(fit.log_evidence) < 0.01
    np.testing.assert_allclose(fit.report["modes"], [1 - WEIGHT, WEIGHT], atol=0.02)
    assert fit.report["stages"]["modes"]["gradient_evaluations"] > 0
    assert "2 modes" in str(fit.summary())


def test_the_draws_are_those_of_both(fit):
    along = fit.z.sum(axis=1) / np.sqrt(DIM)

    def cdf(u):
        return WEIGHT * stats.norm.cdf(u + 10) + (1 - WEIGHT) * stats.norm.cdf(u - 10)

    assert stats.kstest(along, cdf).pvalue > 1e-3
    within = fit.z - np.sign(along)[:, None] * 10 / np.sqrt(DIM)
    np.testing.assert_allclose(np.cov(within.T), np.eye(DIM), atol=5 / np.sqrt(len(within)))


def test_steps_are_told_on_from_those_before(fit, told):
    numbers = [step.step for step in told]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) > fit.report["steps"]


def test_a_fit_of_modes_can_be_saved(fit, tmp_path):
    again = stanflow.load(fit.save(tmp_path / "fit"))
    assert again.report["modes"] == fit.report["modes"]
    np.testing.assert_array_equal(again.log_prob(fit.z), fit.log_prob(fit.z))
    np.testing.assert_allclose(fit.log_prob(fit.z), fit.log_q, atol=1e-9)


def test_the_same_seed_gives_the_same_modes(fit, zoo):
    np.testing.assert_array_equal(fitted(zoo).z, fit.z)


@pytest.mark.parametrize(
    "settings",
    [
        {"refining": stanflow.RefineConfig(when="never")},
        {"flow": stanflow.FlowConfig(family="fullrank")},
    ],
)
def test_where_modes_cannot_be_learnt_the_fit_says_that_one_is_missing(zoo, settings):
    missing = fitted(zoo, **settings)
    assert missing.verdict == "unreliable"
    assert missing.report["modes"] is None


def test_modes_beyond_what_loft_leaves_alone_are_not_learnt(zoo):
    target = CountingTarget(model(zoo))
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((25, 8, DIM))
    near = noise + np.where(np.arange(8) % 2, 1, -1)[:, None] * 10 / np.sqrt(DIM)
    assert len(modes_of(target, near, (), 1)) == 2
    # As tight as this they are thousands of their own scales apart.
    assert modes_of(target, near - 0.999 * noise, (), 1) == ()
    # What was found before counts as well.
    known = modes_of(target, near, (), 1)
    assert len(modes_of(target, near[:, :1], known, 1)) == 2
