"""What a flow is built from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from stanflow.errors import UsageError

Family = Literal["realnvp", "fullrank", "meanfield"]
BaseName = Literal["student-t", "gaussian"]


_MOST = 10_000


@dataclass(frozen=True)
class FlowConfig:
    """The family and its size.

    Parameters
    ----------
    family : {"realnvp", "fullrank", "meanfield"}
        Real NVP, or a Gaussian (Student-t with that base) with full or diagonal covariance.
    layers : int
        Coupling layers.
    hidden : int
        Hidden units of each conditioner network.
    base : {"student-t", "gaussian"}
        Base distribution.
    clamp_positive, clamp_negative : float
        Bounds of a layer's log scale, upward and downward.
    loft_tau : float
        Where LOFT's logarithm takes over.

    Raises
    ------
    UsageError
        A value is out of range.
    """

    family: Family = "realnvp"
    layers: int = 16
    hidden: int = 32
    base: BaseName = "student-t"
    clamp_positive: float = 0.1
    clamp_negative: float = 2.0
    loft_tau: float = 100.0

    def __post_init__(self) -> None:
        if self.family not in get_args(Family):
            raise UsageError(f"there is no family {self.family!r}; choose {_either(Family)}")
        if self.base not in get_args(BaseName):
            raise UsageError(f"there is no base {self.base!r}; choose {_either(BaseName)}")
        for name in ("layers", "hidden"):
            if not 1 <= getattr(self, name) <= _MOST:
                raise UsageError(
                    f"{name} must be at least 1 and at most {_MOST}, not {getattr(self, name)}"
                )
        for name in ("clamp_positive", "clamp_negative", "loft_tau"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} must be positive, not {getattr(self, name)}")


def _either(options: object) -> str:
    return " or ".join(get_args(options))
