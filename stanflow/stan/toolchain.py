"""What compiles Stan programs to libraries with BridgeStan's interface."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from stanflow.errors import EngineError, one_line, reason
from stanflow.stan.compiler_messages import compiler_error
from stanflow.stan.program import StanProgram


@dataclass(frozen=True)
class Toolchain(ABC):
    """Stan's compiler, its C++ sources, and a C++ compiler.

    Attributes
    ----------
    folder : pathlib.Path
        Where the sources are.
    compiler_version : str
        What the C++ compiler says of itself.
    """

    folder: Path
    compiler_version: str

    @property
    @abstractmethod
    def name(self) -> str:
        """What it is, with its version: ``BridgeStan 2.9.0``, ``Stan 2.39.0``."""

    @property
    @abstractmethod
    def stanc(self) -> Path:
        """The Stan compiler."""

    @abstractmethod
    def ingredients(self) -> Mapping[str, str]:
        """Return what a compiled library depends on besides the program."""

    @abstractmethod
    def build(self, programs: Sequence[StanProgram]) -> AbstractContextManager[list[Path]]:
        """Compile programs, and give their libraries, which are gone when the block ends.

        Raises
        ------
        ProgramError
            The Stan compiler refused a program.
        EngineError
            The build failed otherwise.
        """

    def check(self, program: StanProgram) -> None:
        """Have the Stan compiler look at a program, where it is there already.

        Raises
        ------
        ProgramError
            It refuses the program.
        """
        if self.stanc.is_file():
            with scratch_folder() as folder:
                source = folder / "program.stan"
                source.write_text(program.expanded, encoding="utf-8")
                self.run_stanc(program, f"--o={folder / 'program.hpp'}", source)

    def run_stanc(self, program: StanProgram, *arguments: str | Path) -> None:
        """Run the Stan compiler.

        Raises
        ------
        ProgramError
            It refuses the program.
        EngineError
            It cannot be run, or fails otherwise.
        """
        command = [self.stanc, f"--filename-in-msg={program.label}", *arguments]
        try:
            said = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise EngineError(f"{self.stanc} cannot be run: {reason(error)}") from None
        if said.returncode != 0:
            raise compiler_error(program, said.stderr) or EngineError(
                f"stanc of {self.name} could not compile {program.label}: "
                f"{one_line(said.stderr)[-200:]}",
                said.stderr,
            )

    def as_it_is_now(self) -> Toolchain:
        """Return the toolchain after a build, which may have completed it."""
        return self


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Give a folder to compile in, which is gone when the block ends.

    Raises
    ------
    EngineError
        The operating system refuses something in it.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="stanflow-") as folder:
            yield Path(folder)
    except OSError as error:
        raise EngineError(
            f"programs cannot be compiled in the folder of temporary files ({reason(error)}); set "
            "TMPDIR to one with room"
        ) from None


def compiler() -> list[str]:
    """Return the C++ compiler's command: CXX, or g++."""
    return (os.environ.get("CXX") or "g++").split()


def compiler_variables() -> dict[str, str]:
    """Return the environment variables that change what the compiler makes."""
    return {name: os.environ.get(name, "") for name in ("CXX", "CXXFLAGS", "CPPFLAGS")}


def require(tool: str, needed_for: str) -> None:
    """Raise EngineError where a command is not on the PATH.

    Parameters
    ----------
    tool : str
        The command, as ``make`` or ``ccache g++``.
    needed_for : str
        Ends the sentence "TOOL is not on the PATH; ...".
    """
    if shutil.which(tool.split(maxsplit=1)[0]) is None:
        raise EngineError(f"{tool} is not on the PATH; {needed_for}")


def first_line(*command: str) -> str:
    """Return the first line that a command prints; nothing where it cannot be run."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return ""
    return (result.stdout.splitlines() or [""])[0]
