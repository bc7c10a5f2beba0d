"""Files of results, held against their checksums before they go out."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from stanflow.files import CHECKSUMS, verify_checksum
from stanflow.service.problems import ProblemError


def result_file(folder: Path, name: str) -> Path:
    """Return a file of a result.

    Parameters
    ----------
    folder : pathlib.Path
        Where it is, with its checksum; one of a server that kept none yet is taken as it is.
    name : str

    Raises
    ------
    FileNotFoundError
        It is not there.
    ProblemError
        It is not what was written.
    """
    path = folder / name
    found = path.stat()
    if (folder / CHECKSUMS).exists():
        try:
            _verify_once(folder, name, found.st_size, found.st_mtime_ns)
        except ValueError as error:
            raise ProblemError(404, f"the result is lost: {error}", kind="storage") from None
    return path


@lru_cache(maxsize=4096)
def _verify_once(folder: Path, name: str, size: int, modified: int) -> None:
    verify_checksum(folder, name)
