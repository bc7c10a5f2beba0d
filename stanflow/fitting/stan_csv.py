"""Draws as a Stan CSV file, which cmdstanpy, ArviZ and R's posterior read.

The file has the form of CmdStan's Pathfinder output: Pathfinder, too, draws from an approximation,
with its log density in ``lp_approx__`` and the program's in ``lp__``.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from stanflow.errors import UsageError, reason
from stanflow.files import write_file

if TYPE_CHECKING:
    from stanflow.fitting.result import Fit


def save_csvfiles(fit: Fit, folder: str | PathLike[str]) -> list[Path]:
    """Write a fit's draws to ``MODEL.csv`` in a folder, made if need be.

    Returns
    -------
    list of pathlib.Path
        The file, in a list as cmdstanpy has one for each chain.

    Raises
    ------
    UsageError
        It cannot be written.
    """
    import pandas as pd

    path = Path(folder) / f"{fit.report['model']}.csv"
    columns = [*fit.method_variables(), *fit.columns]
    table = pd.DataFrame(fit.draws(), columns=pd.Index(columns))
    text = "".join(f"# {line}\n" for line in _configuration(fit))
    text += table.to_csv(index=False, na_rep="nan")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, text.encode())
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {reason(error)}") from None
    return [path]


def _configuration(fit: Fit) -> list[str]:
    report = fit.report
    return [
        f"StanFlow {report['versions']['stanflow']}: draws from a trained flow, in the form of "
        "Pathfinder's",
        f"model = {report['model']}_model",
        "method = pathfinder",
        "  pathfinder",
        f"    num_draws = {len(fit.values)}",
        "    num_paths = 1",
        "random",
        f"  seed = {report['seed']}",
        f"engine = {report['engine_version']}",
        f"verdict = {report['verdict']}",
    ]
