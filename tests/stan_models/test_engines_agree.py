"""Every program of the zoo in both engines."""

import pytest

import stanflow
from stanflow.stan import judge, native
from stanflow.stan.program import StanProgram
from tests.conftest import ZOO

PROGRAMS = sorted(ZOO.glob("*/*.stan"))


def smallest_data(program):
    return min(program.parent.glob("*.json"), key=lambda file: file.stat().st_size)


@pytest.mark.slow
def test_both_engines_agree_on_every_program(toolchain):
    native.compiled_libraries([StanProgram.from_file(file) for file in PROGRAMS], toolchain)
    found = {}
    for file in PROGRAMS:
        model = stanflow.StanModel(file, smallest_data(file), engine="embedded")
        found[file.stem] = judge.compare(model, model.in_engine("native"))
    assert len(found) > 15
    assert {name: each.differs for name, each in found.items() if not each.agrees} == {}
