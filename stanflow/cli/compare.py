"""`stanflow compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stanflow.cli.messages import print_json
from stanflow.cli.options import Json, Seed


def compare(
    fit_dir: Annotated[
        Path, typer.Argument(help="Folder of a fit (or a NUTS run).", show_default=False)
    ],
    reference_dir: Annotated[
        Path, typer.Argument(help="Folder of the NUTS run to hold it against.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="File for a report in HTML that opens offline.", show_default=False),
    ] = None,
    seed: Seed = 1,
    as_json: Json = False,
) -> None:
    """Compare a fit with a NUTS run of the same program and data, parameter by parameter."""
    from stanflow.comparison.compare import compare as compare_runs
    from stanflow.comparison.loading import load_run

    comparison = compare_runs(load_run(fit_dir), load_run(reference_dir), seed=seed)
    summary = comparison.summary
    if out is not None:
        comparison.report(out)
        summary = {**summary, "report": str(out)}
    if as_json:
        print_json(summary)
    else:
        typer.echo(comparison)
        if out is not None:
            typer.echo(f"\nreport in {out}")
