"""Programs: compiled, kept, and evaluated."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from stanflow.service import schemas
from stanflow.service.bodies import BodyRoute
from stanflow.service.context import Here
from stanflow.service.problems import ProblemError, documented, not_there
from stanflow.service.tables import ModelRow
from stanflow.service.task import TaskKind

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=BodyRoute)
_OF_A_CALL = documented(404, 507)


@router.post(
    "",
    status_code=201,
    responses=documented(507) | {200: {"model": schemas.Model, "description": "Known already"}},
)
async def create_model(
    new: schemas.NewModel, here: Here, request: Request, response: Response
) -> schemas.Model:
    """Compile a program and keep it; the same program under the same name is the same model."""
    settings = here.settings
    if len(new.program_code.encode()) > settings.largest_program:
        most = settings.largest_program
        raise ProblemError(413, f"the program has more than {most} bytes, the most that is taken")
    if "\0" in new.program_code:  # which PostgreSQL does not keep
        raise ProblemError(422, "the program has a NUL character; take it out", kind="program")
    await run_in_threadpool(here.require_room)
    task = here.task("compile", new.name, new.program_code)
    compiled = await here.call(task, request)
    row, is_new = await run_in_threadpool(
        here.store.add_model, new.program_code, new.name, compiled["data"]
    )
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"/v1/models/{row.id}"
    return _shown(row)


@router.get("")
def list_models(here: Here) -> schemas.Models:
    """Return all models, the newest first."""
    return schemas.Models(models=[_shown(row) for row in here.store.models()])


@router.get("/{model}", responses=documented(404))
def get_model(model: str, here: Here) -> schemas.Model:
    """Return a model."""
    return _shown(here.model(model))


@router.delete("/{model}", status_code=204, responses=documented(404))
def delete_model(model: str, here: Here) -> None:
    """Forget a model. What was fitted with it stays."""
    if not here.store.delete_model(model):
        raise not_there("model", model)


@router.post("/{model}/params", responses=_OF_A_CALL)
async def params(
    model: str, asked: schemas.WithData, here: Here, request: Request
) -> schemas.Params:
    """Name the parameters of a program given its data."""
    return schemas.Params(**await _call(here, request, model, "params", asked))


@router.post("/{model}/log_prob", responses=_OF_A_CALL)
async def log_prob(
    model: str, asked: schemas.AtDraws, here: Here, request: Request
) -> schemas.LogProb:
    """Evaluate the log density of unconstrained draws."""
    return schemas.LogProb(**await _call(here, request, model, "log_prob", asked))


@router.post("/{model}/log_prob_grad", responses=_OF_A_CALL)
async def log_prob_grad(
    model: str, asked: schemas.AtDraws, here: Here, request: Request
) -> schemas.LogProbGrad:
    """Evaluate the log density of unconstrained draws, and its gradient."""
    return schemas.LogProbGrad(**await _call(here, request, model, "log_prob_grad", asked))


@router.post("/{model}/write_array", responses=_OF_A_CALL)
async def write_array(
    model: str, asked: schemas.WriteArray, here: Here, request: Request
) -> schemas.Constrained:
    """Map unconstrained draws to the program's scale."""
    return schemas.Constrained(**await _call(here, request, model, "write_array", asked))


@router.post("/{model}/transform_inits", responses=_OF_A_CALL)
async def transform_inits(
    model: str, asked: schemas.TransformInits, here: Here, request: Request
) -> schemas.Unconstrained:
    """Map parameters, by name, to an unconstrained draw."""
    return schemas.Unconstrained(**await _call(here, request, model, "transform_inits", asked))


async def _call(
    here: Here, request: Request, model: str, kind: TaskKind, asked: schemas.WithData
) -> dict[str, Any]:
    row = await run_in_threadpool(here.model, model)
    options = {name: value for name, value in asked if name != "data"}
    task = here.task(kind, row.name, row.program, data=asked.data, options=options)
    return await here.call(task, request)


def _shown(row: ModelRow) -> schemas.Model:
    return schemas.Model(
        id=row.id,
        name=row.name,
        program_code=row.program,
        data=[schemas.DeclaredData(**declared) for declared in row.data],
        created=row.created,
    )
