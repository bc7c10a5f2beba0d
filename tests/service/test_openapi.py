"""The OpenAPI document, held against what the server answers."""

import subprocess
import sys
from http import HTTPStatus
from pathlib import Path

import pytest

from stanflow.service.problems import MEDIA_TYPE
from stanflow.service.schemas import Problem

from .servers import ON_SQLITE, serving

SHORT = ("--jobs", 1, "--queue", 2, "--threads", 1, "--job-seconds", 1, "--call-seconds", 20)
# Requests that schemathesis makes, and what is held against its checks. Half of those for a run are
# for one that is there. What runs a program takes a second, so two of those are tried as much.
CHECKED = """
generation = {{ deterministic = true, max-examples = 10 }}
phases.stateful.generation.max-examples = 5
request-timeout = 60
continue-on-failure = true

[checks]
# The document cannot say which programs compile, nor which data are theirs.
positive_data_acceptance.enabled = false
# A queue that is full is no defect.
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 503]

[dictionaries]
fits.values = ["{fits[0]}"]
nuts.values = ["{nuts[0]}"]
comparisons.values = ["{comparisons[0]}"]
fits_to_delete.values = ["{fits[1]}"]
nuts_to_delete.values = ["{nuts[1]}"]
comparisons_to_delete.values = ["{comparisons[1]}"]

[[operations]]
include-name-regex = "^GET /v1/fits/"
parameters."path.run" = {{ dictionary = "fits", probability = 0.5 }}

[[operations]]
include-name-regex = "^DELETE /v1/fits/"
parameters."path.run" = {{ dictionary = "fits_to_delete", probability = 0.5 }}

[[operations]]
include-name-regex = "^GET /v1/nuts/"
parameters."path.run" = {{ dictionary = "nuts", probability = 0.5 }}

[[operations]]
include-name-regex = "^DELETE /v1/nuts/"
parameters."path.run" = {{ dictionary = "nuts_to_delete", probability = 0.5 }}

[[operations]]
include-name-regex = "^GET /v1/comparisons/"
parameters."path.run" = {{ dictionary = "comparisons", probability = 0.5 }}

[[operations]]
include-name-regex = "^DELETE /v1/comparisons/"
parameters."path.run" = {{ dictionary = "comparisons_to_delete", probability = 0.5 }}

[[operations]]
include-name = "POST /v1/comparisons"
parameters."body.fit" = {{ dictionary = "fits", probability = 0.5 }}
parameters."body.reference" = {{ dictionary = "nuts", probability = 0.5 }}

[[operations]]
include-path-regex = "^/v1/models/[^/]*/(params|log_prob_grad|write_array|transform_inits|nuts)$"
generation.max-examples = 4
phases.coverage.enabled = false

# To delete an operation is to cancel it: it stays.
[[operations]]
include-path-regex = "^/v1/operations/"
checks.use_after_free.enabled = false
"""


@pytest.fixture(scope="module")
def document(server):
    return server.client.get("/v1/openapi.json").json()


@ON_SQLITE
def test_every_operation_tells_its_problems_by_example(document):
    """That the examples are what the server says is tested where it says it."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            problems = {s: r for s, r in operation["responses"].items() if int(s) >= 400}
            expected = {"413", "415", "421", "429", "503"}
            expected |= set() if path == "/v1/health" else {"401"}
            assert expected <= problems.keys(), (method, path)
            assert "500" not in problems
            assert ("403" in problems) == (method != "get")
            assert ("400" in problems) == ("408" in problems) == ("requestBody" in operation)
            for status, response in problems.items():
                ((media_type, told),) = response["content"].items()
                assert media_type == MEDIA_TYPE
                assert told["schema"] == {"$ref": "#/components/schemas/Problem"}
                example = told["example"]
                shown = Problem.model_validate(example).model_dump(exclude_unset=True)
                assert shown == example
                assert (example["status"], example["title"]) == (
                    int(status), HTTPStatus(int(status)).phrase,
                )  # fmt: skip


@pytest.fixture
def api(folder, runs):
    """A server whose jobs are few and short."""
    with serving(folder, *SHORT) as server:
        yield server


@pytest.mark.slow
def test_every_operation_answers_as_the_document_says(api, runs, tmp_path):
    (tmp_path / "schemathesis.toml").write_text(CHECKED.format(**runs))
    schemathesis = Path(sys.executable).with_name("schemathesis")
    done = subprocess.run(
        [schemathesis, "run", f"{api.url}/v1/openapi.json", "--no-color"],
        capture_output=True, text=True, check=False, timeout=500, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Missing test data" not in done.stdout, done.stdout  # all was reached
    assert "a defect" not in api.log.read_text()
