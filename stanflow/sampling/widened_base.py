"""A flow's base with heavier tails: where annealing starts."""

from __future__ import annotations

import math

import numpy as np
import torch
from typing_extensions import override

from stanflow.arrays import FloatArray
from stanflow.flow.base import Base
from stanflow.stan.density import Density, DensityBatch

_WIDENED = 0.5  # share of the draws


class WidenedBase(Density):
    """The base b, half of whose draws have one coordinate, any of them, from a Cauchy distribution.

    ``b(e) (1 / 2 + 1 / (2 D) sum_i c(e_i) / b_i(e_i))``, c the standard Cauchy density. A particle
    that a flow's base would never send, to the neck of a funnel, say, is among these; and as the
    density is known, no weight is wrong for it. Half of it is the base: no weight relative to the
    base is above 2, in any dimension (a defensive mixture: Hesterberg 1995, Technometrics 37).

    Parameters
    ----------
    base : Base
        Its densities are b_i where coordinates are independent; in float64.

    Examples
    --------
    >>> from stanflow.flow.base import Gaussian
    >>> wide = WidenedBase(Gaussian(3).double())
    >>> e = wide.sample(1000, torch.Generator().manual_seed(1))
    >>> e.shape, bool(np.abs(e).max() > 10)
    ((1000, 3), True)
    """

    def __init__(self, base: Base) -> None:
        self._base = base

    @property
    @override
    def dim(self) -> int:
        return self._base.dim

    def sample(self, n: int, generator: torch.Generator) -> FloatArray:
        """Return n draws, (n, D)."""
        return np.ascontiguousarray(self._base.sample_widened(n, generator, _WIDENED).numpy())

    @override
    @torch.no_grad()
    def log_density_gradient(self, z: FloatArray) -> DensityBatch:
        e = torch.from_numpy(z)
        log_widened, score_widened = self._base.widened(e)
        parts = torch.stack(
            [
                self._base.log_prob(e) + math.log(1 - _WIDENED),
                log_widened + math.log(_WIDENED),
            ]
        )
        share, own = torch.softmax(parts, dim=0)[..., None], self._base.score(e)
        gradient = share[0] * own + share[1] * score_widened
        log_density = torch.logsumexp(parts, dim=0)
        return DensityBatch(log_density.numpy(), gradient.numpy(), np.ones(len(z), dtype=bool))
