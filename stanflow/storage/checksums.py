"""Checksums of a folder's files, in the form of the sha256sum command."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

CHECKSUMS = "sha256sums.txt"


def write_checksums(folder: Path) -> None:
    """Write the SHA-256 of every file in a folder; ``sha256sum -c sha256sums.txt`` checks them."""
    files = sorted(file for file in folder.iterdir() if file.name != CHECKSUMS)
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
    listed = folder / CHECKSUMS
    if not listed.is_file():
        raise ValueError(f"{CHECKSUMS} is missing")
    unlisted = set(required)
    for line in listed.read_text(encoding="utf-8").splitlines():
        expected, _, name = line.partition("  ")
        file = folder / name
        if not name or file.name != name:
            raise ValueError(f"{CHECKSUMS} is not a list of checksums")
        if not file.is_file():
            raise ValueError(f"{name} is missing")
        if _sha256(file) != expected:
            raise ValueError(f"{name} is not what was written (its checksum differs)")
        unlisted.discard(name)
    if unlisted:
        raise ValueError(f"{CHECKSUMS} lacks {sorted(unlisted)[0]}")


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
