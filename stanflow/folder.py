"""A fit as a folder: written whole or not at all, read back without the Stan toolchain."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import fields
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import stanio
import torch

from stanflow.errors import UsageError
from stanflow.flow.realnvp import Flow
from stanflow.output import (
    DATA,
    DRAWS,
    FLOW,
    REPORT,
    TRACE,
    check_output_folder,
    written_whole,
)
from stanflow.result import Fit
from stanflow.target.loaded import FloatArray

if TYPE_CHECKING:
    import arviz


def save(fit: Fit, folder: str | PathLike[str], *, force: bool = False) -> Path:
    """Write a fit to a folder; see `Fit.save`."""
    from safetensors.torch import save as to_safetensors

    path = check_output_folder(folder, force=force)
    report = {**fit.report, "out": str(path)}
    with written_whole(path, force=force) as arriving:
        (arriving / f"{report['model']}.stan").write_bytes(fit.program.encode())
        (arriving / DATA).write_bytes(fit.data.encode())
        fit.trace.to_csv(arriving / TRACE, index=False)
        (arriving / FLOW).write_bytes(to_safetensors(_flow_tensors(fit.flow)))
        to_inference_data(fit).to_netcdf(str(arriving / DRAWS))
        (arriving / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return path


def load(folder: str | PathLike[str]) -> Fit:
    """Read a fit written by `Fit.save` or ``stanflow fit``.

    Parameters
    ----------
    folder : path
        The fit's folder.

    Raises
    ------
    UsageError
        The folder does not hold a whole fit.
    """
    path = Path(folder)
    if not (path / REPORT).is_file():
        raise UsageError(f"{path} holds no fit ({REPORT} is not there)")
    try:
        return _read(path)
    except Exception as error:
        raise UsageError(f"the fit in {path} is damaged: {error}") from error


def to_inference_data(fit: Fit) -> arviz.InferenceData:
    """Return a fit's draws as ArviZ InferenceData, one chain."""
    import arviz

    attributes = {
        "inference_library": "stanflow",
        "inference_library_version": fit.report["versions"]["stanflow"],
        "model": fit.report["model"],
    }
    inference_data: arviz.InferenceData = arviz.from_dict(
        posterior={name: values[None] for name, values in _numeric_variables(fit).items()},
        sample_stats={"lp": fit.log_p[None], "log_q": fit.log_q[None]},
        posterior_attrs=attributes,
        sample_stats_attrs=attributes,
    )
    return inference_data


def _numeric_variables(fit: Fit) -> dict[str, Any]:
    """Variables as real arrays: tuples and complex numbers, which NetCDF lacks, as scalars."""
    variables: dict[str, Any] = {}
    for name, variable in stanio.parse_header(",".join(fit.columns)).items():
        if variable.type is stanio.reshape.VariableType.SCALAR:
            variables[name] = variable.extract_reshape(fit.values)
        else:
            for column in variable.columns():
                variables[fit.columns[column]] = fit.values[:, column]
    return {_unclashing(name, variables): values for name, values in variables.items()}


def _unclashing(name: str, variables: Collection[str]) -> str:
    """Return a variable's name in NetCDF, where dimensions have names, too."""
    dimension = name in ("chain", "draw") or any(
        name.startswith(f"{other}_dim_") for other in variables
    )
    return f"{name}_" if dimension else name


def _flow_tensors(flow: Flow) -> dict[str, torch.Tensor]:
    """Return the flow's parameters by name, and its wiring where it was given one."""
    parameters = {name: tensor.clone() for name, tensor in flow.state_dict().items()}
    wiring = {} if flow.wiring is None else flow.wiring.to_arrays()
    return parameters | {name: torch.from_numpy(array) for name, array in wiring.items()}


def _is_wiring(name: str) -> bool:
    return name.startswith("wiring.")


# ---- Reading ----------------------------------------------------------------------------------


def _read(path: Path) -> Fit:
    import arviz
    from safetensors.torch import load_file

    from stanflow.flow.config import FlowConfig
    from stanflow.flow.realnvp import build_flow
    from stanflow.flow.wiring import Wiring

    report = json.loads((path / REPORT).read_text(encoding="utf-8"))
    known = {field.name for field in fields(FlowConfig)}
    config = FlowConfig(**{k: v for k, v in report["flow_config"].items() if k in known})
    tensors = load_file(path / FLOW)
    wired = {name: tensors.pop(name).numpy() for name in list(tensors) if _is_wiring(name)}
    wiring = Wiring.from_arrays(report["dim"], wired) if wired else None
    flow = build_flow(config, report["dim"], seed=0, wiring=wiring).double()
    flow.load_state_dict(tensors)
    inference_data: Any = arviz.InferenceData.from_netcdf(str(path / DRAWS))
    columns = tuple(report["columns"])
    return Fit(
        report=report,
        columns=columns,
        values=_columns_of(inference_data.posterior, columns),
        log_p=inference_data.sample_stats["lp"].values[0],
        log_q=inference_data.sample_stats["log_q"].values[0],
        flow=flow,
        trace=pd.read_csv(path / TRACE),
        program=(path / f"{report['model']}.stan").read_bytes().decode(),
        data=(path / DATA).read_bytes().decode(),
    )


def _columns_of(posterior: Any, columns: tuple[str, ...]) -> FloatArray:
    values = np.empty((posterior.sizes["draw"], len(columns)))
    parsed = stanio.parse_header(",".join(columns))
    for name, variable in parsed.items():
        positions = list(variable.columns())
        stored = _unclashing(name, parsed)
        if stored in posterior:
            flat = posterior[stored].values[0]
            values[:, positions] = flat.reshape(len(flat), -1, order="F")
        else:
            for position in positions:
                values[:, position] = posterior[columns[position]].values[0]
    return values
