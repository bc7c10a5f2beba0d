"""What moves the flow's parameters."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from functools import partial

import torch

from stanflow.flow.realnvp import Flow
from stanflow.kernels import layers, library
from stanflow.training.checkpoint import State
from stanflow.training.config import TrainConfig

_EPSILON = 1e-8


class FlatAdam:
    """Adam (Kingma and Ba 2015, arXiv 1412.6980) on all of a flow's parameters as one tensor.

    On the CPU it is one compiled call (step_passes.h). Elsewhere it is the kernel behind
    ``torch.optim.Adam(fused=True)``: making such an optimizer imports torch's compiler, which takes
    longer than many a fit's training.

    Parameters
    ----------
    flow : Flow
        Moved in place.
    config : TrainConfig
        Learning rate, decay rates, and the length that gradients are shortened to.
    """

    def __init__(self, flow: Flow, config: TrainConfig) -> None:
        self._config = config
        self._flat, self._gradient = flow.flat, flow.flat_gradient
        self._learning_rate = config.first_learning_rate(flow.dim)
        self._mean, self._mean_square = (torch.zeros_like(self._flat) for _ in range(2))
        self._steps = torch.zeros((), device=self._flat.device)
        built = library.load()
        self._compiled = (
            None if built is None or self._flat.device.type != "cpu" else self._compile(built)
        )

    def _compile(self, built: ctypes.CDLL) -> Callable[[float, float], float]:
        """Return a function of rate and steps that moves the parameters; see layers.c."""
        beta1, beta2 = self._config.adam_betas
        longest = self._config.max_gradient_norm
        arguments = layers.Adam(
            parameters=len(self._flat),
            parameter=self._flat.data_ptr(),
            gradient=self._gradient.data_ptr(),
            mean=self._mean.data_ptr(),
            mean_square=self._mean_square.data_ptr(),
            beta1=beta1,
            beta2=beta2,
            epsilon=_EPSILON,
            longest=math.inf if longest is None else longest,
        )
        self._arguments = arguments  # the address is of no use without
        move = layers.Calls(built, self._flat.dtype).adam
        return partial(move, ctypes.addressof(arguments))

    def step(self, share: float) -> float:
        """Take a step if the gradient is finite; return its norm, NaN if it was skipped.

        Parameters
        ----------
        share : float
            Of the first learning rate.
        """
        if self._compiled is not None:
            norm = self._compiled(self._learning_rate * share, float(self._steps) + 1)
            self._steps += not math.isnan(norm)
            return norm
        norm = float(torch.linalg.vector_norm(self._gradient))
        if not math.isfinite(norm):
            return math.nan
        longest = self._config.max_gradient_norm
        if longest is not None and norm > longest:
            self._gradient.mul_(longest / norm)
        beta1, beta2 = self._config.adam_betas
        self._steps += 1
        torch._fused_adam_(
            [self._flat], [self._gradient], [self._mean], [self._mean_square], [], [self._steps],
            lr=self._learning_rate * share, beta1=beta1, beta2=beta2, eps=_EPSILON,
            weight_decay=0.0, amsgrad=False, maximize=False,
        )  # fmt: skip
        return norm

    def state(self) -> State:
        """Return the averages of gradients and of their squares, (P,), and the steps taken."""
        return {"mean": self._mean, "mean_square": self._mean_square, "steps": self._steps}

    def restore(self, state: State) -> None:
        """Take up where `state` was asked for."""
        self._mean.copy_(state["mean"])
        self._mean_square.copy_(state["mean_square"])
        self._steps.copy_(state["steps"])
