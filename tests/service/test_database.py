"""A database that does not answer, and one that another server has."""

import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.command_line import run

from .servers import LOOP, ON_SQLITE, run_cli

ON_POSTGRESQL = pytest.mark.parametrize("database", ["postgresql"], indirect=True)
DATA = {"y": 1.0}


@contextmanager
def failing(server):
    """A job that ends while the database does not answer, and one that is to run after it."""
    model = server.model()
    first, second = (server.begin("nuts", model, DATA, draws=10) for _ in range(2))
    server.wait(first, until=lambda o: o["status"] == "running")
    yield model, first
    for job in (first, second):
        operation = server.wait(job)
        assert (operation["status"], operation["attempts"]) == ("succeeded", 1)
    assert server.client.get("/v1/health").status_code == 200


@contextmanager
def watched(server, job):
    """A job whose events a client reads meanwhile."""
    url = f"/v1/operations/{job}/events"
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(lambda: server.client.get(url).text)
        yield
        assert '"status":"succeeded"' in read.result().splitlines()[-2]


def asks_to_try_again(response):
    assert int(response.headers["retry-after"]) > 0
    return (response.status_code, "busy" in response.json()["detail"]) == (503, True)


def has_ended(server, job):
    """Wait until a job's process has left what came of it."""
    deadline = time.monotonic() + 60
    while not (server.folder / "jobs" / job / "outcome.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(1)


@pytest.mark.slow
@ON_SQLITE
def test_while_sqlite_is_locked_requests_are_asked_to_try_again(serving, tmp_path):
    with serving(tmp_path / "data", "--jobs", 1) as server, failing(server) as (model, job):
        lock = sqlite3.connect(tmp_path / "data" / "stanflow.sqlite", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        refused = server.client.post(f"/v1/models/{model}/nuts", json={"data": DATA})
        assert asks_to_try_again(refused)
        assert server.client.get(f"/v1/operations/{job}").json()["status"] == "running"
        has_ended(server, job)
        lock.execute("ROLLBACK")
        lock.close()


@pytest.mark.slow
@ON_POSTGRESQL
def test_while_a_table_is_locked_requests_are_asked_to_try_again(serving, cluster, tmp_path):
    with (
        serving(tmp_path / "data", "--jobs", 1) as server,
        failing(server) as (model, job),
        cluster.connect(tmp_path / "data") as lock,
        lock.transaction(),
    ):
        lock.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
        refused = server.client.post(f"/v1/models/{model}/nuts", json={"data": DATA})
        assert asks_to_try_again(refused)
        assert asks_to_try_again(server.client.get(f"/v1/operations/{job}"))
        assert server.client.get(f"/v1/models/{model}").status_code == 200
        has_ended(server, job)


@ON_POSTGRESQL
def test_a_server_goes_on_when_its_database_is_back(serving, cluster, database, tmp_path):
    with serving(tmp_path / "data", "--jobs", 1) as server:
        with failing(server) as (model, job), watched(server, job):
            cluster.stop()
            try:
                for response in (
                    server.client.post(f"/v1/models/{model}/nuts", json={"data": DATA}),
                    server.client.get(f"/v1/operations/{job}"),
                    server.client.get("/v1/health"),
                ):
                    assert asks_to_try_again(response)
                has_ended(server, job)
            finally:
                cluster.start()
        # It has taken its lock again.
        refused = run_cli("serve", "--data-dir", tmp_path / "other", *database(tmp_path / "data"))
        assert refused.returncode == 2


@ON_SQLITE
def test_a_job_is_begun_though_the_answer_that_it_may_be_was_lost(serving, tmp_path):
    with serving(tmp_path / "data", "--jobs", 1) as server:
        loop = server.begin("nuts", server.model(LOOP, "loop"))
        job = server.begin("nuts", server.model(), DATA, draws=10)
        with sqlite3.connect(tmp_path / "data" / "stanflow.sqlite") as connection:
            marked = "UPDATE jobs SET status = 'running', attempts = 1 WHERE id = ?"
            connection.execute(marked, (job,))
        server.client.delete(f"/v1/operations/{loop}")
        assert server.wait(job)["attempts"] == 1


@ON_SQLITE
def test_a_second_server_leaves_the_first_ones_data_alone(serving, tmp_path):
    with serving(tmp_path / "data") as server:
        refused = run_cli("serve", "--port", 0, "--data-dir", server.folder)
        assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
        assert "another server has its data" in refused.stderr


@pytest.mark.slow
def test_a_second_server_leaves_the_first_ones_database_alone(serving, database, tmp_path):
    sqlite = ("--database-url", f"sqlite:///{tmp_path}/data/stanflow.sqlite")
    options = database(tmp_path / "data") or sqlite
    with serving(tmp_path / "data", "--jobs", 1) as server:
        job = server.begin("nuts", server.model(LOOP, "loop"))
        server.wait(job, until=lambda o: o["status"] == "running")
        refused = run_cli("serve", "--port", 0, "--data-dir", tmp_path / "other", *options)
        assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
        assert f"another server has its jobs in {options[1].partition('?')[0]}" in refused.stderr
        operation = server.operation(job)
        assert (operation["status"], operation["attempts"]) == ("running", 1)
        server.kill()
    with serving(tmp_path / "data", "--jobs", 1) as server:
        server.wait(job, until=lambda o: o["attempts"] == 2)
        server.client.delete(f"/v1/operations/{job}")


def test_a_database_that_cannot_be_opened_is_said(tmp_path):
    (tmp_path / "text").write_text("no database " * 100)
    with sqlite3.connect(tmp_path / "newer.sqlite") as newer:
        newer.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        newer.execute("INSERT INTO alembic_version VALUES ('9999')")
    for url, said in (
        ("postgresql+psycopg://user:secret@127.0.0.1:9/none", "cannot be opened"),
        ("mysql://localhost/none", "must be SQLite or PostgreSQL"),
        ("no url", "cannot be used"),
        (f"sqlite:///{tmp_path}/text/x.sqlite", "cannot be opened"),
        (f"sqlite:///{tmp_path}/text", "cannot be opened: file is not a database"),
        (f"sqlite:///{tmp_path}/newer.sqlite", "is of another version of StanFlow"),
    ):
        done = run("serve", "--port", 0, "--data-dir", tmp_path / "data", "--database-url", url)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert said in done.stderr
        assert "secret" not in done.stderr
