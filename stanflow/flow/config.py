"""What a flow is built from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from stanflow.errors import UsageError

Family = Literal["realnvp", "fullrank", "meanfield"]
BaseName = Literal["student-t", "gaussian"]
ClampName = Literal["asymmetric", "symmetric", "tanh", "none"]
ActivationName = Literal["relu", "leaky_relu", "elu", "tanh"]
LocalActivationName = Literal["tanh", "softsign"]

Memory = Literal["auto", "keep", "rebuild"]
"""How a training step treats activations; see `sweep.Sweep`."""

MOST_PARTNERS = 16

_CHOICES = {
    "family": Family,
    "base": BaseName,
    "clamp": ClampName,
    "activation": ActivationName,
    "local_activation": LocalActivationName,
}
_MOST = {"layers": 10_000, "hidden": 10_000, "hidden_layers": 100, "local_features": 100}


@dataclass(frozen=True)
class FlowConfig:
    """The family and its size.

    Parameters
    ----------
    family : {"realnvp", "fullrank", "meanfield"}
        Real NVP, or a Gaussian (Student-t with that base) with full or diagonal covariance.
    layers : int
        Coupling layers, r.
    hidden : int
        Units of a hidden layer of each conditioner network, H.
    hidden_layers : int
        Hidden layers of each conditioner network.
    activation : {"relu", "leaky_relu", "elu", "tanh"}
        Of the hidden units.
    base : {"student-t", "gaussian"}
        Base distribution.
    base_location_scale : bool
        Whether the base has a trainable location and scale of its own, beside the last layer's.
    clamp : {"asymmetric", "symmetric", "tanh", "none"}
        How a layer's log scale is bounded: softly, with other thresholds upward and downward or
        with the upward one on both sides; by a hyperbolic tangent; or not at all.
    clamp_positive, clamp_negative : float
        Thresholds of a layer's log scale, upward and downward.
    loft_tau : float, optional
        Where LOFT's logarithm takes over; None leaves LOFT out.
    local_features : int
        Features a partner of the local conditioner, M; used where the wiring names partners.
    local_activation : {"tanh", "softsign"}
        Of those features.

    Raises
    ------
    UsageError
        A value is out of range.
    """

    family: Family = "realnvp"
    layers: int = 16
    hidden: int = 32
    hidden_layers: int = 1
    activation: ActivationName = "relu"
    base: BaseName = "student-t"
    base_location_scale: bool = False
    clamp: ClampName = "asymmetric"
    clamp_positive: float = 0.1
    clamp_negative: float = 2.0
    loft_tau: float | None = 100.0
    local_features: int = 4
    local_activation: LocalActivationName = "softsign"

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in get_args(choices):
                what = name.replace("_", " ")
                options = " or ".join(get_args(choices))
                raise UsageError(f"there is no {what} {value!r}; choose {options}")
        for name, most in _MOST.items():
            value = getattr(self, name)
            if not 1 <= value <= most:
                raise UsageError(f"{name} must be at least 1 and at most {most}, not {value}")
        for name in ("clamp_positive", "clamp_negative", "loft_tau"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"{name} must be positive and finite, not {value}")
