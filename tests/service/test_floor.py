"""The oldest FastAPI that pyproject.toml allows."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from .servers import NORMAL, serving

pytestmark = pytest.mark.slow
PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def oldest_fastapi():
    extras = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]
    (stated,) = (r for r in map(Requirement, extras["serve"]) if r.name == "fastapi")
    (version,) = (allowed.version for allowed in stated.specifier if allowed.operator == ">=")
    return version


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    version, folder = oldest_fastapi(), tmp_path_factory.mktemp("fastapi")
    fetched = subprocess.run(
        [
            sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
            "--retries", "1", "--target", folder, f"fastapi=={version}",
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if fetched.returncode:
        assert "from versions: 0" not in fetched.stderr, "the index has others, but not this one"
        pytest.skip(f"FastAPI {version} cannot be fetched: {fetched.stderr.splitlines()[-1]}")
    env = {**os.environ, "PYTHONPATH": str(folder)}
    code = "import fastapi; print(fastapi.__version__, fastapi.__file__)"
    told = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    imported, where = told.stdout.split()
    assert (Version(imported), Path(where).parents[1]) == (Version(version), folder)
    with serving(tmp_path_factory.mktemp("floor") / "data", env=env) as running:
        yield running


def test_it_serves(server):
    document = server.client.get("/v1/openapi.json").json()
    assert document["info"]["title"] == "StanFlow"
    assert "/v1/models" in document["paths"]
    model = server.model()
    assert server.client.get(f"/v1/models/{model}").json()["name"] == "normal"


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/json", "Origin": "https://elsewhere.example"},
        {"Content-Type": "text/plain"},
        {},
    ],
)
def test_a_page_of_another_site_makes_nothing(server, headers):
    before = server.client.get("/v1/models").json()
    asked = json.dumps({"program_code": NORMAL, "name": "elsewhere"})
    refused = server.client.post("/v1/models", content=asked, headers=headers)
    assert refused.status_code in range(400, 500), refused.text
    assert server.client.get("/v1/models").json() == before
