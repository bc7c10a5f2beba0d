"""Fits that are killed, again and again, and gone on with."""

import contextlib
import json
import os
import random
import signal
import subprocess
import time

import pytest
from safetensors.numpy import load_file

import stanflow
from stanflow.errors import UsageError
from tests.command_line import STANFLOW, run, run_json
from tests.one_of import one_of

MEASURED_ANEW = {"seconds", "stages", "cost", "peak_memory_mb", "out"}
# Whose learning rate stays, so that it takes all its steps, and each of them a while.
LONG = ("--preset", "paper", "--layers", 16, "--draws", 500, "--engine", "embedded")
SETTINGS = ("--max-steps", 400, "--draws", 500, "--checkpoint-every", 0, "--engine", "embedded")


@pytest.fixture
def schools(zoo):
    folder = zoo / "eight_schools"
    return folder / "eight_schools_noncentered.stan", folder / "eight_schools.json"


def kill_at_random(command, rng, mtime):
    """Start the command, and kill it some time after it has begun to write checkpoints."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    before = mtime()
    while process.poll() is None and mtime() == before:
        time.sleep(0.002)
    time.sleep(rng.uniform(0, 0.4))
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return process.returncode


@one_of("kills", 2, 10)
def test_kills_change_nothing(schools, kills, tmp_path):
    """The fit is so long that they find it under way: each lets it go on for half a second."""
    longer = ("--max-steps", 400 + 100 * kills, "--checkpoint-every", 0, *LONG)
    _, whole = run_json("fit", *schools, *longer, "--out", tmp_path / "whole")
    out = tmp_path / "killed"
    checkpoint = out / "checkpoint.safetensors"
    command = [str(a) for a in (STANFLOW, "fit", *schools, *longer, "--out", out, "--resume")]
    rng = random.Random(1)
    killed = 0
    for _ in range(kills):
        mtime = lambda: checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0  # noqa: E731
        killed += kill_at_random(command, rng, mtime) == -signal.SIGKILL
        if (out / "fit.json").exists():
            stanflow.load(out)  # whole, if it is there at all
        else:
            with pytest.raises(UsageError, match="holds no fit"):
                stanflow.load(out)
    assert killed == kills
    result = run("fit", *schools, *longer, "--out", out, "--resume", "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    for key in whole.keys() - MEASURED_ANEW:
        assert report[key] == whole[key], key
    names = {file.name for file in out.iterdir()}
    assert names == {file.name for file in (tmp_path / "whole").iterdir()}
    flows = [(folder / "flow.safetensors").read_bytes() for folder in (tmp_path / "whole", out)]
    assert flows[0] == flows[1]


@one_of("kills", 1, 10)
def test_kills_while_annealing_change_nothing(zoo, kills, tmp_path):
    """Training is over in a second; moving so many draws takes several."""
    folder = zoo / "eight_schools"
    given = (folder / "eight_schools_centered.stan", folder / "eight_schools.json")
    settings = ("--max-steps", 150, "--draws", 60_000, "--refine", "always", "--engine", "embedded")
    settings = (*settings, "--checkpoint-every", 0)
    _, whole = run_json("fit", *given, *settings, "--out", tmp_path / "whole")
    assert whole["refine"]["transitions"] > 200
    annealing = whole["stages"]["refine"]["seconds"]
    out = tmp_path / "killed"
    checkpoint = out / "checkpoint.safetensors"
    command = [str(a) for a in (STANFLOW, "fit", *given, *settings, "--out", out, "--resume")]
    rng = random.Random(2)
    for _ in range(kills):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
        while process.poll() is None and not anneals(checkpoint):
            time.sleep(0.01)
        time.sleep(rng.uniform(0, annealing / kills))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not (out / "fit.json").exists()
    result = run("fit", *given, *settings, "--out", out, "--resume", "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    for key in whole.keys() - MEASURED_ANEW:
        assert report[key] == whole[key], key


def begin(*command):
    """Start the command."""
    return subprocess.Popen(
        [str(a) for a in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def anneals(checkpoint):
    """Whether a checkpoint, replaced whole at any time, is of a fit whose training is over."""
    return checkpoint.exists() and any("refine" in name for name in load_file(checkpoint))


def steps_kept(checkpoint):
    return len(load_file(checkpoint)["training/trace.steps"])


def test_sigterm_stops_at_a_checkpoint(schools, tmp_path):
    """Of a job in the background, too: there a shell lets Ctrl-C be ignored."""
    settings = ("--max-steps", 300, *LONG)
    _, whole = run_json("fit", *schools, *settings, "--out", tmp_path / "whole")
    out = tmp_path / "fit"
    checkpoint = out / "checkpoint.safetensors"
    command = (STANFLOW, "fit", *schools, *settings, "--out", out, "--checkpoint-every", 0.2)
    process = begin("sh", "-c", "trap '' INT; exec \"$@\"", "sh", *command)
    while process.poll() is None and not checkpoint.exists():
        time.sleep(0.01)
    before = steps_kept(checkpoint)
    process.terminate()
    printed, told = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, told
    assert steps_kept(checkpoint) > before
    assert not printed
    assert told.splitlines()[-1].startswith("stanflow: stopped by SIGTERM; a fit that has a check")
    assert [file.name for file in out.iterdir()] == ["checkpoint.safetensors"]
    result = run("fit", *schools, *settings, "--out", out, "--resume", "--json")
    assert "going on from" in result.stderr
    report = json.loads(result.stdout)
    for key in whole.keys() - MEASURED_ANEW:
        assert report[key] == whole[key], key


def test_sigterm_ends_nuts(schools, tmp_path):
    settings = ("--draws", 200_000, "--engine", "embedded", "--out", tmp_path / "nuts")
    process = begin(STANFLOW, "nuts", *schools, *settings)
    assert process.stderr.readline().startswith("eight_schools_noncentered: ")
    time.sleep(1.0)
    process.terminate()
    _, told = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, told
    assert "stopped by SIGTERM" in told
    assert "Traceback" not in told
    assert not list(tmp_path.iterdir())


def leave_unfinished(schools, cwd, *options):
    """Begin a fit in a folder and kill it once it has a checkpoint."""
    command = [str(a) for a in (STANFLOW, "fit", *schools, *SETTINGS, *options)]
    process = subprocess.Popen(command, cwd=cwd, stderr=subprocess.DEVNULL, start_new_session=True)
    while process.poll() is None and not list(cwd.glob("**/checkpoint.safetensors")):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_what_can_be_done_with_an_unfinished_fit(schools, tmp_path):
    leave_unfinished(schools, tmp_path)
    folder = tmp_path / "fits" / "eight_schools_noncentered"
    assert (folder / "checkpoint.safetensors").exists()

    refused = run("fit", *schools, *SETTINGS, "--out", folder)
    assert refused.returncode == 2
    assert "was not finished; go on with it with --resume, or replace it" in refused.stderr
    other = run("fit", *schools, *SETTINGS, "--out", folder, "--resume", "--layers", 4)
    assert other.returncode == 2
    assert "with layers 24 instead of 4" in other.stderr

    gone_on = run("fit", *schools, *SETTINGS, "--resume", cwd=tmp_path)  # it is found
    assert gone_on.returncode == 0
    assert "going on from fits/eight_schools_noncentered/checkpoint" in gone_on.stderr
    assert "saved in fits/eight_schools_noncentered\n" in gone_on.stdout
    finished = run("fit", *schools, *SETTINGS, "--out", folder, "--resume")
    assert finished.returncode == 0
    assert "holds a finished fit" in finished.stderr
    another = run("fit", *schools, *SETTINGS, "--out", folder, "--resume", "--seed", 2)
    assert another.returncode == 2
    assert "another seed" in another.stderr


def test_an_unfinished_fit_is_replaced_by_force(schools, tmp_path):
    leave_unfinished(schools, tmp_path, "--out", tmp_path / "fit")
    result = run("fit", *schools, *SETTINGS, "--out", tmp_path / "fit", "--seed", 2, "--force")
    assert result.returncode == 0
    assert stanflow.load(tmp_path / "fit").report["seed"] == 2
    assert not (tmp_path / "fit" / "checkpoint.safetensors").exists()


def test_two_processes_do_not_work_in_one_folder(schools, tmp_path):
    out = tmp_path / "fit"
    command = [str(a) for a in (STANFLOW, "fit", *schools, "--max-steps", 10**6, "--out", out)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        while process.poll() is None and not (out / "running.lock").exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGSTOP)  # it would be done before a slow machine has the other
        result = run("fit", *schools, *SETTINGS, "--out", out, "--force")
        assert result.returncode == 2
        assert "is being worked in by another process" in result.stderr
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
