"""Where Stan's C++ of a pip install is found, and how it is fetched."""

import subprocess
import sys

import pytest

from stanflow.errors import EngineError
from stanflow.stan import stan_headers, stan_wheel


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STANFLOW_CACHE_DIR", str(tmp_path / "cache"))
    stan_headers.stan_version_in.cache_clear()
    return tmp_path / "cache"


def fake_headers(folder, version="2.41.0"):
    parts = zip(("MAJOR", "MINOR", "PATCH"), version.split("."), strict=True)
    (folder / "include" / "stan").mkdir(parents=True)
    text = "".join(f"#define STAN_{part} {number}\n" for part, number in parts)
    (folder / "include" / "stan" / "version.hpp").write_text(text)
    (folder / "stanc").write_text("")
    return folder


def test_the_newest_is_taken(cache, monkeypatch, tmp_path):
    folders = [
        fake_headers(tmp_path / version, version) for version in ("2.9.0", "2.41.0", "2.5.0")
    ]
    monkeypatch.setattr(stan_wheel, "_folders", lambda: iter([*folders, tmp_path / "none"]))
    assert stan_wheel.find_headers().stan_version == "2.41.0"


def test_where_there_is_none_the_command_that_brings_it_is_told(monkeypatch):
    monkeypatch.setattr(stan_wheel, "_folders", lambda: iter(()))
    with pytest.raises(EngineError, match=r"not installed; `stanflow doctor --install native` br"):
        stan_wheel.find_headers()


def test_the_package_is_found_without_being_imported(cache):
    pytest.importorskip("httpstan", reason="the extra `native` is not installed")
    code = "import sys; from stanflow.stan.stan_wheel import _folders; print(*_folders(), "
    code += "'httpstan.models' in sys.modules, sep='\\n')"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    fetched, package, imported = told.stdout.split()
    assert fetched.startswith(str(cache))
    assert package.endswith("httpstan")
    assert imported == "False"


def test_what_has_another_hash_is_refused(cache, monkeypatch):
    monkeypatch.setattr(stan_wheel, "_SHA256", ("0" * 64,))
    with pytest.raises(EngineError, match=r"pip could not fetch httpstan") as caught:
        stan_wheel.install()
    if "HASHES" not in caught.value.detail.upper():
        pytest.skip(f"no package index: {caught.value}")
    assert "\n" not in str(caught.value)
    assert not any(path.is_dir() for path in (cache / "stan").iterdir())


def test_a_machine_without_pip_is_told_what_brings_it(cache, monkeypatch, tmp_path):
    (tmp_path / "python").write_text("#!/bin/sh\necho 'python: No module named pip' >&2; exit 1")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(stan_wheel.sys, "executable", str(tmp_path / "python"))
    with pytest.raises(EngineError, match="`python -m ensurepip` brings it"):
        stan_wheel.install()


@pytest.mark.slow
def test_it_is_fetched_once_and_again_where_damaged(cache, capsys):
    try:
        headers = stan_wheel.install()
    except EngineError as error:
        pytest.skip(str(error))
    assert headers.stan_version == "2.39.0"
    assert stan_wheel.find_headers() == headers
    told = subprocess.run(
        [headers.folder / "stanc", "--version"], capture_output=True, text=True, check=True
    )
    assert "2.39.0" in told.stdout
    assert "fetching" in capsys.readouterr().err
    assert stan_wheel.install() == headers
    assert "fetching" not in capsys.readouterr().err
    (headers.folder / "stanc").unlink()
    stan_headers.stan_version_in.cache_clear()
    assert stan_wheel.install() == headers
    assert (headers.folder / "stanc").is_file()
