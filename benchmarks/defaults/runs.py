"""One fit in a process of its own, and what is kept of it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .store import ROOT
from .targets import Target

WINDOW, POINTS = 25, 150
LIMIT = 3600.0
_KEPT = (
    "dim", "engine_version", "elbo", "elbo_se", "log_evidence", "log_evidence_se", "normalized",
    "pareto_k", "importance_ess", "verdict", "reasons", "steps", "stopped", "seconds",
    "gradient_evaluations", "skipped_steps", "rejected_draws", "refined",
)  # fmt: skip


@dataclass(frozen=True)
class Finished:
    """A fit that was made: its folder, its report, its trace with Stan's constants added."""

    folder: Path
    report: dict[str, Any]
    trace: pd.DataFrame


def command_line(*options: str) -> Callable[[Path, Path, int, Path], list[str]]:
    """Return how to make ``stanflow fit MODEL DATA --seed N --json --out DIR`` with options."""
    stanflow = str(Path(sys.executable).with_name("stanflow"))
    return lambda program, data, seed, out: [
        stanflow, "fit", str(program), str(data), "--seed", str(seed), *options,
        "--json", "--out", str(out),
    ]  # fmt: skip


def python(
    flow: dict[str, Any] | None = None, training: dict[str, Any] | None = None
) -> Callable[[Path, Path, int, Path], list[str]]:
    """Return how to make a fit with settings of FlowConfig and TrainConfig."""

    def command(program: Path, data: Path, seed: int, out: Path) -> list[str]:
        specification = {"program": str(program), "data": str(data), "seed": seed, "out": str(out)}
        specification |= {"flow": flow or {}, "training": training or {}}
        module = f"{__package__}.fit_by_python"
        return [sys.executable, "-m", module, json.dumps(specification)]

    return command


def measure(
    target: Target,
    seed: int,
    how: Callable[[Path, Path, int, Path], list[str]],
    examine: Callable[[Finished], dict[str, Any]] = lambda fit: {},
    *,
    near: Path,
    limit: float = LIMIT,
) -> dict[str, Any]:
    """Fit a target once and return what to keep of it.

    Parameters
    ----------
    target : Target
        What to fit.
    seed : int
        Of the fit.
    how : callable
        From program, data, seed and folder to a command.
    examine : callable
        From the finished fit to further things to keep.
    near : path
        A folder on a disk with room for the fit, which is removed afterwards.
    limit : float
        Seconds after which the command is killed.
    """
    near.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=near) as name:
        folder = Path(name)
        data, out, measured = folder / "data.json", folder / "fit", folder / "measured.json"
        data.write_text(json.dumps(dict(target.data)))
        command = how(target.program_path, data, seed, out)
        stopwatch = Path(__file__).with_name("stopwatch.py")
        done = subprocess.run(
            [sys.executable, stopwatch, measured, str(limit), *command],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        clock = json.loads(measured.read_text())
        item = {"wall_seconds": clock["seconds"], "peak_memory_mb": clock["peak_memory_mb"]}
        if clock["status"] != 0:
            return item | {"dim": target.dim, "error": _error(clock, limit, done)}
        report = json.loads((out / "fit.json").read_text())
        constant = report["normalizing_constant"]["value"]
        trace = pd.read_csv(out / "trace.csv")
        finite = bool(np.isfinite(trace.to_numpy(dtype=float)).all())
        trace["elbo"] += constant
        item |= {key: report[key] for key in _KEPT} | {"constant": constant, "finite": finite}
        item["trained_seconds"] = float(trace["seconds"].iloc[-1])
        return item | examine(Finished(out, report, trace))


def _error(clock: dict[str, Any], limit: float, done: subprocess.CompletedProcess[str]) -> str:
    if clock["status"] is None:
        return f"not done after {limit:.0f} s"
    try:
        return str(json.loads(done.stdout)["error"])
    except (ValueError, KeyError):
        last = done.stderr.strip().splitlines()[-1:]
        return f"exit status {clock['status']}: {''.join(last)}"


def smoothed(trace: pd.DataFrame) -> pd.Series:
    """Return the trace's ELBO as the mean of the last 25 steps that have one."""
    elbo = trace["elbo"].replace([np.inf, -np.inf], np.nan)
    return elbo.rolling(WINDOW, min_periods=1).mean()


def thinned(fit: Finished) -> dict[str, Any]:
    """Return the smoothed trace at points evenly spaced in the logarithm of time."""
    seconds, elbo = fit.trace["seconds"].to_numpy(), smoothed(fit.trace).to_numpy()
    first = max(float(seconds[0]), 1e-3)
    wanted = np.geomspace(first, max(float(seconds[-1]), first), POINTS)
    rows = np.unique(np.clip(np.searchsorted(seconds, wanted), 0, len(seconds) - 1))
    return {
        "trace": {
            "seconds": [round(float(s), 3) for s in seconds[rows]],
            "elbo": [float(e) for e in elbo[rows]],
        }
    }


def elbo_after(times: Sequence[float]) -> Callable[[Finished], dict[str, Any]]:
    """Return how to read off the smoothed ELBO at times; the last one, where training had ended."""

    def examine(fit: Finished) -> dict[str, Any]:
        elbo = smoothed(fit.trace)
        taken = [int((fit.trace["seconds"] <= time).sum()) for time in times]
        values = [float(elbo.iloc[steps - 1]) if steps else None for steps in taken]
        return {"elbo_after": dict(zip(map(str, times), values, strict=True))}

    return examine
