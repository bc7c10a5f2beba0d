"""A task: what a process of its own is asked to do, and what came of it, as files in a folder.

``task.json`` is there before the process begins, and beside it ``data.json`` where the program has
data; ``outcome.json`` appears whole when it is done. Where a process ended without an outcome, how
it ended says why.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter
from pydantic_core import to_json

from stanflow.errors import StanFlowError, reason

TaskKind = Literal[
    "compile", "params", "log_prob", "log_prob_grad", "write_array", "transform_inits",
    "fit", "nuts", "comparison",
]  # fmt: skip

_TASK, _DATA, _OUTCOME, PROGRESS = "task.json", "data.json", "outcome.json", "progress.jsonl"
RUN, DRAWS, REPORT = "run", "draws.arrow", "report.html"
_LEAST_FREE = 2**20
STATUS_OF_A_FULL_DISK = 74  # EX_IOERR of sysexits.h
_Kept = TypeVar("_Kept")


class DamagedError(Exception):
    """A file in a task's folder is not what was written: it says which, and why."""


@dataclass(frozen=True)
class Task:
    """What to do.

    Attributes
    ----------
    kind : str
    program : str
        The Stan program's text; empty for comparisons.
    name : str
        The program's.
    data : dict
        The program's data.
    options : dict
        What else the kind takes.
    threads, memory_mb : int
        Limits.
    """

    kind: TaskKind
    program: str = ""
    name: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    threads: int = 1
    memory_mb: int = 4096

    @cached_property
    def data_json(self) -> bytes:
        """The data as JSON, in the order of their names."""
        return to_json(dict(sorted(self.data.items())), inf_nan_mode="constants")

    def write(self, folder: Path) -> None:
        """Put it into a folder, made where it is not there."""
        folder.mkdir(parents=True, exist_ok=True)
        if self.data:
            write_whole(folder / _DATA, self.data_json)
        without_data = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "data"}
        write_whole(folder / _TASK, to_json(without_data, inf_nan_mode="constants"))

    @classmethod
    def read(cls, folder: Path) -> Task:
        """Return what `write` put there.

        Raises
        ------
        OSError
            There is nothing, or it cannot be read.
        DamagedError
            It is not that.
        """
        task = _read(cls, folder / _TASK)
        data = folder / _DATA
        return replace(task, data=_read(dict[str, Any], data)) if data.exists() else task


@dataclass(frozen=True)
class Failure:
    """Why there is no result.

    Attributes
    ----------
    error : str
        One sentence.
    kind : str
        Of `StanFlowError`; "limit" where a limit was reached, "crash" where the process ended
        without a word.
    detail : str
        What a compiler or engine said, in full.
    line, column : int, optional
        Where in the program.
    bytes_needed : int, optional
        Where there was no room for the result: how many bytes it needs.
    """

    error: str
    kind: str
    detail: str = ""
    line: int | None = None
    column: int | None = None
    bytes_needed: int | None = None

    @classmethod
    def of(cls, error: StanFlowError) -> Failure:
        """Return an exception as a failure."""
        line, column = getattr(error, "line", None), getattr(error, "column", None)
        return cls(str(error), error.kind, error.detail, line, column)

    @classmethod
    def of_a_full_disk(cls, needed: int, free: int) -> Failure:
        """Say that a result of so many bytes has no room.

        Examples
        --------
        >>> Failure.of_a_full_disk(3 * 2**20, 2**19).error
        "the server's disk is full: this needs 3 MB and 0.5 MB are free; delete runs"
        """
        said = (
            f"the server's disk is full: this needs {needed / 2**20:.3g} MB and "
            f"{free / 2**20:.3g} MB are free; delete runs"
        )
        return cls(said, "storage", bytes_needed=needed)


@dataclass(frozen=True)
class Outcome:
    """What came of a task: a result, or a failure."""

    result: dict[str, Any] | None = None
    failure: Failure | None = None

    def write(self, folder: Path) -> None:
        """Put it into the task's folder."""
        write_whole(folder / _OUTCOME, json.dumps(asdict(self)).encode())

    @staticmethod
    def forget(folder: Path) -> None:
        """Remove what an earlier process left."""
        (folder / _OUTCOME).unlink(missing_ok=True)

    @classmethod
    def read(cls, folder: Path) -> Outcome | None:
        """Return what `write` put there, None if it has not.

        Where it cannot be read or is not that, the outcome is a failure that says so.
        """
        try:
            return _read(cls, folder / _OUTCOME)
        except FileNotFoundError:
            return None
        except (OSError, DamagedError) as error:
            why = str(error) if isinstance(error, DamagedError) else f"{_OUTCOME}: {reason(error)}"
            return cls(failure=Failure(f"what came of it cannot be read: {why}", "storage"))


def outcome_after(folder: Path, status: int, memory_mb: int) -> Outcome:
    """Return the outcome of a process that has ended.

    Parameters
    ----------
    folder : pathlib.Path
        Of the task.
    status : int
        Exit status of the process; minus the signal's number where one ended it.
    memory_mb : int
        What it might allocate.
    """
    outcome = Outcome.read(folder)
    if outcome is not None:
        return outcome
    free = shutil.disk_usage(folder).free
    if status == STATUS_OF_A_FULL_DISK or free < _LEAST_FREE:
        return Outcome(failure=Failure.of_a_full_disk(max(_LEAST_FREE, 2 * free), free))
    how = f"status {status}" if status >= 0 else signal.Signals(-status).name
    return Outcome(
        failure=Failure(
            f"the process that ran the program ended without a result ({how}); it may have needed "
            f"more than the {memory_mb} MiB that a job may use, or the engine crashed",
            "crash",
        )
    )


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is there as a whole or as it was before, a crash of the machine included.

    Raises
    ------
    OSError
        It cannot be written; nothing is left of the attempt.
    """
    descriptor, arriving = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(arriving).replace(path)
    except BaseException:
        Path(arriving).unlink(missing_ok=True)
        raise


def _read(kind: type[_Kept], path: Path) -> _Kept:
    try:
        read: _Kept = TypeAdapter(kind).validate_json(path.read_bytes(), strict=True)
    except ValueError:
        raise DamagedError(f"{path.name} is damaged") from None
    return read
