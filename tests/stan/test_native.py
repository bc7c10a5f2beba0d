"""Libraries of the native engine, whichever toolchain makes them."""

import numpy as np
import pytest

from stanflow.stan import native
from stanflow.stan.data import StanData
from stanflow.stan.model import StanModel
from stanflow.stan.program import StanProgram

PROGRAM = StanProgram.from_string("parameters { real x; } model { x ~ normal(0, 1); }")


@pytest.mark.parametrize(("flag", "safe"), [("true", True), ("false", False)])
def test_a_library_built_without_threads_is_used_by_one(toolchain, monkeypatch, flag, safe):
    info = f"Stan version: 2.38.0\nStan C++ Defines:\n\tSTAN_THREADS={flag}\n"
    library = native.compiled_library(PROGRAM, toolchain)
    monkeypatch.setattr(native.bridgestan.StanModel, "model_info", lambda _: info)
    loaded = native.open_library(library, PROGRAM, StanData("{}"))
    assert loaded.thread_safe is safe
    assert loaded.engine_version.endswith("Stan 2.38.0")


def test_a_program_is_compiled_once(toolchain, capsys):
    program = StanProgram.from_string(PROGRAM.code)
    library = native.compiled_library(program, toolchain)
    capsys.readouterr()
    before = library.stat().st_ino
    assert native.compiled_library(program, toolchain) == library
    assert library.stat().st_ino == before
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_programs_in_folders_with_spaces_compile(toolchain, tmp_path):
    folder = tmp_path / "my models, old"
    folder.mkdir()
    (folder / "part.stan").write_text("parameters { real x; }")
    (folder / "a model.stan").write_text("#include part.stan\nmodel { x ~ normal(0, 1); }")
    model = StanModel(folder / "a model.stan", engine="native")
    np.testing.assert_allclose(model.log_density_gradient([[2.0]]).log_density, [-2.0])
