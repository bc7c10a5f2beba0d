"""Prophet's program on two years of a daily series, for a flow and for CmdStan's NUTS.

The prophet package (MIT licence) brings its Stan program, an executable of it that CmdStan has
built, and a daily series: the closing price of Facebook's shares from 18 May 2012 to 30 May 2014.
Prophet itself makes Stan's data of the series. Here the trend is piecewise linear with ten
changepoints, and there are no seasons.

    python prophet_example.py FOLDER         # writes program and data, says where the executable is
    python prophet_example.py FOLDER --run   # fits, runs NUTS and compares them, too
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

logging.getLogger("prophet").setLevel(logging.CRITICAL)  # it asks for plotly otherwise
PACKAGE = Path(str(files("prophet")))
PROGRAM = PACKAGE / "stan_model" / "prophet.stan"
EXECUTABLE = PACKAGE / "stan_model" / "prophet_model.bin"


def stan_data(**settings: Any) -> dict[str, Any]:
    """Return Stan's data for the series, as prophet makes them for CmdStan.

    Parameters
    ----------
    settings
        Of `prophet.Prophet`.
    """
    from prophet import Prophet
    from prophet.models import CmdStanPyBackend

    series = pd.read_csv(PACKAGE / "tests" / "data.csv", parse_dates=["ds"])
    forecaster = Prophet(**settings)
    inputs = forecaster.preprocess(series)
    start = forecaster.calculate_initial_params(inputs.K)
    _, data = CmdStanPyBackend.prepare_data(asdict(start), asdict(inputs))
    return data


def write_files(folder: Path) -> None:
    """Write ``prophet.stan`` and ``prophet.json`` to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(PROGRAM, folder / "prophet.stan")
    data = stan_data(n_changepoints=10, yearly_seasonality=False, weekly_seasonality=False)
    (folder / "prophet.json").write_text(json.dumps(data), encoding="utf-8")


def run(folder: Path) -> None:
    """Fit a flow, draw by CmdStan's NUTS, and write a report that compares them."""
    import stanflow

    model = stanflow.StanModel(folder / "prophet.stan", folder / "prophet.json")
    fit = stanflow.fit(model, seed=1)
    reference = stanflow.nuts(model, seed=1, exe=EXECUTABLE)
    comparison = stanflow.compare(fit, reference, model=model)
    comparison.report(folder / "report.html")
    print(comparison)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="for program, data and report")
    parser.add_argument("--run", action="store_true", help="fit, run NUTS and compare")
    arguments = parser.parse_args()
    write_files(arguments.folder)
    print(f"executable: {EXECUTABLE}")
    if arguments.run:
        run(arguments.folder)
