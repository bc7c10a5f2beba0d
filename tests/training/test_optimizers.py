import math

import pytest
import torch

from stanflow.flow.config import FlowConfig
from stanflow.flow.realnvp import build_flow
from stanflow.training.config import TrainConfig
from stanflow.training.optimizers import FlatAdam


@pytest.mark.parametrize("share", [1.0, 0.505, 0.01])
def test_a_step_is_as_long_as_the_share_of_the_learning_rate(share):
    """Adam's first step moves each parameter by the learning rate."""
    flow = build_flow(FlowConfig(layers=2), 2, 1).double()
    optimizer = FlatAdam(flow, TrainConfig(learning_rate=0.1))
    before = flow.flat.clone()
    flow.flat_gradient.fill_(3.0)
    optimizer.step(share)
    torch.testing.assert_close(before - flow.flat, torch.full_like(before, 0.1 * share))


def test_averages_that_are_taken_up_again_or_forgotten():
    """Against an optimizer that went on, and one that is new."""

    def prepared():
        flow = build_flow(FlowConfig(layers=2), 2, 1).double()
        return flow, FlatAdam(flow, TrainConfig(learning_rate=0.1))

    def step(flow, optimizer, gradient):
        flow.flat_gradient.fill_(gradient)
        optimizer.step(1.0)

    flow, optimizer = prepared()
    step(flow, optimizer, 3.0)
    resumed, another = prepared()
    resumed.flat.copy_(flow.flat)
    another.restore({name: average.clone() for name, average in optimizer.state().items()})
    for each in ((flow, optimizer), (resumed, another)):
        step(*each, -1.0)
    assert torch.equal(flow.flat, resumed.flat)


@pytest.mark.parametrize(("longest", "length"), [(0.5, 0.5), (1e6, None), (None, None)])
def test_gradients_are_shortened_to_the_norm_allowed(longest, length):
    flow = build_flow(FlowConfig(layers=2), 2, 1)
    optimizer = FlatAdam(flow, TrainConfig(max_gradient_norm=longest))
    flow.flat_gradient.fill_(3.0)
    whole = 3 * math.sqrt(flow.flat.numel())
    assert optimizer.step(1.0) == pytest.approx(whole, rel=1e-5)
    assert float(flow.flat_gradient.norm()) == pytest.approx(length or whole, rel=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_step_along_a_gradient_that_is_not_finite_is_not_taken(bad):
    flow = build_flow(FlowConfig(layers=2), 2, 1)
    optimizer = FlatAdam(flow, TrainConfig())
    before = flow.flat.clone()
    flow.flat_gradient[3] = bad
    assert math.isnan(optimizer.step(1.0))
    assert torch.equal(flow.flat, before)
