"""A base with a copy of itself for each mode of a posterior.

A bijection of one blob onto modes that lie far apart has to tear it, and the ELBO rather gives up
all of them but one. Where it is known where the modes are, the base can have a blob for
each, and the layers give each its shape. Nothing has to be torn, and none can be given up, as the
blobs' weights are no parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from stanflow.flow.base import Base, BasePasses
from stanflow.flow.workspace import Workspace


class MixtureBase(Base):
    """``sum_k w_k b(e - c_k)``: a base's copies at K centres, with fixed weights.

    Samples are stratified: of n, mode k has n w_k, rounded up or down at random.

    Parameters
    ----------
    component : Base
        b; its parameters are common to all copies.
    centres : Tensor of shape (K, D)
    log_weights : Tensor of shape (K,)
        The exponentials add up to one.

    Examples
    --------
    >>> from stanflow.flow.base import Gaussian
    >>> centres, weights = torch.tensor([[-5.0], [5.0]]), torch.tensor([0.25, 0.75])
    >>> base = MixtureBase(Gaussian(1), centres, weights.log())
    >>> e = base.sample(1000, torch.Generator().manual_seed(1))
    >>> int((e > 0).sum())
    750
    """

    def __init__(self, component: Base, centres: Tensor, log_weights: Tensor) -> None:
        super().__init__(component.dim)
        self.component = component
        self.centres: Tensor
        self.log_weights: Tensor
        self.register_buffer("centres", centres)
        self.register_buffer("log_weights", log_weights)

    def choose(self, n: int, generator: torch.Generator) -> Tensor:
        """Return of which copies n samples are, (n,), in random order."""
        device = self.centres.device
        offset = torch.rand((), generator=generator, device=device, dtype=torch.float64)
        places = (torch.arange(n, device=device) + offset) / n
        bounds = self.log_weights.double().exp().cumsum(0)
        chosen = torch.searchsorted(bounds, places).clamp(max=len(bounds) - 1)
        return chosen[torch.randperm(n, generator=generator, device=device)]

    @override
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        chosen = self.choose(n, generator)
        return self.component.sample(n, generator) + self.centres[chosen]

    @override
    def sample_widened(self, n: int, generator: torch.Generator, share: float) -> Tensor:
        chosen = self.choose(n, generator)
        return self.component.sample_widened(n, generator, share) + self.centres[chosen]

    @override
    def log_prob(self, e: Tensor) -> Tensor:
        return torch.logsumexp(self._log_joint(e), dim=0)

    @override
    def score(self, e: Tensor) -> Tensor:
        joint = self._log_joint(e)
        scores = torch.stack([self.component.score(e - centre) for centre in self.centres])
        return _mixed(joint, scores)

    @override
    def widened(self, e: Tensor) -> tuple[Tensor, Tensor]:
        parts = [self.component.widened(e - centre) for centre in self.centres]
        log_densities, scores = (torch.stack(part) for part in zip(*parts, strict=True))
        joint = log_densities + self.log_weights[:, None]
        return torch.logsumexp(joint, dim=0), _mixed(joint, scores)

    def responsibilities(self, e: Tensor) -> Tensor:
        """Return the share of each copy in the density at points of shape (n, D), as (K, n)."""
        return torch.softmax(self._log_joint(e), dim=0)

    def _log_joint(self, e: Tensor) -> Tensor:
        """Return the log of each copy's part of the density, (K, n)."""
        log_densities = [self.component.log_prob(e - centre) for centre in self.centres]
        return torch.stack(log_densities) + self.log_weights[:, None]

    @override
    def passes(self, workspace: Workspace) -> BasePasses:
        return _MixturePasses(self, workspace)


def _mixed(log_joint: Tensor, scores: Tensor) -> Tensor:
    """Return the score of a mixture, (n, D), from its parts' (K, n) and (K, n, D)."""
    return (torch.softmax(log_joint, dim=0)[..., None] * scores).sum(0)


class _MixturePasses(BasePasses):
    def __init__(self, base: MixtureBase, workspace: Workspace) -> None:
        self._base = base
        self._component = base.component.passes(workspace)
        self._away = workspace.empty(base.dim, workspace.batch)

    @override
    def draw(
        self, e: Tensor, score: Tensor | None, log_q: Tensor, generator: torch.Generator
    ) -> None:
        self._component.draw(e, None, log_q, generator)
        chosen = self._base.choose(e.shape[1], generator)
        self._away.copy_(self._base.centres[chosen].T)
        self._put(e, score, log_q)

    @override
    def spread_out(
        self, e: Tensor, score: Tensor, log_q: Tensor, tails: int, generator: torch.Generator
    ) -> None:
        e.sub_(self._away)
        self._component.spread_out(e, score, log_q, tails, generator)
        self._put(e, score, log_q)

    def _put(self, e: Tensor, score: Tensor | None, log_q: Tensor) -> None:
        """Put the component's points where their centres are, and say what the density is there."""
        e.add_(self._away)
        log_q.copy_(self._base.log_prob(e.T))
        if score is not None:
            score.copy_(self._base.score(e.T).T)

    @override
    def pull(self, e: Tensor, cotangent: Tensor, log_q_weight: Tensor | None) -> None:
        if log_q_weight is not None:
            raise NotImplementedError("a mixture's base is trained by path gradients only")
        self._component.pull(e - self._away, cotangent, None)
