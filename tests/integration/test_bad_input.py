"""Bad input: one clear sentence, exit status 2, nothing half written."""

import json

import pytest

from tests.command_line import run, run_json

GOOD_PROGRAM = (
    "data { int<lower=0> N; vector[N] y; } parameters { real mu; } model { y ~ normal(mu, 1); }"
)
GOOD_DATA = {"N": 2, "y": [1, 2]}

PROGRAMS = {
    "syntax error": (
        "parameters {\n  real mu\n}\nmodel { }",
        "program",
        r"syntax error in model.stan, line 3, column 0",
    ),
    "semantic error": (
        "parameters { real mu; }\nmodel {\n  mu ~ normall(0, 1);\n}",
        "program",
        "semantic error in model.stan, line 3, column",
    ),
    "undefined include": (
        "functions {\n  #include gone.stan\n}\nparameters { real mu; } model { }",
        "program",
        "model.stan, line 2: the include file 'gone.stan'",
    ),
    "no parameters": ("model { }", "program", "has no parameters"),
    "empty": ("", "program", "has no parameters"),
    "density that throws": (
        'parameters { real mu; } model { reject("no way"); }',
        "numerics",
        "not finite at any of 301 starting points: no way",
    ),
    "density finite nowhere": (
        "parameters { real mu; } model { target += negative_infinity(); }",
        "numerics",
        "the log density is -inf",
    ),
    "gradient finite nowhere": (
        "parameters { real mu; } model { target += not_a_number() * mu; }",
        "numerics",
        "the log density is nan",
    ),
}

DATA = {
    "missing": ({"N": 2}, "y is missing"),
    "wrong shape": ({"N": 2, "y": [1, 2, 3]}, "y has shape (3,)"),
    "wrong type": ({"N": 2.5, "y": [1, 2]}, "N is declared `int<lower=0> N`"),
    "text": ({"N": 2, "y": ["a", 2]}, "y must be numbers, as in `vector[N] y`; it has 'a' at [1]"),
    "out of bounds": ({"N": -1, "y": []}, "N has -1, below its lower bound 0"),
    "NaN": ({"N": float("nan"), "y": []}, "N is declared `int<lower=0> N`"),
    "null": ({"N": 2, "y": [1, None]}, "y has a missing value (null) at [2]"),
    "ragged": ({"N": 2, "y": [[1], [2, 3]]}, "y is not rectangular"),
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model.stan").write_text(GOOD_PROGRAM)
    (tmp_path / "data.json").write_text(json.dumps(GOOD_DATA))
    return tmp_path


def assert_refused(folder, arguments, kind, message):
    """By `fit`, in words and as JSON, leaving the folder as it was."""
    before = sorted(folder.rglob("*"))
    arguments = (*arguments, "--engine", "embedded", "--max-steps", 3)
    result = run("fit", *arguments, cwd=folder)
    assert result.returncode == 2
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    sentence = next(line for line in result.stderr.splitlines() if line.startswith("stanflow: "))
    assert message.lower() in sentence.lower()

    status, report = run_json("fit", *arguments, cwd=folder)
    assert status == 2
    assert report.keys() == {"error", "kind", "detail"}
    assert report["kind"] == kind
    assert message.lower() in report["error"].lower()
    assert "\n" not in report["error"]
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("case", PROGRAMS)
def test_programs(folder, case):
    code, kind, message = PROGRAMS[case]
    (folder / "model.stan").write_text(code)
    assert_refused(folder, ["model.stan"], kind, message)


@pytest.mark.parametrize("case", DATA)
def test_data(folder, case):
    data, message = DATA[case]
    (folder / "data.json").write_text(json.dumps(data))
    assert_refused(
        folder, ["model.stan", "data.json"], "data", f"data.json: the data variable {message}"
    )


def test_nan_that_the_program_does_not_expect(folder):
    (folder / "data.json").write_text('{"N": 2, "y": [1, NaN]}')
    done = run("fit", "model.stan", "data.json", "--engine", "embedded", cwd=folder)
    warning, *_, error = done.stderr.splitlines()
    assert done.returncode == 2
    assert warning == "warning: these data have NaN, which most statements turn into an error: y"
    assert "random variable[2] is nan" in error.lower()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"N": 2, "y": [1, 2}', "data.json is not valid JSON: expecting ',' delimiter at line 1"),
        ("[]", "must be a JSON object"),
        ("", "not valid JSON"),
    ],
)
def test_malformed_json(folder, text, message):
    (folder / "data.json").write_text(text)
    assert_refused(folder, ["model.stan", "data.json"], "data", message)


def test_files_that_are_not_there(folder):
    assert_refused(folder, ["gone.stan"], "program", "no Stan program at gone.stan")
    assert_refused(folder, ["model.stan", "gone.json"], "data", "no data file at gone.json")
    assert_refused(folder, ["."], "program", "cannot be read: is a directory")


def test_data_without_a_data_block(folder):
    (folder / "model.stan").write_text("parameters { real mu; } model { mu ~ normal(0, 1); }")
    assert_refused(folder, ["model.stan", "data.json"], "data", "has no data block")


def test_missing_data_file_for_a_program_with_a_data_block(folder):
    assert_refused(folder, ["model.stan"], "data", "the data variable N is missing")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--frobnicate"], "no such option: --frobnicate"),
        (["--layers", "0"], "layers must be at least 1"),
        (["--layers", "3000000000"], "layers must be at least 1 and at most 10000"),
        (["--draws", "100000000000"], "invalid value for '--draws'"),
        (["--hidden", "x"], "invalid value for '--hidden'"),
        (["--batch", "-5"], "batch must be at least 1"),
        (["--draws", "1"], "invalid value for '--draws'"),
        (["--seed", "-1"], "invalid value for '--seed'"),
        (["--max-seconds", "0"], "max_seconds must be positive"),
        (["--family", "planar"], "'planar' is not one of"),
        (["--base", "cauchy"], "'cauchy' is not one of"),
        (["--include-path", "gone"], "include folder gone does not exist"),
        (["one-too-many"], "unexpected extra argument"),
    ],
)
def test_options(folder, options, message):
    kind = "program" if "include" in options[0] else "usage"
    assert_refused(folder, ["model.stan", "data.json", *options], kind, message)


def test_an_unknown_engine(folder):
    result = run("fit", "model.stan", "data.json", "--engine", "cmdstan", cwd=folder)
    assert result.returncode == 2
    assert "'cmdstan' is not one of" in result.stderr


def test_an_unknown_command():
    assert run("fti").returncode == 2
    assert run_json("fti")[1]["kind"] == "usage"


def test_no_command_prints_the_help():
    result = run()
    assert result.returncode == 2
    assert "Commands:" in result.stdout


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("data.json", "is a file"),
        ("data.json/fit", "cannot be written: not a directory"),
        ("full", "is not empty and holds no fit"),
        ("/proc/stanflow-fit", "cannot be written"),
    ],
)
def test_output_folders_that_cannot_be_used(folder, out, message):
    (folder / "full").mkdir()
    (folder / "full" / "thesis.tex").write_text("precious")
    assert_refused(folder, ["model.stan", "data.json", "--out", out], "usage", message)
    assert_refused(folder, ["model.stan", "data.json", "--out", out, "--force"], "usage", message)
    refused = run("fit", "model.stan", "data.json", "--out", out, cwd=folder)
    assert "parameters" not in refused.stderr  # before any work was done


def test_a_folder_that_holds_a_fit_asks_for_force(folder):
    arguments = ["model.stan", "data.json", "--out", "out"]
    quick = ["--engine", "embedded", "--max-steps", 3]
    assert run("fit", *arguments, *quick, cwd=folder).returncode == 0
    assert_refused(folder, arguments, "usage", "already holds a fit")
    before = json.loads((folder / "out" / "fit.json").read_text())
    assert run("fit", *arguments, *quick, "--force", "--seed", 2, cwd=folder).returncode == 0
    after = json.loads((folder / "out" / "fit.json").read_text())
    assert (before["seed"], after["seed"]) == (1, 2)
    assert sorted(p.name for p in folder.iterdir()) == ["data.json", "model.stan", "out"]


def test_force_does_not_delete_what_is_not_the_fits(folder):
    arguments = ["model.stan", "data.json", "--out", "out"]
    assert (
        run("fit", *arguments, "--engine", "embedded", "--max-steps", 3, cwd=folder).returncode == 0
    )
    (folder / "out" / "notes.txt").write_text("precious")
    assert_refused(folder, [*arguments, "--force"], "usage", "more than a fit (notes.txt)")


def test_the_compilers_excerpt_is_shown(folder):
    (folder / "model.stan").write_text(PROGRAMS["semantic error"][0])
    result = run("check", "model.stan", cwd=folder, BRIDGESTAN="/nowhere")
    assert result.returncode == 2
    assert "3:    mu ~ normall(0, 1);" in result.stderr
    assert "^" in result.stderr
