"""Activations of a conditioner's hidden units, with the derivative read off the value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Activation:
    """A function whose derivative follows from its value, so that only the value is kept.

    Attributes
    ----------
    code : int
        What the compiled passes call it.
    function : callable
        phi, elementwise.
    slope : callable
        phi' as a function of phi.
    """

    code: int
    function: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]


def _elu_slope(value: Tensor) -> Tensor:
    return torch.where(value < 0, value + 1, 1.0)


def _leaky_relu_slope(value: Tensor) -> Tensor:
    return torch.where(value < 0, value.new_full((), 0.01), value.new_ones(()))


ACTIVATIONS = {
    "relu": Activation(0, torch.relu, lambda value: (value > 0).to(value.dtype)),
    "leaky_relu": Activation(1, functional.leaky_relu, _leaky_relu_slope),
    "elu": Activation(2, functional.elu, _elu_slope),
    "tanh": Activation(3, torch.tanh, lambda value: 1 - value.square()),
    "softsign": Activation(4, functional.softsign, lambda value: (1 - value.abs()).square()),
}
HIDDEN_ACTIVATIONS = ("relu", "leaky_relu", "elu", "tanh")
LOCAL_ACTIVATIONS = ("tanh", "softsign")
