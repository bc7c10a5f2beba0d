"""The connection to the database, whose tables are brought up to date when it is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError

from stanflow.errors import UsageError, one_line

_SECONDS_TO_WAIT_FOR_A_LOCK = 5.0
_MIGRATIONS = Path(__file__).parent / "migrations"


def open_database(url: str) -> Engine:
    """Connect, and bring the tables up to date.

    Parameters
    ----------
    url : str
        Of SQLAlchemy; SQLite or PostgreSQL.

    Raises
    ------
    UsageError
        It is no such URL, its driver is missing, or the database cannot be reached.
    """
    try:
        kind = make_url(url).get_backend_name()
        if kind not in {"sqlite", "postgresql"}:
            raise UsageError(f"the database must be SQLite or PostgreSQL, not {kind}")
        if kind == "sqlite":
            engine = create_engine(url, connect_args={"timeout": _SECONDS_TO_WAIT_FOR_A_LOCK})
            event.listen(engine, "connect", _prepare_sqlite)
        else:
            engine = create_engine(url, pool_pre_ping=True)
        _migrate(engine)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise UsageError(f"the database's URL cannot be used: {one_line(error)}") from None
    except OperationalError as error:
        raise UsageError(f"the database cannot be opened: {one_line(error.orig)}") from None
    return engine


def _prepare_sqlite(connection: Any, record: Any) -> None:
    """Let readers and a writer work side by side."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _migrate(engine: Engine) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
