"""Compiling over Stan's headers: with a compiler of a few lines of shell, and with the real one."""

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from stanflow.errors import EngineError, ProgramError
from stanflow.stan import native, stan_headers, stan_wheel, toolchain
from stanflow.stan.engine import decide
from stanflow.stan.model import StanModel
from stanflow.stan.program import StanProgram
from stanflow.stan.stan_headers import headers_in

PROGRAM = StanProgram.from_string("parameters { real x; } model { x ~ normal(0, 1); }")
SHARED = ["bridgestan_interface.o", "nuts.o", "stan.hpp.gch"]

STANC = """#!/bin/sh
for argument in "$@"; do case $argument in --o=*) echo "// header" > "${argument#--o=}";; esac; done
"""
COMPILER = """#!/bin/sh
if [ "$1" = --version ]; then echo "g++ (of a test) 1.0"; exit; fi
echo "$@" >> "$LOG"
eval "$BEFORE"
while [ $# -gt 0 ]; do if [ "$1" = -o ]; then echo made > "$2"; fi; shift; done
"""


@pytest.fixture
def stan(tmp_path, monkeypatch):
    """A folder that looks like Stan's headers, a compiler that notes what it is asked, a cache."""
    folder = tmp_path / "httpstan"
    (folder / "include" / "stan").mkdir(parents=True)
    (folder / "include" / "stan" / "version.hpp").write_text(
        "#define STAN_MAJOR 2\n#define STAN_MINOR 39\n#define STAN_PATCH 0\n"
    )
    (folder / "lib").mkdir()
    (folder / "lib" / "libtbb.so.2").write_text("")
    for file, text in ((folder / "stanc", STANC), (tmp_path / "compiler", COMPILER)):
        file.write_text(text)
        file.chmod(0o755)
    log = tmp_path / "log"
    log.write_text("")
    monkeypatch.setenv("LOG", str(log))
    monkeypatch.setenv("BEFORE", "")
    monkeypatch.setenv("CXX", str(tmp_path / "compiler"))
    monkeypatch.setenv("STANFLOW_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(
        stan_headers.shutil, "disk_usage", lambda _: SimpleNamespace(free=10 * 2**30)
    )
    return SimpleNamespace(
        folder=folder, cache=tmp_path / "cache", calls=lambda: log.read_text().splitlines()
    )


def shared_folders(stan):
    return [folder for folder in (stan.cache / "native").iterdir() if folder.is_dir()]


def test_what_all_programs_share_is_compiled_once(stan, capsys):
    headers = headers_in(stan.folder)
    native.compiled_library(PROGRAM, headers)
    (folder,) = shared_folders(stan)
    assert sorted(file.name for file in folder.iterdir()) == SHARED
    assert len(stan.calls()) == 5  # Stan's headers, two objects, the program, and its link
    other = StanProgram.from_string("parameters { real y; } model { y ~ normal(0, 1); }")
    native.compiled_library(other, headers)
    assert len(stan.calls()) == 7
    native.compiled_library(other, headers)
    assert len(stan.calls()) == 7
    said = capsys.readouterr().err
    assert said.count("compiling what all programs share of Stan 2.39.0, once") == 1
    assert "compiling the Stan program with Stan 2.39.0: 0 s" in said


def test_programs_are_compiled_together(stan):
    programs = [
        StanProgram.from_string(f"parameters {{ real x{i}; }} model {{ }}") for i in range(3)
    ]
    headers = headers_in(stan.folder)
    first = native.compiled_library(programs[1], headers)
    before = len(stan.calls())
    libraries = native.compiled_libraries(programs, headers)
    assert libraries[1] == first
    assert len(set(libraries)) == 3
    assert len(stan.calls()) - before == 3  # the other two, and a link for each


def test_the_key_covers_all_that_goes_into_a_library(stan, monkeypatch):
    headers = headers_in(stan.folder)

    def key():
        return native._cache_key(PROGRAM, headers_in(stan.folder))

    seen = {key(), native._cache_key(StanProgram.from_string("model { }"), headers)}
    for variable in ("CXXFLAGS", "CPPFLAGS"):
        monkeypatch.setenv(variable, "-DX")
        seen.add(key())
    for change in (
        {"compiler_version": "other"},
        {"stan_version": "2.40.0"},
        {"folder": stan.folder.parent},
    ):
        seen.add(native._cache_key(PROGRAM, replace(headers, **change)))
    monkeypatch.setattr(stan_headers, "_own_sources_hash", lambda: "other")
    seen.add(key())
    monkeypatch.setattr(stan_headers, "_FLAGS", ("-O2",))
    seen.add(key())
    assert len(seen) == 9


def test_where_there_is_no_room_headers_are_not_precompiled(stan, monkeypatch):
    monkeypatch.setattr(stan_headers.shutil, "disk_usage", lambda _: SimpleNamespace(free=2**30))
    native.compiled_library(PROGRAM, headers_in(stan.folder))
    (folder,) = shared_folders(stan)
    assert sorted(file.name for file in folder.iterdir()) == SHARED[:2]


def test_clang_finds_what_is_precompiled_by_its_own_name(stan):
    compiler = Path(os.environ["CXX"])
    compiler.write_text(COMPILER.replace("g++ (of a test)", "Debian clang version"))
    native.compiled_library(PROGRAM, headers_in(stan.folder))
    (folder,) = shared_folders(stan)
    assert (folder / "stan.hpp.pch").is_file()


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ("echo 'a.hpp:3:1: error: none such' >&2; exit 1", r"could not compile .*: a\.hpp:3:1"),
        ("echo 'Killed signal terminated cc1plus' >&2; exit 1", r"run out of memory.* 2 GB"),
    ],
)  # fmt: skip
def test_a_compiler_that_fails_is_told_and_leaves_nothing(stan, monkeypatch, before, message):
    monkeypatch.setenv("BEFORE", before)
    with pytest.raises(EngineError, match=message) as caught:
        native.compiled_library(PROGRAM, headers_in(stan.folder))
    assert "\n" not in str(caught.value)
    assert shared_folders(stan) == []
    monkeypatch.setenv("BEFORE", "")
    assert native.compiled_library(PROGRAM, headers_in(stan.folder)).read_text() == "made\n"


def test_a_compiler_that_is_missing_is_told_with_what_to_install(stan, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-g++")
    with pytest.raises(EngineError, match=r"no-such-g\+\+ is not on the PATH.*apt install g\+\+"):
        headers_in(stan.folder)


def test_headers_that_are_not_there_are_told(tmp_path):
    with pytest.raises(EngineError, match="Stan's headers are not in"):
        headers_in(tmp_path)


def test_stanc_that_cannot_be_run_is_told(stan):
    stanc = stan.folder / "stanc"
    stanc.write_text("#!/bin/sh\necho 'internal compiler error' >&2; exit 125")
    with pytest.raises(EngineError, match=r"stanc of Stan 2\.39\.0 could not compile .*internal"):
        native.compiled_library(PROGRAM, headers_in(stan.folder))
    stanc.chmod(0o644)
    with pytest.raises(EngineError, match="stanc cannot be run: permission denied"):
        native.compiled_library(PROGRAM, headers_in(stan.folder))


def test_a_stan_that_is_older_than_the_program_is_told(stan, monkeypatch):
    monkeypatch.setattr(toolchain, "compiler_error", lambda *_: ProgramError("no such type"))
    monkeypatch.setattr(stan_wheel, "_folders", lambda: iter((stan.folder,)))
    monkeypatch.delenv("BRIDGESTAN", raising=False)
    (stan.folder / "stanc").write_text("#!/bin/sh\nexit 1")
    with pytest.raises(
        EngineError,
        match=r"Stan 2\.39\.0 is too old for the Stan program, which Stan \S+ takes: no such type; "
        "`stanflow doctor --install native` brings a newer one",
    ):
        StanModel(stan_code=PROGRAM.code, engine="native")
    with pytest.raises(ProgramError, match="no such type"):  # is no program anywhere
        StanModel(stan_code="parameters { real x; } model { x ~ nothing(); }", engine="native")


def test_a_scratch_folder_without_room_is_named(stan, monkeypatch):
    def full(**_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(toolchain.tempfile, "TemporaryDirectory", full)
    with pytest.raises(EngineError, match=r"temporary files \(no space left.*set TMPDIR"):
        native.compiled_library(PROGRAM, headers_in(stan.folder))


def test_one_that_fails_ends_the_others():
    began = time.monotonic()
    with pytest.raises(EngineError, match="could not compile two files"):
        stan_headers._run([["sleep", "60"], ["false"]], "two files")
    assert time.monotonic() - began < 30


def test_a_cache_that_cannot_be_written_is_named(stan, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STANFLOW_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(EngineError, match=r"cannot be written .* set STANFLOW_CACHE_DIR"):
        native.compiled_library(PROGRAM, headers_in(stan.folder))


def test_two_at_once_compile_once(stan, monkeypatch):
    monkeypatch.setenv("BEFORE", "sleep 0.2")
    headers = headers_in(stan.folder)
    threads = [
        threading.Thread(target=native.compiled_library, args=(PROGRAM, headers)) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stan.calls()) == 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_build_that_is_broken_off_leaves_nothing_to_reuse(stan, monkeypatch, number):
    code = (
        "from pathlib import Path; from stanflow.stan import native; "
        "from stanflow.stan.program import StanProgram; "
        "from stanflow.stan.stan_headers import headers_in; "
        f"native.compiled_library(StanProgram.from_string({PROGRAM.code!r}), "
        f"headers_in(Path({str(stan.folder)!r})))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "BEFORE": "sleep 30"},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not stan.calls():
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.5)  # an interrupt in the very moment of starting a process loses track of it
    os.kill(process.pid, number)
    assert process.wait(10) != 0
    if number == signal.SIGINT:
        command = ["ps", "-A", "-o", "sid=,args="]
        running = subprocess.run(command, capture_output=True, check=True, text=True).stdout
        session = [line for line in running.splitlines() if line.split()[0] == str(process.pid)]
        assert not any("sleep 30" in line for line in session)
    with contextlib.suppress(FileNotFoundError):
        assert [folder for folder in shared_folders(stan) if "arriving" not in folder.name] == []
    assert list(stan.cache.rglob("*.so")) == []
    assert native.compiled_library(PROGRAM, headers_in(stan.folder)).is_file()
    assert len(shared_folders(stan)) == 1


# ---- With the real compiler ----


@pytest.mark.slow
def test_programs_with_includes_in_folders_with_odd_names_compile(headers, tmp_path):
    folder = tmp_path / "my models, old"
    folder.mkdir()
    (folder / "part.stan").write_text("parameters { real x; }")
    (folder / "a model.stan").write_text("#include part.stan\nmodel { x ~ normal(0, 1); }")
    program = StanProgram.from_file(folder / "a model.stan")
    library = native.compiled_library(program, headers)
    loaded = native.open_library(library, program, StanModel(folder / "a model.stan").data)
    assert loaded.engine_version == f"Stan {headers.stan_version}"
    assert loaded.thread_safe
    assert loaded.stan_model.log_density_gradient(np.array([2.0]))[0] == -2


def test_what_stanc_refuses_is_told_at_its_line(headers):
    program = StanProgram.from_string("parameters { real x; }\nmodel {\n  x ~ normall(0, 1); }")
    with pytest.raises(ProgramError, match=r"line 3, column \d+") as caught:
        native.compiled_library(program, headers)
    assert caught.value.line == 3


@pytest.mark.usefixtures("headers")
def test_auto_takes_it_for_what_the_embedded_engine_cannot_run(monkeypatch):
    monkeypatch.delenv("BRIDGESTAN", raising=False)
    code = "parameters { tuple(real, real) t; } model { t.1 ~ normal(0, 1); t.2 ~ normal(0, 2); }"
    assert decide("auto").name == "embedded"
    model = StanModel(stan_code=code, engine="auto")
    assert model.engine == "native"
    assert "STuple" in model.engine_reason
    assert model.columns == ("t:1", "t:2")
    np.testing.assert_allclose(model.log_density_gradient([[1.0, 2.0]]).log_density, [-1.0])
    draws = model.constrain([[1.0, 2.0]]).values
    np.testing.assert_array_equal(draws, [[1.0, 2.0]])


def test_where_it_is_missing_auto_names_the_one_command_that_brings_it(monkeypatch):
    monkeypatch.setattr("stanflow.stan.stan_wheel._folders", lambda: iter(()))
    code = "parameters { tuple(real, real) t; } model { t.1 ~ normal(0, 1); t.2 ~ normal(0, 2); }"
    with pytest.raises(EngineError, match=r"STuple.*`stanflow doctor --install native` brings it"):
        StanModel(stan_code=code)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("clang++") is None, reason="there is no clang++")
def test_clang_compiles_with_what_it_has_precompiled(headers, monkeypatch):
    monkeypatch.setenv("CXX", "clang++")
    library = native.compiled_library(PROGRAM, headers_in(headers.folder))
    loaded = native.open_library(library, PROGRAM, StanModel(stan_code=PROGRAM.code).data)
    assert loaded.stan_model.log_density(np.array([2.0])) == -2
