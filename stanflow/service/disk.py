"""Room on the disk of the data folder: asked for before it is needed, and some kept in reserve."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

_RESERVE = "reserve"
RESERVED = 8 * 2**20
_AT_ONCE = bytes(2**16)


class NoRoomError(Exception):
    """A disk has less room than is needed; both in bytes."""

    def __init__(self, needed: int, free: int) -> None:
        super().__init__(f"{needed} bytes are needed and {free} are free")
        self.needed, self.free = needed, free


def require_room(folder: Path, needed: int) -> None:
    """Raise where the disk of a folder has less room than is needed.

    Parameters
    ----------
    folder : pathlib.Path
    needed : int
        In bytes.

    Raises
    ------
    NoRoomError
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise NoRoomError(needed, free)


class Reserve:
    """A file that is given up when the disk is full, so that there is room to delete runs.

    A database needs room to note that something is gone.

    Parameters
    ----------
    folder : pathlib.Path
        Where it is.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _RESERVE

    def keep(self) -> None:
        """Make it, if it is not there, and there is room for twice as much."""
        if self._path.exists():
            return
        try:
            require_room(self._path.parent, 2 * RESERVED)
            with self._path.open("xb") as file:
                for _ in range(0, RESERVED, len(_AT_ONCE)):
                    file.write(_AT_ONCE)
        except (OSError, NoRoomError):
            self.give_up()

    def give_up(self) -> None:
        """Give its room to others."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
