"""Whether the flow's tails are as heavy as the posterior's, beyond where its draws come."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from stanflow.arrays import FloatArray
from stanflow.estimates.missing_mass import LOG_WEIGHT_OF_MISSING
from stanflow.flow.realnvp import Flow
from stanflow.flow.sweep import Sweep
from stanflow.stan.density import Density

_HEAVIEST_LEFT_OUT = 3
_LARGEST_EXPONENT = 700.0  # of a finite exponential
_CHUNK = 1024


@dataclass(frozen=True)
class TailCheck:
    """What draws with heavier tails than the flow's say.

    Attributes
    ----------
    missing : float
        Share of the posterior where ``p / q`` is above 100 times the evidence and p is finite,
        estimated without the three heaviest draws, which may carry anything: so rather too low
        than too high.
    """

    missing: float


def check_tails(flow: Flow, target: Density, log_evidence: float, n: int, seed: int) -> TailCheck:
    """Estimate the posterior's share that the flow's tails are too light for.

    The flow's draws end where its density does, so their weights cannot tell of heavier tails. Here
    one coordinate of each base draw, taken at random, comes from a Cauchy distribution. Such draws
    have the density ``q(z) mean_i[ c(e_i) / b_i(e_i) ]``, with c the Cauchy's and b_i the base's
    density, so importance sampling with them is as exact as with the flow's own, and it reaches the
    tails.

    Parameters
    ----------
    flow : Flow
        In float64.
    target : Density
        The density p.
    log_evidence : float
        The flow's estimate, without Stan's dropped constants.
    n : int
        Draws to take.
    seed : int
        For the draws.
    """
    generator = torch.Generator().manual_seed(seed)
    sweep = Sweep(flow, _CHUNK, memory="rebuild", with_score=False)
    log_ratio = []
    for start in range(0, n, _CHUNK):
        drawn = _draw(sweep, generator)
        z, log_q, log_widening = (array[: n - start] for array in drawn)
        with np.errstate(invalid="ignore"):
            log_p = target.log_density(z)
            log_weight = log_p - log_q - log_evidence
        # An infinite density is that of a boundary to which a draw was rounded.
        missing = np.isfinite(log_p) & (log_weight > LOG_WEIGHT_OF_MISSING)
        log_ratio.append(np.where(missing, log_weight - log_widening, -np.inf))
    ratio = np.sort(np.exp(np.minimum(np.concatenate(log_ratio), _LARGEST_EXPONENT)))
    return TailCheck(float(ratio[:-_HEAVIEST_LEFT_OUT].sum() / n))


@torch.no_grad()
def _draw(sweep: Sweep, generator: torch.Generator) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return draws, the flow's log density there, and the log of the proposal's over it."""
    base = sweep.flow.base
    e = base.sample_widened(sweep.batch, generator, share=1.0)
    log_base = base.log_prob(e)
    log_widening = base.widened(e)[0] - log_base
    sweep.carry(e.T, log_base)
    z = sweep.z.T.contiguous()
    return z.numpy(), sweep.log_q.numpy().copy(), log_widening.numpy()
