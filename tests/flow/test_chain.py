"""Where chains are used, and that threads change nothing; test_sweep.py says they are right."""

import pytest
import torch

from stanflow.flow.chain import Chain
from stanflow.flow.config import FlowConfig
from stanflow.flow.realnvp import build_flow
from stanflow.flow.sweep import Sweep
from stanflow.kernels import library

from .configurations import generator, random_flow

pytestmark = pytest.mark.skipif(library.load() is None, reason="there are no compiled passes")


def of_chains(sweep):
    return [isinstance(layer, Chain) for layer in sweep._layers]


@pytest.mark.parametrize("dim", [1, 10, 128])
def test_the_default_flow_is_a_chain_but_for_its_last_layers(dim):
    flow = build_flow(FlowConfig(), dim, 1)
    chains = of_chains(Sweep(flow, 256))
    assert chains[0]
    assert len(chains) < len(flow.bijections) / 2


@pytest.mark.parametrize(("dim", "settings"), [(130, {}), (10, {"memory": "rebuild"})])
def test_there_are_none_in_many_dimensions_or_where_nothing_is_kept(dim, settings):
    assert not any(of_chains(Sweep(build_flow(FlowConfig(), dim, 1), 256, **settings)))


@pytest.mark.parametrize("batch", [100, 256, 1000])
def test_results_do_not_depend_on_threads(batch):
    flow = random_flow(FlowConfig(layers=4), 10, seed=1, spread=0.1)
    results = []
    for threads in (1, 2, 3):
        sweep = Sweep(flow, batch, threads=threads)
        sweep.draw(generator(), tails=batch // 2)
        sweep.pull(sweep.score + sweep.z)
        made = (sweep.z, sweep.score, sweep.log_q, sweep.largest(), flow.flat_gradient)
        results.append([tensor.clone() for tensor in made])
    for other in results[1:]:
        for one, another in zip(results[0], other, strict=True):
            assert torch.equal(one, another)
