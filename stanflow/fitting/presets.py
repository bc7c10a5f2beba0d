"""Named settings of flow and training."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, Literal, get_args

from stanflow.errors import UsageError
from stanflow.flow.config import FlowConfig
from stanflow.training.config import TrainConfig

Preset = Literal["auto", "paper"]


def preset(name: str) -> tuple[FlowConfig, TrainConfig]:
    """Return the settings of that name.

    ``auto`` are StanFlow's defaults. ``paper`` are those of Andrade (2024, "Stabilizing training
    of affine coupling layers for high-dimensional variational inference", Machine Learning:
    Science and Technology; arXiv 2402.16408) and its published code: 64 coupling layers with 100
    hidden units, soft clamp at 0.1 and 2, LOFT at 100, a Student-t base that starts at 30 degrees
    of freedom, path gradients of 256 draws in float64, Adam at 1e-4 from a start at the origin,
    and the best parameters of the second half kept. The code recommends 50,000 steps or more.

    Raises
    ------
    UsageError
        There is no preset of that name.

    Examples
    --------
    >>> flow, training = preset("paper")
    >>> flow.layers, training.learning_rate
    (64, 0.0001)
    """
    if name == "auto":
        return FlowConfig(), TrainConfig()
    if name == "paper":
        return _PAPER
    raise UsageError(f"there is no preset {name!r}; choose {' or '.join(get_args(Preset))}")


def settings(name: str, **options: Any) -> tuple[FlowConfig, TrainConfig]:
    """Return the settings of that name with some changed.

    Parameters
    ----------
    name : str
        See `preset`.
    **options
        Fields of `FlowConfig` and `TrainConfig`; None leaves one as it is.

    Raises
    ------
    UsageError
        There is no preset of that name, or a value is out of range.

    Examples
    --------
    >>> flow, training = settings("auto", layers=8, batch=None, max_steps=100)
    >>> flow.layers, training.max_steps
    (8, 100)
    """
    flow, training = preset(name)
    given = {option: value for option, value in options.items() if value is not None}
    of_flow = {field.name for field in fields(FlowConfig)} & set(given)
    return (
        replace(flow, **{option: given.pop(option) for option in of_flow}),
        replace(training, **given),
    )


_PAPER = (
    FlowConfig(
        family="realnvp",
        layers=64,
        hidden=100,
        base="student-t",
        base_location_scale=False,
        clamp="asymmetric",
        clamp_positive=0.1,
        clamp_negative=2.0,
        loft_tau=100.0,
        wiring="even-odd",
        partners=0,
        marginal_layers=0,
    ),
    TrainConfig(
        batch=256,
        max_steps=50_000,
        learning_rate=1e-4,
        adam_betas=(0.9, 0.999),
        schedule="constant",
        gradient="path",
        max_gradient_norm=None,
        tail_share=0.0,
        start="none",
        keep_best=True,
        precision="float64",
    ),
)
