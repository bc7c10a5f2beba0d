"""The thread that runs queued jobs, each in a process of its own."""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from stanflow.errors import reason
from stanflow.service.advisory_lock import TakenError
from stanflow.service.disk import RESERVED
from stanflow.service.processes import TaskProcess
from stanflow.service.settings import Settings
from stanflow.service.store import Store
from stanflow.service.tables import JobRow
from stanflow.service.task import DamagedError, Failure, Outcome, Task

_SECONDS_BETWEEN_ROUNDS = 0.2
_MOST_ATTEMPTS = 3
_LOGGER = logging.getLogger(__name__)


@dataclass
class _Running:
    process: TaskProcess
    outcome: Outcome | None = None  # until the database has it


class Supervisor:
    """Runs jobs in the order they came, some at a time, until it is stopped.

    Nothing that has ended is lost when the server or the machine goes down: outcomes are files
    before they are rows. Where the database cannot be written, its thread tries again. A job whose
    result had no room on the disk waits until there is, and goes on from its checkpoint.

    Parameters
    ----------
    store : Store
    settings : Settings
    hold : callable
        Called before jobs are looked at; raises where the database is not this server's.
    """

    def __init__(self, store: Store, settings: Settings, hold: Callable[[], None]) -> None:
        self._store, self._settings, self._hold = store, settings, hold
        self._working = True
        self._running: dict[str, _Running] = {}
        self._something_to_do, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="supervisor", daemon=True)

    def start(self) -> None:
        """Take up what an earlier server left, and begin."""
        self._recover()
        self._thread.start()

    def wake(self) -> None:
        """Look at the jobs now: one was queued or cancelled."""
        self._something_to_do.set()

    def stop(self) -> None:
        """End the processes; their jobs go on when a server starts again."""
        self._stopping.set()
        self.wake()
        if self._thread.is_alive():
            self._thread.join()
        for job, running in self._running.items():
            running.process.kill()
            with contextlib.suppress(SQLAlchemyError):  # then it counts as begun
                self._store.requeue(job, counted=False)

    @property
    def alive(self) -> bool:
        """Whether jobs are run: not while their state cannot be kept."""
        return self._working and self._thread.is_alive()

    def _recover(self) -> None:
        for job in self._store.unfinished():
            outcome = Outcome.read(self._settings.jobs_dir / job.id)
            if outcome is None and job.status == "queued":
                continue
            if outcome is None and job.attempts >= _MOST_ATTEMPTS:
                said = f"the server went down {job.attempts} times while the job ran"
                outcome = Outcome(failure=Failure(said, "crash"))
            if outcome is None:
                self._store.requeue(job.id)
            else:
                self._store.start(job.id)
                self._keep(job.id, outcome)
        known = self._store.ids()
        for folder in self._settings.jobs_dir.iterdir():
            if folder.name not in known:
                shutil.rmtree(folder, ignore_errors=True)

    def _work(self) -> None:
        while not self._stopping.is_set():
            try:
                self._hold()
                unfinished = self._store.unfinished()
                self._settle({job.id for job in unfinished if job.status == "running"})
                self._begin([job for job in unfinished if job.status == "queued"])
                self._working = True
            except (SQLAlchemyError, OSError, TakenError) as error:
                if self._working:  # said once, however long it lasts
                    _LOGGER.warning("jobs wait, as the server cannot keep their state: %s", error)
                self._working = False
            except Exception:
                _LOGGER.exception("a defect of the supervisor; it goes on")
            self._something_to_do.wait(_SECONDS_BETWEEN_ROUNDS)
            self._something_to_do.clear()

    def _settle(self, still_wanted: Set[str]) -> None:
        """Keep what came of jobs that have ended, and end those that were cancelled."""
        for job in still_wanted - self._running.keys():  # the answer to `start` was lost
            self._store.requeue(job, counted=False)
        for job, running in list(self._running.items()):
            if job not in still_wanted:
                running.process.kill()
                del self._running[job]
                continue
            if running.outcome is None and running.process.ended:
                running.outcome = running.process.outcome()
            if running.outcome is not None:
                self._keep(job, running.outcome)
                del self._running[job]

    def _keep(self, job: str, outcome: Outcome) -> None:
        failure = outcome.failure
        if failure is not None and failure.bytes_needed is not None:
            self._store.requeue(job, counted=False, failure=failure)
        else:
            self._store.finish(job, outcome)

    def _begin(self, waiting: Sequence[JobRow]) -> None:
        """Start jobs that wait while there is room."""
        free = shutil.disk_usage(self._settings.jobs_dir).free
        roomy = [job.id for job in waiting if _bytes_needed(job) <= free]
        for job in roomy[: max(0, self._settings.jobs - len(self._running))]:
            if not self._store.start(job):
                continue  # it was cancelled meanwhile
            folder = self._settings.jobs_dir / job
            try:
                task = Task.read(folder)
                process = TaskProcess(folder, task, self._settings.job_seconds)
            except (OSError, DamagedError) as error:
                why = reason(error) if isinstance(error, OSError) else error
                lost = Failure(f"the job cannot be started: {why}", "storage")
                self._store.finish(job, Outcome(failure=lost))
                continue
            self._running[job] = _Running(process)


def _bytes_needed(job: JobRow) -> int:
    told = (job.failure or {}).get("bytes_needed") or 0
    return max(RESERVED, int(told))
