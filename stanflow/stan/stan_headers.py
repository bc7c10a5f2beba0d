"""Stan's own C++ from a pip install: its headers, its libraries and stanc, in the httpstan wheel.

The Stan compiler makes a C++ header of a program. It is compiled here, against Stan's headers, and
linked with what serves every program alike, since that needs to know of a program no more than
``stan::model::model_base``: BridgeStan's C interface and Stan's samplers, the C++ files in
native_cpp. These are compiled once, and so are Stan's headers, which cost a program two thirds of
its time otherwise.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import override

from stanflow.errors import EngineError, one_line
from stanflow.stan.cache import cache_folder, lock, mark_used, new_folder, prune, writing_to_cache
from stanflow.stan.program import StanProgram
from stanflow.stan.toolchain import (
    Toolchain,
    compiler,
    compiler_variables,
    first_line,
    require,
    scratch_folder,
)

INSTALL_COMPILER = (
    "install a C++17 compiler (`apt install g++`, `dnf install gcc-c++`, "
    "`xcode-select --install`), or name one by CXX"
)
_OWN_SOURCES = Path(__file__).with_name("native_cpp")
_OWN_OBJECTS = ("bridgestan_interface", "nuts")
_FLAGS = (
    "-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-ffunction-sections", "-w",
    "-DSTAN_THREADS", "-D_REENTRANT", "-DNDEBUG", "-DBOOST_DISABLE_ASSERTS",
    "-DBOOST_PHOENIX_NO_VARIADIC_EXPRESSION",
)  # fmt: skip
_HEADER = "stan.hpp"
_ROOM_FOR_PRECOMPILED = 3 * 2**30  # bytes; it takes 0.8 GB
_BETWEEN_LOOKS = 0.05  # seconds, at whether a compiler has ended
_MAC = sys.platform == "darwin"


@dataclass(frozen=True)
class StanHeaders(Toolchain):
    """Stan's headers, libraries and compiler in one folder.

    Attributes
    ----------
    folder, compiler_version
        As of every toolchain; in the folder are ``include``, ``lib`` and ``stanc``.
    stan_version : str
        Stan's.
    """

    stan_version: str

    @property
    @override
    def name(self) -> str:
        return f"Stan {self.stan_version}"

    @property
    @override
    def stanc(self) -> Path:
        return self.folder / "stanc"

    @override
    def ingredients(self) -> Mapping[str, str]:
        return {
            "folder": str(self.folder),  # where a library looks for TBB
            "stan": self.stan_version,
            "compiler": self.compiler_version,
            "flags": " ".join(_FLAGS),
            "sources": _own_sources_hash(),
            **compiler_variables(),
        }

    @override
    @contextlib.contextmanager
    def build(self, programs: Sequence[StanProgram]) -> Iterator[list[Path]]:
        """Compile programs in one run of the compiler, which then reads Stan's headers once."""
        with scratch_folder() as folder:
            parts = [self._translate(p, number, folder) for number, p in enumerate(programs)]
            source = folder / "programs.cpp"
            source.write_text("#define USING_R\n" + "".join(parts), encoding="utf-8")
            shared = self._shared()
            with _told(f"compiling {', '.join(p.label for p in programs)} with {self.name}, once"):
                command = [*self._compile(shared), "-c", source, "-o", folder / "programs.o"]
                _run([command], f"what stanc made of {programs[0].label}")
                yield [self._link(folder, shared, number) for number in range(len(programs))]

    def _translate(self, program: StanProgram, number: int, folder: Path) -> str:
        """Make a header of a program, and return the C++ that includes it."""
        name = program.name if number == 0 else f"{program.name}_{number}"
        source, header = folder / f"{number}.stan", folder / f"{number}.hpp"
        source.write_text(program.expanded, encoding="utf-8")
        self.run_stanc(program, f"--name={name}_model", f"--o={header}", source)
        return (
            f"#define stan_model stan_model_{number}\n"
            "#define profile unmeasured_profile\n"
            f'#include "{header.name}"\n'
            "#undef profile\n"
            "#undef stan_model\n"
            f'extern "C" stan::model::model_base* stanflow_new_model_{number}(\n'
            "    stan::io::var_context& data, unsigned int seed, std::ostream* output) {\n"
            f"  return new stan_model_{number}(data, seed, output);\n"
            "}\n"
        )

    def _link(self, folder: Path, shared: Path, number: int) -> Path:
        library, libraries = folder / f"{number}.so", self.folder / "lib"
        objects = [folder / "programs.o", *(shared / f"{name}.o" for name in _OWN_OBJECTS)]
        if _MAC:
            options = [
                f"-Wl,-alias,_stanflow_new_model_{number},_stanflow_new_model",
                "-Wl,-dead_strip",
            ]
        else:
            options = [
                f"-Wl,--defsym=stanflow_new_model=stanflow_new_model_{number}",
                "-Wl,--gc-sections",
                "-Wl,--exclude-libs,ALL",
            ]
        tbb: Path = next(libraries.glob("libtbb*.dylib" if _MAC else "libtbb.so.*"))
        command: list[str | Path] = [
            *compiler(), "-shared", *objects, *sorted(libraries.glob("*.a")), tbb, *options,
            f"-Wl,-rpath,{libraries}", "-o", library,
        ]  # fmt: skip
        _run([command], "a compiled Stan program")
        return library

    # ---- What all programs share ------------------------------------------------------------

    def _compile(self, shared: Path) -> list[str | Path]:
        """Return the command that compiles with the header, precompiled where it is."""
        own, precompiled = _OWN_SOURCES / _HEADER, self._precompiled(shared)
        if not precompiled.is_file():
            return [*self._compiler_and_flags(), "-include", own]
        if self._is_clang:
            return [*self._compiler_and_flags(), "-include-pch", precompiled]
        return [*self._compiler_and_flags(), "-include", precompiled.with_suffix("")]

    @property
    def _is_clang(self) -> bool:
        return "clang" in self.compiler_version

    def _precompiled(self, shared: Path) -> Path:
        return shared / f"{_HEADER}{'.pch' if self._is_clang else '.gch'}"

    def _compiler_and_flags(self) -> list[str | Path]:
        variables = compiler_variables()
        own = shlex.split(f"{variables['CPPFLAGS']} {variables['CXXFLAGS']}")
        return [*compiler(), *_FLAGS, "-isystem", self.folder / "include", *own]

    def _shared(self) -> Path:
        """Return the folder of what all programs share, from the cache or by compiling it now."""
        key = hashlib.sha256(json.dumps(dict(self.ingredients()), sort_keys=True).encode())
        folder = cache_folder() / "native" / key.hexdigest()[:24]
        with writing_to_cache(), lock(folder):
            if not folder.is_dir():
                with new_folder(folder) as arriving:
                    self._compile_shared(arriving)
                prune(folder.parent)
            mark_used(folder)
        return folder

    def _compile_shared(self, folder: Path) -> None:
        with _told(f"compiling what all programs share of {self.name}, once (1 to 3 minutes)"):
            if shutil.disk_usage(folder).free > _ROOM_FOR_PRECOMPILED:
                # Clang refuses headers that are younger than it has noted.
                timeless = ["-Xclang", "-fno-pch-timestamp"] if self._is_clang else []
                command = [*self._compiler_and_flags(), *timeless, "-x", "c++-header"]
                precompile = [*command, _OWN_SOURCES / _HEADER, "-o", self._precompiled(folder)]
                _run([precompile], "Stan's headers")
            objects: list[list[str | Path]] = [
                [
                    *self._compile(folder), "-c",
                    _OWN_SOURCES / f"{name}.cpp", "-o", folder / f"{name}.o",
                ]
                for name in _OWN_OBJECTS
            ]  # fmt: skip
            _run(objects, "StanFlow's interface to Stan")


def headers_in(folder: Path) -> StanHeaders:
    """Return the toolchain over Stan's headers in a folder.

    Raises
    ------
    EngineError
        There are none, or no C++ compiler.
    """
    version = stan_version_in(folder)
    if version is None:
        raise EngineError(f"Stan's headers are not in {folder}")
    command = compiler()
    require(" ".join(command), f"Stan's C++ needs one: {INSTALL_COMPILER}")
    return StanHeaders(folder, first_line(*command, "--version") or " ".join(command), version)


@functools.cache
def stan_version_in(folder: Path) -> str | None:
    """Return the version of Stan's headers in a folder, None where something is missing."""
    header = folder / "include" / "stan" / "version.hpp"
    if not header.is_file() or not (folder / "stanc").is_file():
        return None
    numbers = re.findall(r"STAN_(?:MAJOR|MINOR|PATCH)\s+(\d+)", header.read_text())
    return ".".join(numbers[:3]) if len(numbers) >= 3 else None


@functools.cache
def _own_sources_hash() -> str:
    sources = sorted(_OWN_SOURCES.glob("*.[ch]pp"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


# ---- Running the compiler -----------------------------------------------------------------------


def _run(commands: Sequence[Sequence[str | Path]], what: str) -> None:
    """Run commands side by side; end them all where one fails, or on an interrupt."""
    processes: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryFile() as output:
        try:
            for command in commands:
                processes.append(
                    subprocess.Popen(
                        [str(part) for part in command],
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=output,
                    )
                )
            failed = _one_fails(processes)
        except OSError as error:
            raise EngineError(f"{commands[0][0]} cannot be run: {error.strerror}") from None
        finally:
            for process in processes:
                if process.poll() is None:
                    _kill_with_children(process.pid)
                    process.wait()
        if not failed:
            return
        output.seek(0)
        said = output.read().decode("utf-8", "replace")
    memory = "; it may have run out of memory, of which it needs 2 GB" if "Killed" in said else ""
    problem = next((line for line in said.splitlines() if "error:" in line), said[-200:])
    raise EngineError(
        f"the C++ compiler could not compile {what}: {one_line(problem)[-300:]}{memory}", said
    )


def _one_fails(processes: Sequence[subprocess.Popen[bytes]]) -> bool:
    """Wait until one has failed or all have ended well."""
    while True:
        statuses = [process.poll() for process in processes]
        if any(statuses) or None not in statuses:
            return any(statuses)
        time.sleep(_BETWEEN_LOOKS)


def _kill_with_children(pid: int) -> None:
    """Kill a process and what it has started: g++ leaves its compiler proper running."""
    children = ""
    with contextlib.suppress(OSError):  # it has just ended, or the system has no such file
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    for child in children.split():
        _kill_with_children(int(child))
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Say on standard error what is done, and how long it took; on a terminal, that it goes on."""
    began = time.perf_counter()
    if sys.stderr.isatty():
        from rich.console import Console

        with Console(stderr=True).status(what):
            yield
    else:
        print(what, file=sys.stderr, flush=True)
        yield
    print(f"{what.rpartition(', once')[0]}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
