"""Schedules on made-up traces."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanflow.training import schedule as schedule_module
from stanflow.training.config import TrainConfig
from stanflow.training.schedule import Constant, Cosine, Plateau, gain_of_medians, make_schedule

BUDGET = 6000
DIM = 10
FAR = 3.0  # standard deviation of log weights far from the target


def noise(seed=1, n=BUDGET):
    return np.random.default_rng(seed).standard_normal(n)


def spoil(trace, seed=2):
    """A tenth of the steps without an ELBO, and a tenth with one that is far out."""
    chance = np.random.default_rng(seed).random(len(trace))
    return np.where(chance < 0.1, np.nan, np.where(chance < 0.2, -1e12, trace))


def plateau(dim=DIM, **settings):
    return Plateau(TrainConfig(**settings), dim)


def run(schedule, trace, *, sd=FAR, seconds_a_step=0.0, began=0.0, max_seconds=math.inf):
    """Follow a trace; return the shares, step by step, until training ends."""
    sds = np.broadcast_to(sd, len(trace))
    shares = []
    for step, elbo in enumerate(trace):
        now = began + seconds_a_step * step
        shares.append(schedule.share(now))
        schedule.record(elbo, sds[step], now + seconds_a_step)
        if schedule.converged or now + seconds_a_step >= max_seconds:
            break
    return np.array(shares)


def half_cosine(progress):
    return 0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * progress))


@pytest.mark.parametrize("name", ["plateau", "cosine", "constant"])
def test_a_configuration_names_its_schedule(name):
    kinds = {"plateau": Plateau, "cosine": Cosine, "constant": Constant}
    assert type(make_schedule(TrainConfig(schedule=name), DIM)) is kinds[name]


def test_a_constant_rate_stays():
    schedule = Constant(TrainConfig(max_steps=100, max_seconds=1.0), DIM)
    assert (run(schedule, noise(n=100), seconds_a_step=0.02) == 1).all()
    assert not schedule.converged


def test_a_cosine_falls_over_all_steps():
    schedule = Cosine(TrainConfig(max_steps=100), DIM)
    np.testing.assert_allclose(run(schedule, noise(n=100)), half_cosine(np.arange(100) / 100))
    assert not schedule.converged


def test_a_cosine_falls_over_the_time_where_that_ends_first():
    schedule = Cosine(TrainConfig(max_steps=10**6, max_seconds=10.0), DIM)
    shares = run(schedule, noise(n=100), seconds_a_step=0.1)
    np.testing.assert_allclose(shares, half_cosine(np.arange(100) / 100))


@pytest.mark.parametrize("spoilt", [False, True])
@pytest.mark.parametrize("min_steps", [300, 1000])
def test_on_a_plateau_training_ends_after_as_many_steps_of_cooling(min_steps, spoilt):
    schedule = plateau(max_steps=BUDGET, min_steps=min_steps)
    trace = 1e4 + noise()
    shares = run(schedule, spoil(trace) if spoilt else trace)
    assert schedule.converged
    assert len(shares) == 2 * min_steps
    assert (shares[:min_steps] == 1).all()
    falling = half_cosine(np.arange(min_steps) / min_steps)
    np.testing.assert_allclose(shares[min_steps:], falling)


def test_hardly_any_flat_trace_is_taken_for_a_rising_one():
    """One in 44 is, by more than two standard errors, and then it is looked at again."""
    lengths = []
    for seed in range(100):
        schedule = plateau(max_steps=BUDGET, min_steps=500)
        lengths.append(len(run(schedule, noise(seed))))
        assert schedule.converged
    assert np.mean(np.array(lengths) == 1000) > 0.9
    assert max(lengths) <= 1400


@pytest.mark.parametrize("spoilt", [False, True])
@pytest.mark.parametrize("rise", [0.002, 10.0])
def test_while_the_elbo_rises_training_goes_on_to_its_last_step(rise, spoilt):
    """Half of the budget at the first rate, and half of it falling to the lowest."""
    schedule = plateau(max_steps=BUDGET, min_steps=1000)
    trace = rise * np.arange(BUDGET) + noise()
    shares = run(schedule, spoil(trace) if spoilt else trace)
    assert not schedule.converged
    assert len(shares) == BUDGET
    assert (shares[: BUDGET // 2] == 1).all()
    np.testing.assert_allclose(shares[BUDGET // 2 :], half_cosine(np.arange(3000) / 3000))


def test_the_rate_stays_until_a_rise_has_ended():
    schedule = plateau(max_steps=10**5, min_steps=500)
    shares = run(schedule, 0.05 * np.minimum(np.arange(10**4), 1500) + noise(n=10**4))
    assert schedule.converged
    fell = int(np.argmax(shares < 1)) - 1
    # Of the last three fifths the earlier half must be past the rise: 1500 / 0.4 at the latest.
    assert 1500 < fell <= 1500 / 0.4 + 50
    assert fell % 50 == 0
    assert len(shares) == 2 * fell


@pytest.mark.parametrize("share", [0.5, 2.0])
def test_a_small_gain_is_not_worth_its_steps(share):
    """However certain it is."""
    schedule = plateau(max_steps=BUDGET, min_steps=1000)
    a_step = share * schedule_module._GAIN_WORTH_STEPS / 300  # from half to half of the last 600
    shares = run(schedule, a_step * np.arange(1040) + 1e-6 * noise(n=1040))
    assert (shares[-1] < 1) == (share < 1)


def test_without_any_elbo_there_is_no_plateau():
    schedule = plateau(max_steps=400, min_steps=50)
    assert len(run(schedule, np.full(400, np.nan))) == 400
    assert not schedule.converged


@pytest.mark.parametrize("max_steps", [1, 2, 49, 300])
def test_fewer_steps_than_the_least_are_half_at_the_first_rate(max_steps):
    schedule = plateau(max_steps=max_steps, min_steps=1000)
    shares = run(schedule, noise(n=max_steps))
    assert len(shares) == max_steps
    assert (shares[: (max_steps + 1) // 2] == 1).all()
    first = (max_steps + 1) // 2
    falling = half_cosine(np.arange(max_steps - first) / max(1, max_steps - first))
    np.testing.assert_allclose(shares[first:], falling)


@pytest.mark.parametrize("spoilt", [False, True])
def test_where_little_is_left_to_gain_training_ends_early(spoilt):
    """Though the ELBO rises, as far as its noise shows."""
    sd = np.full(BUDGET, 0.2)
    schedule = plateau(max_steps=BUDGET)
    shares = run(schedule, 0.01 * np.arange(BUDGET), sd=spoil(sd) if spoilt else sd)
    assert schedule.converged
    assert schedule.may_go_on
    assert schedule.largest_divergence == 0.02
    assert (shares[:300] == 1).all()
    np.testing.assert_allclose(shares[300:], half_cosine(np.arange(600) / 600))


@pytest.mark.parametrize(("dim", "limit"), [(1, 0.0456), (40, 0.108), (50, 0.128), (5000, 0.225)])
@pytest.mark.parametrize("share", [0.99, 1.01])
def test_how_little_is_little(dim, limit, share):
    """Half of the log weights' variance, in nats."""
    schedule = plateau(dim, max_steps=1000)
    run(schedule, noise(n=350), sd=math.sqrt(2 * share * limit))
    assert schedule.cools == (share < 1)


def test_the_divergence_is_that_of_the_last_fifty_steps():
    schedule = plateau(max_steps=BUDGET)
    sd = np.where(np.arange(BUDGET) < 420, FAR, 0.1)
    shares = run(schedule, 0.1 * np.arange(BUDGET), sd=sd)
    assert np.argmax(shares < 1) - 1 == 450
    assert len(shares) == 450 + 600


def test_without_log_weights_nothing_ends_early():
    assert len(run(plateau(max_steps=BUDGET), 0.1 * np.arange(BUDGET), sd=np.nan)) == BUDGET


def test_an_early_end_is_within_the_budget():
    schedule = plateau(max_steps=700)
    shares = run(schedule, noise(n=700), sd=0.1)
    np.testing.assert_allclose(shares[300:], half_cosine(np.arange(400) / 400))
    assert schedule.may_go_on


@pytest.mark.parametrize(("sd", "first"), [(0.1, 900), (FAR, 1000)])
def test_after_an_end_training_goes_on_once(sd, first):
    """At the first rate, until the ELBO no longer rises; the first end was early or not."""
    schedule = plateau(max_steps=BUDGET, min_steps=500)
    assert len(run(schedule, noise(seed=3), sd=sd)) == first
    assert schedule.may_go_on
    assert schedule.largest_divergence == (np.inf if sd == FAR else 0.02)
    schedule.go_on()
    assert not schedule.converged
    assert schedule.largest_divergence == np.inf
    shares = run(schedule, noise(seed=3, n=BUDGET - first), sd=0.1)
    assert schedule.converged
    assert not schedule.may_go_on
    assert (shares[:500] == 1).all()
    np.testing.assert_allclose(shares[500:], half_cosine(np.arange(500) / 500))


@pytest.mark.parametrize("seconds_a_step", [0.0, 0.01])
def test_what_is_left_when_training_goes_on_is_half_at_the_first_rate(seconds_a_step):
    max_seconds = 20.0 if seconds_a_step else None
    schedule = plateau(max_steps=BUDGET if max_seconds else 2000, max_seconds=max_seconds)
    run(schedule, noise(n=900), sd=0.1, seconds_a_step=seconds_a_step)
    schedule.go_on()
    shares = run(
        schedule, np.arange(1100), seconds_a_step=seconds_a_step, began=900 * seconds_a_step
    )
    assert np.sum(shares == 1) == pytest.approx(550, abs=2)
    assert shares[-1] < 0.011


def test_an_end_of_the_budget_is_final():
    schedule = plateau(max_steps=600)
    run(schedule, noise(n=600))
    assert schedule.cools
    assert not schedule.may_go_on
    with pytest.raises(RuntimeError, match="not ended of itself"):
        make_schedule(TrainConfig(schedule="constant"), DIM).go_on()


def test_the_rate_falls_to_its_lowest_as_time_runs_out():
    config = TrainConfig(max_steps=10**6, max_seconds=20.0)
    schedule = Plateau(config, DIM)
    shares = run(schedule, 0.1 * np.arange(5000), seconds_a_step=0.01, max_seconds=20.0)
    assert len(shares) == pytest.approx(2000, abs=1)
    assert (shares[:999] == 1).all()
    assert shares[1100] < 1
    assert (np.diff(shares) <= 0).all()
    assert shares[-1] < 0.0101


def test_steps_that_become_slow_do_not_keep_the_rate_up():
    """By time it falls sooner than by steps."""
    schedule = plateau(max_steps=10**6, max_seconds=20.0)
    assert schedule.share(0.0) == 1
    for step in range(1000):
        schedule.record(0.1 * step, FAR, 0.01 * (step + 1))
    for step in range(10):
        schedule.record(100 + step, FAR, 10 + step + 1)
    assert schedule.share(20.0) == pytest.approx(0.01)
    assert schedule.share(15.0) == pytest.approx(half_cosine(0.5))


def test_the_rate_does_not_fall_too_soon_where_the_start_took_long():
    """8 of 20 seconds: 12 are left for steps, so half of the rate is due in the last 6 seconds."""
    schedule = plateau(max_steps=10**6, max_seconds=20.0)
    shares = run(schedule, 0.1 * np.arange(5000), seconds_a_step=0.01, began=8.0, max_seconds=20.0)
    assert np.mean(shares < 0.02) < 0.1


@given(
    st.sampled_from(["plateau", "cosine", "constant"]),
    st.integers(0, 1000),
    st.sampled_from([None, 3.0]),
    st.integers(1, 700),
)
def test_a_schedule_is_what_it_recorded(name, seed, max_seconds, resumed_at):
    """One that is told the same steps gives the same shares and ends at the same step."""
    config = TrainConfig(schedule=name, max_steps=700, min_steps=100, max_seconds=max_seconds)
    rng = np.random.default_rng(seed)
    elbos = spoil(-np.exp(-0.01 * np.arange(700)) * 100 + rng.standard_normal(700), seed)
    seconds = np.cumsum(rng.exponential(0.005, 700))
    sds = spoil(rng.uniform(0, 0.6, 700), seed)
    whole, resumed = make_schedule(config, 4), make_schedule(config, 4)
    for step in range(700):
        if step == resumed_at:
            for elbo, sd, now in zip(elbos[:step], sds[:step], seconds[:step], strict=True):
                resumed.record(elbo, sd, now)
        if step >= resumed_at:
            assert resumed.share(seconds[step - 1]) == whole.share(seconds[step - 1])
            resumed.record(elbos[step], sds[step], seconds[step])
        whole.record(elbos[step], sds[step], seconds[step])
        assert step < resumed_at or resumed.converged == whole.converged


def test_the_gain_of_medians_has_its_standard_error():
    """Over many traces the gain is as far from the truth as its standard error says."""
    rng = np.random.default_rng(1)
    z = []
    for _ in range(500):
        before, after = rng.standard_normal(400), 3 + 2 * rng.standard_normal(300)
        gain, se = gain_of_medians(before, after)
        z.append((gain - 3) / se)
    assert np.mean(z) == pytest.approx(0, abs=4.5 / np.sqrt(500))
    assert np.std(z) == pytest.approx(1, abs=4.5 / np.sqrt(2 * 500))


def test_outliers_do_not_move_the_gain_of_medians():
    before, after = noise(1, 500), 2 + noise(2, 500)
    gain, se = gain_of_medians(before, after)
    with_outliers = gain_of_medians(spoil(before), spoil(after, 3))
    assert with_outliers == pytest.approx((gain, se), abs=4 * se)
    assert with_outliers[1] < 2 * se


def test_too_few_values_have_no_gain():
    empty, one = np.full(5, np.nan), np.array([np.nan, 1.0, np.inf])
    for few in (empty, one):
        assert np.isnan(gain_of_medians(few, np.ones(9))).all()
        assert np.isnan(gain_of_medians(np.ones(9), few)).all()
