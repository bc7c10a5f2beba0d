"""`stanflow fit`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stanflow.cli.defaults import BASE, BATCH, FAMILY, HIDDEN, LAYERS, MAX_STEPS
from stanflow.cli.messages import print_json, tell, tell_ignored
from stanflow.cli.options import Data, Engine, IncludePath, Json, Model, Seed
from stanflow.errors import UsageError

if TYPE_CHECKING:
    from stanflow.fitting.result import Fit
    from stanflow.stan.model import StanModel

_FITS = Path("fits")


def fit(
    model: Model,
    data: Data = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the fit; by default fits/MODEL, or fits/MODEL-2, ... where that is "
            "taken.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a fit that --out holds.")] = False,
    seed: Seed = 1,
    engine: Engine = "auto",
    preset: Annotated[
        Literal["auto", "paper"],
        typer.Option(
            help="Settings that the options below change: StanFlow's, or those of Andrade (2024)."
        ),
    ] = "auto",
    family: Annotated[
        Literal["realnvp", "fullrank", "meanfield"] | None,
        typer.Option(
            help=f"Real NVP, or an affine map of the base, dense or elementwise.  {FAMILY}",
            show_default=False,
        ),
    ] = None,
    layers: Annotated[
        int | None,
        typer.Option(help=f"Coupling layers of Real NVP.  {LAYERS}", show_default=False),
    ] = None,
    hidden: Annotated[
        int | None,
        typer.Option(
            help=f"Hidden units of each conditioner network.  {HIDDEN}", show_default=False
        ),
    ] = None,
    base: Annotated[
        Literal["student-t", "gaussian"] | None,
        typer.Option(help=f"Base distribution.  {BASE}", show_default=False),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(help=f"Draws a training step.  {BATCH}", show_default=False),
    ] = None,
    max_steps: Annotated[
        int | None,
        typer.Option(
            help=f"Most training steps; fewer where the ELBO stops rising.  {MAX_STEPS}",
            show_default=False,
        ),
    ] = None,
    max_seconds: Annotated[
        float | None,
        typer.Option(help="Take about this long for all of the fit.", show_default=False),
    ] = None,
    refine: Annotated[
        Literal["auto", "always", "never"] | None,
        typer.Option(
            help="Whether draws are moved from the trained flow to the posterior by annealing: "
            "where importance weights do not suffice, always, or never.  [default: auto; paper: "
            "never]",
            show_default=False,
        ),
    ] = None,
    draws: Annotated[int, typer.Option(min=2, max=10**8, help="Draws to take.")] = 4000,
    evidence_draws: Annotated[
        int | None,
        typer.Option(
            max=10**9,
            help="Draws behind ELBO, evidence and k-hat; those beyond --draws are not kept.  "
            "[default: 4000 to 20000, as many as settle these, or --draws]",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with a run of the same program, data and options that was cut off, to the "
            "same numbers: the one in --out, or the newest in fits/MODEL*. Without one, begin.",
        ),
    ] = False,
    checkpoint_every: Annotated[
        float, typer.Option(min=0.0, help="Seconds between checkpoints for --resume.")
    ] = 30.0,
    include_path: IncludePath = None,
    as_json: Json = False,
) -> None:
    """Fit a flow to the posterior and save it, with draws, in a folder.

    Ctrl-C stops training cleanly and keeps what was learnt.
    """
    from stanflow.fitting.presets import settings
    from stanflow.runs.folder import check_output_folder, reserve_folder
    from stanflow.runs.unfinished import find_unfinished, fit_under_way, is_finished
    from stanflow.stan.model import StanModel

    flow, training = settings(
        preset,
        family=family,
        layers=layers,
        hidden=hidden,
        base=base,
        batch=batch,
        max_steps=max_steps,
        max_seconds=max_seconds,
    )
    if out is not None:
        check_output_folder(out, force=force, resume=resume)
    stan_model = StanModel(model, data, include_paths=include_path or (), engine=engine, seed=seed)
    # Torch takes a second to load; bad input is found before.
    from stanflow.fitting.fit import fit as fit_model
    from stanflow.fitting.folder import save
    from stanflow.fitting.result import load
    from stanflow.refine.config import RefineConfig

    tell(f"{stan_model.name}: {stan_model.dim} parameters, {stan_model.engine_version}")
    tell_ignored(stan_model.data.ignored)
    folder = out or (find_unfinished(_FITS, stan_model.name) if resume else None)
    folder = folder or reserve_folder(_FITS, stan_model.name)
    if resume and is_finished(folder):
        tell(f"{folder} holds a finished fit")
        result = load(folder)
        _refuse_another_fit(result, stan_model, seed)
    else:
        with fit_under_way(folder, resume=resume) as checkpoint:
            if checkpoint.exists():
                tell(f"going on from {checkpoint}")
            result = fit_model(
                stan_model,
                seed=seed,
                preset=preset,
                draws=draws,
                evidence_draws=evidence_draws,
                flow=flow,
                training=training,
                refining=None if refine is None else RefineConfig(when=refine),
                checkpoint=checkpoint,
                checkpoint_every=checkpoint_every,
            )
            began = time.perf_counter()
            save(result, folder, force=force, resumed=True)
            result.report["stages"]["save"] = {
                "seconds": time.perf_counter() - began,
                "gradient_evaluations": 0,
                "density_evaluations": 0,
            }
    if as_json:
        print_json({**result.report, "out": str(folder)}, without=("columns",))
    else:
        typer.echo(result.summary())
        typer.echo(f"\nsaved in {folder}")


def _refuse_another_fit(fit: Fit, model: StanModel, seed: int) -> None:
    same = (model.program.hash, model.data.hash, seed)
    if same != tuple(fit.report[key] for key in ("program_sha256", "data_sha256", "seed")):
        raise UsageError(
            f"{fit.report['out']} holds a fit of another program, other data or another seed; "
            "name another folder with --out"
        )
