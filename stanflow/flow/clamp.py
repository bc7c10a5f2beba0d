"""The asymmetric soft clamp of a coupling layer's log scale."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_TWO_OVER_PI = 2 / math.pi


@dataclass(frozen=True)
class AsymmetricSoftClamp:
    """Bound a raw log scale smoothly, upward more than downward.

    ``s(u) = (2/pi) * alpha * atan(u / alpha)``, ``alpha = positive`` for u >= 0, else
    ``negative`` (Andrade 2024, arXiv 2402.16408). One layer can then stretch by at most
    ``exp(positive)`` and shrink by at most ``exp(-negative)``.

    Examples
    --------
    >>> clamp = AsymmetricSoftClamp()
    >>> clamp(torch.tensor([-1e6, 0.0, 1e6]))
    tensor([-2.0000,  0.0000,  0.1000])
    """

    positive: float = 0.1
    negative: float = 2.0

    def _alpha(self, u: Tensor) -> Tensor:
        return torch.where(u >= 0, u.new_full((), self.positive), u.new_full((), self.negative))

    def __call__(self, u: Tensor) -> Tensor:
        """Return the clamped value s(u), of u's shape."""
        alpha = self._alpha(u)
        return _TWO_OVER_PI * alpha * torch.atan(u / alpha)

    def derivative(self, u: Tensor) -> Tensor:
        """Return ds/du, of u's shape."""
        return _TWO_OVER_PI / (1 + (u / self._alpha(u)).square())
