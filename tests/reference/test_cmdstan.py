"""NUTS by CmdStan, for real: the prophet package has an executable that CmdStan built."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import arviz
import numpy as np
import pytest

import stanflow
from stanflow.errors import EngineError, NumericsError, ProgramError
from stanflow.reference import sampling
from stanflow.reference.cmdstan_program import (
    compile_program,
    find_installation,
    open_executable,
)
from stanflow.reference.sampling import nuts
from stanflow.stan.batch import available_cores
from stanflow.stan.cache import cache_folder
from tests.reference.trend_program import TAU, trend_data

MCSES = 4.5
QUICK = {"warmup": 60, "draws": 40, "chains": 2, "progress": False}


@pytest.fixture(scope="module")
def run(trend, exe):
    return nuts(trend, seed=4, warmup=600, draws=1500, exe=exe, progress=False)


def mean_and_sd(draws):
    """Mean and sd of draws (chains, draws) with their Monte Carlo standard errors."""
    return (
        np.array([draws.mean(), draws.std()]),
        np.array([arviz.mcse(draws, method=m) for m in ("mean", "sd")]),
    )


def test_the_posterior_is_hit(run, trend):
    names = list(trend.columns)
    truth = {"k": (0, 5), **{f"delta.{i}": (0, np.sqrt(2) * TAU) for i in (1, 2, 3)}}
    for name, moments in truth.items():
        found, se = mean_and_sd(run.values[..., names.index(name)])
        assert (abs(found - moments) < MCSES * se).all(), name
    other = nuts(trend, seed=9, draws=2000, engine="embedded", progress=False)
    for name in ("m", "sigma_obs", "beta.1", "beta.2", "trend.60"):
        i = names.index(name)
        (found, se), (theirs, their_se) = map(
            mean_and_sd, (run.values[..., i], other.values[..., i])
        )
        assert (abs(found - theirs) < MCSES * np.hypot(se, their_se)).all(), name


def test_draws_are_those_of_the_program_to_full_precision(run, trend):
    assert run.columns == trend.columns
    parameters = {n: run.stan_variable(n)[0] for n in ("k", "m", "delta", "sigma_obs", "beta")}
    z = trend.unconstrain(parameters)
    np.testing.assert_allclose(
        trend.log_density_gradient(z[None]).log_density, run.statistics["lp__"][0, 0], rtol=1e-13
    )
    np.testing.assert_array_equal(run.stan_variable("trend")[:, 5], run.stan_variable("m"))


def test_the_report_names_the_engine_and_counts_its_work(run, exe):
    report = run.report
    assert (report["engine"], report["engine_version"]) == ("cmdstan", "CmdStan 2.37.0")
    assert report["engine_reason"] == "an executable that CmdStan has compiled was given"
    assert report["exe"] == str(exe)
    assert (report["chains"], report["warmup"], report["draws"]) == (4, 600, 1500)
    assert report["sampling_gradient_evaluations"] == run.statistics["n_leapfrog__"].sum()
    assert report["warmup_gradient_evaluations"] >= 4 * 600
    sizes = [np.unique(chain) for chain in run.statistics["stepsize__"]]
    assert [size.item() for size in sizes] == report["step_size"]
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_the_seed_decides_the_draws(trend, exe):
    runs = [nuts(trend, seed=s, exe=exe, **QUICK) for s in (0, 0, 8)]
    np.testing.assert_array_equal(runs[0].draws(), runs[1].draws())
    assert not (runs[0].values[..., 0] == runs[2].values[..., 0]).any()
    assert not (runs[0].values[0, :, 0] == runs[0].values[1, :, 0]).any()


def test_settings_reach_the_sampler(trend, exe):
    run = nuts(trend, exe=exe, max_treedepth=2, adapt_delta=0.99, **QUICK)
    assert run.statistics["n_leapfrog__"].max() <= 3
    loose = nuts(trend, exe=exe, max_treedepth=2, adapt_delta=0.6, **QUICK)
    assert np.mean(run.report["step_size"]) < np.mean(loose.report["step_size"])
    diagonal, dense = (
        nuts(trend, exe=exe, metric=metric, **{**QUICK, "warmup": 200})
        for metric in ("diag_e", "dense_e")
    )
    assert not (dense.values == diagonal.values).any()


def test_a_single_draw_of_a_single_chain_is_enough(trend, exe):
    run = nuts(trend, exe=exe, warmup=1, draws=1, chains=1, progress=False)
    assert run.draws().shape == (1, 1, 7 + len(trend.columns))
    assert run.report["max_rhat"] is None


def test_more_chains_than_cores_all_run(trend, exe):
    run = nuts(trend, exe=exe, warmup=20, draws=10, chains=2 * (os.cpu_count() or 1) + 1)
    assert run.chains == 2 * (os.cpu_count() or 1) + 1
    assert len(np.unique(run.values[:, 0, 0])) == run.chains


def test_nothing_is_printed_but_progress_on_standard_error(
    trend, exe, capfd, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    nuts(trend, exe=exe, **{**QUICK, "progress": True})
    shown = capfd.readouterr()
    assert shown.out == ""
    assert re.fullmatch(r"iteration 200/200 of 2 chains  2 past warmup  \d+\.\d s\n", shown.err)
    nuts(trend, exe=exe, **QUICK)
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


# ---- What cannot be run -----------------------------------------------------------------------


def test_a_missing_or_foreign_executable_is_refused(trend, exe, tmp_path):
    with pytest.raises(EngineError, match=r"no executable at .*nowhere"):
        nuts(trend, exe=tmp_path / "nowhere", **QUICK)
    with pytest.raises(EngineError, match="no executable"):
        nuts(trend, exe=tmp_path, **QUICK)
    with pytest.raises(EngineError, match=r"prophet\.stan is not executable; `chmod \+x`"):
        nuts(trend, exe=exe.with_name("prophet.stan"), **QUICK)
    with pytest.raises(EngineError, match="does not answer as an executable of CmdStan"):
        nuts(trend, exe="/bin/ls", **QUICK)
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF")
    broken.chmod(0o755)
    with pytest.raises(EngineError, match="broken cannot be run: exec format error"):
        nuts(trend, exe=broken, **QUICK)


def test_an_executable_of_another_program_is_refused(exe):
    code = "parameters { real x; } model { x ~ std_normal(); }"
    model = stanflow.StanModel(stan_code=code, engine="embedded")
    with pytest.raises(EngineError, match=r"of another program: Exception: variable does not ex"):
        nuts(model, exe=exe, **QUICK)
    # One that takes the same data, but calls a parameter otherwise.
    renamed = exe.with_name("prophet.stan").read_text().replace("sigma_obs", "sigma")
    model = stanflow.StanModel(stan_code=renamed, data=trend_data(), engine="embedded")
    began = time.perf_counter()
    with pytest.raises(EngineError, match="column sigma, it has sigma_obs"):
        nuts(model, exe=exe, chains=1, warmup=10**6, draws=10**6, progress=False)
    assert time.perf_counter() - began < 20  # not at the end of the run


def test_a_failing_chain_tells_cmdstans_own_words(exe):
    data = {**trend_data(), "y": [np.inf] * 60}
    model = stanflow.StanModel(exe.with_name("prophet.stan"), data, engine="embedded")
    with pytest.raises(NumericsError, match=r"chain \d of CmdStan failed: .*inf.*finite") as caught:
        nuts(model, exe=exe, **QUICK)
    assert "\n" not in str(caught.value)
    assert "Initialization" in caught.value.detail
    assert "num_samples" not in caught.value.detail


@pytest.fixture
def without_native(monkeypatch):
    """As where Stan's own C++ is not installed."""

    def find_headers():
        raise EngineError("Stan's own C++ is not installed")

    monkeypatch.setattr(sampling, "find_headers", find_headers)


@pytest.mark.usefixtures("without_native")
def test_without_cmdstanpy_the_package_is_named(trend, exe, monkeypatch):
    monkeypatch.setitem(sys.modules, "cmdstanpy", None)
    with pytest.raises(EngineError, match=r"pip install 'stanflow\[cmdstan\]'"):
        nuts(trend, engine="cmdstan", **QUICK)
    assert "cmdstanpy, which is not installed" in nuts(trend, **QUICK).report["engine_reason"]
    assert nuts(trend, exe=exe, **QUICK).report["engine"] == "cmdstan"  # needs none


@pytest.mark.usefixtures("without_native")
def test_without_cmdstan_and_native_the_embedded_engine_stands_in(trend, monkeypatch, tmp_path):
    monkeypatch.delenv("CMDSTAN", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    run = nuts(trend, **QUICK)
    assert run.report["engine"] == "embedded"
    assert "cmdstanpy finds no CmdStan" in run.report["engine_reason"]
    assert "Stan's own C++ is not installed" in run.report["engine_reason"]
    with pytest.raises(EngineError, match=r"install one by `python -m cmdstanpy.install_cmdstan`"):
        nuts(trend, engine="cmdstan", **QUICK)


@pytest.mark.slow
def test_without_cmdstan_the_native_engine_stands_in(headers, trend, monkeypatch, tmp_path):
    monkeypatch.setenv("STANFLOW_CACHE_DIR", str(cache_folder()))
    monkeypatch.delenv("CMDSTAN", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    run = nuts(trend, **QUICK)
    assert run.report["engine"] == "native"
    assert run.report["engine_version"] == f"Stan {headers.stan_version}"
    assert run.report["compile_seconds"] >= 0
    assert "cmdstanpy finds no CmdStan" in run.report["engine_reason"]
    assert "in the native engine" in str(run.summary())


def test_what_an_older_stan_refuses_is_left_to_the_embedded_engine(
    headers, trend, monkeypatch, tmp_path
):
    monkeypatch.setenv("STANFLOW_CACHE_DIR", str(cache_folder()))
    monkeypatch.delenv("CMDSTAN", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))

    def refuse(*arguments):
        raise ProgramError("no such type")

    monkeypatch.setattr(sampling, "load", refuse)
    run = nuts(trend, **QUICK)
    assert run.report["engine"] == "embedded"
    assert f"Stan {headers.stan_version}: no such type" in run.report["engine_reason"]
    with pytest.raises(ProgramError, match="no such type"):
        nuts(trend, engine="native", **QUICK)


@pytest.mark.usefixtures("without_native")
def test_the_remains_of_a_cmdstan_are_no_installation(trend, monkeypatch, tmp_path):
    """Such as the prophet package brings along, and makes cmdstanpy find."""
    (tmp_path / "bin").mkdir()
    for name in ("makefile", "bin/stanc"):
        (tmp_path / name).write_text("")
    monkeypatch.setenv("CMDSTAN", str(tmp_path))
    with pytest.raises(EngineError, match=r"no whole CmdStan \(src/cmdstan/main\.cpp is missing\)"):
        find_installation()
    assert nuts(trend, **QUICK).report["engine"] == "embedded"


# ---- Interruption -----------------------------------------------------------------------------

LONG_RUN = """
import sys, stanflow
from stanflow.reference.sampling import nuts
from tests.reference.trend_program import trend_data
from stanflow.errors import StanFlowError
original, exe, engine = sys.argv[1:4]
model = stanflow.StanModel(original.replace("_model.bin", ".stan"), trend_data(), engine="embedded")
print("ready", file=sys.stderr, flush=True)
try:
    nuts(model, warmup=10**6, draws=10**6, progress=False,
         **({"exe": exe} if engine == "cmdstan" else {"engine": engine}))
except KeyboardInterrupt:
    sys.exit(130)
except StanFlowError as error:
    print(error)
    sys.exit(error.exit_status)
"""


@dataclass
class LongRun:
    """A run that would take hours, under way, and where its chains' processes are written down."""

    process: subprocess.Popen[str]
    pids: Path

    def chains(self) -> list[int]:
        return list(map(int, self.pids.read_text().split()))[1:]  # the first asked for the version


@pytest.fixture
def long_run(exe, request, tmp_path):
    pids, recording = tmp_path / "pids", tmp_path / "prophet_model.bin"
    pids.touch()
    recording.write_text(f'#!/bin/sh\necho $$ >> {pids}\nexec {exe} "$@"\n')
    recording.chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, "-c", LONG_RUN, str(exe), str(recording), request.param],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    run = LongRun(process, pids)
    assert any("ready" in line for line in process.stderr)
    deadline = time.monotonic() + 20
    while request.param == "cmdstan" and not run.chains():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1.0)
    yield run
    process.kill()
    process.communicate()
    for pid in filter(runs, run.chains()):  # where a test failed
        os.kill(pid, signal.SIGKILL)


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("long_run", ["cmdstan", "embedded"], indirect=True)
def test_an_interrupted_run_ends_soon_and_leaves_nothing_behind(long_run):
    chains = long_run.chains()
    assert all(map(runs, chains))
    if chains:
        assert len(chains) == min(4, available_cores())
    long_run.process.send_signal(signal.SIGINT)
    assert long_run.process.wait(timeout=15) == 130
    assert long_run.chains() == chains  # those waiting were not started
    assert not any(map(runs, chains))


@pytest.mark.parametrize("long_run", ["cmdstan"], indirect=True)
def test_ctrl_c_that_reaches_a_chain_first_is_an_interrupt(long_run):
    """On a terminal all processes get it, in any order."""
    chains = long_run.chains()
    os.kill(chains[0], signal.SIGINT)
    assert long_run.process.wait(timeout=15) == 130
    assert not any(map(runs, chains))


@pytest.mark.parametrize("long_run", ["cmdstan"], indirect=True)
def test_a_killed_chain_ends_the_run(long_run):
    chains = long_run.chains()
    os.kill(chains[0], signal.SIGKILL)
    said, _ = long_run.process.communicate(timeout=15)
    assert re.search(r"chain \d of CmdStan was ended by SIGKILL", said)
    assert long_run.process.returncode == NumericsError.exit_status
    assert not any(map(runs, chains))


# ---- With an installed CmdStan ----------------------------------------------------------------


@pytest.fixture(scope="module")
def installed():
    try:
        return find_installation()
    except EngineError as error:
        pytest.skip(str(error))


@pytest.mark.slow
def test_an_installed_cmdstan_compiles_once_and_samples(installed, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("STANFLOW_CACHE_DIR", str(tmp_path))
    code = "parameters { real<lower=0> x; } model { x ~ gamma(3, 2); }"
    model = stanflow.StanModel(stan_code=code, engine="embedded")
    run = nuts(model, draws=3000, progress=False)
    assert run.report["engine"] == "cmdstan"
    assert str(installed) in run.report["engine_reason"]
    found, se = mean_and_sd(run.values[..., 0])
    assert (abs(found - [1.5, np.sqrt(3) / 2]) < MCSES * se).all()
    assert "compiling the Stan program with CmdStan, once" in capfd.readouterr().err
    again = nuts(model, draws=3000, progress=False)
    np.testing.assert_array_equal(again.draws(), run.draws())
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_what_cmdstans_compiler_refuses_points_into_the_program(installed, tmp_path, monkeypatch):
    monkeypatch.setenv("STANFLOW_CACHE_DIR", str(tmp_path))
    bad = stanflow.stan.program.StanProgram.from_string(
        "parameters { real x; }\nmodel { x ~ normall(0, 1); }"
    )
    with pytest.raises(ProgramError, match="error in the Stan program, line 2"):
        compile_program(bad)


def test_the_version_is_the_executables(exe):
    assert open_executable(exe).version == "CmdStan 2.37.0"
