"""The trace of training: a column of numbers for each thing known of a step."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from stanflow.arrays import FloatArray
from stanflow.training.train_step import TrainStep

Trace = Mapping[str, FloatArray]
"""Arrays of shape (steps,) by name: step, seconds, elbo, log_weight_sd, gradient_norm, rejected and
largest."""

_WHOLE_NUMBERS = ("step", "rejected")
_OF_A_STEP = ("step", "seconds", "elbo", "log_weight_sd", "gradient_norm", "rejected")


def trace_of(steps: Sequence[TrainStep]) -> Trace:
    """Return the trace of these steps."""
    trace = {
        name: np.array([getattr(step, name) for step in steps], dtype=np.float64)
        for name in _OF_A_STEP
    }
    return trace | {"largest": np.array([step.largest.max() for step in steps], dtype=np.float64)}


def write_trace(trace: Trace, path: Path) -> None:
    """Write a trace as CSV, empty where a number is NaN."""
    columns = [_texts(name, values) for name, values in trace.items()]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(trace)
        writer.writerows(zip(*columns, strict=True))


def _texts(name: str, values: FloatArray) -> list[str]:
    if name in _WHOLE_NUMBERS:
        return [str(int(value)) for value in values]
    return ["" if np.isnan(value) else repr(float(value)) for value in values]


def read_trace(path: Path) -> Trace:
    """Read a trace written by `write_trace`."""
    with path.open(newline="", encoding="utf-8") as file:
        names, *rows = csv.reader(file)
    columns = zip(*rows, strict=True) if rows else ([] for _ in names)
    return {
        name: np.array([float(text or "nan") for text in column], dtype=np.float64)
        for name, column in zip(names, columns, strict=True)
    }
