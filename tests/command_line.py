"""Run the command line as a user does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

STANFLOW = Path(sys.executable).with_name("stanflow")


def run(*arguments: object, cwd: Path | None = None, **environment: str) -> Any:
    """Return the finished process, with text output."""
    return subprocess.run(
        [STANFLOW, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        timeout=300,
        check=False,
    )


def run_json(*arguments: object, cwd: Path | None = None, **environment: str) -> Any:
    """Return exit status and the one JSON object on standard output."""
    result = run(*arguments, "--json", cwd=cwd, **environment)
    return result.returncode, json.loads(result.stdout)
