"""Disks and files that go wrong: what is finished is not lost, and what is damaged is said."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from .servers import DATA, LONG, LOOP, ON_SQLITE, run_cli, until


def fill(path):
    """Write to a file until there is no room."""
    with suppress(OSError), path.open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))


@contextmanager
def small_disk(folder, megabytes):
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder],
        capture_output=True, check=False,
    )  # fmt: skip
    if mounted.returncode != 0:
        pytest.skip("a small disk cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=False)


def test_a_full_disk_is_said_and_loses_nothing(serving, tmp_path):
    with small_disk(tmp_path / "disk", 40) as disk:
        with serving(disk / "data") as server:
            model = server.model()
            done = [server.begin("nuts", model, DATA, draws=10) for _ in range(2)]
            for job in done:
                server.wait(job)
            fill(disk / "filler")
            refused = server.client.post(f"/v1/models/{model}/fits", json={"data": DATA})
            assert (refused.status_code, refused.json()["kind"]) == (507, "storage")
            assert "this needs 8 MB and 0 MB are free; delete runs" in refused.json()["detail"]
            assert server.client.post("/v1/models", json={"program_code": "x"}).status_code == 507
            assert server.operation(done[0])["status"] == "succeeded"
            assert server.client.delete(f"/v1/nuts/{done[0]}").status_code == 204
            fill(disk / "filler 2")
        with serving(disk / "data") as server:  # on a full disk, too
            assert server.operation(done[1])["status"] == "succeeded"
            assert server.client.delete(f"/v1/nuts/{done[1]}").status_code == 204
            assert server.client.delete(f"/v1/models/{model}").status_code == 204
            for filler in disk.glob("filler*"):
                filler.unlink()
            again = server.begin("nuts", server.model(), DATA, draws=10)
            assert server.wait(again)["status"] == "succeeded"


@pytest.mark.slow
@ON_SQLITE
def test_a_result_that_has_no_room_waits_for_it(serving, tmp_path):
    """The fit goes on from its checkpoint: it does not train anew."""
    with small_disk(tmp_path / "disk", 60) as disk, serving(disk / "data") as server:
        program = "parameters { vector[10] x; } model { x ~ student_t(4, 0, 1); }"
        job = server.begin("fits", server.model(program), **LONG)
        until(lambda: list((server.folder / "jobs" / job).glob("checkpoint*")), seconds=60)
        fill(disk / "filler")
        waits = server.wait(job, until=lambda o: o["failure"] is not None)
        assert (waits["status"], waits["failure"]["kind"]) == ("queued", "storage")
        assert "MB are free" in waits["failure"]["detail"]
        assert list((server.folder / "jobs" / job).glob("checkpoint*"))
        (disk / "filler").unlink()
        operation = server.wait(job)
        assert (operation["status"], operation["attempts"]) == ("succeeded", 1)
        assert operation["failure"] is None


DAMAGED_OUTCOMES = (
    b"", b"{", b"\xff\x00", b"[]", b'{"result": 1, "failure": null}', b'{"failure": {}}', None,
)  # fmt: skip


@pytest.mark.slow
def test_a_job_whose_outcome_is_damaged_fails_alone(serving, tmp_path):
    with serving(tmp_path / "data", "--jobs", len(DAMAGED_OUTCOMES)) as server:
        model = server.model(LOOP, "loop")
        jobs = [server.begin("fits", model) for _ in DAMAGED_OUTCOMES]
        for job, content in zip(jobs, DAMAGED_OUTCOMES, strict=True):
            server.wait(job, until=lambda o: o["status"] == "running")
            outcome = server.folder / "jobs" / job / "outcome.json"
            outcome.mkdir() if content is None else outcome.write_bytes(content)
        other = server.begin("nuts", server.model(), DATA, draws=10)
        for worker in server.workers():
            os.kill(worker, signal.SIGKILL)
        for job in jobs:
            failure = server.wait(job)["failure"]
            assert (failure["kind"], "outcome.json" in failure["detail"]) == ("storage", True)
        assert server.wait(other)["status"] == "succeeded"
        assert "Traceback" not in server.log.read_text()


@pytest.mark.slow
@ON_SQLITE
def test_a_task_that_is_damaged_fails_alone(serving, tmp_path):
    with serving(tmp_path / "data", "--jobs", 1) as server:
        first = server.begin("fits", server.model(LOOP, "loop"))
        server.wait(first, until=lambda o: o["status"] == "running")
        contents = (b"{}", b'{"kind": "fits"}', b"", b"[1]")
        jobs = [server.begin("nuts", server.model(), DATA, draws=10) for _ in contents]
        for job, content in zip(jobs, contents, strict=True):
            (server.folder / "jobs" / job / "task.json").write_bytes(content)
        other = server.begin("nuts", server.model(), DATA, draws=10)
        server.client.delete(f"/v1/operations/{first}")
        for job in jobs:
            operation = server.wait(job)
            assert operation["status"] == "failed"
            assert "task.json is damaged" in operation["failure"]["detail"]
            lost = server.client.get(f"/v1/operations/{job}/task")
            assert (lost.status_code, "is damaged" in lost.json()["detail"]) == (404, True)
        assert server.wait(other)["status"] == "succeeded"
        assert "Traceback" not in server.log.read_text()


@pytest.mark.slow
@ON_SQLITE
def test_draws_that_are_damaged_are_not_given_out(server):
    job = server.begin("fits", server.model(), DATA, max_steps=50, draws=100)
    assert server.wait(job)["status"] == "succeeded"
    folder = server.folder / "jobs" / job
    for path, of in (
        ("run/draws.nc", "draws?format=netcdf"), ("draws.arrow", "draws?format=arrow"),
        ("draws.arrow", "draws"), ("report.html", "report"), ("run/trace.csv", "trace"),
    ):  # fmt: skip
        assert server.client.get(f"/v1/fits/{job}/{of}").status_code == 200
        content = (folder / path).read_bytes()
        (folder / path).write_bytes(content[:50] + b"\0" + content[51:])
        lost = server.client.get(f"/v1/fits/{job}/{of}")
        assert (lost.status_code, lost.json()["kind"]) == (404, "storage"), path
        assert f"{Path(path).name} is not what was written" in lost.json()["detail"]
        (folder / path).write_bytes(content)


@pytest.mark.slow
@ON_SQLITE
def test_a_database_that_is_damaged_is_said(serving, tmp_path):
    with serving(tmp_path / "data") as server:
        model = server.model()
        jobs = [server.begin("nuts", model, DATA, draws=10, chains=1) for _ in range(3)]
        for job in jobs:
            server.wait(job)
    database = tmp_path / "data" / "stanflow.sqlite"
    with sqlite3.connect(database) as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
    size = database.stat().st_size // pages
    whole = database.read_bytes()
    database.write_bytes(whole[:size] + b"\xff" * (len(whole) - size))
    refused = run_cli("serve", "--port", 0, "--data-dir", tmp_path / "data")
    assert (refused.returncode, "is damaged" in refused.stderr) == (2, True), refused.stderr
    assert "Traceback" not in refused.stderr
    database.write_bytes(whole)
    with serving(tmp_path / "data") as server:
        database.write_bytes(whole[:size] + b"\xff" * (len(whole) - size))
        until(lambda: server.client.get("/v1/health").status_code != 200, seconds=20)
        health = server.client.get("/v1/health").json()
        assert "is damaged" in health["detail"] or "not being run" in health["detail"]
        assert "Traceback" not in server.log.read_text()
        database.write_bytes(whole)


PRINTS = (
    'parameters { real x; } model { for (i in 1:2000) print("a line of what is printed ", x); '
    "x ~ normal(0, 1); }"
)


@pytest.mark.slow
@ON_SQLITE
def test_what_a_program_prints_does_not_fill_the_disk(serving, tmp_path):
    with serving(tmp_path / "data") as server:
        job = server.begin("nuts", server.model(PRINTS, "prints"), draws=20, warmup=20)
        assert server.wait(job)["status"] == "succeeded"
        log = server.folder / "jobs" / job / "worker.log"
        assert log.stat().st_size < 3 * 2**20


def test_a_run_whose_files_are_gone_is_said(server):
    job = server.begin("nuts", server.model(), DATA, draws=10)
    assert server.wait(job)["status"] == "succeeded"
    shutil.rmtree(server.folder / "jobs" / job)
    for path in (f"nuts/{job}/draws", f"nuts/{job}/draws?format=netcdf", f"operations/{job}/task"):
        response = server.client.get(f"/v1/{path}")
        assert response.status_code == 404
        assert "its files are not in the server's data folder" in response.json()["detail"]
    assert server.client.get(f"/v1/nuts/{job}").status_code == 200
    assert server.client.delete(f"/v1/nuts/{job}").status_code == 204


@pytest.mark.slow
@ON_SQLITE
def test_progress_that_is_half_written_is_not_shown(server):
    job = server.begin("fits", server.model(), DATA, max_steps=300)
    server.wait(job)
    with (Path(server.folder) / "jobs" / job / "progress.jsonl").open("a") as file:
        file.write('{"step": 99999')
    lines = server.client.get(f"/v1/operations/{job}/events").text.splitlines()
    told = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert max(step["step"] for step in told if "step" in step) <= 300
    assert told[-1]["status"] == "succeeded"
