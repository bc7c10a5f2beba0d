"""What a process that runs somebody's Stan program may use.

A program is code: it can loop without end, allocate without end, and make an engine crash. So it
runs in a process of its own, with limits that the operating system keeps, and that dies with the
server.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux' prctl
_SECONDS_BETWEEN_LOOKS = 1.0
_MEGABYTE = 2**20
_NICENESS = 10


def confine(memory_mb: int, parent: int) -> None:
    """Limit this process: its memory, no core dumps, no life without its parent.

    It computes when nobody waits for an answer of the server's.

    Parameters
    ----------
    memory_mb : int
        Memory that it may allocate, in MiB; beyond it allocation fails. No file that it writes may
        be larger, either.
    parent : int
        Process id of the server. Where it is gone already, this process ends here.
    """
    os.nice(_NICENESS)
    with contextlib.suppress(OSError):  # without it Linux may weigh that within the session only
        Path("/proc/self/autogroup").write_text(str(_NICENESS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit = memory_mb * _MEGABYTE
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing fails instead
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    else:
        threading.Thread(target=_end_without, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)


def _end_without(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os._exit(1)
