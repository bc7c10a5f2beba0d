"""What moves the flow's parameters."""

from __future__ import annotations

import math

import torch

from stanflow.flow.realnvp import Flow
from stanflow.training.config import TrainConfig


class FlatAdam:
    """Adam on all of a flow's parameters as one tensor.

    Parameters
    ----------
    flow : Flow
        Moved in place.
    config : TrainConfig
        Learning rate, schedule, and the length that gradients are shortened to.
    """

    def __init__(self, flow: Flow, config: TrainConfig) -> None:
        self._config = config
        self._flat, self._gradient = flow.flat, flow.flat_gradient
        self._learning_rate = config.first_learning_rate(flow.dim)
        self._flat.grad = self._gradient
        self._adam = torch.optim.Adam(
            [self._flat], lr=self._learning_rate, betas=config.adam_betas, fused=True
        )

    def step(self, share: float) -> float:
        """Take a step if the gradient is finite; return its norm, NaN if it was skipped.

        Parameters
        ----------
        share : float
            Of the first learning rate.
        """
        norm = float(torch.linalg.vector_norm(self._gradient))
        if not math.isfinite(norm):
            return math.nan
        longest = self._config.max_gradient_norm
        if longest is not None and norm > longest:
            self._gradient.mul_(longest / norm)
        for group in self._adam.param_groups:
            group["lr"] = self._learning_rate * share
        self._adam.step()
        return norm

    def averages(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the averages of gradients and of their squares, (P,), and the steps taken."""
        state = self._adam.state.get(self._flat)
        if not state:
            zero = torch.zeros_like(self._flat)
            return zero, zero.clone(), torch.zeros(())
        return state["exp_avg"], state["exp_avg_sq"], state["step"]

    def set_averages(
        self, mean: torch.Tensor, mean_square: torch.Tensor, steps: torch.Tensor
    ) -> None:
        """Take up where `averages` was asked for."""
        like = self._flat
        self._adam.state[self._flat] = {
            "step": steps.to(like.device),
            "exp_avg": mean.to(like),
            "exp_avg_sq": mean_square.to(like),
        }

    def forget(self) -> None:
        """Begin anew, with no averages."""
        self._adam.state.clear()

    def release(self) -> None:
        """Give back the gradients and the optimizer's memory."""
        self._flat.grad = None
        self._adam.state.clear()
