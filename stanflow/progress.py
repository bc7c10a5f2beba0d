"""Progress on standard error: a bar on a terminal, lines in a log."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import rich.progress

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Shows how much is done of something, between entering and leaving it.

    Parameters
    ----------
    what : str
        Is done first.
    total : int
        How much there is to do.
    """

    def __init__(self, what: str, total: int) -> None:
        self._total = total
        self._last_line = time.perf_counter()
        self._bar = _bar(what, total) if sys.stderr.isatty() else None

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, what: str, done: int, told: str, line: str) -> None:
        """Show how much is done.

        Parameters
        ----------
        what : str
            Is being done.
        done : int
            Of the total.
        told : str
            What the bar says of it.
        line : str
            What a log says of it, every ten seconds and when all is done.
        """
        if self._bar is not None:
            (task,) = self._bar.task_ids
            self._bar.update(task, description=what, completed=done, told=told)
            return
        now = time.perf_counter()
        if now - self._last_line > _SECONDS_BETWEEN_LINES or done == self._total:
            self._last_line = now
            print(line, file=sys.stderr, flush=True)


def _bar(what: str, total: int) -> rich.progress.Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[told]}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        refresh_per_second=5,
    )
    bar.add_task(what, total=total, told="")
    return bar
