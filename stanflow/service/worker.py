"""The process that does one task: ``python -m stanflow.service.worker FOLDER SERVER``.

It reads the task from the folder, limits itself, and leaves the outcome there. A fit's checkpoint
is kept in the folder, too: started again there, it goes on.
"""

from __future__ import annotations

import errno
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from stanflow.errors import StanFlowError, reason
from stanflow.service.confinement import confine
from stanflow.service.disk import NoRoomError
from stanflow.service.places import without_places
from stanflow.service.task import STATUS_OF_A_FULL_DISK, Failure, Outcome, Task
from stanflow.service.walls import raise_walls

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_TO_HDF5 = f"errno = {errno.ENOSPC}"
_LEAST_NEEDED = 2**20


def main(folder: Path, server: int) -> None:
    """Do the task that a folder holds, for the server with that process id."""
    task = Task.read(folder)
    confine(task.memory_mb, server)
    raise_walls(task, folder)
    try:
        outcome_of(task, folder).write(folder)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        sys.exit(STATUS_OF_A_FULL_DISK)


def outcome_of(task: Task, folder: Path) -> Outcome:
    """Do a task; what can go wrong is part of the outcome."""
    try:
        from stanflow.service.work import TASKS

        return Outcome(TASKS[task.kind](task, folder))
    except Exception as error:
        return Outcome(failure=_failure(error, task, folder))


def _failure(error: Exception, task: Task, folder: Path) -> Failure:
    """Say why there is no result; raise again what is a defect."""
    if isinstance(error, NoRoomError):
        return Failure.of_a_full_disk(error.needed, error.free)
    if _is_of_a_full_disk(error):
        free = shutil.disk_usage(folder).free
        return Failure.of_a_full_disk(free + _LEAST_NEEDED, free)
    if isinstance(error, StanFlowError):
        return _told_outside(Failure.of(error), folder)
    if isinstance(error, OSError):
        said = f"the server cannot keep the result: {reason(error)}"
        return _told_outside(Failure(said, "storage"), folder)
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and "alloc" in str(error)
    ):
        limit = f"the job needed more than the {task.memory_mb} MiB of memory that it may use"
        return Failure(limit, "limit")
    raise error


def _is_of_a_full_disk(error: BaseException | None) -> bool:
    """Whether a full disk is behind an error; HDF5 says so in words only."""
    while error is not None:
        if isinstance(error, OSError) and (error.errno in _FULL or _FULL_TO_HDF5 in str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def _told_outside(failure: Failure, folder: Path) -> Failure:
    """Return a failure that names no folder of the server."""
    error, detail = (without_places(text, folder) for text in (failure.error, failure.detail))
    return replace(failure, error=error, detail=detail)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
