"""Random requests, for minutes."""

import contextlib
import itertools
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .servers import run_cli, serving
from .test_openapi import CHECKED, SHORT

SECONDS = 600


@pytest.mark.slow
@pytest.mark.parametrize("with_token", [False, True])
def test_nothing_that_is_asked_makes_the_server_fail(
    with_token,
    folder,
    runs,
    tmp_path,
):
    """Random requests for ten minutes: none is answered by 5xx but where a queue is full."""
    options = list(SHORT)
    headers = []
    if with_token:
        token = run_cli("token", tmp_path / "hash").stdout.strip()
        options += ["--token-file", tmp_path / "hash"]
        headers = ["--header", f"Authorization: Bearer {token}"]
    settings = CHECKED.replace("deterministic = true, max-examples = 10", "max-examples = 40")
    (tmp_path / "schemathesis.toml").write_text(settings.format(**runs))
    schemathesis = Path(sys.executable).with_name("schemathesis")
    deadline = time.monotonic() + SECONDS
    with serving(folder, *options) as server:
        for seed in itertools.count():
            left = deadline - time.monotonic()
            if left < 10:
                break
            with contextlib.suppress(subprocess.TimeoutExpired):
                done = subprocess.run(
                    [schemathesis, "run", f"{server.url}/v1/openapi.json", "--no-color",
                     "--seed", str(seed), "--checks", "not_a_server_error", *headers],
                    capture_output=True, text=True, check=False, timeout=left, cwd=tmp_path,
                )  # fmt: skip
                assert done.returncode == 0, done.stdout + done.stderr
        assert server.process.poll() is None
        log = server.log.read_text()
        assert "a defect" not in log
        assert "Traceback" not in log
