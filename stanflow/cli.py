"""The command line.

Results go to standard output, progress and messages to standard error. Exit status: 0 done, 1 the
run failed, 2 wrong use or bad input.
"""

from __future__ import annotations

import io
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import stanflow
from stanflow.errors import NumericsError, StanFlowError, UsageError

if TYPE_CHECKING:
    from stanflow.reference.result import NutsFit
    from stanflow.result import Fit
    from stanflow.target.model import StanModel

app = typer.Typer(
    name="stanflow",
    help="Black-box variational inference with normalizing flows for any Stan program.",
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_FITS = Path("fits")
_INTERRUPTED = 130  # what typer returns after Ctrl-C

Model = Annotated[Path, typer.Argument(help="The Stan program, a .stan file.", show_default=False)]
Data = Annotated[
    Path | None, typer.Argument(help="Its data, a Stan JSON file.", show_default=False)
]
Engine = Annotated[
    Literal["auto", "embedded", "bridgestan"],
    typer.Option(
        help="What evaluates the program: BridgeStan's native build, the embedded engine, or "
        "whichever is here."
    ),
]
IncludePath = Annotated[
    list[Path] | None,
    typer.Option(help="A folder to search for #include files; may be repeated."),
]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Source of every random choice.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def _load_run(folder: Path) -> Fit | NutsFit:
    from stanflow.storage import fit_folder, nuts_folder
    from stanflow.storage.output import NUTS

    if (folder / NUTS.report).is_file():
        return nuts_folder.load_nuts(folder)
    return fit_folder.load(folder)


def _refuse_another_fit(fit: Fit, model: StanModel, seed: int) -> None:
    same = (model.program.hash, model.data.hash, seed)
    if same != tuple(fit.report[key] for key in ("program_sha256", "data_sha256", "seed")):
        raise UsageError(
            f"{fit.report['out']} holds a fit of another program, other data or another seed; "
            "name another folder with --out"
        )


def _given(**options: Any) -> dict[str, Any]:
    """Return the options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"stanflow {stanflow.__version__}")
        raise typer.Exit


@app.callback()
def _stanflow(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


@app.command()
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
            help="Real NVP, or an affine map of the base, dense or elementwise.  "
            "[default: realnvp]",
            show_default=False,
        ),
    ] = None,
    layers: Annotated[
        int | None,
        typer.Option(
            help="Coupling layers of Real NVP.  [default: 24, 16 above 50 dimensions; paper: 64]",
            show_default=False,
        ),
    ] = None,
    hidden: Annotated[
        int | None,
        typer.Option(
            help="Hidden units of each conditioner network.  [default: 32, 16 above D = 50; "
            "paper: 100]",
            show_default=False,
        ),
    ] = None,
    base: Annotated[
        Literal["student-t", "gaussian"] | None,
        typer.Option(help="Base distribution.  [default: student-t]", show_default=False),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            help="Draws a training step.  [default: 256, 128 above 500 dimensions]",
            show_default=False,
        ),
    ] = None,
    max_steps: Annotated[
        int | None,
        typer.Option(
            help="Most training steps; fewer where the ELBO stops rising.  "
            "[default: 4000, fewer above 2500 dimensions; paper: 50000]",
            show_default=False,
        ),
    ] = None,
    max_seconds: Annotated[
        float | None, typer.Option(help="Stop training after this long.", show_default=False)
    ] = None,
    draws: Annotated[
        int, typer.Option(min=2, max=10**8, help="Draws to take from the trained flow.")
    ] = 4000,
    evidence_draws: Annotated[
        int | None,
        typer.Option(
            max=10**9,
            help="Draws behind ELBO, evidence and k-hat; those beyond --draws are not kept.  "
            "[default: 20000, or --draws]",
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
    from stanflow.presets import preset as named_settings
    from stanflow.storage.output import check_output_folder, reserve_folder
    from stanflow.storage.unfinished import find_unfinished, fit_under_way, is_finished
    from stanflow.target.model import StanModel

    flow, training = named_settings(preset)
    flow = replace(flow, **_given(family=family, layers=layers, hidden=hidden, base=base))
    training = replace(
        training, **_given(batch=batch, max_steps=max_steps, max_seconds=max_seconds)
    )
    if out is not None:
        check_output_folder(out, force=force, resume=resume)
    stan_model = StanModel(model, data, include_paths=include_path or (), engine=engine, seed=seed)
    # Torch takes a second to load; bad input is found before.
    from stanflow.fitting import fit as fit_model
    from stanflow.storage import fit_folder

    _tell(f"{stan_model.name}: {stan_model.dim} parameters, {stan_model.engine_version}")
    _tell_ignored(stan_model.data.ignored)
    folder = out or (find_unfinished(_FITS, stan_model.name) if resume else None)
    folder = folder or reserve_folder(_FITS, stan_model.name)
    if resume and is_finished(folder):
        _tell(f"{folder} holds a finished fit")
        result = fit_folder.load(folder)
        _refuse_another_fit(result, stan_model, seed)
    else:
        with fit_under_way(folder, resume=resume) as checkpoint:
            if checkpoint.exists():
                _tell(f"going on from {checkpoint}")
            result = fit_model(
                stan_model,
                seed=seed,
                draws=draws,
                evidence_draws=evidence_draws,
                flow=flow,
                training=training,
                checkpoint=checkpoint,
                checkpoint_every=checkpoint_every,
            )
            fit_folder.save(result, folder, force=force, resumed=True)
    if as_json:
        _print_json({**result.report, "out": str(folder)}, without=("columns",))
    else:
        typer.echo(result.summary())
        typer.echo(f"\nsaved in {folder}")


@app.command()
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
        Literal["auto", "cmdstan", "embedded"],
        typer.Option(
            help="What runs NUTS: CmdStan, Stan's NUTS in the embedded engine, or CmdStan where it "
            "is installed."
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
    """Draw from the posterior by Stan's NUTS and save the draws in a folder."""
    from stanflow.storage.output import NUTS, check_output_folder, release_folder, reserve_folder
    from stanflow.target.model import StanModel

    if out is not None:
        check_output_folder(out, force=force, kind=NUTS)
    stan_model = StanModel(model, data, include_paths=include_path or (), seed=seed)
    from stanflow.reference.sampling import nuts as run_nuts
    from stanflow.storage.fit_folder import load

    _tell(f"{stan_model.name}: {stan_model.dim} parameters")
    _tell_ignored(stan_model.data.ignored)
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
            init=None if init is None else load(init),
            adapt_delta=adapt_delta,
            max_treedepth=max_treedepth,
            metric=metric,
        )
        run.save(folder, force=force)
    finally:
        if out is None:
            release_folder(folder)
    if as_json:
        _print_json({**run.report, "out": str(folder)}, without=("columns",))
    else:
        typer.echo(run.summary())
        typer.echo(f"\nsaved in {folder}")


@app.command()
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

    comparison = compare_runs(_load_run(fit_dir), _load_run(reference_dir), seed=seed)
    summary = comparison.summary
    if out is not None:
        comparison.report(out)
        summary = {**summary, "report": str(out)}
    if as_json:
        _print_json(summary)
    else:
        typer.echo(comparison)
        if out is not None:
            typer.echo(f"\nreport in {out}")


@app.command()
def check(
    model: Model,
    data: Data = None,
    engine: Engine = "auto",
    include_path: IncludePath = None,
    as_json: Json = False,
) -> None:
    """Compile a program, bind its data, and hold its gradient against finite differences."""
    from stanflow.target.gradient_check import check_gradient
    from stanflow.target.model import StanModel

    stan_model = StanModel(model, data, include_paths=include_path or (), engine=engine)
    gradient = check_gradient(stan_model, seed=0)
    constant = stan_model.normalizing_constant
    report = {
        "model": stan_model.name,
        "engine": stan_model.engine,
        "engine_version": stan_model.engine_version,
        "engine_reason": stan_model.engine_reason,
        "dim": stan_model.dim,
        "variables": {name: list(shape) for name, shape in stan_model.shapes.items()},
        "ignored_data": list(stan_model.data.ignored),
        "gradient_error": gradient.error if math.isfinite(gradient.error) else None,
        "gradient_agrees": gradient.agrees,
        "worst_parameter": gradient.worst_parameter,
        "normalized": constant.known,
        "normalizing_constant": constant.value if constant.known else None,
        "normalizing_constant_reason": constant.reason,
    }
    if as_json:
        _print_json(report)
    else:
        for line in _check_lines(report):
            typer.echo(line)
    if not gradient.agrees and as_json:
        raise typer.Exit(NumericsError.exit_status)
    if not gradient.agrees:
        raise NumericsError(
            f"the gradient of {stan_model.program.label} differs from finite differences by "
            f"{gradient.error:.2g} (relative) for {gradient.worst_parameter}; if the density is "
            "smooth there, please report this, and try the other engine"
        )


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what is installed, what is missing, and the command that mends it."""
    from stanflow.doctor import examine

    findings = examine()
    if as_json:
        _print_json(
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


def main() -> None:
    """Run the command line; every error is one sentence on standard error, or JSON if asked."""
    as_json = "--json" in sys.argv[1:]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that cannot be shown is no error
            stream.reconfigure(errors="backslashreplace")
    interrupted = ("interrupted; nothing was saved", "usage", "", 1)
    try:
        status = app(standalone_mode=False)
        sys.stdout.flush()
    except StanFlowError as error:
        _fail(str(error), error.kind, error.detail, error.exit_status, as_json=as_json)
    except (KeyboardInterrupt, typer.Abort):
        _fail(*interrupted, as_json=as_json)
    except typer.TyperException as error:
        message = error.format_message()
        _fail(message[:1].lower() + message[1:], "usage", "", 2, as_json=as_json)
    except OSError as error:
        _fail(f"the result cannot be printed: {error.strerror}", "usage", "", 1, as_json=False)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "alloc" not in str(error):
            raise
        _fail(
            "there is not enough memory; try a smaller --batch", "numerics", "", 1, as_json=as_json
        )
    if status == _INTERRUPTED:
        _fail(*interrupted, as_json=as_json)
    sys.exit(status if isinstance(status, int) else 0)


def _fail(message: str, kind: str, detail: str, status: int, *, as_json: bool) -> None:
    if as_json:
        _print_json({"error": message, "kind": kind, "detail": detail})
    else:
        _tell(f"stanflow: {message}")
        if detail and kind == "program":
            _tell(detail)
    sys.exit(status)


def _tell(line: str) -> None:
    typer.echo(line, err=True)


def _tell_ignored(names: tuple[str, ...]) -> None:
    if names:
        _tell(f"the program does not declare these data, so they are ignored: {', '.join(names)}")


def _print_json(report: dict[str, Any], without: tuple[str, ...] = ()) -> None:
    shown = {key: value for key, value in report.items() if key not in without}
    typer.echo(json.dumps(shown, indent=2, allow_nan=False))


def _check_lines(report: dict[str, Any]) -> list[str]:
    shapes = ", ".join(
        f"{name}{shape if shape else ''}" for name, shape in report["variables"].items()
    )
    error = "none finite" if (e := report["gradient_error"]) is None else f"{e:.1e}"
    constant = (
        f"{report['normalizing_constant']:.6g} ({report['normalizing_constant_reason']})"
        if report["normalized"]
        else f"not known: {report['normalizing_constant_reason']}"
    )
    lines = [
        f"program    {report['model']} compiles and takes the data",
        f"engine     {report['engine_version']}: {report['engine_reason']}",
        f"parameters {report['dim']} unconstrained; variables {shapes}",
        f"gradient   {'agrees' if report['gradient_agrees'] else 'DISAGREES'} with finite "
        f"differences (largest relative error {error})",
        f"constants  that Stan drops: {constant}",
    ]
    if report["ignored_data"]:
        lines.append(f"ignored    data not declared: {', '.join(report['ignored_data'])}")
    return lines
