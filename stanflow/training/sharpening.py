"""Training on draws of the posterior: a flow that is too narrow learns where it has no draws.

Training by the ELBO sees the flow's own draws alone, and what they never reach it does not miss.
Draws that were moved to the posterior do reach it. At these the same path terms,
``(dT/dtheta)^T (d log q/dz - d log p/dz)``, have as their mean the gradient of the forward
divergence KL(p | q) (Vaitl et al. 2024, arXiv 2403.15881), and vanish where the flow is right, as
at its own draws. So half of a batch is of the one kind and half of the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy

import numpy as np
import torch

from stanflow.arrays import FloatArray
from stanflow.flow.realnvp import Flow
from stanflow.flow.sweep import Sweep
from stanflow.sampling.standardize import StandardizedTarget
from stanflow.stan.density import CountingTarget
from stanflow.training.config import TrainConfig
from stanflow.training.gradients import GradientEstimator
from stanflow.training.optimizers import FlatAdam
from stanflow.training.threads import threads_that_pay

_ROUNDS, _STEPS_A_ROUND = 20, 10
_POINTS_A_ROUND = 512
_SHARE_OF_POSTERIOR = 0.5  # of a batch
_FIRST_RATE = 0.3  # of training's


@torch.no_grad()
@np.errstate(all="ignore")  # what is not finite is skipped
def sharpen(
    flow: Flow,
    target: CountingTarget,
    z: FloatArray,
    config: TrainConfig,
    *,
    seed: int,
    should_stop: Callable[[], bool] = lambda: False,
) -> Flow:
    """Train a copy of a flow for 200 more steps, on its own draws and on the posterior's.

    Parameters
    ----------
    flow : Flow
        Trained, in float64 and the target's units.
    target : CountingTarget
        The density.
    z : array of shape (S, D)
        Draws of the posterior.
    config : TrainConfig
        Of the training before; the rate falls from 0.3 times its own along half a cosine.
    seed : int
        For the draws.
    should_stop : callable
        Asked every ten steps; once it says yes, it ends.

    Returns
    -------
    Flow
        In float64 and the target's units.
    """
    inner, units = StandardizedTarget.of_flow(flow, target)
    inner = inner.float()
    u = torch.from_numpy(units.in_units(z)).float()
    generator = torch.Generator().manual_seed(seed)
    batch = config.draws_a_step(flow.dim)
    given = int(_SHARE_OF_POSTERIOR * batch)
    with threads_that_pay(batch * flow.dim) as threads:
        sweep = Sweep(inner, batch, threads=threads)
        estimator = GradientEstimator(sweep, units, longest=config.max_gradient_norm)
        optimizer = FlatAdam(inner, config)
        for done in range(_ROUNDS):
            if should_stop():
                break
            rows = torch.randint(len(u), (_POINTS_A_ROUND,), generator=generator)
            base_points = inner.inverse(u[rows])[0]
            base_points = base_points[torch.isfinite(base_points).all(1)]
            rate = _FIRST_RATE * 0.5 * (1 + math.cos(math.pi * done / _ROUNDS))
            for _ in range(_STEPS_A_ROUND if len(base_points) >= given else 0):
                chosen = torch.randperm(len(base_points), generator=generator)[:given]
                estimator.estimate(generator, base_points[chosen])
                optimizer.step(rate)
    sharpened = deepcopy(flow)
    sharpened.flat[: len(inner.flat)].copy_(inner.flat)
    return sharpened
