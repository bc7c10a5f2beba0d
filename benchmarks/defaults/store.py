"""Results: one JSON file, an item a line, written whole after each measurement."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.models import MODELS

ROOT = MODELS.parent
_NO_PART_IN_A_FIT = {
    "cli", "comparison", "reference", "report", "service",
    "notebook.py", "findings.py", "progress.py",
}  # fmt: skip


class Key(NamedTuple):
    """Which measurement."""

    section: str
    model: str
    seed: int
    variant: str


class Results:
    """The items of a file, by key; a new one takes the place of an old one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        items = json.loads(path.read_text()) if path.is_file() else []
        self._items = {Key(*(item[name] for name in Key._fields)): item for item in items}

    def find(self, key: Key, code: str | None = None) -> dict[str, Any] | None:
        """Return an item, if it is there and of that code."""
        item = self._items.get(key)
        return item if item is not None and code in {None, item["code"]} else None

    def section(self, name: str) -> list[dict[str, Any]]:
        """Return a section's items."""
        return [item for key, item in self._items.items() if key.section == name]

    def put(self, key: Key, item: dict[str, Any]) -> None:
        """Keep an item and write the file."""
        self._items[key] = {**key._asdict(), **item}
        lines = ",\n".join(finite_json(item) for item in self._items.values())
        write_whole(self._path, f"[\n{lines}\n]\n")


def finite_json(value: Any, indent: int | None = None) -> str:
    """Return JSON with null for numbers that it has no form for."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value


def write_whole(path: Path, text: str) -> None:
    """Write a file that is there as a whole or as it was before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arriving = path.with_suffix(".arriving")
    arriving.write_text(text)
    arriving.replace(path)


def code_version() -> str:
    """Return a hash of the sources that have a part in a fit."""
    hashed = hashlib.sha256()
    package = ROOT / "stanflow"
    for path in sorted(package.rglob("*")):
        inside = path.relative_to(package)
        if path.suffix in {".py", ".c", ".h"} and _NO_PART_IN_A_FIT.isdisjoint(inside.parts):
            hashed.update(f"{inside}\n".encode() + path.read_bytes())
    return hashed.hexdigest()[:12]


def circumstances() -> dict[str, Any]:
    """Return when, of which commit and on what a measurement is made."""
    threads = os.environ.get("OMP_NUM_THREADS")
    return {
        "commit": _git_describe(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": _cores(),
        "threads": None if threads is None else int(threads),
        "load": round(os.getloadavg()[0], 2),
    }


def _git_describe() -> str | None:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
    except OSError:
        return None
    return done.stdout.strip() or None


def _processor() -> str | None:
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.is_file() else []
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), None)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
