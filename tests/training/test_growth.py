"""Flows that begin with few layers, and take in the others where the log weights ask for them."""

import numpy as np
import pytest
import torch

from stanflow.flow.config import FlowConfig
from stanflow.flow.realnvp import build_flow
from stanflow.training.checkpoint import Checkpoint
from stanflow.training.config import TrainConfig

from .targets import GaussianTarget, StudentTTarget, begin_and_train

NEARLY_NORMAL = GaussianTarget([1.0, -2.0, 30.0], [[1.0, 0.8, 0], [0.8, 1.0, 0], [0, 0, 100.0]])
HEAVY_TAILED = StudentTTarget([0.0, 1.0, 2.0], [1.0, 2.0, 3.0], 1.5)
FLOW = FlowConfig(layers=12, hidden=4)


class Stopped(Exception):  # noqa: N818
    """The process dies here."""


def run(target, checkpoint=None, die_at=None, *, grows=True, **settings):
    def on_step(step):
        if step.step == die_at:
            raise Stopped

    config = TrainConfig(batch=64, **settings)
    flow = build_flow(FLOW, target.dim, 7)
    return begin_and_train(
        flow, target, config, 11, on_step=on_step, checkpoint=checkpoint, grows=grows
    )


def test_eight_layers_are_enough_for_what_is_nearly_normal():
    result = run(NEARLY_NORMAL)
    assert result.flow.couplings == 8
    assert (result.stopped, len(result.trace)) == ("converged", 450)
    evidence = -NEARLY_NORMAL.normalizing_constant.value
    elbos = [step.elbo for step in result.trace[-50:]]
    assert np.median(elbos) == pytest.approx(evidence, abs=0.02)


def test_other_posteriors_are_given_all_layers():
    result = run(HEAVY_TAILED, max_steps=400)
    assert result.flow.couplings == 12
    assert {len(step.largest) for step in result.trace} == {13}
    before, after = result.trace[149].largest, result.trace[-1].largest
    joining = [3, 6, 9, 12]
    assert (before[joining] == before[np.subtract(joining, 1)]).all()
    assert (after[joining] != after[np.subtract(joining, 1)]).all()


def test_a_flow_of_given_depth_keeps_it():
    assert run(NEARLY_NORMAL, grows=False, max_steps=200).flow.couplings == 12
    assert run(NEARLY_NORMAL, max_steps=200, schedule="constant").flow.couplings == 12


def test_a_short_run_stays_small():
    """Its learning rate falls before anything could come of more layers."""
    assert run(HEAVY_TAILED, max_steps=200).flow.couplings == 8


@pytest.mark.parametrize("target", [NEARLY_NORMAL, HEAVY_TAILED], ids=["normal", "heavy"])
def test_a_run_that_died_goes_on_to_the_same_numbers(target, tmp_path):
    whole = run(target, max_steps=320)
    for die_at in (149, 151, 290):
        checkpoint = Checkpoint(tmp_path / "checkpoint", {}, every=0.0)
        with pytest.raises(Stopped):
            run(target, checkpoint, die_at, max_steps=320)
    again = run(target, Checkpoint(tmp_path / "checkpoint", {}, every=0.0), max_steps=320)
    assert torch.equal(whole.flow.flat, again.flow.flat)
    assert len(whole.trace) == len(again.trace)
    assert whole.gradient_evaluations == again.gradient_evaluations
