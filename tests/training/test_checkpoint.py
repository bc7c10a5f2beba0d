import resource
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stanflow.errors import UsageError
from stanflow.flow.config import FlowConfig
from stanflow.flow.realnvp import build_flow
from stanflow.stan.model import StanModel
from stanflow.training import safeguard, schedule, trainer
from stanflow.training.checkpoint import Checkpoint, Keep
from stanflow.training.config import TrainConfig

from .targets import begin_and_train

IDENTITY = {"seed": 1, "flow_config": {"layers": 2}, "program_sha256": "a"}
FLOW = FlowConfig(layers=2, hidden=4)


class Stopped(Exception):  # noqa: N818
    """The process dies here."""


@pytest.fixture(scope="module")
def model():
    return StanModel(
        stan_code="parameters { vector[3] x; real<lower=0> s; } "
        "model { s ~ lognormal(0, 1); x ~ student_t(4, 0, s); }",
        engine="embedded",
    )


def run(model, config, checkpoint=None, die_at=None):
    def on_step(step):
        if step.step == die_at:
            raise Stopped

    flow = build_flow(FLOW, model.dim, 7)
    return flow, begin_and_train(flow, model, config, 11, on_step=on_step, checkpoint=checkpoint)


def written(model, path, config, die_at=8):
    """Leave the checkpoint of a run that died."""
    with pytest.raises(Stopped):
        run(model, config, Checkpoint(path, IDENTITY, every=0.0), die_at)
    return Checkpoint(path, IDENTITY, every=0.0)


def run_with_deaths(model, folder, config, deaths):
    """Let a run die at some steps, each time going on from its checkpoint, and end."""
    path = folder / "checkpoint"
    for die_at in deaths:
        written(model, path, config, die_at)
    return run(model, config, Checkpoint(path, IDENTITY, every=0.0))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"keep_best": True},
        {"precision": "float64", "schedule": "constant"},
        {"start": "none", "gradient": "total", "tail_share": 0.0, "max_gradient_norm": None},
    ],
)
def test_a_run_that_died_goes_on_to_the_same_numbers(model, tmp_path, settings):
    config = TrainConfig(batch=32, max_steps=20, **settings)
    whole, result = run(model, config)
    resumed, again = run_with_deaths(model, tmp_path, config, (3, 12, 19))
    assert torch.equal(whole.flat, resumed.flat)
    assert again.gradient_evaluations == result.gradient_evaluations
    assert [s.step for s in again.trace] == list(range(1, 21))
    for one, other in zip(result.trace, again.trace, strict=True):
        assert replace(one, seconds=0, largest=0) == replace(other, seconds=0, largest=0)
        np.testing.assert_array_equal(one.largest, other.largest)
    seconds = [s.seconds for s in again.trace]
    assert seconds == sorted(seconds)  # time spent before counts


def test_a_run_whose_time_is_spent_goes_on_in_the_units_it_had(model, tmp_path):
    """And not in those of a start that is cut short."""
    path = tmp_path / "checkpoint"
    config = TrainConfig(batch=32, max_steps=20, schedule="constant")
    checkpoint = written(model, path, config, die_at=12)
    checkpoint.read()
    begun = len(checkpoint.state("training")["trace.steps"])
    resumed, result = run(model, replace(config, max_seconds=1e-9), checkpoint)
    assert (len(result.trace), result.stopped) == (begun + 1, "max_seconds")
    assert torch.equal(resumed.flat, run(model, replace(config, max_steps=begun + 1))[0].flat)


def test_schedule_and_safeguard_go_on_where_they_were(model, tmp_path, monkeypatch):
    """A run that went back on its way, here at the least fall, converges at the same step."""
    monkeypatch.setattr(safeguard, "_SPREADS", 0.0)
    monkeypatch.setattr(safeguard, "_LEAST_FALL", 0.0)
    config = TrainConfig(batch=32, max_steps=600, min_steps=50, start="mean-field")
    whole, result = run(model, config)
    assert result.stopped == "converged"
    assert result.returns > 0
    last = len(result.trace)
    resumed, again = run_with_deaths(model, tmp_path, config, (30, last // 2 + 5, last - 1))
    assert torch.equal(whole.flat, resumed.flat)
    assert (again.stopped, again.returns, len(again.trace)) == ("converged", result.returns, last)


def test_a_run_that_went_on_after_an_early_end_does_so_again(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "_HIGHEST_K_TO_END_WITH", -np.inf)
    monkeypatch.setattr(trainer, "_DRAWS_TO_JUDGE", (100,))
    monkeypatch.setattr(schedule, "_FEWEST_STEPS", 100)
    monkeypatch.setattr(schedule, "_FEWEST_COOLING_STEPS", 100)
    config = TrainConfig(batch=32, max_steps=1000, min_steps=100, start="mean-field")
    normal = StanModel(stan_code="parameters { real x; } model { x ~ normal(0, 1); }")
    whole, result = run(normal, config)
    assert result.stopped == "converged"
    assert len(result.trace) > 200
    resumed, again = run_with_deaths(normal, tmp_path, config, (150, 201, 250))
    assert torch.equal(whole.flat, resumed.flat)
    assert again.gradient_evaluations == result.gradient_evaluations


def test_the_best_parameters_so_far_are_not_forgotten(model, tmp_path):
    """The best batch comes before the break, and the learning rate ruins the rest."""
    config = TrainConfig(
        batch=64, max_steps=30, keep_best=True, learning_rate=1.0, schedule="constant"
    )
    whole, result = run(model, config)
    best = 1 + int(np.argmax([s.elbo if s.step > 15 else -np.inf for s in result.trace]))
    path = tmp_path / "checkpoint"
    assert best < 29
    written(model, path, config, best + 2)
    resumed, _ = run(model, config, Checkpoint(path, IDENTITY, every=0.0))
    assert torch.equal(whole.flat, resumed.flat)


def test_what_later_stages_write_leaves_training_as_it_was(model, tmp_path):
    path = tmp_path / "checkpoint"
    config = TrainConfig(batch=32, max_steps=20)
    checkpoint = Checkpoint(path, IDENTITY, every=0.0)

    class WrittenOnce(Keep):
        @property
        def due(self):
            return self.state is None

    checkpoint.keep = lambda stage: WrittenOnce(checkpoint, stage)
    whole, _ = run(model, config, checkpoint)
    checkpoint.write("refine", {"beta": torch.ones(1)})
    again = Checkpoint(path, IDENTITY, every=1e9)
    resumed, result = run(model, config, again)
    assert len(again.state("training")["trace.steps"]) == 1
    assert len(result.trace) == 20
    assert torch.equal(whole.flat, resumed.flat)
    assert again.state("refine")["beta"] == 1


def test_without_a_checkpoint_a_run_begins(model, tmp_path):
    path = tmp_path / "checkpoint"
    flow, _ = run(model, TrainConfig(batch=32, max_steps=5), Checkpoint(path, IDENTITY, every=1e9))
    assert not path.exists()
    assert torch.equal(flow.flat, run(model, TrainConfig(batch=32, max_steps=5))[0].flat)


@pytest.mark.parametrize(
    ("identity", "what"),
    [
        ({**IDENTITY, "seed": 2}, "with seed 1 instead of 2"),
        ({**IDENTITY, "flow_config": {"layers": 3}}, "with layers 2 instead of 3"),
        ({**IDENTITY, "program_sha256": "b"}, "with another program"),
        ({**IDENTITY, "new": 1}, "with new None instead of 1"),
    ],
)
def test_the_checkpoint_of_another_run_is_refused(model, tmp_path, identity, what):
    path = tmp_path / "checkpoint"
    written(model, path, TrainConfig(batch=32, max_steps=20))
    with pytest.raises(UsageError, match=f"of another run, {what}"):
        Checkpoint(path, identity).read()


def test_a_full_disk_is_an_error_and_leaves_the_checkpoint_before(model, tmp_path):
    path = tmp_path / "checkpoint"
    config = TrainConfig(batch=32, max_steps=20)
    checkpoint = written(model, path, config)
    checkpoint.read()
    before, state = path.read_bytes(), checkpoint.state("training")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(UsageError, match=r"cannot be written: .*the one before is kept"):
            checkpoint.write("training", state)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint"]


@pytest.fixture(scope="module")
def bytes_of_a_checkpoint(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "checkpoint"
    written(model, path, TrainConfig(batch=32, max_steps=20))
    return path.read_bytes()


@given(data=st.data())
def test_damage_is_an_error_in_words(bytes_of_a_checkpoint, tmp_path_factory, data):
    whole = bytes_of_a_checkpoint
    path = tmp_path_factory.mktemp("damaged") / "checkpoint"
    position = data.draw(st.integers(0, len(whole) - 1))
    bit = data.draw(st.integers(0, 7))
    damaged = bytearray(whole)
    damaged[position] ^= 1 << bit
    path.write_bytes(damaged if data.draw(st.booleans()) else whole[:position])
    with pytest.raises(UsageError, match=r"is damaged|of another run|another version"):
        Checkpoint(path, IDENTITY).read()
