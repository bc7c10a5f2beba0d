"""Programs and data that several tests share."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hypothesis import settings

from stanflow.errors import EngineError
from stanflow.target import native

# The same examples on every run, and no clock: machines are shared and noisy.
settings.register_profile("stanflow", derandomize=True, deadline=None)
settings.load_profile("stanflow")

# A shell's background jobs ignore Ctrl-C, and so would all that the tests start from there.
signal.signal(signal.SIGINT, signal.default_int_handler)

ZOO = Path(__file__).parents[1] / "stan_models"


@pytest.fixture(scope="session")
def zoo() -> Path:
    """The folder of models that come with StanFlow."""
    return ZOO


@pytest.fixture(scope="session")
def toolchain() -> native.Toolchain:
    """BridgeStan's toolchain; tests that need it are skipped where it is not installed."""
    try:
        return native.find_toolchain()
    except EngineError as error:
        pytest.skip(f"no BridgeStan toolchain: {error}")
