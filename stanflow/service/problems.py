"""Errors as clients see them: RFC 9457 problems, never a traceback."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from stanflow.service.database import is_damage, is_full
from stanflow.service.schemas import Problem
from stanflow.service.task import Failure

MEDIA_TYPE = "application/problem+json"
DAMAGED = "the server's database is damaged; stop it, and put a copy in its place"
_SECONDS_TO_RETRY = 5
_LONGEST_PLACE = 200  # characters: a field that is not known may have any name
_LOGGER = logging.getLogger(__name__)


class ProblemError(HTTPException):
    """A response that says what is wrong.

    Parameters
    ----------
    status : int
    detail : str
        One sentence.
    headers : mapping, optional
    **more
        Further fields of `Problem`.
    """

    def __init__(
        self, status: int, detail: str, headers: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        super().__init__(status, detail, None if headers is None else dict(headers))
        self.problem = Problem(
            title=HTTPStatus(status).phrase, status=status, detail=detail, **more
        )


def of_failure(failure: Failure) -> Problem:
    """Return why a task failed as a problem."""
    return Problem(
        title=HTTPStatus.UNPROCESSABLE_ENTITY.phrase,
        status=HTTPStatus.UNPROCESSABLE_ENTITY,
        detail=failure.error,
        kind=failure.kind,
        output=failure.detail or None,
        line=failure.line,
        column=failure.column,
    )


def not_there(what: str, name: str) -> ProblemError:
    """Say that there is no such thing."""
    return ProblemError(404, f"there is no {what} {name!r}")


def try_later(detail: str, status: int = 503, seconds: int = _SECONDS_TO_RETRY) -> ProblemError:
    """Say that it may work in some seconds."""
    return ProblemError(status, detail, headers={"Retry-After": str(seconds)})


def respond(problem: Problem, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return a problem as a response."""
    return JSONResponse(
        problem.model_dump(exclude_none=True),
        status_code=problem.status,
        headers=None if headers is None else dict(headers),
        media_type=MEDIA_TYPE,
    )


def add_handlers(app: FastAPI) -> None:
    """Turn whatever is raised while a request is answered into a problem."""

    @app.exception_handler(ProblemError)
    async def _(request: Request, error: ProblemError) -> JSONResponse:
        return respond(error.problem, error.headers)

    @app.exception_handler(RequestValidationError)
    async def _(request: Request, error: RequestValidationError) -> JSONResponse:
        return respond(ProblemError(422, _sentence(error), kind="usage").problem)

    @app.exception_handler(HTTPException)
    async def _(request: Request, error: HTTPException) -> JSONResponse:
        detail, headers = str(error.detail), error.headers
        if detail == HTTPStatus(error.status_code).phrase:
            detail = f"{request.method} {request.url.path}: {detail.lower()}"
        if error.status_code == 405 and (methods := _methods(request)):
            headers = {"Allow": ", ".join(methods)}
        return respond(ProblemError(error.status_code, detail).problem, headers)

    @app.exception_handler(SQLAlchemyError)
    async def _(request: Request, error: SQLAlchemyError) -> JSONResponse:
        _LOGGER.warning("%s %s: the database failed: %s", request.method, request.url.path, error)
        if is_damage(error):
            request.app.state.context.damaged = True
            return respond(ProblemError(500, DAMAGED).problem)
        if is_full(error):
            detail = "the disk of the server's database is full; delete runs"
            return respond(ProblemError(507, detail, kind="storage").problem)
        later = try_later("the server's database is busy or cannot be written; try again")
        return respond(later.problem, later.headers)

    @app.exception_handler(OSError)
    async def _(request: Request, error: OSError) -> JSONResponse:
        if isinstance(error, FileNotFoundError) and request.method == "GET":
            said = f"{request.url.path}: its files are not in the server's data folder"
            return respond(ProblemError(404, said).problem)
        _LOGGER.warning("%s %s: %s", request.method, request.url.path, error)
        full = ProblemError(507, f"the server cannot keep this: {error.strerror}", kind="storage")
        return respond(full.problem)

    @app.exception_handler(Exception)
    async def _(request: Request, error: Exception) -> JSONResponse:
        _LOGGER.exception("%s %s: a defect", request.method, request.url.path)
        return respond(ProblemError(500, "the server has a defect; its log says where").problem)


def _methods(request: Request) -> list[str]:
    """Return the methods that a request's path has."""
    return [
        method
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]


def _sentence(error: RequestValidationError) -> str:
    """Say what is wrong with a request, and where."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    where = (".".join(place[1:]) or place[0])[:_LONGEST_PLACE]
    message = first["msg"][:1].lower() + first["msg"][1:]
    more = len(error.errors()) - 1
    return f"{where}: {message}" + (f" (and {more} more)" if more else "")


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the responses of these statuses for the OpenAPI document, each with an example.

    Those that any request may be answered need not be named; see `openapi.Application`.
    """
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": _SCHEMA, "example": _EXAMPLES[status]}},
            **_HEADERS.get(status, {}),
        }
        for status in statuses
    }


def _example(status: int, detail: str, **more: Any) -> dict[str, Any]:
    return {"title": HTTPStatus(status).phrase, "status": status, "detail": detail, **more}


_SCHEMA = {"$ref": f"#/components/schemas/{Problem.__name__}"}
_SECONDS = {"description": "In seconds.", "schema": {"type": "integer"}}
_RETRY_AFTER = {"headers": {"Retry-After": _SECONDS}}
_HEADERS: Mapping[int, Mapping[str, Any]] = {
    401: {"headers": {"WWW-Authenticate": {"schema": {"type": "string", "const": "Bearer"}}}},
    429: _RETRY_AFTER,
    503: _RETRY_AFTER,
}
_EXAMPLES = {
    400: _example(
        400, "the body cannot be read as JSON: expected ident at line 1 column 2", kind="usage"
    ),
    401: _example(401, "this server asks for a token; send it as `Authorization: Bearer TOKEN`"),
    403: _example(
        403,
        "only a page of localhost:8000 may ask for this, not one of https://elsewhere.example; a "
        "proxy in between must pass on the Host header",
    ),
    404: _example(404, "there is no model 'feedc0ffee123456'"),
    408: _example(
        408,
        "the body came too slowly; 20 seconds are waited for it, and one more for each 16384 bytes",
    ),
    409: _example(409, "the job is still running; cancel its operation first"),
    413: _example(413, "the body has more than 83886080 bytes, the most that is taken"),
    415: _example(415, "the body must be JSON; send it as `Content-Type: application/json`"),
    421: _example(421, "this server answers to localhost and 127.0.0.1 only"),
    422: _example(
        422,
        'Semantic error in model.stan, line 1, column 45 to column 46: Identifier "y" not in '
        "scope.",
        kind="program", line=1, column=45,
    ),
    429: _example(429, "more than 60000 requests in a minute; try again in a while"),
    503: _example(503, "100 jobs wait already, the most that the server keeps; try again later"),
    507: _example(507, "the server cannot keep this: No space left on device", kind="storage"),
}  # fmt: skip
