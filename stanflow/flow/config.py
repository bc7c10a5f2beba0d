"""What a flow is built from."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from stanflow.errors import UsageError

Family = Literal["realnvp", "fullrank", "meanfield"]
FAMILY_NAMES = {
    "realnvp": "Real NVP",
    "fullrank": "a full-rank affine flow",
    "meanfield": "a mean-field flow",
}
BaseName = Literal["student-t", "gaussian"]
ClampName = Literal["asymmetric", "symmetric", "tanh", "none"]
WiringName = Literal["curvature", "even-odd"]

Memory = Literal["auto", "keep", "rebuild"]
"""How a training step treats activations; see `sweep.Sweep`."""

MOST_PARTNERS = 16

_CHOICES = {
    "family": Family,
    "base": BaseName,
    "clamp": ClampName,
    "wiring": WiringName,
}
_MOST = {"layers": 10_000, "hidden": 10_000, "local_features": 100}


@dataclass(frozen=True)
class FlowConfig:
    """The family and its size.

    Parameters
    ----------
    family : {"realnvp", "fullrank", "meanfield"}
        Real NVP, or a Gaussian (Student-t with that base) with full or diagonal covariance.
    layers : int, optional
        Coupling layers, r; by default 24, 16 above 20 dimensions and 8 above 100. In one dimension
        they are sinh-arcsinh layers, by default 8. A fit by default begins with few of them (see
        `flow.depth`), and ends with these where they are enough.
    hidden : int, optional
        ReLU units in the hidden layer of each conditioner network, H; by default 32, and 16 above
        50 dimensions.
    base : {"student-t", "gaussian"}
        Base distribution.
    base_location_scale : bool
        Whether the base has a trainable location and scale of its own, beside the last layer's.
    clamp : {"asymmetric", "symmetric", "tanh", "none"}
        How a layer's log scale is bounded: softly, with other thresholds upward and downward or
        with the upward one on both sides; by a hyperbolic tangent; or not at all.
    clamp_positive : float
        Threshold of a layer's log scale, upward.
    clamp_negative : float, optional
        Downward; by default 2, and 6 where up to 32 layers move up to 50 dimensions. They are
        stable then, and what narrows without end, as a hierarchy's effects where its scale is
        small, is followed further.
    loft_tau : float, optional
        Where LOFT's logarithm takes over; None leaves LOFT out.
    wiring : {"curvature", "even-odd"}
        Which coordinates a coupling layer moves: halves from the target's curvature, or even and
        odd ones in turns; see `training.wiring`.
    partners : int
        Coordinates that the local conditioner of each moved coordinate sees, K, from the target's
        curvature; 0 leaves local conditioners out.
    local_features : int
        Features a partner of the local conditioner, M.
    marginal_layers : int
        Sinh-arcsinh layers among the coupling layers, which bend each coordinate by itself; 0 for
        none.

    Raises
    ------
    UsageError
        A value is out of range.
    """

    family: Family = "realnvp"
    layers: int | None = None
    hidden: int | None = None
    base: BaseName = "student-t"
    base_location_scale: bool = False
    clamp: ClampName = "asymmetric"
    clamp_positive: float = 0.1
    clamp_negative: float | None = None
    loft_tau: float | None = 100.0
    wiring: WiringName = "curvature"
    partners: int = 3
    local_features: int = 4
    marginal_layers: int = 4

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in get_args(choices):
                what = name.replace("_", " ")
                options = " or ".join(get_args(choices))
                raise UsageError(f"there is no {what} {value!r}; choose {options}")
        if not 0 <= self.partners <= MOST_PARTNERS:
            raise UsageError(
                f"partners must be at least 0 and at most {MOST_PARTNERS}, not {self.partners}"
            )
        if not 0 <= self.marginal_layers <= _MOST["layers"]:
            raise UsageError(f"marginal_layers must be at least 0, not {self.marginal_layers}")
        for name, most in _MOST.items():
            value = getattr(self, name)
            if name in {"layers", "hidden"} and value is None:
                continue
            if not 1 <= value <= most:
                raise UsageError(f"{name} must be at least 1 and at most {most}, not {value}")
        for name in ("clamp_positive", "clamp_negative", "loft_tau"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"{name} must be positive and finite, not {value}")

    def depth(self, dim: int) -> int:
        """Return r in D dimensions."""
        if self.layers is not None:
            return self.layers
        if dim == 1:
            return 8
        return 24 if dim <= 20 else 16 if dim <= 100 else 8

    def hidden_units(self, dim: int) -> int:
        """Return H in D dimensions."""
        return (32 if dim <= 50 else 16) if self.hidden is None else self.hidden

    def downward_threshold(self, dim: int) -> float:
        """Return the clamp's threshold downward in D dimensions."""
        if self.clamp_negative is not None:
            return self.clamp_negative
        return 6.0 if 1 < dim <= 50 and self.depth(dim) <= 32 else 2.0

    def resolved(self, dim: int) -> FlowConfig:
        """Return the configuration with what depends on the dimension D filled in."""
        return replace(
            self,
            layers=self.depth(dim),
            hidden=self.hidden_units(dim),
            clamp_negative=self.downward_threshold(dim),
        )
