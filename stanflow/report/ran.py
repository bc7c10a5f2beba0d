"""What was run, in the words of a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NOTHING = "\N{EN DASH}"
_CONFIGURATIONS = ("flow_config", "train_config")


def entry(report: Mapping[str, Any], key: str, pattern: str = "{}") -> str:
    """Return an entry of a run's report, a dash where there is none.

    Examples
    --------
    >>> entry({"seconds": 1234.5}, "seconds", "{:,.0f} s")
    '1,234 s'
    >>> entry({}, "seed") == NOTHING
    True
    """
    return NOTHING if report.get(key) is None else pattern.format(report[key])


def engine(report: Mapping[str, Any]) -> str:
    """Return the engine's name and version."""
    name, version = report.get("engine"), report.get("engine_version")
    if name is None:
        return version or NOTHING
    return f"{name} ({version})" if version else str(name)


def versions(report: Mapping[str, Any]) -> str:
    """Return the versions of what ran."""
    known = report.get("versions")
    if not isinstance(known, Mapping) or not known:
        return NOTHING
    return ", ".join(f"{name} {version}" for name, version in known.items())


def configuration(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the settings of a flow and its training, as name and value."""
    return [
        (name, str(value))
        for key in _CONFIGURATIONS
        for name, value in (report.get(key) or {}).items()
    ]
