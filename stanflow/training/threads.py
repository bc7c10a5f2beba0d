"""Which threads training uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from stanflow.kernels import library

_NUMBERS_WORTH_A_SECOND_THREAD = 2**14
_NUMBERS_WORTH_SHARED_THREADS = 2**17


@contextmanager
def threads_that_pay(numbers_per_layer: int) -> Iterator[int]:
    """Use one torch thread where a second costs more than it saves; yield how many there were.

    Where there is so much for each layer that training is a few large matrix products, the compiled
    loops share torch's threads.

    Parameters
    ----------
    numbers_per_layer : int
        Draws a step times dimensions.
    """
    before = torch.get_num_threads()
    if numbers_per_layer < _NUMBERS_WORTH_A_SECOND_THREAD:
        torch.set_num_threads(1)
    library.share_threads_of_torch(numbers_per_layer >= _NUMBERS_WORTH_SHARED_THREADS)
    try:
        yield before
    finally:
        library.share_threads_of_torch(False)
        torch.set_num_threads(before)
