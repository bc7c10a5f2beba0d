"""The database: reached, brought up to date, and kept from other servers."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from stanflow.errors import UsageError, one_line, reason
from stanflow.service.advisory_lock import AdvisoryLock, TakenError

_SECONDS_TO_WAIT = 5
_CONNECTIONS = 40  # as many as requests are answered at a time; to open one takes long
_SIGNS_OF_DAMAGE = ("malformed", "invalid page", "could not read block")
_SIGNS_OF_A_FULL_DISK = ("database or disk is full", "no space left")
_SIGN_OF_NO_ROOM_BESIDE_SQLITE = "disk i/o error"  # for its index of what is written ahead
_MIGRATIONS = Path(__file__).parent / "migrations"


class Database:
    """A database that this server alone uses, see `open_database`.

    Attributes
    ----------
    engine : sqlalchemy.Engine
    """

    def __init__(self, engine: Engine, lock: AdvisoryLock | None) -> None:
        self.engine, self._lock = engine, lock

    def hold(self) -> None:
        """Make sure that it is this server's still; the lock of a file cannot be lost.

        Raises
        ------
        SQLAlchemyError
            It cannot be reached, or another server has it.
        """
        if self._lock is not None:
            self._lock.hold()


@contextlib.contextmanager
def open_database(url: str) -> Iterator[Database]:
    """Connect, and bring the tables up to date; the database is this server's until the block ends.

    Parameters
    ----------
    url : str
        Of SQLAlchemy; SQLite or PostgreSQL.

    Raises
    ------
    UsageError
        It is no such URL, its driver is missing, the database cannot be reached, or another server
        has it.
    """
    with contextlib.ExitStack() as opened:
        try:
            engine = _engine(make_url(url))
            opened.callback(engine.dispose)
            lock = None
            if engine.dialect.name == "postgresql":
                lock = opened.enter_context(AdvisoryLock(engine))
            else:
                opened.enter_context(_file_lock(engine.url))
                _check(engine)
            _migrate(engine)
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            raise UsageError(f"the database's URL cannot be used: {one_line(error)}") from None
        except TakenError as error:
            raise UsageError(str(error)) from None
        except DBAPIError as error:
            if is_damage(error):
                raise UsageError(_damaged(engine.url, error.orig)) from None
            raise UsageError(f"the database cannot be opened: {one_line(error.orig)}") from None
        except OSError as error:
            raise UsageError(f"the database cannot be opened: {reason(error)}") from None
        yield Database(engine, lock)


def _engine(url: URL) -> Engine:
    """Return an engine none of whose waits is without end."""
    kind = url.get_backend_name()
    if kind not in {"sqlite", "postgresql"}:
        raise UsageError(f"the database must be SQLite or PostgreSQL, not {kind}")
    if kind == "sqlite":
        engine = create_engine(
            url,
            pool_size=_CONNECTIONS,
            pool_timeout=_SECONDS_TO_WAIT,
            connect_args={"timeout": _SECONDS_TO_WAIT},
        )
        event.listen(engine, "connect", _prepare_sqlite)
        return engine
    ours = {"connect_timeout": _SECONDS_TO_WAIT, "tcp_user_timeout": 1000 * _SECONDS_TO_WAIT}
    engine = create_engine(
        url,
        pool_pre_ping=True,
        pool_size=_CONNECTIONS,
        pool_timeout=_SECONDS_TO_WAIT,
        connect_args={name: value for name, value in ours.items() if name not in url.query},
    )
    event.listen(engine, "connect", _prepare_postgresql)
    return engine


@contextlib.contextmanager
def _file_lock(url: URL) -> Iterator[None]:
    """Hold SQLite's file."""
    try:
        with FileLock(f"{url.database}.lock", timeout=0):
            yield
    except Timeout:
        raise TakenError(url) from None


def _check(engine: Engine) -> None:
    """Read all of SQLite's file once.

    Raises
    ------
    UsageError
        It is damaged.
    """
    with engine.connect() as connection:
        found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    if found != "ok":
        raise UsageError(_damaged(engine.url, found))


def _damaged(url: URL, how: object) -> str:
    return f"the database {url.database} is damaged ({one_line(how)}); put a copy in its place"


def is_damage(error: SQLAlchemyError) -> bool:
    """Whether a database says that its file is damaged, rather than busy or away."""
    return _says(error, _SIGNS_OF_DAMAGE)


def is_full(error: SQLAlchemyError) -> bool:
    """Whether a database says that its disk is full."""
    return _says(error, _SIGNS_OF_A_FULL_DISK)


def may_lack_room(error: SQLAlchemyError) -> bool:
    """Whether more room on its disk may be all that a database needs."""
    return is_full(error) or _says(error, {_SIGN_OF_NO_ROOM_BESIDE_SQLITE})


def _says(error: SQLAlchemyError, signs: Collection[str]) -> bool:
    said = str(error.orig).lower() if isinstance(error, DBAPIError) else ""
    return any(sign in said for sign in signs)


def _prepare_sqlite(connection: Any, record: Any) -> None:
    """Let readers and a writer work side by side."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _prepare_postgresql(connection: Any, record: Any) -> None:
    """Let no statement wait for a lock, nor run, without end."""
    cursor = connection.cursor()
    cursor.execute(f"SET lock_timeout = '{_SECONDS_TO_WAIT}s'")
    cursor.close()
    connection.commit()


def _migrate(engine: Engine) -> None:
    """Bring the tables up to date.

    Raises
    ------
    UsageError
        They are of a StanFlow that is newer.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise UsageError(
                f"the database is of another version of StanFlow: {one_line(error)}"
            ) from None
