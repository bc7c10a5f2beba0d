"""A NUTS run as a folder: written whole or not at all, read back without the Stan toolchain."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stanflow.errors import UsageError, one_line
from stanflow.reference.result import NutsFit
from stanflow.storage import inference_data
from stanflow.storage.checksums import verify_checksums, write_checksums
from stanflow.storage.output import DATA, DRAWS, NUTS, check_output_folder, written_whole

if TYPE_CHECKING:
    import arviz

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


def save_nuts(fit: NutsFit, folder: str | PathLike[str], *, force: bool = False) -> Path:
    """Write a NUTS run to a folder; see `NutsFit.save`."""
    path = check_output_folder(folder, force=force, kind=NUTS)
    report = {**fit.report, "out": str(path)}
    with written_whole(path, force=force, kind=NUTS) as arriving:
        (arriving / f"{report['model']}.stan").write_bytes(fit.program.encode())
        (arriving / DATA).write_bytes(fit.data.encode())
        to_inference_data(fit).to_netcdf(str(arriving / DRAWS))
        (arriving / NUTS.report).write_text(
            json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8"
        )
        write_checksums(arriving)
    return path


def load_nuts(folder: str | PathLike[str]) -> NutsFit:
    """Read a NUTS run written by `NutsFit.save` or ``stanflow nuts``.

    Parameters
    ----------
    folder : path
        The run's folder.

    Raises
    ------
    UsageError
        The folder does not hold a whole NUTS run.
    """
    path = Path(folder)
    if not (path / NUTS.report).is_file():
        raise UsageError(f"{path} holds no NUTS run ({NUTS.report} is not there)")
    try:
        verify_checksums(path, NUTS.required)
        return _read(path)
    except Exception as error:
        raise UsageError(f"the NUTS run in {path} is damaged: {one_line(error)}") from error


def to_inference_data(fit: NutsFit) -> arviz.InferenceData:
    """Return a run's draws as ArviZ InferenceData, with ArviZ's names for the statistics."""
    statistics = {
        name: fit.statistics[stan_name].astype(_TYPES.get(name, np.float64))
        for stan_name, name in _ARVIZ_NAMES.items()
    }
    return inference_data.to_inference_data(
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


def _read(path: Path) -> NutsFit:
    from stanflow.quiet_arviz import arviz

    report = json.loads((path / NUTS.report).read_text(encoding="utf-8"))
    stored: Any = arviz.InferenceData.from_netcdf(str(path / DRAWS))
    columns = tuple(report["columns"])
    return NutsFit(
        report=report,
        columns=columns,
        values=inference_data.values_of(stored, columns),
        statistics={
            stan_name: stored.sample_stats[name].values.astype(np.float64)
            for stan_name, name in _ARVIZ_NAMES.items()
        },
        program=(path / f"{report['model']}.stan").read_bytes().decode(),
        data=(path / DATA).read_bytes().decode(),
    )
