"""What a flow is made of."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Bijection(nn.Module, ABC):
    """A differentiable bijection T of R^D with a tractable Jacobian.

    Shapes: ``x`` and ``y`` are (B, D), log-determinants (B,).
    """

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``y = T(x)`` and ``log|det dT/dx|`` at x."""

    @abstractmethod
    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``x`` with ``T(x) = y``, and ``log|det dT/dx|`` at that x."""

    @abstractmethod
    def push_score(self, x: Tensor, score: Tensor) -> Tensor:
        """Carry the score of a density along with its sample.

        If x has density p with ``score = d log p / dx``, then y = T(x) has the score

            ``J^{-T} (score - d log|det J| / dx)``,  J = dT/dx at x,

        which is returned. It holds the parameters of T fixed and builds no autograd graph.
        """

    def forward_with_score(self, x: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return `forward` and `push_score` together, which can share work."""
        return *self.forward(x), self.push_score(x, score)
