"""The Stan compiler that comes with the embedded engine.

It is an OCaml program inside this process, and its runtime starts with the first program compiled.
It then asks for a signal stack of a fixed size, which Linux refuses to a process that may use AMX,
whose registers would not fit; and without one the runtime aborts the process. Torch asks for AMX
when it first multiplies matrices on a processor that has it. Where that came first, another process
compiles.
"""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
import threading

import stanli

_ARCH_PRCTL, _ARCH_GET_XCOMP_PERM, _XTILE_DATA = 158, 0x1022, 18  # asm/prctl.h, asm/fpu/types.h
_COMPILE = """
import sys
import stanli
try:
    mir = stanli.stan_to_mir(sys.stdin.buffer.read().decode())
except RuntimeError as error:
    sys.stderr.buffer.write(str(error).encode())
    sys.exit(1)
sys.stdout.buffer.write(mir.encode())
"""

_has_started = threading.Event()


def to_mir(code: str) -> str:
    """Return what the compiler makes of a program, for the engine.

    Raises
    ------
    RuntimeError
        It refused the program, or the engine lacks something.

    Examples
    --------
    >>> len(to_mir("parameters { real x; } model { x ~ std_normal(); }")) > 100
    True
    """
    if not _has_started.is_set() and _may_use_amx():
        return _compiled_elsewhere(code)
    _has_started.set()
    return str(stanli.stan_to_mir(code))


def _may_use_amx() -> bool:
    """Return whether the process was granted the registers that AMX needs."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    granted = ctypes.c_uint64()
    failed = ctypes.CDLL(None).syscall(
        ctypes.c_long(_ARCH_PRCTL), ctypes.c_long(_ARCH_GET_XCOMP_PERM), ctypes.byref(granted)
    )
    return not failed and bool(granted.value >> _XTILE_DATA & 1)


def _compiled_elsewhere(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _COMPILE], input=code.encode(), capture_output=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr.decode())
    return done.stdout.decode()
