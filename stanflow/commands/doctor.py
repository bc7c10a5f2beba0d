"""`stanflow doctor`."""

from __future__ import annotations

import typer

from stanflow.commands.messages import print_json
from stanflow.commands.options import Json


def doctor(as_json: Json = False) -> None:
    """Say what is installed, what is missing, and the command that mends it."""
    from stanflow.doctor import examine

    findings = examine()
    if as_json:
        print_json(
            {
                "ok": all(f.ok or not f.required for f in findings),
                "findings": [f.as_dict() for f in findings],
            }
        )
    else:
        for finding in findings:
            typer.echo(finding)
    if any(finding.required and not finding.ok for finding in findings):
        raise typer.Exit(1)
