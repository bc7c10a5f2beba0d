"""Output folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

from stanflow.errors import UsageError

REPORT = "fit.json"


def check_output_folder(folder: str | PathLike[str], *, force: bool) -> Path:
    """Check, before any work is done, that a fit can be written to a folder.

    Parameters
    ----------
    folder : path
        Where the fit shall go: nothing, an empty folder, or with `force` an earlier fit.
    force : bool
        Whether an earlier fit may be replaced.

    Raises
    ------
    UsageError
        The folder holds something, or cannot be written.
    """
    path = Path(folder)
    try:
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path} is a file; name a folder for the fit")
        if (path / REPORT).exists():
            if not force:
                raise UsageError(
                    f"{path} already holds a fit; name another folder with --out, or replace it "
                    "with --force"
                )
        elif path.is_dir() and any(path.iterdir()):
            raise UsageError(f"{path} is not empty and holds no fit; name another folder")
        ancestor = next(folder for folder in path.absolute().parents if folder.exists())
        with tempfile.TemporaryDirectory(dir=ancestor):
            pass
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {_reason(error)}") from None
    return path


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a new folder to write into; it takes its place when the block ends without error.

    A folder that was there is replaced at that moment, by renaming. After an error, or a kill,
    what was there before is untouched.

    Raises
    ------
    UsageError
        Something could not be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        arriving = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        try:
            arriving.chmod(0o777 & ~_umask())
            yield arriving
            _put_in_place(arriving, path)
        finally:
            shutil.rmtree(arriving, ignore_errors=True)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {_reason(error)}") from None


def _put_in_place(arriving: Path, path: Path) -> None:
    """Rename the new folder to its place; an earlier fit is moved aside first, then removed."""
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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
