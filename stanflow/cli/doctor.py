"""`stanflow doctor`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from stanflow.cli.messages import print_json, tell
from stanflow.cli.options import Json


def doctor(
    install: Annotated[
        Literal["native"] | None,
        typer.Option(
            help="Fetch by pip what an engine needs: native, Stan's own C++ for programs that the "
            "embedded engine cannot run.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what is installed, what is missing, and the command that mends it."""
    from stanflow.cli.installation import examine

    if install == "native":
        from stanflow.stan import stan_wheel

        headers = stan_wheel.install()
        tell(f"{headers.name} is in {headers.folder}")
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
