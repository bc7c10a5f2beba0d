"""Have the loops of a library do what fits have them do, on three threads.

python exercise.py LIBRARY
"""

import ctypes
import sys

import numpy as np
import torch

from stanflow.flow.config import FlowConfig
from stanflow.flow.realnvp import build_flow
from stanflow.flow.sweep import Sweep
from stanflow.flow.wiring import Wiring
from stanflow.kernels import library
from stanflow.sampling.metric import Metric
from stanflow.sampling.standardize import StandardizedTarget
from stanflow.sampling.trajectories import Phase, trajectories
from stanflow.stan.density import CountingTarget
from stanflow.stan.model import StanModel
from stanflow.training.compiled_gradients import CompiledGradientEstimator
from stanflow.training.config import TrainConfig
from stanflow.training.gradients import GradientEstimator
from stanflow.training.optimizers import FlatAdam

THREADS = 3
# Some draws are rejected, and drawn back.
CODE = """
data { int D; }
parameters { vector[D] x; }
model { if (x[1] > 1.5) reject("beyond"); x ~ normal(0, 1); }
"""


def make_flow(dim, precision, base):
    rng = np.random.default_rng(1)
    halves = Wiring.alternating(dim, 6).halves
    partners = [rng.choice(half.kept, (len(half.moved), 1)) for half in halves]
    wiring = Wiring(dim, [half.moved for half in halves], partners)
    return build_flow(FlowConfig(layers=6, hidden=9, base=base), dim, 1, wiring).to(precision)


def make_estimator(flow, batch, target, *, total):
    sweep = Sweep(flow, batch, threads=THREADS, total=total, memory="keep")
    chain, density = sweep.chain, target.compiled_without_units()
    if chain is None or density is None or total:
        kind, tail_share = ("total", 0.0) if total else ("path", 0.5)
        return GradientEstimator(sweep, target, kind, tail_share, 100.0)
    return CompiledGradientEstimator(sweep, chain, target, density, tail_share=0.5, longest=100.0)


def exercise(dim, batch, precision, base):
    model = StanModel(stan_code=CODE, data={"D": dim}, engine="embedded", threads=THREADS)
    flow = make_flow(dim, precision, base)
    target = StandardizedTarget(CountingTarget(model), np.zeros(dim), np.zeros(dim), np.eye(dim))
    generator = torch.Generator().manual_seed(1)
    optimizer = FlatAdam(flow, TrainConfig())
    for total in (False, True):
        estimator = make_estimator(flow, batch, target, total=total)
        rejected = 0
        for _ in range(8):
            rejected += estimator.estimate(generator).rejected
            assert optimizer.step(0.1) > 0
        assert rejected > 0
        estimator.log_weights(generator)
        estimator.largest()
    points = 0.1 * np.random.default_rng(1).standard_normal((batch, dim))
    there, momentum = model.log_density_gradient(points), 10 * points
    start, step = Phase(points, momentum, there), np.full(batch, 0.2)
    ends = trajectories(model, Metric.of_scale(np.ones(dim)), start, step, 9)
    assert 0 < ends.there.accepted.sum() <= batch
    sweep = Sweep(flow, batch, threads=THREADS, memory="rebuild", with_score=False)
    sweep.draw(generator)
    z = sweep.z.T.double().numpy()
    assert np.isfinite(model.log_density(z)).any()
    model.constrain(z)


if __name__ == "__main__":
    loops = ctypes.CDLL(sys.argv[1])
    library.load = lambda: loops
    torch.set_num_threads(1)  # torch's own are none of a sanitizer's business
    exercise(5, 300, torch.float32, "student-t")
    exercise(3, 37, torch.float64, "gaussian")
    exercise(140, 130, torch.float32, "student-t")
    print("done")
