"""Every configuration of a flow, for property tests."""

import numpy as np
import torch
from hypothesis import strategies as st

from stanflow.flow.config import (
    BaseName,
    ClampName,
    Family,
    FlowConfig,
)
from stanflow.flow.realnvp import build_flow
from stanflow.flow.wiring import Wiring
from stanflow.kernels import library


def choices(literal):
    return st.sampled_from(literal.__args__)


configs = st.builds(
    FlowConfig,
    family=choices(Family),
    layers=st.integers(1, 6),
    hidden=st.integers(1, 9),
    base=choices(BaseName),
    base_location_scale=st.booleans(),
    clamp=choices(ClampName),
    clamp_positive=st.floats(0.05, 1),
    clamp_negative=st.floats(0.1, 3),
    loft_tau=st.one_of(st.none(), st.floats(0.5, 100)),
    local_features=st.integers(1, 4),
    marginal_layers=st.integers(0, 4),
)

dims = st.integers(1, 20).map(lambda dim: 131 if dim == 20 else dim)
"""For both ways of evaluating the networks; see network.py."""

seeds = st.integers(0, 10_000)

batches = st.sampled_from([1, 7, 64, 137, 300])
"""Fewer draws than a processor's vector, whole vectors, more than are worked on at a time, and more
than one thread takes."""


def random_wiring(config, dim, rng):
    """Random halves, and partners among the kept, some of them missing; None in some cases."""
    if config.family != "realnvp" or dim == 1 or rng.random() < 0.3:
        return None
    n_partners = int(rng.integers(0, 4))
    moved = [rng.permutation(dim)[: rng.integers(1, dim)] for _ in range(config.layers)]
    partners = [
        rng.choice(np.append(np.setdiff1d(np.arange(dim), half), -1), (len(half), n_partners))
        for half in moved
    ]
    return Wiring(dim, moved, partners)


def random_flow(config, dim, seed, spread=0.3, wired=True):
    """A flow with random parameters and, in most cases, a random wiring; float64.

    Without a clamp large parameters make values explode, and no two ways of rounding agree.
    """
    if config.clamp == "none":
        spread /= 10
    wiring = random_wiring(config, dim, np.random.default_rng(seed)) if wired else None
    flow = build_flow(config, dim, seed, wiring).double()
    torch.manual_seed(seed)
    flow.flat.add_(spread * torch.randn_like(flow.flat))
    return flow


def generator(seed=1):
    return torch.Generator().manual_seed(seed)


def by_autograd(flow, n, seed, wanted):
    """Derivatives by automatic differentiation of the plain maps.

    Parameters
    ----------
    wanted : callable
        Gets z and log q, both differentiable, and the score; returns the loss.

    Returns
    -------
    z, log_q, score : (n, D), (n,) and (n, D), from the inverse pass
    gradient : (P,)
        Of the loss with respect to the flow's parameters.
    """
    z = flow.base.sample(n, generator(seed))
    log_q = flow.base.log_prob(z)
    for bijection in flow.bijections:
        z, log_det = bijection(z)
        log_q = log_q - log_det
    points = z.detach().requires_grad_()
    log_prob = flow.log_prob(points)
    (score,) = torch.autograd.grad(log_prob.sum(), points)
    flow.flat_gradient.zero_()
    loss = wanted(z, log_q, score)
    gradient = torch.zeros_like(flow.flat)
    if flow.flat.numel():
        parameters = list(flow.parameters())
        parts = torch.autograd.grad(loss, parameters, allow_unused=True)
        gradient = torch.cat(
            [
                (torch.zeros_like(p) if part is None else part).flatten()
                for p, part in zip(parameters, parts, strict=True)
            ]
        )
    return z.detach(), log_prob.detach(), score, gradient


WITH_AND_WITHOUT_COMPILED = [use for use in (True, False) if not use or library.load() is not None]
