"""A fit as a folder: written whole or not at all, read back without the Stan toolchain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from stanflow.errors import UsageError, one_line
from stanflow.fitting.trace import read_trace, write_trace
from stanflow.flow.affine import FixedAffine
from stanflow.flow.config import FlowConfig
from stanflow.flow.noncentering import NonCentering
from stanflow.flow.realnvp import Flow, Modes, build_flow
from stanflow.flow.wiring import Wiring
from stanflow.runs.contents import Contents, read_contents, read_report
from stanflow.runs.folder import FIT, NUTS, check_output_folder, written_whole
from stanflow.runs.groups import Group, to_groups, values_of

if TYPE_CHECKING:
    from stanflow.fitting.result import Fit

FLOW, TRACE = "flow.safetensors", "trace.csv"
FORMAT = 1
_FACTOR = ".factor"
_MODES = ("base.centres", "base.log_weights")
_ONCE_SETTINGS = {"activation": "relu", "local_activation": "softsign", "hidden_layers": 1}


def save(
    fit: Fit, folder: str | PathLike[str], *, force: bool = False, resumed: bool = False
) -> Path:
    """Write a fit to a folder; see `Fit.save`.

    With `resumed` the folder may hold what the run that led to this fit has left there.
    """
    from safetensors.torch import save as to_safetensors

    path = check_output_folder(folder, force=force, resume=resumed)
    report = {"format": FORMAT, **fit.report, "out": str(path)}
    with written_whole(path, force=force or resumed) as arriving:
        write_trace(fit.steps, arriving / TRACE)
        (arriving / FLOW).write_bytes(to_safetensors(_flow_tensors(fit.flow)))
        Contents(report, groups_of(fit), fit.program, fit.data).write(arriving, FIT)
    return path


def groups_of(fit: Fit) -> dict[str, Group]:
    """Return a fit's draws as groups of arrays, one chain."""
    return to_groups(
        fit.columns,
        fit.values[None],
        sample_stats={
            "lp": fit.log_p[None],
            "log_q": fit.log_q[None],
            "log_weight": fit.log_weights[None],
        },
        attributes={
            "inference_library": "stanflow",
            "inference_library_version": fit.report["versions"]["stanflow"],
            "model": fit.report["model"],
        },
        data=fit.data,
        unconstrained=fit.z[None],
    )


def _flow_tensors(flow: Flow) -> dict[str, torch.Tensor]:
    """Return the flow's parameters and fixed numbers by name, and its wiring where it has one."""
    parameters = {name: tensor.clone() for name, tensor in flow.state_dict().items()}
    wiring = {} if flow.wiring is None else flow.wiring.to_arrays()
    return parameters | {name: torch.from_numpy(array) for name, array in wiring.items()}


def _is_wiring(name: str) -> bool:
    return name.startswith("wiring.")


# ---- Reading ----------------------------------------------------------------------------------


def read(folder: str | PathLike[str]) -> dict[str, Any]:
    """Return what a fit that was saved consists of, by the names of its attributes.

    Raises
    ------
    UsageError
        The folder does not hold a whole fit.
    """
    path = Path(folder)
    if not (path / FIT.report).is_file():
        if (path / NUTS.report).is_file():
            raise UsageError(f"{path} holds a NUTS run; read it with stanflow.load_nuts")
        raise UsageError(f"{path} holds no fit ({FIT.report} is not there)")
    try:
        report = read_report(path, FIT)
        if report.pop("format") <= FORMAT:
            return _read(path, report)
        writer = report["versions"]["stanflow"]
    except Exception as error:
        raise UsageError(f"the fit in {path} is damaged: {one_line(error)}") from error
    raise UsageError(
        f"the fit in {path} was written by a later version of StanFlow ({writer}); read it with "
        "that"
    )


def _read(path: Path, report: dict[str, Any]) -> dict[str, Any]:
    contents = read_contents(path, report)
    groups, columns = contents.groups, tuple(report["columns"])
    stats = groups["sample_stats"].arrays
    return {
        "report": report,
        "columns": columns,
        "values": values_of(groups, columns)[0],
        "z": groups["unconstrained_posterior"].arrays["z"][0],
        "log_p": stats["lp"][0],
        "log_q": stats["log_q"][0],
        "log_weights": stats["log_weight"][0],
        "flow": _read_flow(path / FLOW, report),
        "steps": read_trace(path / TRACE),
        "program": contents.program,
        "data": contents.data,
    }


def _read_flow(file: Path, report: Mapping[str, Any]) -> Flow:
    from safetensors.torch import load_file

    for setting, value in _ONCE_SETTINGS.items():
        if report["flow_config"].get(setting, value) != value:
            raise ValueError(
                f"its flow has {setting} {report['flow_config'][setting]}, which is "
                f"no setting any more: only {value} is"
            )
    known = {field.name for field in fields(FlowConfig)}
    config = FlowConfig(**{k: v for k, v in report["flow_config"].items() if k in known})
    tensors = load_file(file)
    wired = {name: tensors.pop(name).numpy() for name in list(tensors) if _is_wiring(name)}
    wiring = Wiring.from_arrays(report["dim"], wired) if wired else None
    modes = Modes(*(tensors[name].numpy() for name in _MODES)) if _MODES[0] in tensors else None
    flow = build_flow(config, report["dim"], seed=0, wiring=wiring, modes=modes).double()
    if any(name.endswith(_FACTOR) for name in tensors):
        flow.append(FixedAffine(torch.zeros(flow.dim), torch.zeros(flow.dim, flow.dim)))
        flow.double()
    hierarchy = {
        place[-1]: tensor
        for name, tensor in tensors.items()
        if (place := name.rpartition("."))[0] == f"layers.{len(flow.bijections)}"
    }
    if hierarchy:
        flow.append(NonCentering(**hierarchy))
    flow.load_state_dict(tensors)
    return flow
