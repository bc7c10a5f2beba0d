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
        Independent coordinates with densities b_i, in float64.

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

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> FloatArray:
        """Return n draws, (n, D)."""
        e = self._base.sample(n, generator)
        is_widened = torch.rand(n, generator=generator) < _WIDENED
        widened = torch.randint(self.dim, (n,), generator=generator)[is_widened]
        e[is_widened, widened] = e.new_empty(len(widened)).cauchy_(generator=generator)
        return np.ascontiguousarray(e.numpy())

    @override
    @torch.no_grad()
    def log_density_gradient(self, z: FloatArray) -> DensityBatch:
        e = torch.from_numpy(z)
        marginal, score = self._base.marginal_log_probs(e), self._base.score(e)
        cauchy = -math.log(math.pi) - torch.log1p(e.square())
        log_share = cauchy - marginal + math.log(_WIDENED / self.dim)
        log_mixture = torch.logaddexp(
            torch.logsumexp(log_share, dim=1), torch.tensor(math.log(1 - _WIDENED))
        )
        share = torch.exp(log_share - log_mixture[:, None])
        gradient = score + share * (-2 * e / (1 + e.square()) - score)
        log_density = marginal.sum(1) + log_mixture
        return DensityBatch(log_density.numpy(), gradient.numpy(), np.ones(len(z), dtype=bool))
