"""Folders of runs under way: locked while a process works in them, kept when it is cut off."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import filelock

from stanflow.errors import NumericsError, UsageError, reason
from stanflow.runs.folder import CHECKPOINT, FIT, LOCK, release_folder


@contextlib.contextmanager
def fit_under_way(folder: Path, *, resume: bool) -> Iterator[Path]:
    """Hold a folder for a fit, and give the path of its checkpoint.

    The folder is made where it is not there. When the block ends without a fit in it, it goes
    away again, unless a checkpoint is there to go on from. After a breakdown of the numbers there
    is nothing to go on from.

    Parameters
    ----------
    folder : pathlib.Path
        As `check_output_folder` returns it.
    resume : bool
        Whether to keep a checkpoint that is there.

    Raises
    ------
    UsageError
        Another process works in the folder, or it cannot be written.
    """
    checkpoint, lock_file = folder / CHECKPOINT, folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(lock_file)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise UsageError(
            f"{folder} is being worked in by another process; wait for it, or name another folder"
        ) from None
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {reason(error)}") from None
    try:
        if not resume:
            checkpoint.unlink(missing_ok=True)
        yield checkpoint
    except NumericsError:
        checkpoint.unlink(missing_ok=True)
        raise
    finally:
        lock_file.unlink(missing_ok=True)
        lock.release()
        release_folder(folder)


def find_unfinished(parent: Path, name: str) -> Path | None:
    """Return the newest of ``parent/name``, ``parent/name-2``, ... that holds an unfinished fit."""
    folders = [
        path
        for path in parent.glob(f"{name}*")
        if path.name == name or path.name.removeprefix(f"{name}-").isdigit()
    ]
    unfinished = [path for path in folders if FIT.is_unfinished(path)]
    return max(unfinished, key=lambda path: path.stat().st_mtime, default=None)


def is_finished(folder: Path) -> bool:
    """Whether a folder holds a fit and nothing that is left to do."""
    return (folder / FIT.report).exists() and not (folder / CHECKPOINT).exists()
