import json
import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import stanflow
from stanflow.cli import main as cli
from stanflow.errors import NumericsError, ProgramError
from tests.command_line import STANFLOW, run, run_json, run_process

QUICK = ("--max-steps", 20, "--draws", 200, "--engine", "embedded")
CONTRACT = {
    "model", "engine", "engine_version", "dim", "family", "elbo", "elbo_se", "log_evidence",
    "log_evidence_se", "normalized", "pareto_k", "importance_ess", "verdict", "reasons", "steps",
    "gradient_evaluations", "seconds", "peak_memory_mb", "out",
}  # fmt: skip
MEASURED_ANEW = {"seconds", "stages", "cost", "peak_memory_mb", "out"}


@pytest.fixture
def schools(zoo):
    folder = zoo / "eight_schools"
    return folder / "eight_schools_noncentered.stan", folder / "eight_schools.json"


def test_fit_prints_one_json_object_with_the_contracts_keys(schools, tmp_path):
    result = run_process("fit", *schools, "--seed", 1, "--json", *QUICK, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report.keys() >= CONTRACT
    assert all(report[key] is not None for key in CONTRACT)
    assert report["verdict"] == "usable"  # after twenty steps
    assert (report["dim"], report["engine"], report["steps"]) == (10, "embedded", 20)
    assert report["normalized"] is True
    assert report["peak_memory_mb"] > 50
    assert "columns" not in report
    assert (tmp_path / report["out"] / "fit.json").is_file()


def test_the_same_seed_gives_the_same_numbers(schools, tmp_path):
    reports = [
        run_json("fit", *schools, "--seed", seed, *QUICK, cwd=tmp_path)[1] for seed in (1, 1, 2)
    ]
    one, again, other = (
        {k: v for k, v in report.items() if k not in MEASURED_ANEW} for report in reports
    )
    assert one == again
    assert one["elbo"] != other["elbo"]
    fits = [stanflow.load(tmp_path / report["out"]) for report in reports]
    assert (fits[0].values == fits[1].values).all()
    assert [report["out"] for report in reports] == [
        f"fits/eight_schools_noncentered{suffix}" for suffix in ("", "-2", "-3")
    ]


def test_fit_prints_a_table_the_elbo_and_the_folder(schools, tmp_path):
    result = run("fit", *schools, *QUICK, "--out", tmp_path / "out")
    assert result.returncode == 0
    header = next(line for line in result.stdout.splitlines() if "Mean" in line)
    assert header.split() == ["Mean", "StdDev", "5%", "50%", "95%"]
    for name in ("mu", "tau", "theta_raw[1]", "theta[8]"):
        assert f"\n{name} " in result.stdout
    assert "ELBO" in result.stdout
    assert "Stan's constants included" in result.stdout
    assert result.stdout.rstrip().endswith(f"saved in {tmp_path / 'out'}")
    assert "step 20/20" in result.stderr


def test_a_preset_is_changed_by_the_options_beside_it(schools, tmp_path):
    status, report = run_json(
        "fit", *schools, "--preset", "paper", "--layers", "6", "--max-steps", "3", cwd=tmp_path
    )
    assert (status, report["steps"]) == (0, 3)
    flow, training = report["flow_config"], report["train_config"]
    assert (flow["layers"], flow["hidden"], flow["clamp_negative"]) == (6, 100, 2.0)
    assert (training["learning_rate"], training["keep_best"]) == (1e-4, True)


def test_a_fit_folder_holds_what_it_promises(schools, tmp_path):
    run("fit", *schools, *QUICK, "--out", tmp_path / "out")
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names == {
        "fit.json", "draws.nc", "flow.safetensors", "trace.csv", "data.json", "sha256sums.txt",
        "eight_schools_noncentered.stan",
    }  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    trace = (tmp_path / "out" / "trace.csv").read_text().splitlines()
    assert trace[0] == "step,seconds,elbo,log_weight_sd,gradient_norm,rejected,largest"
    assert len(trace) == 21


def test_fit_takes_every_family_and_base(schools, tmp_path):
    for family, base in (("fullrank", "student-t"), ("meanfield", "gaussian")):
        status, report = run_json(
            "fit", *schools, *QUICK, "--family", family, "--base", base, cwd=tmp_path
        )
        assert (status, report["family"]) == (0, family)
        assert report["flow_config"]["base"] == base


def test_fit_stops_at_max_seconds(schools, tmp_path):
    """The preset's learning rate stays, so the run does not end of itself before."""
    _, report = run_json(
        "fit", *schools, "--preset", "paper", "--layers", 4, "--max-steps", 10**6,
        "--max-seconds", 1, "--engine", "embedded",
        cwd=tmp_path,
    )  # fmt: skip
    assert report["stopped"] == "max_seconds"
    assert 0 < report["steps"] < 10**6


def test_arviz_is_not_in_the_way(schools, tmp_path):
    """Neither by its notice, once a day, nor where its folder for the day cannot be made."""
    for cache in (tmp_path / "new", schools[1]):
        result = run_process("fit", *schools, *QUICK, cwd=tmp_path, XDG_CACHE_HOME=str(cache))
        assert result.returncode == 0, result.stderr
        assert "arviz" not in result.stderr.lower()


def test_print_statements_go_to_standard_error(tmp_path):
    (tmp_path / "noisy.stan").write_text(
        'transformed data { print("from the data"); } parameters { real x; }\n'
        'model { print("from the model ", x); x ~ normal(0, 1); }\n'
        'generated quantities { print("from the quantities"); }\n'
    )
    result = run_process("fit", "noisy.stan", "--json", *QUICK, cwd=tmp_path)
    assert result.returncode == 0
    assert json.loads(result.stdout)["dim"] == 1
    assert result.stderr.count("from the data") == 1
    assert 0 < result.stderr.count("from the model") <= 100
    assert "further output of print statements is not shown" in result.stderr


def test_data_that_are_ignored_are_named(zoo, tmp_path):
    (tmp_path / "data.json").write_text('{"K": 3, "extra": 1}')
    result = run("fit", zoo / "funnel/funnel.stan", tmp_path / "data.json", *QUICK, cwd=tmp_path)
    assert result.returncode == 0
    assert "ignored: extra" in result.stderr


def test_check_says_engine_gradient_and_constants(schools):
    result = run("check", *schools, "--engine", "embedded")
    assert result.returncode == 0
    assert "agrees with finite differences" in result.stdout
    assert "stanli" in result.stdout
    status, report = run_json("check", *schools, "--engine", "embedded")
    assert status == 0
    assert report["dim"] == 10
    assert report["variables"]["theta"] == [8]
    assert report["gradient_agrees"] is True
    assert report["gradient_error"] < 1e-6
    assert report["normalizing_constant"] == pytest.approx(-39.9547567654)


@pytest.fixture
def alone(monkeypatch):
    """The embedded engine has no other beside it to be compared with."""

    def refuse(_):
        raise ProgramError("Stan 2.35 knows no such type")

    monkeypatch.setattr("stanflow.stan.judge.judge", refuse)


@pytest.mark.usefixtures("alone")
def test_check_says_where_the_other_engine_refuses_the_program(schools):
    arguments = ["check", *map(str, schools), "--engine", "embedded"]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0
    assert "not compared: Stan 2.35 knows no such type" in result.stdout


@pytest.mark.usefixtures("alone")
def test_check_finds_a_gradient_that_is_not_the_densitys(tmp_path):
    (tmp_path / "step.stan").write_text(
        "parameters { real x; } model { x ~ normal(0, 1); target += 1e-3 * floor(1e4 * x); }"
    )
    status, report = run_json("check", "step.stan", "--engine", "embedded", cwd=tmp_path)
    assert (status, report["gradient_agrees"]) == (1, False)
    result = run("check", "step.stan", "--engine", "embedded", cwd=tmp_path)
    assert result.returncode == 1
    assert "differs from finite differences" in result.stderr


@pytest.mark.usefixtures("alone")
def test_a_gradient_that_cannot_be_compared_is_valid_json(tmp_path):
    (tmp_path / "point.stan").write_text(
        'parameters { real x; } model { if (x != 0) reject("x"); target += x; }'
    )
    status, report = run_json("check", "point.stan", "--engine", "embedded", cwd=tmp_path)
    assert (status, report["gradient_agrees"], report["gradient_error"]) == (1, False, None)


@pytest.mark.usefixtures("alone")
def test_included_files_are_found_by_their_folder(tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "part.stan").write_text("parameters { real x; }")
    (tmp_path / "main.stan").write_text("#include part.stan\nmodel { x ~ normal(0, 1); }")
    for command in (("check",), ("fit", *QUICK[:4])):
        status, report = run_json(
            command[0], "main.stan", *command[1:], "--include-path", "shared", cwd=tmp_path
        )
        assert (status, report["dim"]) == (0, 1)


def test_doctor_names_what_is_here_and_what_mends_the_rest():
    result = run("doctor", BRIDGESTAN="/nowhere")
    assert result.returncode == 0
    for name in (
        "Python",
        "torch",
        "embedded engine",
        "compiled loop",
        "native engine",
        "BridgeStan's sources",
    ):
        assert name in result.stdout
    assert "/nowhere" in result.stdout
    status, report = run_json("doctor")
    assert (status, report["ok"]) == (0, True)


def test_version_and_help_do_not_load_torch():
    code = "import sys; from stanflow.cli.main import main\ntry: main()\nexcept SystemExit: pass\n"
    code += "print({'torch', 'arviz', 'stanli', 'pandas', 'numpy'} & set(sys.modules))"
    for option in ("--version", "--help"):
        result = subprocess.run(
            [sys.executable, "-c", code, option], capture_output=True, text=True, check=True
        )
        assert result.stdout.rstrip().endswith("set()")
    assert run_process("--version").stdout == f"stanflow {stanflow.__version__}\n"


def test_on_a_terminal_a_bar_shows_the_training(schools, tmp_path):
    main, terminal = pty.openpty()
    process = subprocess.Popen(
        [STANFLOW, "fit", *map(str, schools), *map(str, QUICK), "--out", tmp_path / "out"],
        stdout=subprocess.DEVNULL,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(terminal)
    shown = b""
    while process.poll() is None or select.select([main], [], [], 0.2)[0]:
        if select.select([main], [], [], 0.2)[0]:
            try:
                shown += os.read(main, 65536)
            except OSError:
                break
    assert process.wait() == 0
    text = shown.decode()
    assert "20/20" in text
    assert "ELBO" in text
    assert "% gradients" in text


def test_fits_at_once_take_folders_of_their_own(zoo, tmp_path):
    command = [STANFLOW, "fit", zoo / "bernoulli/bernoulli.stan", zoo / "bernoulli/bernoulli.json",
               "--json", *map(str, QUICK)]  # fmt: skip
    processes = [
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for _ in range(3)
    ]
    folders = {json.loads(process.communicate()[0])["out"] for process in processes}
    assert folders == {"fits/bernoulli", "fits/bernoulli-2", "fits/bernoulli-3"}
    assert all(len(stanflow.load(tmp_path / folder).values) == 200 for folder in folders)


def test_the_seed_reaches_transformed_data_as_in_cmdstan(tmp_path):
    (tmp_path / "m.stan").write_text(
        "transformed data { real m = normal_rng(0, 10); } parameters { real x; }\n"
        "model { x ~ normal(m, 1); } generated quantities { real center = m; }\n"
    )
    centers = []
    for seed in (1, 1, 2):
        _, report = run_json("fit", "m.stan", "--seed", seed, *QUICK, cwd=tmp_path)
        centers.append(stanflow.load(tmp_path / report["out"]).stan_variable("center")[0])
    assert centers[0] == centers[1] != centers[2]


def test_output_that_cannot_be_printed_is_said():
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [STANFLOW, "doctor"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert result.returncode == 1
    assert "cannot be printed: No space left" in result.stderr
    assert "Traceback" not in result.stderr


def test_too_large_a_batch_is_said(zoo, tmp_path):
    status, report = run_json(
        "fit", zoo / "bernoulli/bernoulli.stan", zoo / "bernoulli/bernoulli.json", "--engine",
        "embedded", "--batch", 10**13, cwd=tmp_path,
    )  # fmt: skip
    assert (status, report["error"]) == (1, "there is not enough memory; try a smaller --batch")
    assert not (tmp_path / "fits").exists()


def test_ctrl_c_while_data_are_read_is_said(tmp_path):
    """Typer turns it into a return value."""
    code = (
        "import os, signal, sys\n"
        "from stanflow.cli import main as cli\n"
        "import stanflow.stan.model as m\n"
        "m.bind_data = lambda *_: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.argv = ['stanflow', 'check', 'm.stan', '--json']\n"
        "cli.main()\n"
    )
    (tmp_path / "m.stan").write_text("parameters { real x; } model { x ~ normal(0, 1); }")
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert json.loads(result.stdout)["error"] == "interrupted; nothing was saved"


def test_ctrl_c_saves_what_was_learnt(schools, tmp_path):
    """The preset's learning rate stays, so the run does not end of itself before."""
    process = subprocess.Popen(
        [STANFLOW, "fit", *map(str, schools), "--preset", "paper", "--layers", "4", "--max-steps",
         "1000000", "--json", "--engine", "embedded", "--out", tmp_path / "out"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for line in process.stderr:
        if line.startswith("step"):
            break
    process.send_signal(2)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert json.loads(out)["stopped"] == "interrupted"
    assert len(stanflow.load(tmp_path / "out").values) == 4000


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [(MemoryError(), 1, "not enough memory"), (NumericsError("broke down"), 1, "broke down")],
)
def test_runs_that_fail_have_exit_status_one(monkeypatch, capsys, error, status, words):
    def failing(**_):
        raise error

    monkeypatch.setattr(cli, "app", failing)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == status
    assert words in capsys.readouterr().err


def test_ctrl_c_before_anything_was_learnt_is_said(monkeypatch, capsys):
    def interrupted(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", interrupted)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    assert capsys.readouterr().err == "stanflow: interrupted; nothing was saved\n"
