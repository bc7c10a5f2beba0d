"""A NUTS run as a folder: written whole or not at all, read back without the Stan toolchain."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stanflow.errors import UsageError, one_line
from stanflow.runs.contents import Contents, read_contents, read_report
from stanflow.runs.folder import NUTS, check_output_folder, written_whole
from stanflow.runs.groups import Group, to_groups, values_of

if TYPE_CHECKING:
    from stanflow.reference.result import NutsFit

_ARVIZ_NAMES = {
    "lp__": "lp",
    "accept_stat__": "acceptance_rate",
    "stepsize__": "step_size",
    "treedepth__": "tree_depth",
    "n_leapfrog__": "n_steps",
    "divergent__": "diverging",
    "energy__": "energy",
}
_TYPES: dict[str, type[Any]] = {"tree_depth": np.int64, "n_steps": np.int64, "diverging": np.bool_}


def save(fit: NutsFit, folder: str | PathLike[str], *, force: bool = False) -> Path:
    """Write a NUTS run to a folder; see `NutsFit.save`."""
    path = check_output_folder(folder, force=force, kind=NUTS)
    report = {**fit.report, "out": str(path)}
    with written_whole(path, force=force, kind=NUTS) as arriving:
        Contents(report, groups_of(fit), fit.program, fit.data).write(arriving, NUTS)
    return path


def groups_of(fit: NutsFit) -> dict[str, Group]:
    """Return a run's draws as groups of arrays, with ArviZ's names for the statistics."""
    statistics = {
        name: fit.statistics[stan_name].astype(_TYPES.get(name, np.float64))
        for stan_name, name in _ARVIZ_NAMES.items()
    }
    return to_groups(
        fit.columns,
        fit.values,
        sample_stats=statistics,
        attributes={
            "inference_library": fit.report["engine"],
            "inference_library_version": fit.report["engine_version"],
            "model": fit.report["model"],
        },
        data=fit.data,
    )


def read(folder: str | PathLike[str]) -> dict[str, Any]:
    """Return what a NUTS run that was saved consists of, by the names of its attributes.

    Raises
    ------
    UsageError
        The folder does not hold a whole NUTS run.
    """
    path = Path(folder)
    if not (path / NUTS.report).is_file():
        raise UsageError(f"{path} holds no NUTS run ({NUTS.report} is not there)")
    try:
        return _read(path)
    except Exception as error:
        raise UsageError(f"the NUTS run in {path} is damaged: {one_line(error)}") from error


def _read(path: Path) -> dict[str, Any]:
    contents = read_contents(path, read_report(path, NUTS))
    columns = tuple(contents.report["columns"])
    stats = contents.groups["sample_stats"].arrays
    return {
        "report": contents.report,
        "columns": columns,
        "values": values_of(contents.groups, columns),
        "statistics": {
            stan_name: stats[name].astype(np.float64) for stan_name, name in _ARVIZ_NAMES.items()
        },
        "program": contents.program,
        "data": contents.data,
    }
