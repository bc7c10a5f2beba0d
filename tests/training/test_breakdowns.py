"""Training runs that meet values which are not finite, and how they end."""

import math
import re

import numpy as np
import pytest
import torch

from stanflow.flow.config import FlowConfig
from stanflow.flow.sweep import Sweep
from stanflow.stan.density import DensityBatch

from .targets import GaussianTarget, trained


class Repelling(GaussianTarget):
    """Its density rises outward without end, so that nothing holds the flow back."""

    def log_density_gradient(self, z):
        with np.errstate(over="ignore"):
            return DensityBatch(0.5 * (z**2).sum(1), z, np.isfinite(z).all(1))


@pytest.mark.parametrize("tail_share", [0.0, 0.5])
def test_an_exploding_flow_ends_in_words_that_say_so(tail_share):
    config = FlowConfig(layers=8, clamp="none", loft_tau=None, marginal_layers=0)
    flow, result = trained(
        config,
        Repelling([0.0, 0.0], np.eye(2)),
        max_steps=3000,
        start="none",
        learning_rate=0.05,
        tail_share=tail_share,
    )
    assert result.stopped == "breakdown"
    assert re.search(r"values reached .* after coupling layer", result.breakdown)
    assert torch.isfinite(flow.flat).all()  # as it was before


def test_failed_steps_must_be_in_a_row_to_end_a_run():
    class Flickering(GaussianTarget):
        def log_density_gradient(self, z):
            batch = super().log_density_gradient(z)
            dark = len(z) == 256 and self.evaluations // 256 % 2 == 0
            return DensityBatch(batch.log_density, batch.gradient, np.full(len(z), not dark))

    _, result = trained(
        FlowConfig(family="meanfield"), Flickering([0.0, 0.0], np.eye(2)), max_steps=300
    )
    assert result.skipped_steps == 150


def test_a_run_without_any_usable_draw_breaks_down_in_words():
    class Vanishing(GaussianTarget):
        def log_density_gradient(self, z):
            batch = super().log_density_gradient(z)
            accepted = np.full(len(z), self.evaluations < 10_000)
            return DensityBatch(batch.log_density, batch.gradient, accepted)

    _, result = trained(FlowConfig(layers=2), Vanishing([0.0, 0.0], np.eye(2)))
    assert result.stopped == "breakdown"
    assert re.search(r"broke down at step .*100 steps in a row", result.breakdown)


def test_a_step_with_a_gradient_that_is_not_finite_is_skipped_and_counted(monkeypatch):
    pull, calls = Sweep.pull, []

    def spoilt(self, *arguments):
        pull(self, *arguments)
        calls.append(None)
        if len(calls) % 5 == 0:
            self.flow.flat_gradient[-1] = math.inf

    monkeypatch.setattr(Sweep, "pull", spoilt)
    flow, result = trained(FlowConfig(layers=4), max_steps=50)
    assert result.skipped_steps == 10
    assert [step.step for step in result.trace if math.isnan(step.gradient_norm)] == list(
        range(5, 51, 5)
    )
    assert all(torch.isfinite(p).all() for p in flow.parameters())


def test_a_huge_gradient_is_shortened_and_does_no_harm():
    class Steep(GaussianTarget):
        def log_density_gradient(self, z):
            batch = super().log_density_gradient(z)
            if len(z) == 256:
                batch.gradient[0] = 1e38  # finite, but its square is not in float32
            return batch

    flow, _ = trained(FlowConfig(layers=4), Steep([0.0, 0.0], np.eye(2)), max_steps=20)
    assert all(torch.isfinite(p).all() for p in flow.parameters())
