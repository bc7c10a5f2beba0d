"""Base distributions: independent standard normal or Student-t coordinates."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from typing_extensions import override

_START_DEGREES_OF_FREEDOM = 30.0


class Base(nn.Module, ABC):
    """A distribution on R^D with independent coordinates."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Return n samples, (n, D), differentiable in the parameters."""

    @abstractmethod
    def log_prob(self, e: Tensor) -> Tensor:
        """Return the log density of points of shape (n, D), as (n,)."""

    @abstractmethod
    def score(self, e: Tensor) -> Tensor:
        """Return ``d log_prob / de``, (n, D), without an autograd graph."""


class Gaussian(Base):
    """The standard normal, N(0, I).

    Examples
    --------
    >>> Gaussian(2).score(torch.tensor([[1.0, -2.0]]))
    tensor([[-1.,  2.]])
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self._like: Tensor
        self.register_buffer("_like", torch.zeros(()), persistent=False)  # follows .double()

    @override
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, self.dim, generator=generator, dtype=self._like.dtype)

    @override
    def log_prob(self, e: Tensor) -> Tensor:
        return -0.5 * e.square().sum(-1) - 0.5 * self.dim * math.log(2 * math.pi)

    @override
    def score(self, e: Tensor) -> Tensor:
        return -e.detach()


class StudentT(Base):
    """Independent standard Student-t coordinates with trainable degrees of freedom.

    ``nu_i = 1 + exp(a_i)``, ``a_i`` starting at log 29, so nu at 30 (Andrade 2024,
    arXiv 2402.16408). Location 0 and scale 1 are fixed: the flow's last layer does that work.
    A sample is ``normal * sqrt(nu / chi2_nu)``; gradients reach nu through the implicit
    reparameterisation of the gamma variate (Figurnov, Mohamed, Mnih 2018, arXiv 1805.08498).

    Examples
    --------
    >>> StudentT(2).degrees_of_freedom.detach().round()
    tensor([30., 30.])
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        start = math.log(_START_DEGREES_OF_FREEDOM - 1)
        self.log_degrees_minus_one = nn.Parameter(torch.full((dim,), start))

    @property
    def degrees_of_freedom(self) -> Tensor:
        """nu, of shape (D,)."""
        return 1 + self.log_degrees_minus_one.exp()

    @override
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        nu = self.degrees_of_freedom
        normal = torch.randn(n, self.dim, generator=generator, dtype=nu.dtype)
        # torch.distributions draws from the global generator only; this is what it calls.
        half_chi2 = torch._standard_gamma((0.5 * nu).expand(n, self.dim), generator=generator)
        return normal * torch.rsqrt(half_chi2 / (0.5 * nu))

    @override
    def log_prob(self, e: Tensor) -> Tensor:
        nu = self.degrees_of_freedom
        constant = (
            torch.lgamma(0.5 * (nu + 1)) - torch.lgamma(0.5 * nu) - 0.5 * (math.pi * nu).log()
        )
        # log(1 + e^2 / nu) / 2, without overflow
        log_root = torch.hypot(torch.ones_like(e), e * torch.rsqrt(nu)).log()
        return (constant - (nu + 1) * log_root).sum(-1)

    @override
    @torch.no_grad()
    def score(self, e: Tensor) -> Tensor:
        nu = self.degrees_of_freedom
        return -(nu + 1) * e / (nu + e.square())
