"""What can go wrong, as exceptions whose message is one sentence for the user."""

from __future__ import annotations

import os
from typing import ClassVar, Literal

Kind = Literal["program", "data", "engine", "numerics", "usage"]


class StanFlowError(Exception):
    """Base class: one sentence saying what is wrong, where, and what to do.

    Parameters
    ----------
    message : str
        The sentence.
    detail : str, optional
        What the Stan compiler, the engine or the operating system said, in full.

    Attributes
    ----------
    kind : {"program", "data", "engine", "numerics", "usage"}
        Which part of the input or run is at fault.
    exit_status : int
        The command line's exit status: 2 for wrong use or bad input, 1 for a run that failed.
    """

    kind: ClassVar[Kind] = "numerics"
    exit_status: ClassVar[int] = 2

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


class ProgramError(StanFlowError):
    """The Stan program is missing, does not compile, or has nothing to fit.

    Parameters
    ----------
    message, detail : str
        As of every error.
    line, column : int, optional
        Where in the program, counted from 1; the column as the Stan compiler counts, from 0.
    """

    kind = "program"

    def __init__(
        self, message: str, detail: str = "", line: int | None = None, column: int | None = None
    ) -> None:
        super().__init__(message, detail)
        self.line, self.column = line, column


class DataError(StanFlowError):
    """The data are missing, malformed, or do not fit the program's data block."""

    kind = "data"


class EngineError(StanFlowError):
    """No engine, or not the one asked for, can run the program here."""

    kind = "engine"


class BeyondEmbeddedError(EngineError):
    """The program is valid, but the embedded engine cannot run it, or would do so wrongly.

    Parameters
    ----------
    problem : str
        The sentence without what to do, which is always the same.
    detail : str
        As of every error.

    Attributes
    ----------
    problem : str
    """

    def __init__(self, problem: str, detail: str = "") -> None:
        super().__init__(f"{problem}; use --engine native ({what_brings_native()})", detail)
        self.problem = problem


class UsageError(StanFlowError):
    """An option, a folder or an argument that cannot be used."""

    kind = "usage"


class InitializationError(StanFlowError):
    """The log density is not finite at any starting point tried."""

    kind = "numerics"


class NumericsError(StanFlowError):
    """A run that began well broke down in its numbers."""

    kind = "numerics"
    exit_status = 1


def what_brings_native(what: str = "it") -> str:
    """Say how to install the native engine; an image that cannot be added to names another."""
    own = os.environ.get("STANFLOW_NATIVE_BY")
    return own or f"`stanflow doctor --install native` brings {what}"


def one_line(text: object) -> str:
    """Return what an engine or library said, however it was laid out, on one line."""
    return " ".join(str(text).split())


def reason(error: OSError | ValueError) -> str:
    """Say why a file could not be read or written, to go on with after a colon."""
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8 text (byte {error.start})"
    strerror = error.strerror if isinstance(error, OSError) else None
    return (strerror or str(error)).lower()
