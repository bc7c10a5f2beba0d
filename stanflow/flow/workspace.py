"""Where the buffers of a training step come from."""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

_COLUMNS_OF_A_PART = 128


@dataclass
class Workspace:
    """Allocates the buffers of one flow's passes, all before the first step.

    Parameters
    ----------
    batch : int
        Draws a batch, B.
    like : Tensor
        Its dtype and device are those of the buffers.
    keep : bool
        Whether every coupling layer has buffers of its own for what the reverse sweep needs;
        otherwise all share one set, and the layers' inputs are rebuilt.
    with_slopes : bool
        Whether derivatives of log q will be asked for.
    with_gradients : bool
        Whether the conditioner networks' weights are to get gradients, a quarter of the work of a
        reverse pass.
    library : ctypes.CDLL or None
        The compiled passes of coupling layers; None for those in torch.
    couplings : int
        How many coupling layers there are.
    numbers_a_draw : int
        How many numbers all that is kept has for a draw, where it is: it lies in one piece of
        memory.
    threads : int, optional
        Threads that chains may use; by default torch's number.

    Attributes
    ----------
    largest : Tensor of shape (couplings, parts)
        Each coupling layer's largest ``|b'|`` of the last push, in parts.
    """

    batch: int
    like: Tensor
    keep: bool = True
    with_slopes: bool = False
    with_gradients: bool = True
    library: ctypes.CDLL | None = None
    couplings: int = 0
    numbers_a_draw: int = 0
    threads: int = field(default_factory=torch.get_num_threads)
    largest: Tensor = field(init=False)
    _shared: dict[tuple[str, tuple[int, ...]], Tensor] = field(init=False, default_factory=dict)
    _rows_of_largest_given: int = field(init=False, default=0)
    _arena: Tensor = field(init=False)
    _arena_used: int = field(init=False, default=0)
    _gradients_away: int = field(init=False, default=0)  # bytes

    def __post_init__(self) -> None:
        parts = max(torch.get_num_threads(), self.parts_of_columns)
        self.largest = self.empty(self.couplings, parts).zero_()
        self._arena = self.empty(0)

    @property
    def parts_of_columns(self) -> int:
        """Into how many parts chains split a batch."""
        return max(1, round(self.batch / _COLUMNS_OF_A_PART))

    def of_part(self, part: int, columns: int, gradients_away: int) -> Workspace:
        """Return a workspace for some of the columns; its gradients are so many bytes away."""
        own = replace(self, batch=columns, couplings=0)
        own.largest = self.largest[:, part:]
        own._rows_of_largest_given = self._rows_of_largest_given
        own._gradients_away = gradients_away
        return own

    def address_of_gradient(self, parameter: nn.Parameter) -> int | None:
        """Return where a parameter's gradient is to be written, None if it has none."""
        gradient = parameter.grad
        return None if gradient is None else gradient.data_ptr() + self._gradients_away

    def row_of_largest(self) -> Tensor:
        """Return the next coupling layer's row of `largest`."""
        self._rows_of_largest_given += 1
        return self.largest[self._rows_of_largest_given - 1]

    def skip_rows_of_largest(self, couplings: int) -> None:
        """Leave so many rows of `largest` to those who have them by `of_part`."""
        self._rows_of_largest_given += couplings

    def empty(self, *shape: int) -> Tensor:
        """Return a new buffer."""
        return torch.empty(shape, dtype=self.like.dtype, device=self.like.device)

    def scratch(self, name: str, *shape: int) -> Tensor:
        """Return a buffer that all who ask with this name and shape share."""
        key = (name, shape)
        if key not in self._shared:
            self._shared[key] = self.empty(*shape)
        return self._shared[key]

    def kept(self, name: str, *shape: int) -> Tensor:
        """Return a buffer of one's own where activations are kept, else a shared one."""
        if not self.keep:
            return self.scratch(name, *shape)
        if not len(self._arena):
            self._arena = self.empty(self.numbers_a_draw * self.batch)
        start = self._arena_used
        self._arena_used += math.prod(shape)
        return self._arena[start : self._arena_used].view(shape)
