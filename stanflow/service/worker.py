"""The process that does one task: ``python -m stanflow.service.worker FOLDER SERVER``.

It reads the task from the folder, limits itself, and leaves the outcome there. A fit's checkpoint
is kept in the folder, too: started again there, it goes on.
"""

from __future__ import annotations

import sys
from pathlib import Path

from stanflow.errors import StanFlowError
from stanflow.service.confinement import confine
from stanflow.service.task import Failure, Outcome, Task


def main(folder: Path, server: int) -> None:
    """Do the task that a folder holds, for the server with that process id."""
    task = Task.read(folder)
    confine(task.memory_mb, server)
    outcome_of(task, folder).write(folder)


def outcome_of(task: Task, folder: Path) -> Outcome:
    """Do a task; what can go wrong is part of the outcome."""
    try:
        from stanflow.service.work import TASKS

        return Outcome(TASKS[task.kind](task, folder))
    except StanFlowError as error:
        return Outcome(failure=Failure.of(error))
    except OSError as error:
        return Outcome(
            failure=Failure(f"the server cannot keep the result: {error.strerror}", "storage")
        )
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "alloc" not in str(error):
            raise
        limit = f"the job needed more than the {task.memory_mb} MiB of memory that it may use"
        return Outcome(failure=Failure(limit, "limit"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
