"""Runs of whichever kind, from their folders."""

from __future__ import annotations

from pathlib import Path

from stanflow.fitting.result import Fit, load
from stanflow.reference.result import NutsFit, load_nuts
from stanflow.runs.folder import NUTS


def load_run(folder: Path) -> Fit | NutsFit:
    """Read a fit or a NUTS run from its folder.

    Raises
    ------
    UsageError
        It holds neither, or is damaged.
    """
    return load_nuts(folder) if (folder / NUTS.report).is_file() else load(folder)
