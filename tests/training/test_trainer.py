"""Whole training runs."""

import numpy as np
import pytest
import torch

from stanflow.flow.config import FlowConfig
from stanflow.flow.sweep import Sweep
from stanflow.training import trainer
from stanflow.training.optimizers import FlatAdam
from stanflow.training.schedule import Plateau

from .targets import TARGET, GaussianTarget, StudentTTarget, trained


def test_a_full_rank_fit_recovers_a_gaussian_exactly():
    flow, result = trained(FlowConfig(family="fullrank", base="gaussian"), max_steps=1500)
    z, log_q = (t.detach().numpy() for t in flow.sample(2000, torch.Generator().manual_seed(9)))
    log_p = TARGET.log_density_gradient(z).log_density + TARGET.normalizing_constant.value
    assert np.std(log_p - log_q) < 0.02  # the same density, point by point
    assert abs(np.mean(log_p - log_q)) < 0.002
    assert result.stopped == "converged"
    assert len(result.trace) < 1500  # were allowed, and 2000 it takes to see no rise


@pytest.mark.parametrize(
    ("location", "scale"), [(1e4, 1e-3), (-1e6, 1.0), (0.0, 1e-8), (1e6, 1e3), (1e3, 1e5)]
)
def test_posteriors_of_any_location_and_scale_are_fitted_alike(location, scale):
    """float32 cannot tell 10,000 from 10,000.0005: training must not notice."""
    correlated = scale**2 * np.array([[1.0, 0.7], [0.7, 1.0]])
    target = GaussianTarget([location, location], correlated)
    flow, _ = trained(FlowConfig(family="fullrank", base="gaussian"), target, max_steps=1500)
    z, log_q = (t.detach().numpy() for t in flow.sample(2000, torch.Generator().manual_seed(9)))
    log_p = target.log_density_gradient(z).log_density + target.normalizing_constant.value
    assert np.std(log_p - log_q) < 0.02
    assert abs(np.mean(log_p - log_q)) < 0.002


def test_the_trace_holds_the_elbo_in_the_targets_own_units():
    _, result = trained(
        FlowConfig(family="fullrank", base="gaussian"),
        GaussianTarget([50.0, 3.0], np.diag([100.0, 1e-4])),
        max_steps=300,
    )
    evidence = np.log(2 * np.pi * 10 * 1e-2)  # the constant was left out of the density
    assert result.trace[-1].elbo == pytest.approx(evidence, abs=0.01)


def test_the_count_of_gradient_evaluations_is_true():
    target = GaussianTarget([0.0, 0.0], np.eye(2))
    _, result = trained(FlowConfig(layers=2), target, batch=32, max_steps=10)
    assert result.gradient_evaluations + result.density_evaluations == target.evaluations


def test_the_seed_decides_everything():
    one, again, other = (
        trained(FlowConfig(layers=4), seed=s, max_steps=30)[0].state_dict() for s in (1, 1, 2)
    )
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_training_in_float64_and_by_rebuilding_agree_with_the_defaults():
    """The same noise would give the same path; rounding makes it drift, slowly."""
    elbos = {}
    for settings in ({}, {"memory": "rebuild"}, {"precision": "float64"}):
        _, result = trained(FlowConfig(layers=4), max_steps=400, **settings)
        elbos[str(settings)] = np.mean([step.elbo for step in result.trace[-50:]])
    evidence = -TARGET.normalizing_constant.value
    assert all(elbo == pytest.approx(evidence, abs=0.05) for elbo in elbos.values()), elbos


def test_total_gradients_train_too():
    _, result = trained(
        FlowConfig(family="fullrank", base="gaussian"),
        gradient="total",
        tail_share=0.0,
        schedule="cosine",
        max_steps=1500,
    )
    elbo = np.mean([step.elbo for step in result.trace[-50:]])
    assert elbo == pytest.approx(-TARGET.normalizing_constant.value, abs=0.02)


def test_the_best_parameters_of_the_second_half_are_kept():
    """With a learning rate far too high the last parameters are bad."""
    settings = {"max_steps": 40, "learning_rate": 0.5, "schedule": "constant"}
    flow, result = trained(FlowConfig(layers=2), keep_best=True, precision="float64", **settings)
    second_half = [step for step in result.trace if step.step > 20]
    best = max(second_half, key=lambda step: step.elbo)
    # What the parameters were before that step.
    before, _ = trained(
        FlowConfig(layers=2),
        precision="float64",
        **settings | {"max_steps": best.step - 1},
    )
    torch.testing.assert_close(flow.flat, before.flat)
    last, _ = trained(FlowConfig(layers=2), precision="float64", **settings)
    assert not torch.allclose(last.flat, flow.flat)


def test_the_best_parameters_of_a_run_that_converged_are_kept():
    settings = {"max_steps": 5000, "min_steps": 100, "start": "mean-field"}
    best, result = trained(FlowConfig(family="meanfield"), keep_best=True, **settings)
    last, _ = trained(FlowConfig(family="meanfield"), **settings)
    assert result.stopped == "converged"
    assert not torch.equal(best.flat, last.flat)


@pytest.mark.parametrize(
    ("highest_k", "largest_divergence", "ends_early"),
    [(-np.inf, np.inf, False), (np.inf, 1e-3, False), (np.inf, 0.1, True)],
)
def test_an_end_is_none_where_weights_say_that_much_is_left(
    monkeypatch, highest_k, largest_divergence, ends_early
):
    """A normal for a Student-t, from which it is some hundredths of a nat away."""
    monkeypatch.setattr(trainer, "_HIGHEST_K_TO_END_WITH", highest_k)
    monkeypatch.setattr(Plateau, "largest_divergence", largest_divergence)
    target = StudentTTarget([0.0, 0.0], [1.0, 1.0], degrees_of_freedom=20)
    config = FlowConfig(layers=2, base="gaussian", marginal_layers=0)
    _, result = trained(config, target, max_steps=4000)
    assert result.stopped == "converged"
    assert (len(result.trace) < 2000) == ends_early  # as many it takes to see that nothing rises
    assert result.gradient_evaluations + result.density_evaluations == target.evaluations


def test_the_settings_reach_the_first_step(monkeypatch):
    """Of path and total gradients, of tails, Adam's betas, the schedule and the memory budget."""
    shares, memory = [], []
    step, make = FlatAdam.step, Sweep.__init__
    plain = {"max_steps": 3, "schedule": "cosine", "tail_share": 0.0}

    def spying_step(self, share):
        shares.append(share)
        return step(self, share)

    def spying_make(self, *arguments, **settings):
        make(self, *arguments, **settings)
        memory.append(self.memory)

    monkeypatch.setattr(FlatAdam, "step", spying_step)
    monkeypatch.setattr(Sweep, "__init__", spying_make)
    path, total, tails, betas, small = (
        trained(FlowConfig(layers=2), precision="float64", **plain | settings)[0].flat
        for settings in (
            {},
            {"gradient": "total"},
            {"tail_share": 0.5},
            {"adam_betas": (0.0, 0.5)},
            {"memory_budget_mb": 1e-3},
        )
    )
    assert shares[:3] == pytest.approx([1, 0.01 + 0.99 * 0.75, 0.01 + 0.99 * 0.25])
    assert memory == ["keep", "keep", "keep", "keep", "rebuild"]
    assert not torch.allclose(path, total)
    assert not torch.allclose(path, tails)
    assert not torch.allclose(path, betas)
    torch.testing.assert_close(path, small)


def test_without_a_start_training_begins_at_the_origin():
    one_step = {"max_steps": 1, "learning_rate": 1e-12, "start": "none"}
    flow, result = trained(FlowConfig(layers=2), **one_step)
    torch.testing.assert_close(flow.output.shift, torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(flow.output.log_scale, torch.zeros(3, dtype=torch.float64))
    assert result.gradient_evaluations == 256


def test_the_trace_holds_the_largest_value_of_every_layer():
    _, result = trained(FlowConfig(layers=5), max_steps=3)
    assert all(step.largest.shape == (6,) for step in result.trace)
    assert all((step.largest > 0).all() for step in result.trace)


def test_torch_threads_are_as_before():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    trained(FlowConfig(layers=1), max_steps=2)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_training_begins_wider_than_the_mean_field_fit():
    one_step = {"max_steps": 1, "learning_rate": 1e-12}
    flow, _ = trained(FlowConfig(family="meanfield"), **one_step)
    scale = flow.output.log_scale.detach().exp().numpy()
    np.testing.assert_allclose(scale, 3 / np.sqrt(np.diag(TARGET.precision)), rtol=0.5)


def test_max_seconds_ends_a_run():
    _, result = trained(FlowConfig(layers=4), max_steps=10**6, max_seconds=0.5, schedule="constant")
    assert result.stopped == "max_seconds"
    assert 0 < len(result.trace) < 10**6
