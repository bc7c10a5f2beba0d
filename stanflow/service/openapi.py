"""The application, whose OpenAPI document tells all that every operation may answer."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from typing_extensions import override

from stanflow.service.gate import OPEN_TO_ALL
from stanflow.service.problems import documented

_TOKEN = "token"
_OF_FASTAPI = ("HTTPValidationError", "ValidationError")  # problems are told instead


class Application(FastAPI):
    """FastAPI, with what the gate and the database answer in its document."""

    @override
    def openapi(self) -> dict[str, Any]:
        """Return the document."""
        document = super().openapi()
        components = document["components"]
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                _complete(operation, reads=method == "get", open_to_all=path in OPEN_TO_ALL)
        for name in _OF_FASTAPI:
            components["schemas"].pop(name, None)
        components["securitySchemes"] = {
            _TOKEN: {
                "type": "http",
                "scheme": "bearer",
                "description": "Where the server was started with `--token-file`.",
            }
        }
        return document


def _complete(operation: dict[str, Any], *, reads: bool, open_to_all: bool) -> None:
    statuses = [413, 415, 421, 429, 503]
    if not reads:
        statuses.append(403)
    if not open_to_all:
        statuses.append(401)
        operation["security"] = [{}, {_TOKEN: []}]
    if "requestBody" in operation:
        statuses += [400, 408]
    told = operation["responses"]
    told.pop("422", None)
    if "requestBody" in operation or _not_of_path(operation):
        statuses.append(422)
    ours = {str(status): response for status, response in documented(*statuses).items()}
    operation["responses"] = dict(sorted((ours | told).items()))


def _not_of_path(operation: dict[str, Any]) -> bool:
    """Return whether it has parameters beside its path's, which are text of any kind."""
    return any(parameter["in"] != "path" for parameter in operation.get("parameters", []))
