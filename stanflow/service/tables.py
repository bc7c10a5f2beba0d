"""The database's tables. What changes here needs a migration in `migrations/versions`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar, Literal, get_args

from sqlalchemy import JSON, DateTime, Dialect, Enum, Index, MetaData, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator
from typing_extensions import override

JobKind = Literal["fit", "nuts", "comparison"]
Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]
UNFINISHED: tuple[Status, ...] = ("queued", "running")


class UtcDateTime(TypeDecorator[datetime]):
    """A moment, with its time zone; SQLite keeps none."""

    impl = DateTime(timezone=True)
    cache_ok = True

    @override
    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return (
            None if value is None else value.replace(tzinfo=UTC) if value.tzinfo is None else value
        )


class Table(DeclarativeBase):
    """What all tables have."""

    metadata: ClassVar[MetaData] = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        dict[str, Any]: JSON,
        list[dict[str, Any]]: JSON,
        datetime: UtcDateTime,
        JobKind: Enum(*get_args(JobKind), native_enum=False, length=16),
        Status: Enum(*get_args(Status), native_enum=False, length=16),
    }


def _now() -> datetime:
    return datetime.now(UTC)


class ModelRow(Table):
    """A Stan program that compiles. Its id is the beginning of the program's SHA-256."""

    __tablename__ = "models"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    program: Mapped[str] = mapped_column(Text)
    data: Mapped[list[dict[str, Any]]]
    created: Mapped[datetime] = mapped_column(default=_now)


class JobRow(Table):
    """A job and what came of it. Programs, data and draws are in its folder."""

    __tablename__ = "jobs"
    __table_args__ = (Index(None, "status", "created"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    kind: Mapped[JobKind]
    name: Mapped[str] = mapped_column(String(64))
    model: Mapped[str | None] = mapped_column(String(32), index=True)
    options: Mapped[dict[str, Any]]
    request_hash: Mapped[str] = mapped_column(String(64))
    idempotency_key: Mapped[str | None] = mapped_column(String(255), unique=True)
    status: Mapped[Status]
    attempts: Mapped[int] = mapped_column(default=0)
    created: Mapped[datetime] = mapped_column(default=_now)
    started: Mapped[datetime | None]
    finished: Mapped[datetime | None]
    verdict: Mapped[str | None] = mapped_column(String(16))
    result: Mapped[dict[str, Any] | None]
    failure: Mapped[dict[str, Any] | None]
