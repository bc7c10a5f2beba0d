"""A fit as a folder: written whole or not at all, read back without the Stan toolchain."""

from __future__ import annotations

import json
from dataclasses import fields
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from stanflow.errors import UsageError, one_line
from stanflow.flow.realnvp import Flow
from stanflow.result import Fit
from stanflow.storage import inference_data
from stanflow.storage.checksums import verify_checksums, write_checksums
from stanflow.storage.output import DATA, DRAWS, FIT, NUTS, check_output_folder, written_whole

FLOW, TRACE = "flow.safetensors", "trace.csv"
FORMAT = 1
_FACTOR = ".factor"

if TYPE_CHECKING:
    import arviz


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
        (arriving / f"{report['model']}.stan").write_bytes(fit.program.encode())
        (arriving / DATA).write_bytes(fit.data.encode())
        fit.trace.to_csv(arriving / TRACE, index=False)
        (arriving / FLOW).write_bytes(to_safetensors(_flow_tensors(fit.flow)))
        to_inference_data(fit).to_netcdf(str(arriving / DRAWS))
        (arriving / FIT.report).write_text(
            json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8"
        )
        write_checksums(arriving)
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
    if not (path / FIT.report).is_file():
        if (path / NUTS.report).is_file():
            raise UsageError(f"{path} holds a NUTS run; read it with stanflow.load_nuts")
        raise UsageError(f"{path} holds no fit ({FIT.report} is not there)")
    try:
        verify_checksums(path, FIT.required)
        report = json.loads((path / FIT.report).read_text(encoding="utf-8"))
        if report.pop("format") <= FORMAT:
            return _read(path, report)
        writer = report["versions"]["stanflow"]
    except Exception as error:
        raise UsageError(f"the fit in {path} is damaged: {one_line(error)}") from error
    raise UsageError(
        f"the fit in {path} was written by a later version of StanFlow ({writer}); read it with "
        "that"
    )


def to_inference_data(fit: Fit) -> arviz.InferenceData:
    """Return a fit's draws as ArviZ InferenceData, one chain."""
    return inference_data.to_inference_data(
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


def _read(path: Path, report: dict[str, Any]) -> Fit:
    from safetensors.torch import load_file

    from stanflow.flow.affine import FixedAffine
    from stanflow.flow.config import FlowConfig
    from stanflow.flow.realnvp import build_flow
    from stanflow.flow.wiring import Wiring
    from stanflow.quiet_arviz import arviz

    known = {field.name for field in fields(FlowConfig)}
    config = FlowConfig(**{k: v for k, v in report["flow_config"].items() if k in known})
    tensors = load_file(path / FLOW)
    wired = {name: tensors.pop(name).numpy() for name in list(tensors) if _is_wiring(name)}
    wiring = Wiring.from_arrays(report["dim"], wired) if wired else None
    flow = build_flow(config, report["dim"], seed=0, wiring=wiring).double()
    if any(name.endswith(_FACTOR) for name in tensors):
        flow.append(FixedAffine(torch.zeros(flow.dim), torch.zeros(flow.dim, flow.dim)))
        flow.double()
    flow.load_state_dict(tensors)
    stored: Any = arviz.InferenceData.from_netcdf(str(path / DRAWS))
    stats = stored.sample_stats
    columns = tuple(report["columns"])
    return Fit(
        report=report,
        columns=columns,
        values=inference_data.values_of(stored, columns)[0],
        z=stored.unconstrained_posterior["z"].values[0],
        log_p=stats["lp"].values[0],
        log_q=stats["log_q"].values[0],
        log_weights=stats["log_weight"].values[0],
        flow=flow,
        trace=pd.read_csv(path / TRACE),
        program=(path / f"{report['model']}.stan").read_bytes().decode(),
        data=(path / DATA).read_bytes().decode(),
    )
