"""The embedded engine's compiler where torch has come first on a processor with AMX."""

import subprocess
import sys
from pathlib import Path

import pytest

from stanflow.stan import stanc

CODE = "parameters { real x; } model { x ~ normal(0, 1); }"
HAS_AMX = "amx_tile" in Path("/proc/cpuinfo").read_text() if sys.platform == "linux" else False
AFTER_AMX = """
import ctypes
failed = ctypes.CDLL(None).syscall(158, ctypes.c_long(0x1023), ctypes.c_long(18))
assert not failed
import stanflow
for code in {codes!r}:
    try:
        print(stanflow.StanModel(stan_code=code, engine="embedded").dim)
    except stanflow.StanFlowError as error:
        print(error)
"""


@pytest.mark.skipif(not HAS_AMX, reason="the processor has no AMX")
def test_a_model_opens_in_a_process_that_may_use_amx():
    """Torch asks for the same permission; the compiler's runtime would abort the process."""
    codes = [CODE, "parameters { real x } model { }", CODE.replace("x", "y")]
    script = AFTER_AMX.format(codes=codes)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    first, refused, second = done.stdout.splitlines()
    assert (first, second) == ("1", "1")
    assert "line 1" in refused


def test_another_process_compiles_the_same():
    assert stanc._compiled_elsewhere(CODE) == stanc.to_mir(CODE)


def test_another_process_says_what_is_wrong():
    with pytest.raises(RuntimeError) as here:
        stanc.to_mir("parameters { real é; } model { x ~ }")
    with pytest.raises(RuntimeError) as elsewhere:
        stanc._compiled_elsewhere("parameters { real é; } model { x ~ }")
    assert str(elsewhere.value) == str(here.value)
