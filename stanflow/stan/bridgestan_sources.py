"""BridgeStan's own build of a program, where its sources are installed."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

import bridgestan
from bridgestan.download import CURRENT_BRIDGESTAN
from typing_extensions import override

from stanflow.errors import EngineError, StanFlowError
from stanflow.stan.compiler_messages import compiler_error
from stanflow.stan.program import StanProgram
from stanflow.stan.toolchain import (
    Toolchain,
    compiler,
    compiler_variables,
    first_line,
    require,
    scratch_folder,
)

MAKE_ARGS = ("STAN_THREADS=true",)
_PACKAGE_VERSION = version("bridgestan")
_NOT_DOWNLOADED = "not downloaded"


@dataclass(frozen=True)
class BridgeStanSources(Toolchain):
    """BridgeStan's sources and what compiles them.

    Attributes
    ----------
    folder, compiler_version
        As of every toolchain.
    bridgestan_version, stanc_version : str
        What each says of itself; the Stan compiler's is "not downloaded" before the first build.
    """

    bridgestan_version: str
    stanc_version: str

    @property
    @override
    def name(self) -> str:
        return f"BridgeStan {self.bridgestan_version}"

    @override
    def ingredients(self) -> Mapping[str, str]:
        local = self.folder / "make" / "local"
        return {
            "make_args": " ".join(MAKE_ARGS),
            "make_local": local.read_text() if local.is_file() else "",
            **compiler_variables(),
            "folder": str(self.folder),  # where a library looks for TBB
            "bridgestan": self.bridgestan_version,
            "stanc": self.stanc_version,
            "compiler": self.compiler_version,
        }

    @property
    @override
    def stanc(self) -> Path:
        return self.folder / "bin" / "stanc"

    @override
    @contextlib.contextmanager
    def build(self, programs: Sequence[StanProgram]) -> Iterator[list[Path]]:
        for program in programs:
            print(
                f"compiling {program.label} with BridgeStan, once (about a minute)", file=sys.stderr
            )
        with scratch_folder() as folder:
            yield [_build(program, folder / str(number)) for number, program in enumerate(programs)]

    @override
    def as_it_is_now(self) -> BridgeStanSources:
        return find_sources() if self.stanc_version == _NOT_DOWNLOADED else self


def find_sources(*, download: bool = False) -> BridgeStanSources:
    """Find BridgeStan's sources.

    They are looked for where the environment variable BRIDGESTAN says, or where the bridgestan
    package keeps its download.

    Parameters
    ----------
    download : bool
        Let the bridgestan package download the sources where they are missing and BRIDGESTAN is
        not set.

    Raises
    ------
    EngineError
        Something is missing, or two versions do not go together; the message names it.
    """
    folder = _sources_folder(download=download)
    sources = _sources_version(folder)
    if sources is not None and _numbers(sources) < _numbers(_PACKAGE_VERSION):
        raise EngineError(
            f"BridgeStan's sources in {folder} are version {sources}, but the bridgestan Python "
            f"package is {_PACKAGE_VERSION} and needs a library as new as itself; update the "
            f"sources, or install bridgestan=={sources}"
        )
    for tool in (os.environ.get("MAKE") or "make", " ".join(compiler())):
        require(tool, "BridgeStan needs make and a C++17 compiler")
    return BridgeStanSources(
        folder=folder,
        bridgestan_version=sources or "unknown",
        stanc_version=first_line(str(folder / "bin" / "stanc"), "--version") or _NOT_DOWNLOADED,
        compiler_version=first_line(*compiler(), "--version") or " ".join(compiler()),
    )


def _sources_folder(*, download: bool) -> Path:
    configured = os.environ.get("BRIDGESTAN")
    folder = Path(configured) if configured else CURRENT_BRIDGESTAN
    if (folder / "Makefile").is_file():
        return folder
    if configured:
        raise EngineError(
            f"the environment variable BRIDGESTAN names {folder}, which does not hold "
            "BridgeStan's sources"
        )
    if not download:
        raise EngineError(f"BridgeStan's sources are not in {folder}")
    print("downloading BridgeStan's sources, once", file=sys.stderr)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            bridgestan.compile.get_bridgestan_path(download=True)
    except Exception as error:
        raise EngineError(
            "BridgeStan's sources could not be downloaded; set BRIDGESTAN to a folder that has "
            f"them, or use --engine embedded ({error})"
        ) from None
    return folder


def _build(program: StanProgram, folder: Path) -> Path:
    folder.mkdir()
    source = folder / f"{program.name}.stan"
    source.write_text(program.expanded, encoding="utf-8")
    try:
        return Path(bridgestan.compile_model(source, make_args=list(MAKE_ARGS)))
    except RuntimeError as error:
        raise _build_error(program, str(error)) from None


def _build_error(program: StanProgram, message: str) -> StanFlowError:
    return compiler_error(program, message) or EngineError(
        f"BridgeStan could not build {program.label}; the end of its output: "
        f"{' '.join(message.split())[-200:]}",
        message,
    )


@cache
def _sources_version(folder: Path) -> str | None:
    header = folder / "src" / "version.hpp"
    if not header.is_file():
        return None
    numbers = re.findall(r"BRIDGESTAN_(?:MAJOR|MINOR|PATCH)\s+(\d+)", header.read_text())
    return ".".join(numbers[:3]) if len(numbers) >= 3 else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
