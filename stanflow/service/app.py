"""The application: its parts put together, and taken apart again."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

from fastapi import FastAPI
from filelock import FileLock, Timeout
from sqlalchemy.exc import SQLAlchemyError

import stanflow
from stanflow.errors import UsageError, one_line, reason
from stanflow.service.context import Context
from stanflow.service.database import open_database
from stanflow.service.disk import RESERVED, NoRoomError, Reserve, require_room
from stanflow.service.gate import Gate
from stanflow.service.openapi import Application
from stanflow.service.problems import add_handlers
from stanflow.service.routes import models, operations, page, runs, system
from stanflow.service.settings import Settings
from stanflow.service.store import Store
from stanflow.service.supervisor import Supervisor

_LOCK = "server.lock"


@contextlib.contextmanager
def service(settings: Settings) -> Iterator[FastAPI]:
    """Run jobs, and give the application that takes them, until the block ends.

    Parameters
    ----------
    settings : Settings
        Its data folder is held meanwhile.

    Raises
    ------
    UsageError
        The data folder cannot be written, the database cannot be opened, or another server has
        one of them.
    """
    with _data_dir(settings) as reserve, open_database(settings.url_of_database) as database:
        reserve.keep()
        store = Store(database.engine, settings.most_queued, reserve)
        supervisor = Supervisor(store, settings, database.hold)
        try:
            supervisor.start()
        except SQLAlchemyError as error:
            raise UsageError(f"the database cannot be used: {one_line(error)}") from None
        try:
            yield _application(Context(settings, store, supervisor))
        finally:
            supervisor.stop()


def _application(context: Context) -> FastAPI:
    app = Application(
        title="StanFlow",
        version=stanflow.__version__,
        summary="Stan programs in, posteriors out.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        openapi_url="/v1/openapi.json",
    )
    app.state.context = context
    add_handlers(app)
    for resource in (
        models.router, operations.router, runs.fits, runs.nuts, runs.comparisons, system.router,
        page.router,
    ):  # fmt: skip
        app.include_router(resource)
    app.mount("/web", page.scripts_and_styles)
    app.add_middleware(Gate, settings=context.settings)
    return app


@contextlib.contextmanager
def _data_dir(settings: Settings) -> Iterator[Reserve]:
    """Hold the data folder; its reserve is given up where there is no other room to begin with."""
    folder = settings.data_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / _LOCK, timeout=0):
            shutil.rmtree(settings.calls_dir, ignore_errors=True)
            reserve = Reserve(folder)
            try:
                require_room(folder, RESERVED)
            except NoRoomError:
                reserve.give_up()
            for made in (settings.jobs_dir, settings.calls_dir):
                made.mkdir(exist_ok=True)
            yield reserve
    except Timeout:
        raise UsageError(f"another server has its data in {folder}; name another folder") from None
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {reason(error)}") from None
