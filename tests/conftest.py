"""Programs and data that several tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

ZOO = Path(__file__).parents[1] / "stan_models"


@pytest.fixture(scope="session")
def zoo() -> Path:
    """The folder of models that come with StanFlow."""
    return ZOO
