"""A program that CmdStan has compiled comes with the prophet package; here with small data."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

import stanflow
from tests.reference.trend_program import trend_data


@pytest.fixture(scope="session")
def exe() -> Path:
    """An executable built by CmdStan."""
    folder = files("prophet") / "stan_model"
    return Path(str(folder / "prophet_model.bin"))


@pytest.fixture(scope="session")
def trend(exe) -> stanflow.StanModel:
    """The program of that executable, with data."""
    return stanflow.StanModel(exe.with_name("prophet.stan"), trend_data(), engine="embedded")
