"""Servers, on SQLite; in `make test-all` on PostgreSQL, too."""

import pytest

pytest.importorskip("fastapi")

from . import servers
from .postgresql import postgresql


@pytest.fixture(scope="session")
def cluster():
    with postgresql() as running:
        yield running


@pytest.fixture(
    scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)]
)
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs") / "data"


@pytest.fixture(scope="module")
def runs(folder):
    """Ids of two runs of each kind: one to look at, one to delete."""
    data = {"y": 1.0}
    with servers.serving(folder, "--jobs", 2, "--threads", 1) as server:
        model = server.model()
        fits = [server.begin("fits", model, data, max_steps=50, draws=100) for _ in range(2)]
        nuts = [server.begin("nuts", model, data, draws=100) for _ in range(2)]
        assert {server.wait(job)["status"] for job in fits + nuts} == {"succeeded"}
        compared = {"fit": fits[0], "reference": nuts[0]}
        comparisons = [
            server.client.post("/v1/comparisons", json=compared).json()["id"] for _ in range(2)
        ]
        assert {server.wait(job)["status"] for job in comparisons} == {"succeeded"}
    return {"fits": fits, "nuts": nuts, "comparisons": comparisons}
