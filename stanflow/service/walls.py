"""What a process that runs somebody's Stan program may open: what it needs, and no more.

A program only computes. Where a defect of a compiler or an engine lets one do more, it is to find
neither the server's database, nor other people's runs, nor the user's files.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import stanflow
from stanflow.service import landlock
from stanflow.service.task import RUN, Task
from stanflow.stan.cache import cache_folder

_SYSTEM = (
    "/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/etc/ld.so.cache", "/etc/ld.so.conf",
    "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime", "/etc/fonts", "/dev/zero",
    "/dev/random", "/dev/urandom", "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat",
    "/proc/loadavg", "/proc/filesystems", "/proc/devices", "/proc/modules", "/proc/driver",
    "/proc/sys/kernel", "/proc/sys/vm", "/sys/devices", "/sys/fs/cgroup", "/sys/bus/pci",
    "/sys/class/drm", "/sys/module",
)  # fmt: skip
_OF_A_GPU = ("dri", "kfd", "nvidia*")
_OF_ENGINES = {"CMDSTAN": ".cmdstan", "BRIDGESTAN": ".bridgestan"}


def raise_walls(task: Task, folder: Path) -> None:
    """Keep this process, for good, from all files but those that the task needs.

    Where the system has no Landlock it does nothing; see `landlock.version`.

    Parameters
    ----------
    task : Task
    folder : pathlib.Path
        Of the task, which is writable, as are the cache and what engines are compiled from.

    Raises
    ------
    OSError
        The system has Landlock, but it fails.
    """
    landlock.restrict(_readable(task, folder), _writable(folder))


def _readable(task: Task, folder: Path) -> Iterator[Path]:
    yield from map(Path, _SYSTEM)
    yield from map(Path, (sys.prefix, sys.base_prefix, sys.exec_prefix))
    yield from (Path(entry) for entry in sys.path if entry)
    yield from map(Path, os.environ.get("PATH", "").split(os.pathsep))
    yield from map(Path, stanflow.__path__)
    if task.kind == "comparison":
        yield from (folder.parent / task.options[side] / RUN for side in ("fit", "reference"))


def _writable(folder: Path) -> Iterator[Path]:
    yield folder
    yield Path("/dev/null")
    for devices in _OF_A_GPU:
        yield from Path("/dev").glob(devices)
    cache_folder().mkdir(parents=True, exist_ok=True)
    yield cache_folder()
    for variable, default in _OF_ENGINES.items():
        yield Path(os.environ.get(variable) or Path.home() / default)
