"""Processes that do tasks: started, watched and ended by the server."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from stanflow.service.task import Failure, Outcome, Task, outcome_after

_WORKER, _LOG = "stanflow.service.worker", "worker.log"
_KEPT_VARIABLES = frozenset(
    {"PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "CMDSTAN", "BRIDGESTAN"}
)
_KEPT_PREFIXES = ("STANFLOW_", "XDG_")
_SECRETS = frozenset({"STANFLOW_DATABASE_URL"})
_SECONDS_TO_END = 10.0


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
        self._deadline = time.monotonic() + seconds
        with (folder / _LOG).open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", _WORKER, self._folder, str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env=_environment(task.threads),
                start_new_session=True,
            )

    def outcome(self) -> Outcome | None:
        """Return what came of the task; None while it is being done."""
        status = self._process.poll()
        if status is not None:
            return outcome_after(self._folder, status, self._task.memory_mb)
        if time.monotonic() < self._deadline:
            return None
        self.kill()
        return _out_of_time(self._seconds)

    def wait(self) -> Outcome:
        """Wait until the task is done or its time is over, and return what came of it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, self._deadline - time.monotonic()))
        outcome = self.outcome()
        if outcome is None:
            self.kill()
            return _out_of_time(self._seconds)
        return outcome

    def kill(self) -> None:
        """End it and all that it started, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_SECONDS_TO_END)


def call(task: Task, seconds: float, parent: Path) -> Outcome:
    """Do a task now, in a folder that is gone afterwards.

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
    try:
        task.write(folder)
        return TaskProcess(folder, task, seconds).wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _environment(threads: int) -> dict[str, str]:
    """Return what a task's process sees of the server's environment: no secrets."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if (name in _KEPT_VARIABLES or name.startswith(_KEPT_PREFIXES)) and name not in _SECRETS
    }
    return kept | {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}


def _out_of_time(seconds: float) -> Outcome:
    return Outcome(
        failure=Failure(
            f"it was ended after {seconds:.0f} seconds, the most that the server allows", "limit"
        )
    )
