"""Servers on both databases."""

import pytest

pytest.importorskip("fastapi")

from . import servers
from .postgresql import postgresql


@pytest.fixture(scope="session")
def cluster():
    with postgresql() as running:
        yield running


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request):
    """The options that a server with its data in a folder is started with."""
    if request.param == "sqlite":
        return lambda folder: ()
    cluster = request.getfixturevalue("cluster")
    return lambda folder: ("--database-url", cluster.url(folder))


@pytest.fixture
def serving(database):
    """As `servers.serving`; a server that is started in the same folder has the same database."""
    return lambda folder, *options: servers.serving(folder, *options, *database(folder))


@pytest.fixture(scope="module")
def server(database, tmp_path_factory):
    folder = tmp_path_factory.mktemp("server") / "data"
    with servers.serving(folder, "--jobs", 2, "--threads", 1, *database(folder)) as running:
        yield running
