"""Records of particles that have settled, and of those that have not."""

import numpy as np
import pytest

from stanflow.refine.settling import settling

STEPS, PARTICLES, ISLANDS = 20, 512, 8


def autoregression(correlation, *, mean=0.0, start=None, scalars=20, seed=1):
    """Particles of variance 1 that forget as fast as the correlation of neighbours says."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((PARTICLES, scalars)) + (mean if start is None else start)
    record = []
    for _ in range(STEPS):
        noise = np.sqrt(1 - correlation**2) * rng.standard_normal(x.shape)
        x = mean + correlation * (x - mean) + noise
        record.append(x)
    return np.stack(record)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_the_effective_sample_size_is_that_of_an_autoregression(correlation):
    found = settling(autoregression(correlation, scalars=1), ISLANDS)
    lags = np.arange(1, STEPS)
    inflation = 1 + 2 * ((1 - lags / STEPS) * correlation**lags).sum()
    # A variance of 512 means has a relative error of sqrt(2 / 511), 6 %.
    assert found.ess == pytest.approx(PARTICLES * STEPS / inflation, rel=0.25)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9, 0.999])
def test_particles_in_equilibrium_have_settled(correlation):
    """False alarms are one in a thousand records."""
    for seed in range(20):
        found = settling(autoregression(correlation, seed=seed), ISLANDS)
        assert found.shift == 0
        # An island of 64: B / W is 1 / 64, times chi-squared of 7 over 7, at most 4 of 20.
        assert found.rhat < np.sqrt(1 + 4.5 / 64)


@pytest.mark.parametrize("correlation", [0.9, 0.97])
def test_a_mean_on_its_way_is_told_with_how_far_it_has_to_go(correlation):
    """All islands alike, so that R-hat sees nothing."""
    found = settling(autoregression(correlation, mean=10.0, start=0.0), ISLANDS)
    left = 10 * correlation ** (STEPS / 2)
    assert left / 3 < found.shift < 3 * 10
    assert found.rhat < 1.05


def test_islands_that_differ_are_told():
    record = autoregression(0.0)
    record[:, : PARTICLES // ISLANDS, 3] += 1.0
    found = settling(record, ISLANDS)
    assert found.rhat == pytest.approx(np.sqrt(1 + 1 / 8), abs=0.02)
    assert found.shift == 0


def test_what_never_changes_says_nothing():
    record = autoregression(0.0)
    record[:, :, 0] = 3.0
    found = settling(record, ISLANDS)
    assert np.isfinite([found.rhat, found.shift, found.ess]).all()
