"""Progress of NUTS, on standard error."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from stanflow.reference.run import NutsSettings

_SECONDS_BETWEEN_LINES = 10.0


class NutsProgress:
    """Shows iterations of all chains together: a bar on a terminal, lines in a log.

    Parameters
    ----------
    settings : NutsSettings
        Says how many iterations to expect.
    """

    def __init__(self, settings: NutsSettings) -> None:
        self._settings = settings
        self._each = settings.warmup + settings.draws
        self._total = settings.chains * self._each
        self._done = dict.fromkeys(range(1, settings.chains + 1), 0)
        self._began = self._last_line = time.perf_counter()
        self._bar: _Bar | None = _Bar(self._total) if sys.stderr.isatty() else None

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, chain: int, iteration: int) -> None:
        """Take note of how far a chain has come.

        Parameters
        ----------
        chain : int
            From 1 on.
        iteration : int
            Its last finished iteration, warmup included.
        """
        before = self._done[chain]
        self._done[chain] = max(before, min(iteration, self._each))
        if self._done[chain] == before:
            return
        done = sum(self._done.values())
        if self._bar is not None:
            self._bar.show(done, self._phase())
            return
        now = time.perf_counter()
        if now - self._last_line > _SECONDS_BETWEEN_LINES or done == self._total:
            self._last_line = now
            print(
                f"iteration {done}/{self._total} of {self._settings.chains} chains  "
                f"{self._phase()}  {now - self._began:.1f} s",
                file=sys.stderr,
                flush=True,
            )

    def _phase(self) -> str:
        sampling = sum(done > self._settings.warmup for done in self._done.values())
        return f"{sampling} past warmup"


class _Bar:
    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeElapsedColumn as Elapsed

        self._progress = Progress(
            TextColumn("NUTS"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[phase]}"),
            Elapsed(),
            console=Console(stderr=True),
            refresh_per_second=5,
        )
        self._task = self._progress.add_task("NUTS", total=total, phase="")

    def start(self) -> None:
        self._progress.start()

    def stop(self) -> None:
        self._progress.stop()

    def show(self, done: int, phase: str) -> None:
        self._progress.update(self._task, completed=done, phase=phase)
