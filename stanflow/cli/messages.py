"""What commands print: results on standard output, all else on standard error."""

from __future__ import annotations

import json
from typing import Any

import typer


def tell(line: str) -> None:
    """Print a line on standard error."""
    typer.echo(line, err=True)


def tell_ignored(names: tuple[str, ...]) -> None:
    """Say which data are ignored, if any are."""
    if names:
        tell(f"the program does not declare these data, so they are ignored: {', '.join(names)}")


def print_json(report: dict[str, Any], without: tuple[str, ...] = ()) -> None:
    """Print a report on standard output, some of its keys left out."""
    shown = {key: value for key, value in report.items() if key not in without}
    typer.echo(json.dumps(shown, indent=2, allow_nan=False))
