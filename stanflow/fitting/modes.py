"""Modes that a flow has missed and chains from elsewhere have found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from stanflow.arrays import FloatArray
from stanflow.estimates.modes import Mode, find_modes
from stanflow.flow.mixture_base import MixtureBase
from stanflow.flow.realnvp import Flow
from stanflow.sampling.pullback import images
from stanflow.stan.density import CountingTarget
from stanflow.statistics.importance_weights import normalized
from stanflow.training.start import begin_apart

_FARTHEST = 80.0  # units of the start; LOFT bends beyond 100
_DRAWS_TO_BALANCE = 4000


def modes_of(
    target: CountingTarget, visited: FloatArray, known: Sequence[Mode], seed: int
) -> tuple[Mode, ...]:
    """Return the modes that chains were in, where there are several to learn; else none.

    Parameters
    ----------
    target : CountingTarget
    visited : array of shape (n, C, D)
        Where the chains were.
    known : sequence of Mode
        From earlier chains.
    seed : int
    """
    finite = np.isfinite(visited).all(axis=(0, 2))
    chains = [*visited[:, finite].swapaxes(0, 1), *(mode.points for mode in known)]
    modes = find_modes(target, chains, np.random.default_rng(seed)) if chains else ()
    if len(modes) < 2:
        return ()
    _, centres = begin_apart([mode.points for mode in modes])
    return modes if np.abs(centres).max() <= _FARTHEST else ()


def shares_of_modes(flow: Flow) -> list[float] | None:
    """Return how much each copy of a flow's base holds, the heaviest first; None of one base."""
    if not isinstance(flow.base, MixtureBase):
        return None
    return sorted(flow.base.log_weights.exp().tolist(), reverse=True)


@torch.no_grad()
def balance(flow: Flow, target: CountingTarget, seed: int) -> None:
    """Give the copies of a flow's base the weights that its draws' importance weights say.

    Parameters
    ----------
    flow : Flow
        Trained, in float64; its base is a `MixtureBase`.
    target : CountingTarget
    seed : int
        For the draws.
    """
    base = flow.base
    assert isinstance(base, MixtureBase)
    e = base.sample(_DRAWS_TO_BALANCE, torch.Generator().manual_seed(seed))
    z, log_q = images(flow, e.numpy())
    log_ratio = target.log_density(z) - log_q
    weights = np.exp(normalized(np.where(np.isfinite(log_ratio), log_ratio, -np.inf)))
    shares = base.responsibilities(e) @ torch.from_numpy(weights)
    if torch.isfinite(shares).all() and (shares > 0).all():
        base.log_weights.copy_(shares.log())
