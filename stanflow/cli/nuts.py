"""`stanflow nuts`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stanflow.cli.messages import print_json, tell, tell_ignored
from stanflow.cli.options import Data, IncludePath, Json, Model, Seed

if TYPE_CHECKING:
    from stanflow.fitting.result import Fit


def nuts(
    model: Model,
    data: Data = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the run; by default nuts/MODEL, or nuts/MODEL-2, ... where that is "
            "taken.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a run that --out holds.")] = False,
    seed: Seed = 1,
    engine: Annotated[
        Literal["auto", "cmdstan", "native", "embedded"],
        typer.Option(
            help="What runs NUTS: CmdStan, Stan's own sampler in the native engine, Stan's NUTS in "
            "the embedded engine, or, by auto, the first of these that is installed."
        ),
    ] = "auto",
    exe: Annotated[
        Path | None,
        typer.Option(
            help="The program as CmdStan has compiled it; CmdStan need not be installed then.",
            show_default=False,
        ),
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a fit of the same posterior: chains start at its draws, with its "
            "scales.",
            show_default=False,
        ),
    ] = None,
    through: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a fit of the same posterior: NUTS runs in the base space of its flow.",
            show_default=False,
        ),
    ] = None,
    chains: Annotated[int, typer.Option(help="Chains.")] = 4,
    warmup: Annotated[int, typer.Option(help="Warmup iterations of each chain.")] = 1000,
    draws: Annotated[int, typer.Option(help="Draws of each chain.")] = 1000,
    adapt_delta: Annotated[
        float | None,
        typer.Option(help="Acceptance rate to adapt to.  [default: 0.8]", show_default=False),
    ] = None,
    max_treedepth: Annotated[
        int | None,
        typer.Option(help="Doublings of a trajectory.  [default: 10]", show_default=False),
    ] = None,
    metric: Annotated[
        Literal["diag_e", "dense_e"], typer.Option(help="Form of the inverse metric.")
    ] = "diag_e",
    include_path: IncludePath = None,
    as_json: Json = False,
) -> None:
    """Draw from the posterior by NUTS and save the draws in a folder."""
    from stanflow.runs.folder import NUTS, check_output_folder, release_folder, reserve_folder
    from stanflow.stan.model import StanModel

    if out is not None:
        check_output_folder(out, force=force, kind=NUTS)
    stan_model = StanModel(model, data, include_paths=include_path or (), seed=seed)
    from stanflow.reference.sampling import nuts as run_nuts

    tell(f"{stan_model.name}: {stan_model.dim} parameters")
    tell_ignored(stan_model.data.ignored)
    folder = out or reserve_folder(Path("nuts"), stan_model.name)
    try:
        run = run_nuts(
            stan_model,
            seed=seed,
            chains=chains,
            warmup=warmup,
            draws=draws,
            engine=engine,
            exe=exe,
            init=None if init is None else _load(init),
            through=None if through is None else _load(through),
            adapt_delta=adapt_delta,
            max_treedepth=max_treedepth,
            metric=metric,
        )
        run.save(folder, force=force)
    finally:
        if out is None:
            release_folder(folder)
    if as_json:
        print_json({**run.report, "out": str(folder)}, without=("columns",))
    else:
        typer.echo(run.summary())
        typer.echo(f"\nsaved in {folder}")


def _load(folder: Path) -> Fit:
    from stanflow.fitting.result import load  # which loads torch

    return load(folder)
