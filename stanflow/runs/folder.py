"""Output folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from stanflow.errors import UsageError, reason
from stanflow.files import CHECKSUMS, PARTIAL

DRAWS, DATA = "draws.nc", "data.json"
CHECKPOINT, LOCK = "checkpoint.safetensors", "running.lock"

_ARRIVING = ".arriving-"


@dataclass(frozen=True)
class FolderKind:
    """What a folder holds.

    Attributes
    ----------
    what : str
        In messages.
    report : str
        The file that is written last: where it is, the folder is whole.
    others : frozenset of str
        Further files, beside the Stan program.
    resumable : bool
        Whether an unfinished run keeps a checkpoint in the folder.
    """

    what: str
    report: str
    others: frozenset[str]
    resumable: bool = False

    @property
    def required(self) -> frozenset[str]:
        """Files that are in every such folder, beside the Stan program."""
        return frozenset({self.report, DRAWS, DATA, *self.others})

    def is_one_of_its_files(self, file: Path) -> bool:
        """Whether a file belongs to such a folder, whole or under way."""
        names = self.required | {CHECKSUMS}
        if self.resumable:
            names |= {CHECKPOINT, LOCK}
        return file.name in names or file.suffix == ".stan" or _is_under_way(file)

    def is_unfinished(self, path: Path) -> bool:
        """Whether a folder holds what a run that was cut off left in it, and nothing else."""
        if not self.resumable or not path.is_dir() or (path / self.report).exists():
            return False
        files = list(path.iterdir())
        return bool(files) and all(map(self.is_one_of_its_files, files))


FIT = FolderKind("a fit", "fit.json", frozenset({"flow.safetensors", "trace.csv"}), resumable=True)
NUTS = FolderKind("a NUTS run", "nuts.json", frozenset())


def check_output_folder(
    folder: str | PathLike[str],
    *,
    force: bool,
    kind: FolderKind = FIT,
    resume: bool = False,
) -> Path:
    """Check, before any work is done, that a result can be written to a folder.

    Parameters
    ----------
    folder : path
        Where it shall go: nothing, an empty folder, or with `force` an earlier result.
    force : bool
        Whether an earlier result, or an unfinished run, may be replaced.
    kind : FolderKind
        What it shall hold.
    resume : bool
        Whether the folder may hold an unfinished run, to be continued.

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
            raise UsageError(f"{path} is a file; name a folder for {kind.what}")
        if (path / kind.report).exists():
            _check_replaceable(path, kind, force=force or resume)
        elif kind.is_unfinished(path):
            if not (force or resume):
                raise UsageError(
                    f"{path} holds {kind.what} that was not finished; go on with it with --resume, "
                    "or replace it with --force"
                )
        elif path.is_dir() and any(path.iterdir()):
            raise UsageError(f"{path} is not empty and holds no {_noun(kind)}; name another folder")
        ancestor = next(p for p in (path, *path.parents) if p.exists())
        with tempfile.TemporaryDirectory(dir=ancestor):
            pass
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {reason(error)}") from None
    return path


def _check_replaceable(path: Path, kind: FolderKind, *, force: bool) -> None:
    if not force:
        raise UsageError(
            f"{path} already holds {kind.what}; name another folder with --out, or replace it "
            "with --force"
        )
    others = sorted(f.name for f in path.iterdir() if not kind.is_one_of_its_files(f))
    if others:
        raise UsageError(
            f"{path} holds more than {kind.what} ({', '.join(others[:3])}), which would be lost; "
            "name another folder"
        )


@contextlib.contextmanager
def written_whole(path: Path, *, force: bool = False, kind: FolderKind = FIT) -> Iterator[Path]:
    """Give a new folder to write into; it takes its place when the block ends without error.

    A result that was there is replaced at that moment, by renaming. Into a folder that was there
    empty, perhaps the current one or a mounted one, or that an unfinished run has left, the files
    are moved, the report last: before that it holds no result. After an error, or a kill, a
    result that was there is untouched.

    Parameters
    ----------
    path : pathlib.Path
        As `check_output_folder` returns it.
    force : bool
        Whether a result that came to be there since then may be replaced.
    kind : FolderKind
        What the folder holds.

    Raises
    ------
    UsageError
        Something could not be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        leftovers = list(path.iterdir()) if kind.is_unfinished(path) else []
        fill = path.is_dir() and len(leftovers) == len(list(path.iterdir()))
        arriving = Path(
            tempfile.mkdtemp(prefix=f"{_ARRIVING}{path.name}-", dir=path if fill else path.parent)
        )
        try:
            arriving.chmod(0o777 & ~_umask())
            yield arriving
            if fill:
                written = _move_files(arriving, path, kind)
                _remove([file for file in leftovers if file.name not in written])
            else:
                _put_in_place(arriving, path, kind, force=force)
        finally:
            shutil.rmtree(arriving, ignore_errors=True)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {reason(error)}") from None


def _move_files(arriving: Path, path: Path, kind: FolderKind) -> set[str]:
    files = sorted(arriving.iterdir(), key=lambda file: file.name == kind.report)
    for file in files:
        file.rename(path / file.name)
    return {file.name for file in files}


def _remove(files: list[Path]) -> None:
    for file in files:
        if file.is_dir():
            shutil.rmtree(file, ignore_errors=True)
        else:
            file.unlink(missing_ok=True)


def _put_in_place(arriving: Path, path: Path, kind: FolderKind, *, force: bool) -> None:
    """Rename the new folder to its place; an earlier one is moved aside first, then removed."""
    if path.exists() and not force:
        rescued = path.with_name(arriving.name.removeprefix(_ARRIVING))
        arriving.rename(rescued)
        raise UsageError(f"{path} has come to hold {kind.what} meanwhile; this one is in {rescued}")
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


def _is_under_way(file: Path) -> bool:
    return file.name.startswith(_ARRIVING) or file.name.endswith(PARTIAL)


def _noun(kind: FolderKind) -> str:
    return kind.what.removeprefix("a ")


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
                raise UsageError(f"{parent} is a file, so nothing can be saved in it") from None
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
