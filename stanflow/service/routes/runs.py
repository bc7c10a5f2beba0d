"""What came of jobs: fits, NUTS runs and comparisons."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

import pyarrow
from fastapi import APIRouter, Query
from fastapi.responses import FileResponse, Response, StreamingResponse
from pydantic_core import to_json

from stanflow.service import schemas
from stanflow.service.context import Context, Here
from stanflow.service.problems import ProblemError, documented
from stanflow.service.results import result_file
from stanflow.service.routes.operations import forget
from stanflow.service.tables import JobKind, JobRow
from stanflow.service.task import DRAWS, REPORT, RUN

_MOST_ROWS_AS_JSON, _MOST_CELLS_AS_JSON = 10_000, 1_000_000
_JSON_CELLS_AT_ONCE, _ARROW_CELLS_AT_ONCE = 10_000, 500_000
_END_OF_ARROW = b"\xff\xff\xff\xff\0\0\0\0"
_ARROW, _NETCDF = "application/vnd.apache.arrow.stream", "application/x-netcdf"
_GONE = documented(404, 409)


def router_of(resource: str, kind: JobKind) -> APIRouter:
    """Return the routes that fits, NUTS runs and comparisons have alike."""
    router = APIRouter(prefix=f"/v1/{resource}", tags=[resource])

    @router.get("", operation_id=f"list_{resource}")
    def list_runs(
        here: Here,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        offset: Annotated[int, Query(ge=0, le=2**31)] = 0,
    ) -> schemas.Runs:
        """Return those that succeeded, the newest first, without their results."""
        rows = here.store.jobs([kind], limit, offset, succeeded=True)
        return schemas.Runs(runs=[_shown(row) for row in rows])

    @router.get("/{run}", operation_id=f"get_{kind}", responses=_GONE)
    def get_run(run: str, here: Here) -> schemas.Run:
        """Return what came of it."""
        row = _finished(here, run, kind)
        return schemas.Run(**_shown(row).model_dump(), result=row.result or {})

    @router.delete("/{run}", operation_id=f"delete_{kind}", status_code=204, responses=_GONE)
    def delete_run(run: str, here: Here) -> None:
        """Delete it, with its draws; whatever way it ended."""
        forget(here, here.job(run, kind))

    return router


fits = router_of("fits", "fit")
nuts = router_of("nuts", "nuts")
comparisons = router_of("comparisons", "comparison")


def _add_draws(router: APIRouter, kind: JobKind) -> None:
    @router.get(
        "/{run}/draws",
        operation_id=f"get_draws_of_{kind}",
        response_model=schemas.Draws,
        responses=_GONE
        | documented(422)
        | {
            200: {
                "description": "Draws; rows `offset` to `offset + limit`, in NetCDF all of them.",
                "content": {_ARROW: {}, _NETCDF: {}},
            }
        },
    )
    def get_draws(
        run: str,
        here: Here,
        *,
        format: Annotated[  # noqa: A002
            Literal["json", "arrow", "netcdf"],
            Query(
                description="JSON has 10,000 rows and 1,000,000 numbers at most, but one row "
                "whatever its length: fewer rows than `limit` may come."
            ),
        ] = "json",
        columns: Annotated[
            list[str] | None, Query(description="Only these, in this order; not for NetCDF.")
        ] = None,
        limit: Annotated[int, Query(ge=1, le=schemas.MOST_DRAWS)] = 1000,
        offset: Annotated[int, Query(ge=0, le=2**31)] = 0,
    ) -> Response:
        """Return draws, one row each: what is known of it, and every scalar of the program."""
        folder = here.folder(_finished(here, run, kind))
        if format == "netcdf":
            return _file(result_file(folder / RUN, "draws.nc"), _NETCDF, f"{run}.nc")
        draws = _draws(result_file(folder, DRAWS))
        unknown = [name for name in columns or [] if name not in draws.column_names]
        if unknown:
            raise ProblemError(422, f"the draws have no column {unknown[0]!r}", kind="usage")
        page = (draws if columns is None else draws.select(columns)).slice(offset, limit)
        if format == "arrow":
            return StreamingResponse(_as_arrow(page), media_type=_ARROW)
        most = min(_MOST_ROWS_AS_JSON, max(1, _MOST_CELLS_AS_JSON // page.num_columns))
        parts = _as_json(page.slice(0, most), offset, draws.num_rows)
        return StreamingResponse(parts, media_type="application/json")


for _router, _kind in ((fits, "fit"), (nuts, "nuts")):
    _add_draws(_router, _kind)  # type: ignore[arg-type]


def _add_report(router: APIRouter, kind: JobKind) -> None:
    @router.get(
        "/{run}/report",
        operation_id=f"get_report_of_{kind}",
        response_class=FileResponse,
        responses=_GONE | {200: {"content": {"text/html": {"schema": {"type": "string"}}}}},
    )
    def get_report(run: str, here: Here) -> FileResponse:
        """Return it as a page in one file."""
        folder = here.folder(_finished(here, run, kind))
        if not (folder / REPORT).is_file():
            raise ProblemError(404, f"the {kind} {run!r} is of a server that wrote no pages yet")
        return _file(result_file(folder, REPORT), "text/html", f"{run}.html")


for _router, _kind in ((fits, "fit"), (comparisons, "comparison")):
    _add_report(_router, _kind)  # type: ignore[arg-type]


@fits.get(
    "/{run}/trace",
    response_class=FileResponse,
    responses=_GONE | {200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
def get_trace(run: str, here: Here) -> FileResponse:
    """Return every training step as CSV."""
    folder = here.folder(_finished(here, run, "fit"))
    return _file(result_file(folder / RUN, "trace.csv"), "text/csv", f"{run}.csv")


def _finished(here: Context, run: str, kind: JobKind) -> JobRow:
    row = here.job(run, kind)
    if row.status != "succeeded":
        said = f"the {kind} {run!r} has no result: it is {row.status}; see its operation"
        raise ProblemError(409, said)
    return row


def _shown(row: JobRow) -> schemas.RunHead:
    return schemas.RunHead(
        id=row.id, kind=row.kind, name=row.name, model=row.model, options=row.options,
        created=row.created,
    )  # fmt: skip


def _draws(path: Path) -> pyarrow.Table:
    with pyarrow.memory_map(str(path)) as source:
        return pyarrow.ipc.open_file(source).read_all()


def _as_arrow(page: pyarrow.Table) -> Iterator[bytes]:
    """Write draws as a stream of Arrow, some of them at a time."""
    yield page.schema.serialize().to_pybytes()
    for batch in page.to_batches(max(1, _ARROW_CELLS_AT_ONCE // page.num_columns)):
        yield batch.serialize().to_pybytes()
    yield _END_OF_ARROW


def _as_json(page: pyarrow.Table, offset: int, total: int) -> Iterator[bytes]:
    """Write draws as `schemas.Draws`, some of them at a time; what is not finite is null."""
    head = to_json({"columns": page.column_names, "offset": offset, "total": total})
    yield head[:-1] + b',"rows":['
    rows = zip(*(column.to_numpy().tolist() for column in page.columns), strict=True)
    at_once = max(1, _JSON_CELLS_AT_ONCE // page.num_columns)
    comma = b""
    while block := list(islice(rows, at_once)):
        yield comma + to_json(block, inf_nan_mode="null")[1:-1]
        comma = b","
    yield b"]}"


def _file(path: Path, media_type: str, name: str) -> FileResponse:
    found = path.stat()  # where it is not there, FileResponse would raise no OSError
    return FileResponse(path, media_type=media_type, filename=name, stat_result=found)
