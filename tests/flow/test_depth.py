import pytest
import torch

from stanflow.flow.config import FlowConfig
from stanflow.flow.coupling import AffineCoupling
from stanflow.flow.depth import layers_at_first
from stanflow.flow.realnvp import build_flow
from stanflow.flow.wiring import Wiring


def kinds(layers):
    return [type(layer).__name__ for layer in layers]


@pytest.mark.parametrize("layers", [12, 16, 24])
@pytest.mark.parametrize("marginal_layers", [0, 1, 4, 7])
def test_what_a_flow_begins_with_is_built_like_a_flow_of_eight(layers, marginal_layers):
    config = FlowConfig(layers=layers, hidden=4, marginal_layers=marginal_layers)
    small = FlowConfig(layers=8, hidden=4, marginal_layers=marginal_layers)
    flow, like = (build_flow(c, 5, seed=1) for c in (config, small))
    assert kinds(layers_at_first(flow)) == kinds(like.bijections)


@pytest.mark.parametrize(
    ("dim", "config"),
    [
        (5, FlowConfig(layers=8)),
        (21, FlowConfig(layers=16, hidden=4)),
        (1, FlowConfig()),
        (5, FlowConfig(family="fullrank")),
        (5, FlowConfig(layers=16, marginal_layers=9)),
        (5, FlowConfig(layers=9, marginal_layers=7)),
    ],
)
def test_others_begin_whole(dim, config):
    flow = build_flow(config, dim, seed=1)
    assert layers_at_first(flow) == flow.bijections


def test_a_flow_of_some_layers_is_the_flow_where_the_others_are_the_identity():
    wiring = Wiring.alternating(5, 12)
    flow = build_flow(FlowConfig(layers=12, hidden=4, partners=0), 5, 1, wiring).double()
    some = layers_at_first(flow)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        flow.base.log_degrees_minus_one.add_(0.3)
        for layer in some:
            for parameter in layer.parameters():
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    small = flow.of_layers(some)
    z = torch.randn(20, 5, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(small.log_prob(z), flow.log_prob(z))
    assert (small.couplings, small.wiring.layers) == (8, 8)
    assert small.flat.numel() == sum(p.numel() for p in small.parameters())
    moved = [layer.moved.tolist() for layer in some if isinstance(layer, AffineCoupling)]
    assert [half.moved.tolist() for half in small.wiring.halves] == moved
    small.flat.zero_()
    assert flow.flat.any()
