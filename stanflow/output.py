"""Output folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

from stanflow.errors import UsageError, reason

REPORT, DRAWS, FLOW, TRACE, DATA = (
    "fit.json",
    "draws.nc",
    "flow.safetensors",
    "trace.csv",
    "data.json",
)
FIT_FILES = {REPORT, DRAWS, FLOW, TRACE, DATA}


def check_output_folder(folder: str | PathLike[str], *, force: bool) -> Path:
    """Check, before any work is done, that a fit can be written to a folder.

    Parameters
    ----------
    folder : path
        Where the fit shall go: nothing, an empty folder, or with `force` an earlier fit.
    force : bool
        Whether an earlier fit may be replaced.

    Returns
    -------
    pathlib.Path
        The folder, absolute, with symbolic links followed.

    Raises
    ------
    UsageError
        The folder holds something, or cannot be written.
    """
    try:
        path = Path(folder).resolve()
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path} is a file; name a folder for the fit")
        if (path / REPORT).exists():
            if not force:
                raise UsageError(
                    f"{path} already holds a fit; name another folder with --out, or replace it "
                    "with --force"
                )
            others = sorted(f.name for f in path.iterdir() if not _is_of_a_fit(f))
            if others:
                raise UsageError(
                    f"{path} holds more than a fit ({', '.join(others[:3])}), which would be lost; "
                    "name another folder"
                )
        elif path.is_dir() and any(path.iterdir()):
            raise UsageError(f"{path} is not empty and holds no fit; name another folder")
        ancestor = next(p for p in (path, *path.parents) if p.exists())
        with tempfile.TemporaryDirectory(dir=ancestor):
            pass
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {reason(error)}") from None
    return path


@contextlib.contextmanager
def written_whole(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Give a new folder to write into; it takes its place when the block ends without error.

    A fit that was there is replaced at that moment, by renaming. Into an empty folder that was
    there, perhaps the current one or a mounted one, the files are moved, `fit.json` last: before
    that it holds no fit. After an error, or a kill, a fit that was there is untouched.

    Parameters
    ----------
    path : pathlib.Path
        As `check_output_folder` returns it.
    force : bool
        Whether a fit that came to be there since then may be replaced.

    Raises
    ------
    UsageError
        Something could not be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fill = path.is_dir() and not any(path.iterdir())
        arriving = Path(
            tempfile.mkdtemp(prefix=f".{path.name}-", dir=path if fill else path.parent)
        )
        try:
            arriving.chmod(0o777 & ~_umask())
            yield arriving
            if fill:
                _move_files(arriving, path)
            else:
                _put_in_place(arriving, path, force=force)
        finally:
            shutil.rmtree(arriving, ignore_errors=True)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {reason(error)}") from None


def _move_files(arriving: Path, path: Path) -> None:
    for file in sorted(arriving.iterdir(), key=lambda file: file.name == REPORT):
        file.rename(path / file.name)


def _put_in_place(arriving: Path, path: Path, *, force: bool) -> None:
    """Rename the new folder to its place; an earlier fit is moved aside first, then removed."""
    if path.exists() and not force:
        rescued = path.with_name(f"{path.name}{arriving.name.removeprefix(f'.{path.name}')}")
        arriving.rename(rescued)
        raise UsageError(f"{path} has come to hold a fit meanwhile; this one is in {rescued}")
    if not path.exists():
        arriving.rename(path)
        return
    aside = arriving.with_name(f"{arriving.name}-before")
    path.rename(aside)
    try:
        arriving.rename(path)
    except OSError:
        aside.rename(path)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _is_of_a_fit(file: Path) -> bool:
    return file.name in FIT_FILES or file.suffix == ".stan"


def reserve_folder(parent: Path, name: str) -> Path:
    """Make a new, empty folder ``parent/name``, or ``parent/name-2``, ... where that is taken.

    Raises
    ------
    UsageError
        It cannot be made.
    """
    number = 1
    while True:
        path = parent / (name if number == 1 else f"{name}-{number}")
        try:
            parent.mkdir(parents=True, exist_ok=True)
            path.mkdir()
        except FileExistsError:
            if not parent.is_dir():
                raise UsageError(f"{parent} is a file, so no fit can be saved in it") from None
            number += 1
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {reason(error)}") from None
        else:
            return path


def release_folder(path: Path) -> None:
    """Remove a reserved folder, and its parent, where nothing was put into them."""
    for folder in (path, path.parent):
        with contextlib.suppress(OSError):
            folder.rmdir()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
