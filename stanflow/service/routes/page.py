"""The page, for browsers."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse
from starlette.staticfiles import StaticFiles

router = APIRouter(include_in_schema=False)
_WEB = Path(__file__).parents[1] / "web"

scripts_and_styles = StaticFiles(directory=_WEB)


@router.get("/")
def page() -> FileResponse:
    """Return the page, which asks for the rest."""
    return FileResponse(_WEB / "index.html")
