"""Folders of runs, of whichever kind."""

from __future__ import annotations

from pathlib import Path

from stanflow.reference.result import NutsFit
from stanflow.result import Fit
from stanflow.storage import fit_folder, nuts_folder
from stanflow.storage.output import NUTS


def load_run(folder: Path) -> Fit | NutsFit:
    """Read a fit or a NUTS run from its folder.

    Raises
    ------
    UsageError
        It holds neither, or is damaged.
    """
    if (folder / NUTS.report).is_file():
        return nuts_folder.load_nuts(folder)
    return fit_folder.load(folder)
