"""The command line as a user runs it: in a process of its own, or in this one, which is quicker."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from stanflow.cli.main import main

STANFLOW = Path(sys.executable).with_name("stanflow")


class Done(NamedTuple):
    """What a command left."""

    returncode: int
    stdout: str
    stderr: str


def run(*arguments: object, cwd: Path | None = None, **environment: str) -> Done:
    """Run a command in this process, with streams, folder and environment of its own."""
    with (
        _in_folder(cwd),
        _with_environment(environment),
        _handlers_kept(),
        _captured(1) as stdout,
        _captured(2) as stderr,
    ):
        before, sys.argv = sys.argv, ["stanflow", *map(str, arguments)]
        try:
            main()
        except SystemExit as end:
            status = end.code
        finally:
            sys.argv = before
    texts = [path.read_text() for path in (stdout, stderr)]
    for path in (stdout, stderr):
        path.unlink()
    return Done(int(status or 0), *texts)


def run_json(*arguments: object, cwd: Path | None = None, **environment: str) -> tuple[int, Any]:
    """Return exit status and the one JSON object on standard output."""
    result = run(*arguments, "--json", cwd=cwd, **environment)
    return result.returncode, json.loads(result.stdout)


def run_process(*arguments: object, cwd: Path | None = None, **environment: str) -> Done:
    """Run a command in a process of its own."""
    result = subprocess.run(
        [STANFLOW, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        timeout=300,
        check=False,
    )
    return Done(result.returncode, result.stdout, result.stderr)


@contextlib.contextmanager
def _captured(number: int) -> Iterator[Path]:
    """Give the file that a stream goes to, its descriptor's output by compiled code included."""
    name = {1: "stdout", 2: "stderr"}[number]
    before, saved = getattr(sys, name), os.dup(number)
    descriptor, path = tempfile.mkstemp()
    before.flush()
    os.dup2(descriptor, number)
    stream = io.TextIOWrapper(os.fdopen(descriptor, "wb"), line_buffering=True)
    setattr(sys, name, stream)
    try:
        yield Path(path)
    finally:
        setattr(sys, name, before)
        stream.close()
        os.dup2(saved, number)
        os.close(saved)


@contextlib.contextmanager
def _in_folder(folder: Path | None) -> Iterator[None]:
    with contextlib.chdir(folder or Path.cwd()):
        yield


@contextlib.contextmanager
def _with_environment(environment: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    handler, showing = signal.getsignal(signal.SIGTERM), warnings.showwarning
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default", UserWarning)
            yield
    finally:
        signal.signal(signal.SIGTERM, handler)
        warnings.showwarning = showing
