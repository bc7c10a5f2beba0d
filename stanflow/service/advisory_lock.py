"""The lock that keeps a PostgreSQL database from a second server."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from sqlalchemy import URL, Connection, Engine, func, select
from sqlalchemy.exc import SQLAlchemyError

_KEY = int.from_bytes(b"stanflow", "big")  # locks are numbered, a database at a time
_SECONDS_TO_WAIT = 3.0  # a server that was killed has its connection for a moment longer
_SECONDS_BETWEEN_TRIES = 0.1


class TakenError(Exception):
    """Another server has the database with this URL."""

    def __init__(self, url: URL) -> None:
        where = url.render_as_string(hide_password=True)
        super().__init__(f"another server has its jobs in {where}; name another database")


class AdvisoryLock:
    """A lock that lasts as long as a connection of its own.

    Parameters
    ----------
    engine : sqlalchemy.Engine
        Of a PostgreSQL database.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None

    def __enter__(self) -> Self:
        self.hold()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def hold(self) -> None:
        """Take it, if it is not held or was lost with its connection.

        Raises
        ------
        TakenError
            Another server has it.
        SQLAlchemyError
            The database cannot be reached.
        """
        if self._connection is not None and not self._lives(self._connection):
            self._close()
        if self._connection is None:
            self._connection = self._take()

    def _lives(self, connection: Connection) -> bool:
        try:
            connection.scalar(select(1))
        except SQLAlchemyError:
            return False
        return True

    def _take(self) -> Connection:
        connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        connection.detach()  # a pool would keep it open, and the lock with it
        try:
            taken = self._try(connection)
        except BaseException:
            connection.close()
            raise
        if not taken:
            connection.close()
            raise TakenError(self._engine.url)
        return connection

    def _try(self, connection: Connection) -> bool:
        deadline = time.monotonic() + _SECONDS_TO_WAIT
        while not connection.scalar(select(func.pg_try_advisory_lock(_KEY))):
            if time.monotonic() > deadline:
                return False
            time.sleep(_SECONDS_BETWEEN_TRIES)
        return True

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
