"""How training goes on after it has broken down."""

from __future__ import annotations

from dataclasses import dataclass

from stanflow.training.config import Precision, TrainConfig

_SHARE_OF_TAILS = 0.25
_SLOWER = 0.5


@dataclass(frozen=True)
class Caution:
    """What a breakdown has changed.

    Attributes
    ----------
    precision : {"float32", "float64"}
        Of the flow.
    tail_share : float
        Share of the draws that are spread out.
    rate : float
        Share of the learning rate.
    """

    precision: Precision
    tail_share: float
    rate: float


def caution(config: TrainConfig, breakdowns: int) -> Caution:
    """Return how to train after some breakdowns.

    Narrow ridges are too fine for float32; where a density is steep without bound, draws that are
    spread out are too much; then a lower rate is what is left.

    Parameters
    ----------
    config : TrainConfig
        How training began.
    breakdowns : int
        How often it broke down.

    Examples
    --------
    >>> for breakdowns in range(4):
    ...     print(caution(TrainConfig(), breakdowns))
    Caution(precision='float32', tail_share=0.5, rate=1.0)
    Caution(precision='float64', tail_share=0.5, rate=1.0)
    Caution(precision='float64', tail_share=0.125, rate=1.0)
    Caution(precision='float64', tail_share=0.125, rate=0.5)
    """
    precision, tail_share, left = config.precision, config.tail_share, breakdowns
    if left and precision == "float32":
        precision, left = "float64", left - 1
    if left and tail_share > 0:
        tail_share, left = _SHARE_OF_TAILS * tail_share, left - 1
    return Caution(precision, tail_share, _SLOWER**left)
