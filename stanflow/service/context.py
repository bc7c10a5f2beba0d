"""What the routes share: the store, the settings, and the supervisor."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool

from stanflow.service.problems import ProblemError, not_there, of_failure
from stanflow.service.processes import call
from stanflow.service.settings import Settings
from stanflow.service.store import Store
from stanflow.service.supervisor import Supervisor
from stanflow.service.tables import JobRow, ModelRow
from stanflow.service.task import Task, TaskKind


@dataclass
class Context:
    """The parts of one server."""

    settings: Settings
    store: Store
    supervisor: Supervisor
    _calls: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._calls = asyncio.Semaphore(self.settings.calls)

    async def call(self, task: Task) -> dict[str, Any]:
        """Do a short task in a process of its own and return its result.

        Raises
        ------
        ProblemError
            It failed, or took longer than it may.
        """
        settings = self.settings
        async with self._calls:
            doing = partial(call, task, settings.call_seconds, settings.calls_dir)
            outcome = await run_in_threadpool(doing)
        if outcome.failure is not None:
            problem = of_failure(outcome.failure)
            raise ProblemError(**problem.model_dump(exclude={"title"}))
        assert outcome.result is not None
        return outcome.result

    def task(self, kind: TaskKind, name: str, program: str = "", **what: Any) -> Task:
        """Return a task within the server's limits."""
        settings = self.settings
        return Task(
            kind, program, name, threads=settings.threads, memory_mb=settings.memory_mb, **what
        )

    def model(self, model: str) -> ModelRow:
        """Return a model.

        Raises
        ------
        ProblemError
            There is none.
        """
        found = self.store.model(model)
        if found is None:
            raise not_there("model", model)
        return found

    def job(self, job: str, *kinds: str) -> JobRow:
        """Return a job of one of these kinds, of any where none is named.

        Raises
        ------
        ProblemError
            There is none.
        """
        found = self.store.job(job)
        if found is None or (kinds and found.kind not in kinds):
            raise not_there(" or ".join(kinds) or "operation", job)
        return found

    def folder(self, job: JobRow) -> Path:
        """Return a job's folder."""
        return self.settings.jobs_dir / job.id


async def _context(request: Request) -> Context:
    found: Context = request.app.state.context
    return found


Here = Annotated[Context, Depends(_context)]
