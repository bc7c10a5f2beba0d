"""Programs and data that several tests share."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

from stanflow.errors import EngineError
from stanflow.stan import native, stan_wheel
from stanflow.stan.stan_headers import StanHeaders
from stanflow.stan.toolchain import Toolchain

# The same examples on every run, and no clock: machines are shared and noisy.
settings.register_profile("stanflow", derandomize=True, deadline=None)
settings.load_profile("stanflow")

# A shell's background jobs ignore Ctrl-C, and so would all that the tests start from there.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests run side by side, a core for each; threads of several would fight for them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What tests compile is run but a few times.
os.environ.setdefault("CXXFLAGS", "-O1")

ZOO = Path(__file__).parents[1] / "stan_models"


@pytest.fixture(scope="session")
def zoo() -> Path:
    """The folder of models that come with StanFlow."""
    return ZOO


@pytest.fixture(scope="session")
def headers() -> StanHeaders:
    """Stan's C++ of a pip install; tests that need it are skipped where it cannot be had."""
    try:
        return stan_wheel.find_headers()
    except EngineError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def toolchain() -> Toolchain:
    """What compiles programs here; tests that need it are skipped where nothing does."""
    try:
        return native.find_toolchain()
    except EngineError as error:
        pytest.skip(str(error))
