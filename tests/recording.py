"""A pytest plugin that keeps the programs, with their data, that tests run in the embedded engine.

``pytest -p tests.recording --record-programs=FOLDER``: ``python -m tests.sweep.programs FOLDER``
then holds them against real Stan.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from stanflow.stan import embedded
from stanflow.stan.data import StanData
from stanflow.stan.loaded import LoadedModel
from stanflow.stan.program import StanProgram


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--record-programs",
        type=Path,
        metavar="FOLDER",
        help="keep each program, with its data, that the embedded engine has run",
    )


def pytest_configure(config: pytest.Config) -> None:
    folder: Path | None = config.getoption("--record-programs")
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    load = embedded.load

    def recorded(program: StanProgram, data: StanData, seed: int) -> LoadedModel:
        loaded = load(program, data, seed)
        text = json.dumps({"program": program.expanded, "data": data.json})
        name = hashlib.sha256(text.encode()).hexdigest()[:16]
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
        return loaded

    embedded.load = recorded
