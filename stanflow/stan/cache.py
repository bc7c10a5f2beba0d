"""What is compiled once and kept: the user's cache folder, and how things enter it."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from stanflow.errors import EngineError, reason
from stanflow.files import new_file

if TYPE_CHECKING:
    from filelock import FileLock

_DAYS_KEPT = 90


def cache_folder() -> Path:
    """Return the user's cache folder of StanFlow, or the one that STANFLOW_CACHE_DIR names."""
    return Path(os.environ.get("STANFLOW_CACHE_DIR") or platformdirs.user_cache_dir("stanflow"))


def models_folder() -> Path:
    """Return the folder of compiled models."""
    return cache_folder() / "models"


@contextlib.contextmanager
def writing_to_cache() -> Iterator[None]:
    """Say of what the operating system refuses inside that it is the cache that cannot be written.

    Raises
    ------
    EngineError
    """
    try:
        yield
    except OSError as error:
        raise EngineError(
            f"the cache folder {cache_folder()} cannot be written ({reason(error)}); set "
            "STANFLOW_CACHE_DIR to one that can"
        ) from None


def lock(path: Path) -> FileLock:
    """Return the lock under which a file or folder of the cache is made."""
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_name(f"{path.name}.lock"))


def keep_file(made: Path, path: Path) -> None:
    """Copy a finished file into the cache: it appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as arriving:
        shutil.copy2(made, arriving)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder that becomes `path` when the block ends well, and else is gone.

    Its lock is to be held: what a process that was killed has left of it is removed.
    """
    for left in path.parent.glob(f"{path.name}.arriving-*"):
        shutil.rmtree(left, ignore_errors=True)
    arriving = path.with_name(f"{path.name}.arriving-{os.getpid()}")
    arriving.mkdir(parents=True)
    try:
        yield arriving
        arriving.rename(path)
    finally:
        shutil.rmtree(arriving, ignore_errors=True)


def mark_used(path: Path) -> None:
    """Note that something kept was used now; see `prune`."""
    with contextlib.suppress(OSError):
        os.utime(path)


def prune(folder: Path) -> None:
    """Remove from a folder of the cache what was not used for 90 days.

    Parameters
    ----------
    folder : pathlib.Path
        Of files and folders that are found by their names, each under its own lock.
    """
    oldest = time.time() - _DAYS_KEPT * 86_400
    for kept in folder.glob("*"):
        with contextlib.suppress(OSError):
            if kept.stat().st_mtime >= oldest:
                continue
            if kept.is_dir():
                shutil.rmtree(kept)
            else:
                kept.unlink()
