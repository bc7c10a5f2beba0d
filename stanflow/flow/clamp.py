"""Clamps: what bounds a coupling layer's log scale."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

_TWO_OVER_PI = 2 / math.pi


@dataclass(frozen=True)
class Clamp(ABC):
    """A map of the raw log scale u to the log scale s, with slope 1 or less and s(0) = 0.

    Parameters
    ----------
    positive, negative : float
        Thresholds alpha for u >= 0 and for u < 0.
    """

    positive: float = 0.1
    negative: float = 2.0

    code: ClassVar[int]
    """What the compiled passes call it."""

    def alpha(self, u: Tensor) -> Tensor:
        """Return the threshold that holds at u."""
        return torch.where(u >= 0, u.new_full((), self.positive), u.new_full((), self.negative))

    @abstractmethod
    def __call__(self, u: Tensor) -> Tensor:
        """Return the clamped value s(u), of u's shape."""

    @abstractmethod
    def derivative(self, u: Tensor) -> Tensor:
        """Return ds/du, of u's shape."""


class SoftClamp(Clamp):
    """Bound the log scale smoothly, upward more than downward.

    ``s(u) = (2/pi) * alpha * atan(u / alpha)``, ``alpha = positive`` for u >= 0, else
    ``negative`` (Andrade 2024, arXiv 2402.16408). One layer can then stretch by at most
    ``exp(positive)`` and shrink by at most ``exp(-negative)``.

    Examples
    --------
    >>> clamp = SoftClamp()
    >>> clamp(torch.tensor([-1e6, 0.0, 1e6]))
    tensor([-2.0000,  0.0000,  0.1000])
    """

    code = 0

    @override
    def __call__(self, u: Tensor) -> Tensor:
        alpha = self.alpha(u)
        return _TWO_OVER_PI * alpha * torch.atan(u / alpha)

    @override
    def derivative(self, u: Tensor) -> Tensor:
        return _TWO_OVER_PI / (1 + (u / self.alpha(u)).square())


class TanhClamp(Clamp):
    """Bound the log scale by ``s(u) = alpha * tanh(u / alpha)``.

    Examples
    --------
    >>> TanhClamp(positive=0.5, negative=0.5)(torch.tensor([-9.0, 0.0, 9.0]))
    tensor([-0.5000,  0.0000,  0.5000])
    """

    code = 1

    @override
    def __call__(self, u: Tensor) -> Tensor:
        alpha = self.alpha(u)
        return alpha * torch.tanh(u / alpha)

    @override
    def derivative(self, u: Tensor) -> Tensor:
        return 1 - torch.tanh(u / self.alpha(u)).square()


class NoClamp(Clamp):
    """Leave the log scale as it is: ``s(u) = u``. For ablations; deep flows explode with it."""

    code = 2

    @override
    def __call__(self, u: Tensor) -> Tensor:
        return u

    @override
    def derivative(self, u: Tensor) -> Tensor:
        return torch.ones_like(u)


def make_clamp(name: str, positive: float, negative: float) -> Clamp:
    """Return the clamp of that name; ``symmetric`` has the threshold ``positive`` on both sides.

    Examples
    --------
    >>> make_clamp("symmetric", 0.1, 2.0)
    SoftClamp(positive=0.1, negative=0.1)
    """
    if name == "symmetric":
        return SoftClamp(positive, positive)
    kinds: dict[str, type[Clamp]] = {"asymmetric": SoftClamp, "tanh": TanhClamp, "none": NoClamp}
    return kinds[name](positive, negative)
