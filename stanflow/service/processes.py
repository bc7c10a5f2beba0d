"""Processes that do tasks: started, watched and ended by the server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fastapi.concurrency import run_in_threadpool

from stanflow.service.logs import BoundedLog
from stanflow.service.task import Failure, Outcome, Task, outcome_after
from stanflow.stan.cache import cache_folder

_WORKER, _LOG, _TEMPORARY = "stanflow.service.worker", "worker.log", "tmp"
_KEPT_VARIABLES = frozenset(
    {"PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "CMDSTAN", "BRIDGESTAN"}
)
_KEPT_PREFIXES = ("STANFLOW_", "XDG_")
_SECRETS = frozenset({"STANFLOW_DATABASE_URL"})
_SECONDS_TO_END = 10.0
_SECONDS_BETWEEN_LOOKS = 0.02


class TaskProcess:
    """A process that does the task in a folder.

    Parameters
    ----------
    folder : pathlib.Path
        Which `Task.write` wrote to.
    task : Task
        That task; its limits hold.
    seconds : float
        Wall time that it may take.

    Raises
    ------
    OSError
        No process can be started.
    """

    def __init__(self, folder: Path, task: Task, seconds: float) -> None:
        self._folder, self._task, self._seconds = folder.resolve(), task, seconds
        self._deadline, self._killed = time.monotonic() + seconds, False
        self._temporary = self._folder / _TEMPORARY
        Outcome.forget(self._folder)
        shutil.rmtree(self._temporary, ignore_errors=True)  # of an earlier attempt
        self._temporary.mkdir()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", _WORKER, self._folder, str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self._folder,
            env=_environment(task.threads) | {"TMPDIR": str(self._temporary)},
            start_new_session=True,
        )
        assert self._process.stdout is not None
        BoundedLog(self._process.stdout, self._folder / _LOG)

    @property
    def ended(self) -> bool:
        """Whether the task is done or its time is over."""
        return self._process.poll() is not None or time.monotonic() >= self._deadline

    def outcome(self) -> Outcome:
        """Return what came of a task that has ended."""
        status = self._process.poll()
        self.kill()  # what it has started, too
        if status is None:
            return _out_of_time(self._seconds)
        return outcome_after(self._folder, status, self._task.memory_mb)

    def kill(self) -> None:
        """End it and all that it started, at once."""
        if self._killed:
            return
        self._killed = True
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS has its own word
            os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_SECONDS_TO_END)
        shutil.rmtree(self._temporary, ignore_errors=True)


async def call(task: Task, seconds: float, parent: Path) -> Outcome:
    """Do a task now, in a folder that is gone afterwards; cancelled, it ends at once.

    Parameters
    ----------
    task : Task
    seconds : float
        Wall time that it may take.
    parent : pathlib.Path
        Where the folder is made.

    Raises
    ------
    OSError
        The folder cannot be made, or no process be started.
    """
    folder = Path(tempfile.mkdtemp(prefix="call-", dir=parent))
    process = None
    try:
        await run_in_threadpool(task.write, folder)
        process = TaskProcess(folder, task, seconds)
        while not process.ended:
            await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)
        return await run_in_threadpool(process.outcome)
    finally:
        await run_in_threadpool(_clear, process, folder)


def _clear(process: TaskProcess | None, folder: Path) -> None:
    if process is not None:
        process.kill()
    shutil.rmtree(folder, ignore_errors=True)


def _environment(threads: int) -> dict[str, str]:
    """Return what a task's process sees of the server's environment: no secrets."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if (name in _KEPT_VARIABLES or name.startswith(_KEPT_PREFIXES)) and name not in _SECRETS
    }
    return kept | {
        "OMP_NUM_THREADS": str(threads),
        "PYTHONUNBUFFERED": "1",
        "MPLCONFIGDIR": str(cache_folder() / "matplotlib"),  # where fonts are found once for all
    }


def _out_of_time(seconds: float) -> Outcome:
    return Outcome(
        failure=Failure(
            f"it was ended after {seconds:.0f} seconds, the most that the server allows", "limit"
        )
    )
