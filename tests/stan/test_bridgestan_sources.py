import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from stanflow.errors import EngineError
from stanflow.stan import bridgestan_sources, cache, native, stan_wheel
from stanflow.stan.data import StanData
from stanflow.stan.engine import decide
from stanflow.stan.program import StanProgram

PROGRAM = StanProgram.from_string("parameters { real x; } model { x ~ normal(0, 1); }")


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """A folder that looks like BridgeStan's sources, found through BRIDGESTAN."""
    folder = tmp_path / "bridgestan"
    (folder / "src").mkdir(parents=True)
    (folder / "Makefile").write_text("")
    write_version(folder, 2, 9, 0)
    monkeypatch.setenv("BRIDGESTAN", str(folder))
    return folder


def write_version(folder, major, minor, patch):
    (folder / "src" / "version.hpp").write_text(
        f"#define BRIDGESTAN_MAJOR {major}\n#define BRIDGESTAN_MINOR {minor}\n"
        f"#define BRIDGESTAN_PATCH {patch}\n"
    )
    bridgestan_sources._sources_version.cache_clear()


def compile_c(source: Path, library: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    subprocess.run([compiler, "-shared", "-fPIC", "-w", source, "-o", library], check=True)


# ---- Choosing ----


def test_auto_takes_bridgestan_where_its_toolchain_is(sources):
    decision = decide("auto")
    assert decision.name == "native"
    assert str(sources) in decision.reason


def test_auto_takes_the_embedded_engine_where_no_toolchain_is(monkeypatch, tmp_path):
    monkeypatch.setenv("BRIDGESTAN", str(tmp_path))
    decision = decide("auto")
    assert decision.name == "embedded"
    assert str(tmp_path) in decision.reason


@pytest.mark.parametrize("engine", ["native", "bridgestan"])
def test_asking_for_it_says_what_is_missing(engine, monkeypatch, tmp_path):
    monkeypatch.setenv("BRIDGESTAN", str(tmp_path / "nowhere"))
    with pytest.raises(EngineError, match=r"BRIDGESTAN names .*nowhere.* does not hold"):
        decide(engine)


@pytest.mark.parametrize(("variable", "tool"), [("CXX", "no-such-g++"), ("MAKE", "no-such-make")])
def test_a_missing_tool_is_named(sources, monkeypatch, variable, tool):
    monkeypatch.setenv(variable, tool)
    with pytest.raises(EngineError, match=rf"{tool.replace('+', '.')} is not on the PATH"):
        decide("bridgestan")
    assert decide("auto").name == "embedded"


# ---- Versions that clash ----


def test_sources_older_than_the_package_are_named(sources):
    write_version(sources, 2, 6, 1)
    with pytest.raises(EngineError, match=r"version 2\.6\.1, but the bridgestan .* 2\.9") as caught:
        decide("bridgestan")
    assert "install bridgestan==2.6.1" in str(caught.value)
    assert "2.6.1" in decide("auto").reason


def test_a_library_of_an_older_bridgestan_is_named(tmp_path):
    library = tmp_path / "old_model.so"
    compile_c(Path(__file__).with_name("old_bridgestan.c"), library)
    with pytest.raises(EngineError, match=r"built by BridgeStan 2\.1\.0 and lacks bs_param_init"):
        native.open_library(library, PROGRAM, StanData("{}"))


def test_a_library_that_is_none_is_refused(tmp_path):
    library = tmp_path / "model.so"
    library.write_bytes(b"\x7fELF and nothing more")
    with pytest.raises(EngineError, match=r"model\.so cannot be loaded"):
        native.open_library(library, PROGRAM, StanData("{}"))
    with pytest.raises(EngineError, match=r"gone/model\.so cannot be loaded"):
        native.open_library(tmp_path / "gone" / "model.so", PROGRAM, StanData("{}"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a folder")
def test_a_folder_from_which_nothing_may_be_run_is_named(tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "noexec", "tmpfs", tmp_path]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a folder cannot be mounted here")
    try:
        library = tmp_path / "model.so"
        compile_c(Path(__file__).with_name("old_bridgestan.c"), library)
        with pytest.raises(EngineError, match=r"noexec, let STANFLOW_CACHE_DIR name another"):
            native.open_library(library, PROGRAM, StanData("{}"))
    finally:
        subprocess.run(["umount", "--lazy", tmp_path], check=True)


# ---- The cache ----


def key(program, toolchain):
    return native._cache_key(program, toolchain)


def test_the_cache_key_covers_all_that_goes_into_a_library(sources, monkeypatch, tmp_path):
    toolchain = bridgestan_sources.find_sources()
    first = key(PROGRAM, toolchain)
    assert first == key(PROGRAM, bridgestan_sources.find_sources())
    seen = {first}

    (tmp_path / "part.stan").write_text("// one")
    program = StanProgram.from_string("#include part.stan\nmodel { }", [tmp_path])
    seen.add(key(program, toolchain))
    (tmp_path / "part.stan").write_text("// two")
    seen.add(key(StanProgram.from_string("#include part.stan\nmodel { }", [tmp_path]), toolchain))

    (sources / "make").mkdir()
    (sources / "make" / "local").write_text("CXXFLAGS+=-march=native")
    seen.add(key(PROGRAM, toolchain))
    monkeypatch.setenv("CXXFLAGS", "-O2")
    seen.add(key(PROGRAM, toolchain))
    write_version(sources, 2, 10, 0)
    seen.add(key(PROGRAM, bridgestan_sources.find_sources()))
    monkeypatch.setenv("CXX", "cc")
    seen.add(key(PROGRAM, bridgestan_sources.find_sources()))
    monkeypatch.setenv("CPPFLAGS", "-DX")
    seen.add(key(PROGRAM, bridgestan_sources.find_sources()))
    for change in (
        {"stanc_version": "other"},
        {"compiler_version": "other"},
        {"folder": sources.parent / "elsewhere"},
    ):
        seen.add(key(PROGRAM, replace(toolchain, **change)))
    monkeypatch.setattr(bridgestan_sources, "MAKE_ARGS", ("STAN_THREADS=true", "STAN_OPENCL=true"))
    seen.add(key(PROGRAM, bridgestan_sources.find_sources()))
    assert len(seen) == 12


def test_a_cache_that_cannot_be_written_is_named(sources, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STANFLOW_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(EngineError, match=r"cannot be written .* set STANFLOW_CACHE_DIR"):
        native.compiled_library(PROGRAM, bridgestan_sources.find_sources())


def fake_makefile(sources, body):
    """A Makefile whose build of a model is a shell command; BridgeStan's own rules apply."""
    (sources / "Makefile").write_text(f"%_model.so: %.stan\n\t{body}\n")


def test_a_build_that_fails_leaves_nothing_to_reuse(sources, monkeypatch, tmp_path):
    monkeypatch.setenv("STANFLOW_CACHE_DIR", str(tmp_path / "cache"))
    fake_makefile(sources, "echo half > $@; echo the disk is full >&2; exit 1")
    with pytest.raises(EngineError, match=r"could not build .*the disk is full"):
        native.compiled_library(PROGRAM, bridgestan_sources.find_sources())
    assert list((tmp_path / "cache").rglob("*.so")) == []


def test_a_killed_build_leaves_nothing_to_reuse(sources, monkeypatch, tmp_path):
    cache = tmp_path / "cache"
    started = tmp_path / "started"
    fake_makefile(sources, f"echo half > $@; touch {started}; sleep 60")
    code = (
        "from stanflow.stan import bridgestan_sources, native; "
        "from stanflow.stan.program import StanProgram; "
        f"native.compiled_library(StanProgram.from_string({PROGRAM.code!r}), "
        "bridgestan_sources.find_sources())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "STANFLOW_CACHE_DIR": str(cache)},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not started.exists():
        assert process.poll() is None
    os.killpg(process.pid, 9)
    process.wait()
    assert list(cache.rglob("*.so")) == []

    monkeypatch.setenv("STANFLOW_CACHE_DIR", str(cache))
    fake_makefile(sources, "echo whole > $@")
    library = native.compiled_library(PROGRAM, bridgestan_sources.find_sources())
    assert library.read_text() == "whole\n"
    assert [file.name for file in cache.rglob("*.so")] == [library.name]


def test_builds_at_once_compile_once(sources, monkeypatch, tmp_path):
    monkeypatch.setenv("STANFLOW_CACHE_DIR", str(tmp_path / "cache"))
    log = tmp_path / "log"
    fake_makefile(sources, f"echo built >> {log}; sleep 0.3; echo whole > $@")
    toolchain = bridgestan_sources.find_sources()
    threads = [
        threading.Thread(target=native.compiled_library, args=(PROGRAM, toolchain))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.read_text() == "built\n"


def test_a_copy_that_breaks_off_leaves_nothing_to_reuse(sources, monkeypatch, tmp_path):
    monkeypatch.setenv("STANFLOW_CACHE_DIR", str(tmp_path / "cache"))
    fake_makefile(sources, "echo whole > $@")

    def half_a_copy(_, target):
        Path(target).write_text("ha")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.shutil, "copy2", half_a_copy)
    with pytest.raises(EngineError, match=r"cannot be written \(no space left"):
        native.compiled_library(PROGRAM, bridgestan_sources.find_sources())
    assert [f.suffix for f in (tmp_path / "cache" / "models").iterdir()] == [".lock"]


def test_the_build_that_downloads_the_stan_compiler_is_reused(sources, monkeypatch, tmp_path):
    monkeypatch.setenv("STANFLOW_CACHE_DIR", str(tmp_path / "cache"))
    log = tmp_path / "log"
    stanc = sources / "bin" / "stanc"
    fake_makefile(
        sources,
        f"echo built >> {log}; mkdir -p {stanc.parent}; echo 'echo stanc 2.38' > {stanc}; "
        f"sed -i '1i #!/bin/sh' {stanc}; chmod +x {stanc}; echo whole > $@",
    )
    first = native.compiled_library(PROGRAM, bridgestan_sources.find_sources())
    assert bridgestan_sources.find_sources().stanc_version == "stanc 2.38"
    assert native.compiled_library(PROGRAM, bridgestan_sources.find_sources()) == first
    assert log.read_text() == "built\n"


def test_it_is_downloaded_only_where_native_is_asked_for_and_nothing_else_is_there(
    monkeypatch, tmp_path
):
    monkeypatch.delenv("BRIDGESTAN", raising=False)
    monkeypatch.setattr(bridgestan_sources, "CURRENT_BRIDGESTAN", tmp_path / "nowhere")

    def download(**_):
        raise AssertionError("asked the network")

    monkeypatch.setattr(bridgestan_sources.bridgestan.compile, "get_bridgestan_path", download)
    monkeypatch.setattr(stan_wheel, "_folders", lambda: iter(()))
    assert decide("auto").name == "embedded"
    with pytest.raises(EngineError, match=r"doctor --install native.*asked the network"):
        decide("native")
