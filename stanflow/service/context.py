"""What the routes share: the store, the settings, and the supervisor."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Request

from stanflow.service.disk import RESERVED, NoRoomError, require_room
from stanflow.service.problems import ProblemError, not_there, of_failure, try_later
from stanflow.service.processes import call
from stanflow.service.settings import Settings
from stanflow.service.store import Store
from stanflow.service.supervisor import Supervisor
from stanflow.service.tables import JobRow, ModelRow
from stanflow.service.task import Failure, Outcome, Task, TaskKind
from stanflow.service.waiting_room import FullError, WaitingRoom

_MOST_WAITING_CALLS = 32
_SECONDS_BETWEEN_LOOKS = 0.1


@dataclass
class Context:
    """The parts of one server.

    Attributes
    ----------
    settings : Settings
    store : Store
    supervisor : Supervisor
    closing : bool
        Whether the server is going down: nobody is to wait for what takes long.
    damaged : bool
        Whether the database was found damaged.
    """

    settings: Settings
    store: Store
    supervisor: Supervisor
    closing: bool = False
    damaged: bool = False
    _compiling: WaitingRoom = field(init=False)
    _evaluating: WaitingRoom = field(init=False)

    def __post_init__(self) -> None:
        self._compiling, self._evaluating = (
            WaitingRoom(self.settings.calls, _MOST_WAITING_CALLS) for _ in range(2)
        )

    async def call(self, task: Task, request: Request) -> dict[str, Any]:
        """Do a short task in a process of its own and return its result.

        It ends at once where the client goes away, or the server goes down.

        Raises
        ------
        ProblemError
            It failed, or took longer than it may, or too many wait already.
        """
        room = self._compiling if task.kind == "compile" else self._evaluating
        client = request.client.host if request.client is not None else ""
        doing = asyncio.create_task(self._do(task, room, client))
        try:
            while not doing.done():
                await asyncio.wait({doing}, timeout=_SECONDS_BETWEEN_LOOKS)
                if self.closing or await request.is_disconnected():
                    raise try_later("the server is going down")
            outcome = doing.result()
        except FullError:
            said = f"{_MOST_WAITING_CALLS} requests wait already, the most that may; try again"
            raise try_later(said) from None
        finally:
            doing.cancel()
            await asyncio.wait({doing})
        if outcome.failure is not None:
            problem = of_failure(outcome.failure)
            raise ProblemError(**problem.model_dump(exclude={"title"}))
        assert outcome.result is not None
        return outcome.result

    async def _do(self, task: Task, room: WaitingRoom, client: str) -> Outcome:
        async with room.place(client):
            return await call(task, self.settings.call_seconds, self.settings.calls_dir)

    def require_room(self) -> None:
        """Raise where the disk is too full to begin anything new.

        Raises
        ------
        ProblemError
        """
        try:
            require_room(self.settings.data_dir, RESERVED)
        except NoRoomError as error:
            failure = Failure.of_a_full_disk(error.needed, error.free)
            raise ProblemError(507, failure.error, kind=failure.kind) from None

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
