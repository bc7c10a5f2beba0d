"""Moving draws that was cut off goes on to the same numbers."""

import numpy as np
import pytest
import torch

import stanflow
import stanflow.refine.refine as refine_module
import stanflow.training.checkpoint as checkpoint_module
from stanflow.estimates.draws import draw
from stanflow.flow.config import FlowConfig
from stanflow.flow.realnvp import build_flow
from stanflow.refine.config import RefineConfig
from stanflow.refine.refine import refine
from stanflow.stan.density import CountingTarget
from stanflow.training.checkpoint import Checkpoint

CONFIG = RefineConfig(particles=64, most_evaluations=30_000)


@pytest.fixture(autouse=True)
def always_due(monkeypatch):
    """However much of the time writing takes."""
    monkeypatch.setattr(checkpoint_module, "_LARGEST_SHARE_OF_TIME", np.inf)


class Stopped(Exception):  # noqa: N818
    """The process dies here."""


@pytest.fixture(scope="module")
def model():
    return stanflow.StanModel(
        stan_code="parameters { vector[4] x; } model { x ~ student_t(3, 1, 2); }",
        engine="embedded",
    )


def narrow_flow(width=0.8):
    flow = build_flow(FlowConfig(family="meanfield", base="gaussian"), 4, seed=1).double()
    with torch.no_grad():
        flow.output.log_scale.fill_(np.log(width))
    return flow


def moved(model, checkpoint=None, *, should_stop=lambda: False, flow=None, told=None):
    """Move draws; return them, and how many gradients that took."""
    flow = narrow_flow() if flow is None else flow
    target = CountingTarget(model)
    densities = draw(flow, target, 500, 1).densities
    before = target.evaluations
    keep = None
    if checkpoint is not None:
        checkpoint.read()
        keep = checkpoint.keep("refine")
    refined = refine(
        flow,
        target,
        densities,
        CONFIG,
        draws=1000,
        seed=3,
        should_stop=should_stop,
        on_round=([] if told is None else told).append,
        keep=keep,
    )
    return refined, target.evaluations - before


def asked(times, answer):
    """Return what answers no so many times."""
    questions = iter([False] * times)

    def should_stop():
        said = next(questions, None)
        return answer() if said is None else said

    return should_stop


def die():
    raise Stopped


def same(one, other):
    for name in ("base_points", "z", "log_p", "log_q"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for name in ("annealed", "bridge", "settling", "eubo", "transitions", "stopped"):
        assert getattr(one, name) == getattr(other, name), name


def test_after_any_death_it_goes_on_to_the_same_numbers(model, tmp_path):
    """In annealing, at the posterior before there is a snapshot, and among snapshots."""
    told, told_again = [], []
    whole, evaluations = moved(model, told=told)
    assert whole.temperatures > 6
    assert whole.transitions >= 40
    path = tmp_path / "checkpoint"
    of_one_life = (4, 3, whole.temperatures, 21, 1)
    for questions in of_one_life:
        with pytest.raises(Stopped):
            moved(model, Checkpoint(path, {}, every=0.0), should_stop=asked(questions, die))
    again, evaluations_again = moved(model, Checkpoint(path, {}, every=0.0), told=told_again)
    same(whole, again)
    assert evaluations_again == evaluations
    assert told_again[-1].round == told[-1].round
    assert len(told_again) < len(told)


@pytest.mark.parametrize("questions", [3, 30])
def test_what_was_asked_to_stop_is_kept_at_once(model, tmp_path, questions):
    """As SIGTERM asks, long before the next checkpoint is due."""
    checkpoint = Checkpoint(tmp_path / "checkpoint", {}, every=1e9)
    moved(model, checkpoint, should_stop=asked(questions, lambda: True))
    told = []
    again, _ = moved(model, Checkpoint(tmp_path / "checkpoint", {}, every=1e9), told=told)
    same(moved(model)[0], again)
    assert told[0].round > 1


def test_where_another_flow_got_to_is_nothing_to_go_on_from(model, tmp_path):
    checkpoint = Checkpoint(tmp_path / "checkpoint", {}, every=0.0)
    moved(model, checkpoint, should_stop=asked(5, lambda: True))
    other = narrow_flow(0.7)
    same(moved(model, flow=other)[0], moved(model, checkpoint, flow=other)[0])


def test_a_fit_that_dies_in_its_second_annealing_ends_at_the_same_numbers(
    model, tmp_path, monkeypatch
):
    monkeypatch.setattr(refine_module, "_SHARE_BEFORE_SHARPENING", 0.0)
    monkeypatch.setattr(refine_module, "_FAR", -np.inf)
    monkeypatch.setattr(refine_module, "restraint_to_reach", lambda *args: None)
    settings = {
        "training": stanflow.TrainConfig(max_steps=50),
        "refining": RefineConfig(when="always", particles=64, most_evaluations=40_000),
        "draws": 500,
    }
    told = []
    whole = stanflow.fit(model, on_round=told.append, **settings)
    assert "sharpening" in whole.report["stages"]
    first = next(i for i, step in enumerate(told) if step.inverse_temperature == 1)
    second = next(i for i, step in enumerate(told[first:], first) if step.inverse_temperature < 1)

    def dying(step):
        if step.round == told[second].round + 3:
            raise Stopped

    kept = {"checkpoint": tmp_path / "checkpoint", "checkpoint_every": 0.0}
    with pytest.raises(Stopped):
        stanflow.fit(model, on_round=dying, **settings, **kept)
    told_again = []
    again = stanflow.fit(model, on_round=told_again.append, **settings, **kept)
    np.testing.assert_array_equal(again.z, whole.z)
    for name in ("gradient_evaluations", "refine", "log_evidence", "verdict"):
        assert again.report[name] == whole.report[name], name
    assert told_again[-1].round == told[-1].round
    assert len(told_again) < len(told) - first
