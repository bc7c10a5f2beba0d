"""Jobs: begun, watched and cancelled."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, get_args

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from stanflow.service import schemas
from stanflow.service.bodies import BodyRoute
from stanflow.service.context import Context, Here
from stanflow.service.problems import (
    ProblemError,
    documented,
    not_there,
    of_failure,
    try_later,
)
from stanflow.service.store import KeyReusedError, QueueFullError, new_id
from stanflow.service.tables import UNFINISHED, JobKind, JobRow
from stanflow.service.task import PROGRESS, DamagedError, Failure, Task

router = APIRouter(prefix="/v1", tags=["operations"], route_class=BodyRoute)
_KINDS: tuple[JobKind, ...] = get_args(JobKind)
_SECONDS_BETWEEN_LOOKS = 0.25
_SECONDS_BETWEEN_SIGNS_OF_LIFE = 15.0
_TAIL_READ = 4096
_OF_A_JOB = documented(404, 409, 507)
_EVENT = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "event": {"enum": ["step", "operation"]},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {
                "anyOf": [
                    {"$ref": f"#/components/schemas/{shown.__name__}"}
                    for shown in (schemas.Step, schemas.Operation)
                ]
            },
        },
    },
}  # as OpenAPI 3.2 has it, which tools of 3.1 leave alone
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key", min_length=1, max_length=255,
        description="A request with the key of an earlier one is that one: nothing begins twice.",
    ),
]  # fmt: skip


@router.post("/models/{model}/fits", status_code=202, responses=_OF_A_JOB)
def create_fit(
    model: str, new: schemas.NewFit, here: Here, response: Response, key: Key = None
) -> schemas.Operation:
    """Fit a flow to a program's posterior."""
    return _queue(here, response, _task(here, "fit", model, new), model, key)


@router.post("/models/{model}/nuts", status_code=202, responses=_OF_A_JOB)
def create_nuts(
    model: str, new: schemas.NewNuts, here: Here, response: Response, key: Key = None
) -> schemas.Operation:
    """Draw from a program's posterior by NUTS."""
    return _queue(here, response, _task(here, "nuts", model, new), model, key)


@router.post("/comparisons", status_code=202, responses=_OF_A_JOB)
def create_comparison(
    new: schemas.NewComparison, here: Here, response: Response, key: Key = None
) -> schemas.Operation:
    """Compare a fit with a NUTS run of the same program and data."""
    sides = {side: here.job(getattr(new, side), "fit", "nuts") for side in ("fit", "reference")}
    for side, job in sides.items():
        if job.status != "succeeded":
            raise ProblemError(409, f"the {side} {job.id!r} has not succeeded; it is {job.status}")
    first = sides["fit"]
    task = here.task("comparison", first.name, options=new.model_dump())
    return _queue(here, response, task, first.model, key)


@router.get("/operations")
def list_operations(
    here: Here,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0, le=2**31)] = 0,
) -> schemas.Operations:
    """Return jobs, the newest first."""
    rows = here.store.jobs(_KINDS, limit, offset)
    return schemas.Operations(operations=[shown(row, here) for row in rows])


@router.get("/operations/{operation}", responses=documented(404))
def get_operation(operation: str, here: Here) -> schemas.Operation:
    """Return how a job stands."""
    return shown(here.job(operation), here)


@router.get("/operations/{operation}/task", responses=documented(404))
def get_task(operation: str, here: Here) -> schemas.Asked:
    """Return what a job was asked to do: program, data and options."""
    try:
        task = Task.read(here.folder(here.job(operation)))
    except DamagedError as error:
        raise ProblemError(404, f"what {operation!r} was asked is lost: {error}") from None
    return schemas.Asked(
        name=task.name, program_code=task.program, data=task.data, options=task.options
    )


@router.delete("/operations/{operation}", responses=documented(404))
def cancel_operation(operation: str, here: Here) -> schemas.Operation:
    """Cancel a job that waits or runs; one that has ended stays as it is."""
    here.job(operation)
    if here.store.cancel(operation):
        here.supervisor.wake()
    return shown(here.job(operation), here)


@router.get(
    "/operations/{operation}/events",
    response_class=StreamingResponse,
    responses=documented(404) | {200: {"content": {"text/event-stream": {"itemSchema": _EVENT}}}},
)
async def watch(operation: str, here: Here, request: Request) -> StreamingResponse:
    """Stream a job as server-sent events: `step` as it goes on, `operation` as its status changes.

    Once training has ended, steps tell by `refine` how far refining is. The last event is an
    `operation` that is done.
    """
    await run_in_threadpool(here.job, operation)
    return StreamingResponse(_events(here, operation, request), media_type="text/event-stream")


async def _events(here: Context, job: str, request: Request) -> AsyncIterator[str]:
    progress = here.settings.jobs_dir / job / PROGRESS
    read, status, told = 0, None, time.monotonic()
    while not (here.closing or await request.is_disconnected()):
        if time.monotonic() - told > _SECONDS_BETWEEN_SIGNS_OF_LIFE:
            told = time.monotonic()
            yield ": still there\n\n"
        try:
            row = await run_in_threadpool(here.store.job, job)
        except SQLAlchemyError:  # the database is away; the job goes on
            await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)
            continue
        if row is None:
            return
        lines, read = await run_in_threadpool(_lines_after, progress, read)
        for line in lines:
            told = time.monotonic()
            yield f"event: step\ndata: {line}\n\n"
        if row.status != status:
            status, told = row.status, time.monotonic()
            yield f"event: operation\ndata: {shown(row, here).model_dump_json()}\n\n"
        if status not in UNFINISHED:
            return
        await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)


def shown(row: JobRow, here: Context) -> schemas.Operation:
    """Return a job as clients see it."""
    failure = None if row.failure is None else of_failure(Failure(**row.failure))
    return schemas.Operation(
        id=row.id,
        kind=row.kind,
        name=row.name,
        model=row.model,
        options=row.options,
        status=row.status,
        done=row.status not in UNFINISHED,
        attempts=row.attempts,
        created=row.created,
        started=row.started,
        finished=row.finished,
        verdict=row.verdict,
        progress=_last_step(here.folder(row) / PROGRESS) if row.status == "running" else None,
        failure=failure,
    )


def _task(here: Context, kind: JobKind, model: str, new: schemas.NewFit | schemas.NewNuts) -> Task:
    """Return what a request asks for.

    Raises
    ------
    ProblemError
        There is no such model, or the data are too large.
    """
    row = here.model(model)
    options = new.options.model_dump()
    task = here.task(kind, row.name, row.program, data=new.data, options=options)
    if len(task.data_json) > (most := here.settings.largest_data):
        raise ProblemError(413, f"the data have more than {most} bytes, the most that is taken")
    return task


def _queue(
    here: Context, response: Response, task: Task, model: str | None, key: str | None
) -> schemas.Operation:
    """Put a task into the queue; its folder is there before its row."""
    here.require_room()
    job = new_id()
    folder = here.settings.jobs_dir / job
    kept = False
    try:
        task.write(folder)
        row, kept = here.store.add_job(
            job,
            task.kind,  # type: ignore[arg-type]
            name=task.name,
            model=model,
            options=task.options,
            data=task.data_json,
            key=key,
        )
    except QueueFullError:
        most = here.settings.most_queued
        said = f"{most} jobs wait already, the most that the server keeps; try again later"
        raise try_later(said) from None
    except KeyReusedError:
        said = f"the idempotency key {key!r} came with another request before"
        raise ProblemError(409, said) from None
    except DBAPIError as error:
        kept = error.connection_invalidated  # it may be: the answer did not come
        raise
    finally:
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)
    here.supervisor.wake()
    response.headers["Location"] = f"/v1/operations/{row.id}"
    return shown(row, here)


def _lines_after(path: Path, position: int) -> tuple[list[str], int]:
    """Return the whole lines of a file from a position on, and where they end."""
    try:
        with path.open("rb") as file:
            file.seek(position)
            text = file.read()
    except FileNotFoundError:
        return [], position
    whole = text[: text.rfind(b"\n") + 1]
    return whole.decode(errors="replace").splitlines(), position + len(whole)


def _last_step(path: Path) -> schemas.Step | None:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL_READ))
            whole = file.read().rpartition(b"\n")[0]
    except FileNotFoundError:
        return None
    last = whole.rpartition(b"\n")[2]
    try:
        return schemas.Step.model_validate_json(last)
    except ValueError:  # there is none yet, or the file is damaged
        return None


def forget(here: Context, row: JobRow) -> None:
    """Delete a job that has ended, with all that came of it.

    Raises
    ------
    ProblemError
        It has not.
    """
    if row.status in UNFINISHED:
        raise ProblemError(409, f"the job is still {row.status}; cancel its operation first")
    shutil.rmtree(here.folder(row), ignore_errors=True)  # first: the row's going needs room
    if not here.store.delete_job(row.id):
        raise not_there(row.kind, row.id)
