"""Models and jobs in the database, a short transaction a call."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from pydantic_core import to_json
from sqlalchemy import Engine, delete, func, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session, defer, sessionmaker
from sqlalchemy.sql.dml import ReturningDelete, ReturningUpdate

from stanflow.service.database import may_lack_room
from stanflow.service.disk import Reserve
from stanflow.service.tables import UNFINISHED, JobKind, JobRow, ModelRow, Status
from stanflow.service.task import Failure, Outcome

_ID_CHARACTERS = 16
_ID_DIGITS = frozenset("0123456789abcdef")


class QueueFullError(Exception):
    """As many jobs wait as may."""


class KeyReusedError(Exception):
    """An idempotency key came with another request before."""


class Store:
    """What the server knows.

    Parameters
    ----------
    engine : sqlalchemy.Engine
        Of `database.open_database`.
    most_queued : int
        Jobs that may wait.
    reserve : Reserve
        Given up where the disk is full and something that is there already changes or goes.
    """

    def __init__(self, engine: Engine, most_queued: int, reserve: Reserve) -> None:
        self._session = sessionmaker(engine, expire_on_commit=False)
        self._most_queued, self._reserve = most_queued, reserve

    # ---- models ---------------------------------------------------------------------------------

    def add_model(
        self, program: str, name: str, data: list[dict[str, Any]]
    ) -> tuple[ModelRow, bool]:
        """Keep a program that compiles; return it and whether it is new."""
        row = ModelRow(id=model_id(program, name), name=name, program=program, data=data)
        with self._session.begin() as session:
            known = session.get(ModelRow, row.id)
            if known is not None:
                return known, False
            session.add(row)
        return row, True

    def models(self) -> Sequence[ModelRow]:
        """Return all models, the newest first."""
        with self._session() as session:
            return session.scalars(select(ModelRow).order_by(ModelRow.created.desc())).all()

    def model(self, model: str) -> ModelRow | None:
        """Return a model."""
        with self._session() as session:
            return session.get(ModelRow, model) if _is_id(model) else None

    def delete_model(self, model: str) -> bool:
        """Forget a model, but not its runs; return whether it was there."""
        chosen = delete(ModelRow).where(ModelRow.id == model).returning(ModelRow.id)
        return _is_id(model) and self._changes(chosen)

    # ---- jobs -----------------------------------------------------------------------------------

    def add_job(
        self,
        job: str,
        kind: JobKind,
        *,
        name: str,
        model: str | None,
        options: dict[str, Any],
        data: bytes = b"{}",
        key: str | None = None,
    ) -> tuple[JobRow, bool]:
        """Queue a job; return it and whether it is new.

        Parameters
        ----------
        job : str
            Its id; see `new_id`.
        kind : {"fit", "nuts", "comparison"}
        name : str
            Of the program.
        model : str or None
            Its id.
        options : dict
        data : bytes
            Of the program, as JSON; here only to tell requests apart.
        key : str, optional
            A request with the key of an earlier one is that one.

        Raises
        ------
        QueueFullError, KeyReusedError
        """
        asked = to_json([kind, model, sorted(options.items())], inf_nan_mode="constants") + data
        row = JobRow(
            id=job,
            kind=kind,
            name=name,
            model=model,
            options=options,
            request_hash=hashlib.sha256(asked).hexdigest(),
            idempotency_key=key,
            status="queued",
            attempts=0,
        )
        try:
            with self._session.begin() as session:
                known = self._with_key(session, row)
                if known is not None:
                    return known, False
                if self._count(session, "queued") >= self._most_queued:
                    raise QueueFullError
                session.add(row)
        except IntegrityError:  # the same key came twice at the same time
            with self._session() as session:
                known = self._with_key(session, row)
            if known is None:
                raise
            return known, False
        return row, True

    def _with_key(self, session: Session, row: JobRow) -> JobRow | None:
        if row.idempotency_key is None:
            return None
        same = JobRow.idempotency_key == row.idempotency_key
        known = session.scalar(select(JobRow).where(same))
        if known is not None and known.request_hash != row.request_hash:
            raise KeyReusedError
        return known

    def _count(self, session: Session, status: Status) -> int:
        counted = select(func.count()).select_from(JobRow).where(JobRow.status == status)
        return session.scalar(counted) or 0

    def counts(self) -> dict[str, int]:
        """Return how many jobs there are of each status."""
        with self._session() as session:
            rows = session.execute(select(JobRow.status, func.count()).group_by(JobRow.status))
            return {row.status: row[1] for row in rows}

    def jobs(
        self, kinds: Sequence[JobKind], limit: int, offset: int = 0, *, succeeded: bool = False
    ) -> Sequence[JobRow]:
        """Return jobs of these kinds, the newest first; all, or those that succeeded.

        They come without their results, which are large.
        """
        chosen = (
            select(JobRow)
            .options(defer(JobRow.result, raiseload=True))
            .where(JobRow.kind.in_(kinds))
            .order_by(JobRow.created.desc())
        )
        if succeeded:
            chosen = chosen.where(JobRow.status == "succeeded")
        with self._session() as session:
            return session.scalars(chosen.order_by(JobRow.id).limit(limit).offset(offset)).all()

    def job(self, job: str) -> JobRow | None:
        """Return a job."""
        with self._session() as session:
            return session.get(JobRow, job) if _is_id(job) else None

    def ids(self) -> frozenset[str]:
        """Return the ids of all jobs."""
        with self._session() as session:
            return frozenset(session.scalars(select(JobRow.id)))

    def unfinished(self) -> Sequence[JobRow]:
        """Return jobs that wait or run, the oldest first."""
        chosen = select(JobRow).where(JobRow.status.in_(UNFINISHED)).order_by(JobRow.created)
        with self._session() as session:
            return session.scalars(chosen).all()

    def start(self, job: str) -> bool:
        """Mark a job that waits as running; return whether it still waited."""
        return self._change(
            job, "queued", status="running", started=datetime.now(UTC), failure=None,
            attempts=JobRow.attempts + 1,
        )  # fmt: skip

    def requeue(self, job: str, *, counted: bool = True, failure: Failure | None = None) -> bool:
        """Let a running job, whose process is gone, wait again; or as if it had not been begun.

        A failure says what it waits for.
        """
        return self._change(
            job,
            "running",
            status="queued",
            attempts=JobRow.attempts if counted else JobRow.attempts - 1,
            failure=None if failure is None else asdict(failure),
        )

    def finish(self, job: str, outcome: Outcome) -> bool:
        """Keep what came of a running job."""
        failure = outcome.failure
        return self._change(
            job,
            "running",
            status="succeeded" if failure is None else "failed",
            finished=datetime.now(UTC),
            result=outcome.result,
            verdict=_verdict(outcome.result or {}),
            failure=None if failure is None else asdict(failure),
        )

    def cancel(self, job: str) -> bool:
        """Mark a job that waits or runs as cancelled; return whether it did."""
        return self._change(job, *UNFINISHED, status="cancelled", finished=datetime.now(UTC))

    def delete_job(self, job: str) -> bool:
        """Forget a job that has ended; return whether it was there."""
        chosen = delete(JobRow).where(JobRow.id == job, JobRow.status.not_in(UNFINISHED))
        return self._changes(chosen.returning(JobRow.id))

    def _change(self, job: str, *before: Status, **values: Any) -> bool:
        """Change a job if its status is one of those; return whether it was."""
        chosen = update(JobRow).where(JobRow.id == job, JobRow.status.in_(before))
        return self._changes(chosen.values(**values).returning(JobRow.id))

    def _changes(self, statement: ReturningDelete[Any] | ReturningUpdate[Any]) -> bool:
        """Change or delete a row; return whether there was one."""

        def change() -> bool:
            with self._session.begin() as session:
                return session.scalar(statement) is not None

        try:
            return change()
        except DBAPIError as error:
            if not may_lack_room(error):
                raise
            self._reserve.give_up()
            return change()
        finally:
            self._reserve.keep()


def _is_id(text: str) -> bool:
    """Return whether text may be an id; databases refuse some text, each another one."""
    return len(text) == _ID_CHARACTERS and set(text) <= _ID_DIGITS


def _verdict(result: Mapping[str, Any]) -> str | None:
    """Return a fit's verdict or a comparison's agreement."""
    found: str | None = result.get("verdict", result.get("agreement"))
    return found


def new_id() -> str:
    """Return an id for a job."""
    return secrets.token_hex(_ID_CHARACTERS // 2)


def model_id(program: str, name: str) -> str:
    """Return the id of a program under a name: the same for the same two.

    Examples
    --------
    >>> model_id("parameters { real x; }", "m")
    '6dcb5a19829682b4'
    """
    text = f"{name}\n{program}"
    return hashlib.sha256(text.encode()).hexdigest()[:_ID_CHARACTERS]
