"""Files that appear whole or not at all, and the checksums of a folder's."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path

CHECKSUMS = "sha256sums.txt"
PARTIAL = ".partial"


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Give the name of a file to write; it takes its place when the block ends without error.

    What was there before is whole until the new content is on the disk.

    Raises
    ------
    OSError
        It cannot be written; what was there before is untouched.
    """
    arriving = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL}")
    try:
        yield arriving
        with arriving.open("rb") as stream:
            os.fsync(stream.fileno())
        arriving.replace(path)
    finally:
        arriving.unlink(missing_ok=True)


def write_file(path: Path, content: bytes) -> None:
    """Write a file whole; see `new_file`."""
    with new_file(path) as arriving:
        arriving.write_bytes(content)


def write_checksums(folder: Path, names: Collection[str] | None = None) -> None:
    """Write the SHA-256 of files in a folder; ``sha256sum -c sha256sums.txt`` checks them.

    Parameters
    ----------
    folder : pathlib.Path
        Where the files are.
    names : collection of str, optional
        Which files; all where none are named.
    """
    named = (file.name for file in folder.iterdir()) if names is None else names
    files = [folder / name for name in sorted(named) if name != CHECKSUMS]
    lines = [f"{_sha256(file)}  {file.name}\n" for file in files]
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def verify_checksums(folder: Path, required: Collection[str]) -> None:
    """Hold every file that has a checksum against it.

    Parameters
    ----------
    folder : pathlib.Path
        Where the files are.
    required : collection of str
        Files that must have one.

    Raises
    ------
    ValueError
        A file is missing or is not what was written; the message names it.
    """
    expected = _expected(folder)
    for name in expected:
        _verify(folder / name, expected[name])
    if unlisted := set(required) - expected.keys():
        raise ValueError(f"{CHECKSUMS} lacks {sorted(unlisted)[0]}")


def verify_checksum(folder: Path, name: str) -> None:
    """Hold one file against its checksum.

    Raises
    ------
    ValueError
        It has none, is missing, or is not what was written.
    """
    expected = _expected(folder)
    if name not in expected:
        raise ValueError(f"{CHECKSUMS} lacks {name}")
    _verify(folder / name, expected[name])


def _expected(folder: Path) -> dict[str, str]:
    listed = folder / CHECKSUMS
    if not listed.is_file():
        raise ValueError(f"{CHECKSUMS} is missing")
    parts = [line.partition("  ") for line in listed.read_text(encoding="utf-8").splitlines()]
    if any(not name or Path(name).name != name for _, _, name in parts):
        raise ValueError(f"{CHECKSUMS} is not a list of checksums")
    return {name: checksum for checksum, _, name in parts}


def _verify(file: Path, expected: str) -> None:
    if not file.is_file():
        raise ValueError(f"{file.name} is missing")
    if _sha256(file) != expected:
        raise ValueError(f"{file.name} is not what was written (its checksum differs)")


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
