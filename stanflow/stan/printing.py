"""Where the output of a program's `print` statements goes: standard error, and not without end."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_CALLBACK_TYPE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t)
_MESSAGES_SHOWN = 100

_sinks: dict[int, PrintSink] = {}


class PrintSink:
    """Passes what a model library prints to standard error, the first 100 messages a model.

    A model block is evaluated hundreds of thousands of times in a fit, and prints each time.

    Parameters
    ----------
    library : ctypes.CDLL
        A library with BridgeStan's functions.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        library.bs_set_print_callback.argtypes = [_CALLBACK_TYPE, ctypes.c_void_p]
        library.bs_set_print_callback.restype = ctypes.c_int
        self._library = library
        self._callback = _CALLBACK_TYPE(self._print)
        self._muted = False
        self.start_over()

    def start_over(self) -> None:
        """Show the next messages again, as for another model."""
        self._remaining = _MESSAGES_SHOWN
        self._library.bs_set_print_callback(self._callback, None)

    @contextmanager
    def muted(self) -> Iterator[None]:
        """Show nothing for a while: the program repeats what it has printed before."""
        remaining = self._remaining
        self._muted = True
        try:
            yield
        finally:
            self._muted = False
            self._remaining = remaining

    def _print(self, text: int, size: int) -> None:
        if self._muted or self._remaining <= 0:
            return
        self._remaining -= 1
        sys.stderr.write(ctypes.string_at(text, size).decode("utf-8", "replace"))
        if self._remaining == 0:
            sys.stderr.write("stanflow: further output of print statements is not shown\n")
        sys.stderr.flush()


def print_to_stderr(library: ctypes.CDLL) -> PrintSink:
    """Return the library's sink, made on first use: BridgeStan has one callback a library."""
    sink = _sinks.get(library._handle)
    if sink is None:
        sink = _sinks[library._handle] = PrintSink(library)
    else:
        sink.start_over()
    return sink
