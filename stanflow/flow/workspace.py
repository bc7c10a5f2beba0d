"""Where the buffers of a training step come from."""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass, field

import torch
from torch import Tensor


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
        Whether derivatives of log q with respect to parameters will be asked for.
    library : ctypes.CDLL or None
        The compiled passes of coupling layers; None for those in torch.
    couplings : int
        How many coupling layers there are.
    arena_numbers : int
        How many numbers all that is kept has, where it is: it lies in one piece of memory.

    Attributes
    ----------
    largest : Tensor of shape (couplings, threads)
        Each coupling layer's largest ``|b'|`` of the last push, in parts.
    """

    batch: int
    like: Tensor
    keep: bool = True
    with_slopes: bool = False
    library: ctypes.CDLL | None = None
    couplings: int = 0
    arena_numbers: int = 0
    largest: Tensor = field(init=False)
    _shared: dict[tuple[str, tuple[int, ...]], Tensor] = field(init=False, default_factory=dict)
    _rows_of_largest_given: int = field(init=False, default=0)
    _arena: Tensor = field(init=False)
    _arena_used: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.largest = self.empty(self.couplings, torch.get_num_threads()).zero_()
        self._arena = self.empty(self.arena_numbers if self.keep else 0)

    def row_of_largest(self) -> Tensor:
        """Return the next coupling layer's row of `largest`."""
        self._rows_of_largest_given += 1
        return self.largest[self._rows_of_largest_given - 1]

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
        start = self._arena_used
        self._arena_used += math.prod(shape)
        return self._arena[start : self._arena_used].view(shape)
