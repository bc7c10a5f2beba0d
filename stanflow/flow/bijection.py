"""What a flow is made of."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from stanflow.flow.workspace import Workspace
from stanflow.kernels import layers as compiled


class Passes(ABC):
    """The hand-derived passes of one bijection T, in place, on batches of one size.

    They are what training runs, many times over, without an autograd graph: `push` takes points
    and their score through T and keeps what `pull` needs to take a cotangent back. Tensors are
    (D, B), a coordinate a row and a draw a column. An object owns the buffers of one step.
    """

    @abstractmethod
    def push(self, x: Tensor, score: Tensor | None, log_q: Tensor) -> None:
        """Turn x into ``y = T(x)``, and the rest into what belongs to y.

        Parameters
        ----------
        x : Tensor of shape (D, B)
            Points; y afterwards.
        score : Tensor of shape (D, B), optional
            ``d log q / dx``; afterwards ``J^{-T} (score - d log|det J| / dx)``, the score of y.
        log_q : Tensor of shape (B,), float64
            Log density at x; afterwards at y.
        """

    @abstractmethod
    def pull(self, cotangent: Tensor, log_q_weight: Tensor | None) -> None:
        """Take a loss's derivatives back through the last `push`, and write those of parameters.

        The parameters' ``grad`` are overwritten. Parameters of T enter the loss through y and,
        where log_q_weight is given, through log q.

        Parameters
        ----------
        cotangent : Tensor of shape (D, B)
            Derivatives with respect to y; with respect to x afterwards.
        log_q_weight : Tensor of shape (B,), float64, optional
            Derivatives with respect to each draw's log q: for total gradients.
        """

    @abstractmethod
    def restore(self, x: Tensor) -> None:
        """Turn y back into the x of the last `push`, and bring back what `pull` needs of it."""

    def link(self, dim: int) -> compiled.Link:
        """Return what a `Chain` of D coordinates calls in place of these methods."""
        raise NotImplementedError(f"{type(self).__name__} are not compiled")


class Bijection(nn.Module, ABC):
    """A differentiable bijection T of R^D with a tractable Jacobian.

    `forward` and `inverse` define it and are differentiable by autograd; ``x`` and ``y`` are
    (B, D) there, log-determinants (B,). `passes` gives the same by hand, for training.
    """

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``y = T(x)`` and ``log|det dT/dx|`` at x."""

    @abstractmethod
    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``x`` with ``T(x) = y``, and ``log|det dT/dx|`` at that x."""

    @abstractmethod
    def passes(self, workspace: Workspace) -> Passes:
        """Return the hand-derived passes for batches of the workspace's size."""


def gradient_of(parameter: nn.Parameter) -> Tensor:
    """Return the buffer that a parameter's gradient is written to; see `Flow.flat_gradient`."""
    if parameter.grad is None:
        raise RuntimeError("the flow has no gradient buffer yet; take its flat_gradient first")
    return parameter.grad
