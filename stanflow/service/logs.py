"""What a task's process prints, of which the beginning and the end are kept."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import IO

KEPT = 2**20  # bytes, of the beginning as of the end
_READ_AT_ONCE = 2**16


class BoundedLog:
    """Copies what comes out of a pipe to a file that stays small, until the pipe is closed.

    Parameters
    ----------
    pipe : binary file
        It is closed at the end.
    path : pathlib.Path
        The file; one that is there is replaced. Where it cannot be written, the pipe is read all
        the same.
    """

    def __init__(self, pipe: IO[bytes], path: Path) -> None:
        self._pipe, self._path = pipe, path
        threading.Thread(target=self._copy, name="log", daemon=True).start()

    def _copy(self) -> None:
        left_for_beginning, after, tail = KEPT, 0, bytearray()
        with self._pipe:
            self._write(b"", "wb")
            while piece := self._pipe.read1(_READ_AT_ONCE):  # type: ignore[attr-defined]
                beginning, rest = piece[:left_for_beginning], piece[left_for_beginning:]
                left_for_beginning -= len(beginning)
                if beginning:
                    self._write(beginning)
                after += len(rest)
                tail += rest
                if len(tail) > 2 * KEPT:
                    del tail[:-KEPT]
        del tail[:-KEPT]
        if after > len(tail):
            self._write(f"\n[stanflow: {after - len(tail)} bytes are left out here]\n".encode())
        self._write(bytes(tail))

    def _write(self, text: bytes, mode: str = "ab") -> None:
        try:
            with self._path.open(mode) as file:
                file.write(text)
        except OSError:  # the disk is full, or the folder is gone with the task
            return
