import math

import numpy as np
import pytest
import torch

from stanflow.flow.config import FlowConfig
from stanflow.flow.realnvp import build_flow
from stanflow.stan.density import DensityBatch
from stanflow.training.optimizers import FlatAdam
from stanflow.training.safeguard import Safeguard

from .targets import GaussianTarget, trained

NAN = math.nan


class Walk:
    """A flow whose parameters are all the number of steps taken, and its safeguard."""

    def __init__(self):
        self.flow = build_flow(FlowConfig(layers=1, hidden=2), 2, 1)
        self.flow.flat.zero_()
        self.safeguard = Safeguard(self.flow)
        self.steps = 0

    def take(self, elbos, stepped=True):
        """Watch steps; return how many of them it took to go back, None if it did not."""
        for taken, elbo in enumerate(elbos, start=1):
            self.steps += 1
            self.flow.flat.fill_(self.steps)
            if self.safeguard.watch(float(elbo), stepped=stepped):
                return taken
        return None

    @property
    def at(self):
        """The step whose parameters the flow has."""
        (step,) = self.flow.flat.unique().tolist()
        return int(step)


def noise(n, spread=1.0, seed=1):
    return spread * np.random.default_rng(seed).standard_normal(n)


def test_twenty_steps_without_a_gradient_lead_back_to_the_copy():
    walk = Walk()
    assert walk.take(noise(170)) is None
    assert walk.take(noise(100), stepped=False) == 20
    assert walk.at == 100  # a multiple of fifty, and sound fifty steps later
    assert walk.safeguard.returns == 1


def test_nineteen_steps_without_a_gradient_are_borne():
    walk = Walk()
    walk.take(noise(170))
    for _ in range(5):
        assert walk.take(noise(19), stepped=False) is None
        assert walk.take(noise(1)) is None
    assert walk.safeguard.returns == 0


def test_steps_without_a_finite_elbo_count_as_failed():
    walk = Walk()
    walk.take(noise(60))
    assert walk.take([NAN, math.inf, -math.inf] * 10) == 20
    assert walk.at == 0


def test_a_collapse_leads_back_once_it_is_half_of_the_last_twenty_steps():
    walk = Walk()
    walk.take(-100 + noise(270))
    assert walk.take(-1000 + noise(50)) == 10
    assert walk.at == 200
    assert walk.safeguard.returns == 1


def test_each_return_leads_to_the_same_copy():
    walk = Walk()
    walk.take(noise(100))
    for returns in (1, 2, 3):
        assert walk.take(np.full(100, -1e6)) == (10 if returns == 1 else 20)
        assert walk.at == 50
        assert walk.safeguard.returns == returns


def test_before_the_first_copy_it_goes_back_to_the_beginning():
    walk = Walk()
    assert walk.take(np.full(100, NAN)) == 20
    assert walk.at == 0


def test_a_new_copy_is_taken_as_the_elbo_rises():
    """The fall is from the level at the last copy, and not from where training began."""
    walk = Walk()
    walk.take(-1e6 + 1e3 * np.arange(1000))
    assert walk.take(np.full(50, -500.0)) is None  # the level is about -6e5 there, and it rose
    walk.take(noise(200))
    assert walk.take(np.full(50, -1e5)) == 10


@pytest.mark.parametrize("spread", [0.01, 1.0, 100.0])
def test_noise_is_no_collapse(spread):
    """Nor are outliers, lost steps, or a fall of less than 20 nats or 50 spreads."""
    rng = np.random.default_rng(3)
    elbos = noise(5000, spread)
    elbos[rng.random(5000) < 0.1] = -1e9
    elbos[rng.random(5000) < 0.1] = NAN
    walk = Walk()
    assert walk.take(elbos) is None
    assert walk.take(elbos[:100] - max(15.0, 20 * spread)) is None
    assert walk.safeguard.returns == 0


@pytest.mark.parametrize("cut", [10, 75, 160, 165, 200, 255])
def test_a_state_is_all_that_is_needed_to_go_on(cut):
    """In the middle of steps that fail, too."""
    sound = 5 * noise(400)
    elbos = sound.copy()
    elbos[155:185] = -1e6
    elbos[265:300] -= 60  # less than 50 spreads, but more than 20 nats
    elbos[300:360] = NAN

    def follow(walk, part):
        seen = []
        for elbo in part:
            walk.take([elbo])
            seen.append((walk.at, walk.safeguard.returns))
        return seen

    whole, stopped, resumed = Walk(), Walk(), Walk()
    expected = follow(whole, elbos)
    assert expected[-1][1] >= 3
    follow(stopped, elbos[:cut])
    state = {name: tensor.clone() for name, tensor in stopped.safeguard.state().items()}
    resumed.safeguard.restore(state)
    resumed.steps = cut
    resumed.flow.flat.copy_(stopped.flow.flat)
    assert follow(resumed, elbos[cut:]) == expected[cut:]
    torch.testing.assert_close(
        resumed.safeguard.state(), whole.safeguard.state(), rtol=0, atol=0, equal_nan=True
    )


@pytest.mark.parametrize("fell_at", [42, 49, 50])
def test_a_copy_is_never_of_what_has_collapsed_already(fell_at):
    walk = Walk()
    walk.take(noise(100 + fell_at))
    walk.take(np.full(30, -1e6))
    # The ELBO of step 100 + fell_at was sound, which is that of the parameters before the step.
    assert walk.at < 100 + fell_at


def test_training_that_breaks_down_goes_back_and_on_in_float64(monkeypatch):
    """Here where the target is dark for thirty steps."""

    class Eclipsed(GaussianTarget):
        batches = 0

        def log_density_gradient(self, z):
            batch = super().log_density_gradient(z)
            self.batches += 1
            accepted = np.full(len(z), not 200 < self.batches <= 230)
            return DensityBatch(batch.log_density, batch.gradient, accepted)

    seen, step = [], FlatAdam.step

    def spying(self, share):
        state = self.state()
        seen.append((state["mean"].dtype, int(state["steps"]), share))
        return step(self, share)

    monkeypatch.setattr(FlatAdam, "step", spying)
    flow, target = FlowConfig(layers=2, hidden=4), Eclipsed([0.5, -0.5], np.eye(2))
    _, result = trained(flow, target, max_steps=400, start="none", schedule="constant")
    assert (result.returns, result.skipped_steps) == (1, 30)
    before = [(torch.float32, taken, 1.0) for taken in range(200)]
    assert seen == before + [(torch.float64, taken, 1.0) for taken in range(170)]
    elbos = [step.elbo for step in result.trace]
    assert elbos[230] == pytest.approx(elbos[150], abs=0.5)  # as at the copy
    assert np.median(elbos[-50:]) == pytest.approx(-target.normalizing_constant.value, abs=0.05)
