"""What tasks do: each takes the task and its folder, and returns what clients get as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow

from stanflow.errors import DataError, EngineError, ProgramError
from stanflow.files import new_file, write_checksums
from stanflow.runs.folder import CHECKPOINT
from stanflow.service.disk import require_room
from stanflow.service.json_values import finite
from stanflow.service.task import DRAWS, PROGRESS, REPORT, RUN, Task, TaskKind
from stanflow.service.teller import Teller
from stanflow.stan.comments import with_newlines, without_includes_in_comments
from stanflow.stan.engine import check_program
from stanflow.stan.model import StanModel
from stanflow.stan.program import StanProgram

if TYPE_CHECKING:
    import pandas as pd

    from stanflow.fitting.result import Fit
    from stanflow.reference.result import NutsFit

Array = npt.NDArray[Any]

_SECONDS_BETWEEN_CHECKPOINTS = 5.0
_COPIES_OF_DRAWS, _BYTES_BESIDE_DRAWS = 3, 12 * 2**20
_MOST_NUMBERS = 2_000_000
_INCLUDE = "#include"


def compile_task(task: Task, folder: Path) -> dict[str, Any]:
    """Have the Stan compiler look at a program, and say what its data block declares."""
    program = _program(task, folder)
    check_program(program)
    declared = [{"name": d.name, "declaration": d.text} for d in program.data_declarations]
    return {"data": declared}


def params_task(task: Task, folder: Path) -> dict[str, Any]:
    """Name the parameters of a program given its data."""
    model = _model(task, folder)
    return {
        "dim": model.dim,
        "unconstrained": list(model.unconstrained_names),
        "columns": list(model.columns),
        "shapes": {name: list(shape) for name, shape in model.shapes.items()},
        "engine": model.engine_version,
        "ignored_data": list(model.data.ignored),
    }


def log_prob_task(task: Task, folder: Path) -> dict[str, Any]:
    """Evaluate the log density of unconstrained draws, and its gradient if asked."""
    model = _model(task, folder)
    evaluated = model.log_density_gradient(_points(task, model))
    constant = model.normalizing_constant
    found: dict[str, Any] = {
        "log_prob": finite(evaluated.log_density + constant.value),
        "normalized": constant.known,
    }
    if task.kind == "log_prob_grad":
        found["gradient"] = finite(evaluated.gradient)
    return found


def write_array_task(task: Task, folder: Path) -> dict[str, Any]:
    """Map unconstrained draws to the program's scale."""
    model = _model(task, folder)
    points = _points(task, model)
    if len(points) * len(model.columns) > _MOST_NUMBERS:
        raise DataError(
            f"{len(points)} draws of {len(model.columns)} scalars are more than the "
            f"{_MOST_NUMBERS} numbers that are answered at a time; send fewer draws"
        )
    constrained = model.constrain(
        points,
        seed=task.options["seed"],
        include_generated=task.options["include_generated"],
    )
    return {"columns": list(constrained.columns), "values": finite(constrained.values)}


def transform_inits_task(task: Task, folder: Path) -> dict[str, Any]:
    """Map parameters by name to an unconstrained draw."""
    model = _model(task, folder)
    return {"unconstrained": model.unconstrain(task.options["parameters"]).tolist()}


def fit_task(task: Task, folder: Path) -> dict[str, Any]:
    """Fit a flow, going on from a checkpoint that an earlier process left."""
    from stanflow.fitting.fit import fit
    from stanflow.fitting.presets import settings
    from stanflow.refine.config import RefineConfig

    options = dict(task.options)
    seed, draws = options.pop("seed"), options.pop("draws")
    evidence_draws, preset = options.pop("evidence_draws"), options.pop("preset")
    refine = options.pop("refine", None)
    flow, training = settings(preset, **options)
    model = _model(task, folder, seed)
    constant = model.normalizing_constant.value
    with (folder / PROGRESS).open("a") as file:
        tell = Teller(lambda line: print(line, file=file, flush=True), constant)
        fitted = fit(
            model,
            seed=seed,
            draws=draws,
            evidence_draws=evidence_draws,
            flow=flow,
            training=training,
            preset=preset,
            refining=None if refine is None else RefineConfig(when=refine),
            checkpoint=folder / CHECKPOINT,
            checkpoint_every=_SECONDS_BETWEEN_CHECKPOINTS,
            on_step=tell.step,
            on_round=tell.round,
        )
    _require_room_for(fitted.values, folder)
    columns = {"lp__": fitted.log_p, "lp_approx__": fitted.log_q, "log_weight": fitted.log_weights}
    _write_draws(folder / DRAWS, columns | _by_column(fitted.columns, fitted.values))
    fitted.save(folder / RUN, force=True)
    fitted.save_report(folder / REPORT)
    write_checksums(folder, [DRAWS, REPORT])
    (folder / CHECKPOINT).unlink(missing_ok=True)
    weighted = finite(_rows(fitted.summary(weighted=True).table))
    return {**_summary(fitted), "weighted_scalars": weighted}


def nuts_task(task: Task, folder: Path) -> dict[str, Any]:
    """Run NUTS."""
    from stanflow.reference.sampling import nuts

    model = _model(task, folder, task.options["seed"])
    run = nuts(model, engine=_nuts_engine(model), progress=False, **task.options)
    _require_room_for(run.values, folder)
    chains, draws = run.values.shape[:2]
    columns = {"chain": np.repeat(np.arange(1, chains + 1), draws)}
    columns |= {name: told.ravel() for name, told in run.method_variables().items()}
    _write_draws(folder / DRAWS, columns | _by_column(run.columns, run.pooled))
    run.save(folder / RUN, force=True)
    write_checksums(folder, [DRAWS])
    return _summary(run)


def comparison_task(task: Task, folder: Path) -> dict[str, Any]:
    """Compare two runs."""
    from stanflow.comparison.compare import compare
    from stanflow.comparison.loading import load_run

    # Jobs' folders lie beside each other, and are named by their ids.
    folders = (folder.parent / task.options[side] / RUN for side in ("fit", "reference"))
    runs = [_without_its_place(load_run(path)) for path in folders]
    comparison = compare(*runs, seed=task.options["seed"])
    words = {"headline": comparison.headline, "notes": comparison.notes}
    summary: dict[str, Any] = finite({**comparison.as_dict(), **words})
    comparison.report(folder / REPORT)
    write_checksums(folder, [REPORT])
    return summary


TASKS: dict[TaskKind, Callable[[Task, Path], dict[str, Any]]] = {
    "compile": compile_task,
    "params": params_task,
    "log_prob": log_prob_task,
    "log_prob_grad": log_prob_task,
    "write_array": write_array_task,
    "transform_inits": transform_inits_task,
    "fit": fit_task,
    "nuts": nuts_task,
    "comparison": comparison_task,
}


def _nuts_engine(model: StanModel) -> Literal["cmdstan", "native", "embedded"]:
    """Return CmdStan where it is installed, else the model's own engine.

    That may be the embedded one where the native one is there: a job's limits leave little room for
    a compiler.
    """
    from stanflow.reference.cmdstan_program import find_installation

    try:
        find_installation()
    except EngineError:
        return model.engine
    return "cmdstan"


def _program(task: Task, folder: Path) -> StanProgram:
    """Return the task's program as a file of that name, which its messages then have.

    There is no include in it to any compiler, however it tells comments and strings apart.

    Raises
    ------
    ProgramError
        It includes files: those of the server are nobody's business.
    """
    program = without_includes_in_comments(with_newlines(task.program))
    path = folder / f"{task.name}.stan"
    before, include, _ = program.partition(_INCLUDE)
    if include:
        line = 1 + before.count("\n")
        raise ProgramError(
            f"{path.name}, line {line}: the service takes programs without {_INCLUDE}; put the "
            "text of the file in its place",
            line=line,
        )
    path.write_text(program, encoding="utf-8")
    return StanProgram.from_file(path)


def _model(task: Task, folder: Path, seed: int = 0) -> StanModel:
    path = _program(task, folder).path
    return StanModel(path, task.data, seed=seed, threads=task.threads)


def _points(task: Task, model: StanModel) -> Array:
    """Return the unconstrained draws that a client gave, (n, D).

    Raises
    ------
    DataError
        They are not that.
    """
    rows = task.options["unconstrained"]
    lengths = {len(row) for row in rows}
    if lengths != {model.dim}:
        raise DataError(
            f"each draw must have {model.dim} numbers, as many as the program has unconstrained "
            f"parameters, not {', '.join(map(str, sorted(lengths)))}"
        )
    return np.asarray(rows, dtype=np.float64)


def _require_room_for(values: Array, folder: Path) -> None:
    """Raise NoRoomError where draws have no room: as Arrow, as NetCDF, and what is told of them."""
    require_room(folder, _COPIES_OF_DRAWS * values.nbytes + _BYTES_BESIDE_DRAWS)


def _by_column(names: Sequence[str], values: Array) -> dict[str, Array]:
    return {name: np.ascontiguousarray(values[:, j]) for j, name in enumerate(names)}


def _write_draws(path: Path, columns: Mapping[str, Array]) -> None:
    """Write draws as an Arrow file, a column a scalar, from which pages are read."""
    table = pyarrow.table(dict(columns))
    with (
        new_file(path) as arriving,
        pyarrow.OSFile(str(arriving), "wb") as file,
        pyarrow.ipc.new_file(file, table.schema) as to,
    ):
        to.write_table(table)


def _without_its_place(run: Fit | NutsFit) -> Fit | NutsFit:
    """Return a run that does not say where the server keeps it."""
    report: Any = {key: said for key, said in run.report.items() if key != "out"}
    return replace(run, report=report)


def _summary(run: Fit | NutsFit) -> dict[str, Any]:
    """Return a run's report with its table of scalars."""
    rows = _rows(run.summary().table)
    report: Mapping[str, Any] = run.report
    kept = {key: value for key, value in report.items() if key not in {"columns", "out"}}
    whole: dict[str, Any] = finite({**kept, "scalars": rows})
    return whole


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {"name": str(name), **{str(k): v for k, v in row.items()}} for name, row in table.iterrows()
    ]
