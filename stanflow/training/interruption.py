"""Ctrl-C and SIGTERM that stop a run cleanly."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class Interruption:
    """While active, the first Ctrl-C and the first SIGTERM only raise a flag; a second one acts.

    Used as a context manager around a loop that looks at `requested` (Ctrl-C) and `terminated`
    (SIGTERM). A SIGTERM that came is sent again when the block ends: it is held back, so that a
    state can be kept first, not answered. Outside the main thread, where Python allows no signal
    handlers, it does nothing.
    """

    def __init__(self) -> None:
        self.requested = self.terminated = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number in list(self._previous):
            self._restore(number)
        if self.terminated and not isinstance(error, Exception):
            signal.raise_signal(signal.SIGTERM)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGTERM:
            self.terminated = True
        else:
            self.requested = True
        self._restore(number)

    def _restore(self, number: int) -> None:
        previous = self._previous.pop(number, None)
        if previous is not None:
            signal.signal(number, previous)
