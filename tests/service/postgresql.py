"""A PostgreSQL server of the tests' own, from the binaries that the machine has."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

_OWNERS = ("postgres", "nobody")  # initdb refuses root
_OPTIONS = {
    "listen_addresses": "",  # a socket in its folder, so that no port is taken
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "shared_buffers": "16MB",
}


class PostgreSQL:
    """A server, its data and its socket in one folder.

    Parameters
    ----------
    binaries : pathlib.Path
        Where ``initdb`` and ``pg_ctl`` are.
    folder : pathlib.Path
        With a short name: that of a socket may have 107 characters.
    owner : str, optional
        User whom it runs as.
    """

    def __init__(self, binaries: Path, folder: Path, owner: str | None) -> None:
        self._binaries, self._folder, self._owner = binaries, folder, owner
        self._databases: dict[Path, str] = {}
        self._run("initdb", "--auth=trust", "--username=stanflow", "--encoding=UTF8",
                  "--locale=C", "--no-sync", "--pgdata", "data")  # fmt: skip

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = _OPTIONS | {"unix_socket_directories": str(self._folder)}
        told = " ".join(f"-c {name}='{value}'" for name, value in options.items())
        self._run("pg_ctl", "start", "--wait", "--pgdata", "data", "--log", "log",
                  "--options", told)  # fmt: skip

    def stop(self) -> None:
        """End its connections, and it."""
        self._run("pg_ctl", "stop", "--wait", "--pgdata", "data", "--mode", "fast")

    def url(self, folder: Path) -> str:
        """Return the URL of a folder's database, which is made where it is not there."""
        if folder not in self._databases:
            name = f"of_server_{len(self._databases) + 1}"
            with self._connect("postgres") as connection:
                connection.execute(f"CREATE DATABASE {name}")
            self._databases[folder] = name
        return f"postgresql+psycopg://stanflow@/{self._databases[folder]}?host={self._folder}"

    def connect(self, folder: Path) -> psycopg.Connection:
        """Return a connection to a folder's database."""
        return self._connect(self._databases[folder])

    def _connect(self, database: str) -> psycopg.Connection:
        return psycopg.connect(
            host=str(self._folder), user="stanflow", dbname=database, autocommit=True
        )

    def _run(self, program: str, *arguments: str) -> None:
        # Into a file: the server that pg_ctl leaves behind would keep a pipe open.
        with (self._folder / "output").open("w+") as said:
            done = subprocess.run(
                [self._binaries / program, *arguments], cwd=self._folder, user=self._owner,
                group=None if self._owner is None else pwd.getpwnam(self._owner).pw_gid,
                extra_groups=None if self._owner is None else [],
                stdin=subprocess.DEVNULL, stdout=said, stderr=said, check=False, timeout=60,
            )  # fmt: skip
            said.seek(0)
            assert done.returncode == 0, f"{program}: {said.read()}"


@contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    """Run a server until the block ends; skip the test where PostgreSQL is not installed."""
    binaries = _binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed: there is no initdb")
    owner = _owner()
    folder = Path(tempfile.mkdtemp(prefix="tests-postgresql-", dir="/tmp"))
    try:
        if owner is not None:
            shutil.chown(folder, owner)
        server = PostgreSQL(binaries, folder, owner)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _binaries() -> Path | None:
    """Return the folder of the newest PostgreSQL: Debian has it outside the search path."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4])
    )
    on_path = shutil.which("initdb")
    return found[-1].parent if found else None if on_path is None else Path(on_path).parent


def _owner() -> str | None:
    """Return whom to run it as: another user where this one is root."""
    if os.geteuid() != 0:
        return None
    known = {user.pw_name for user in pwd.getpwall()}
    owner = next((name for name in _OWNERS if name in known), None)
    if owner is None:
        pytest.skip("PostgreSQL does not run as root, and there is no other user")
    return owner
