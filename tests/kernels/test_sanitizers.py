"""The compiled loops under the compiler's sanitizers, in a Python that knows nothing of them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import stanflow.kernels

SOURCES = sorted(Path(stanflow.kernels.__file__).parent.glob("*.c"))
EXERCISE = Path(__file__).with_name("exercise.py")


def exercise(folder, runtime, *flags, **options):
    """Build the loops with a sanitizer, and have them work with its runtime loaded first."""
    asked = ["gcc", f"-print-file-name={runtime}"]
    found = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    if not Path(found).is_absolute():
        pytest.skip(f"gcc has no {runtime} here")
    library = folder / "kernels.so"
    build = [
        "gcc", "-shared", "-fPIC", "-O0", "-std=c11", "-ffp-contract=fast", "-fno-math-errno",
        "-Wno-psabi", "-pthread", *flags, *SOURCES, "-lm", "-o", library,
    ]  # fmt: skip
    subprocess.run(build, check=True)
    done = subprocess.run(
        [sys.executable, EXERCISE, library],
        env=os.environ | {"LD_PRELOAD": found} | options,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    assert done.stdout.splitlines()[-1] == "done"
    assert "Sanitizer" not in done.stderr + done.stdout, done.stderr[-5000:]


@pytest.mark.slow
def test_the_address_and_undefined_behaviour_sanitizers(tmp_path):
    flags = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
    exercise(tmp_path, "libasan.so", *flags, ASAN_OPTIONS="detect_leaks=0")


@pytest.mark.slow
def test_the_thread_sanitizer(tmp_path):
    """Locks and matrix products of others, which it does not see into, are left out."""
    exercise(
        tmp_path, "libtsan.so", "-fsanitize=thread",
        TSAN_OPTIONS="detect_deadlocks=0", OPENBLAS_NUM_THREADS="1",
    )  # fmt: skip
