"""Programs compiled by CmdStan: by the one installed here, or given as an executable."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

from stanflow.errors import EngineError, one_line, reason
from stanflow.stan.cache import keep_file, mark_used, models_folder, writing_to_cache
from stanflow.stan.compiler_messages import compiler_error
from stanflow.stan.program import StanProgram

_INSTALL_PACKAGE = "pip install 'stanflow[cmdstan]'"
_NEEDED_TO_COMPILE = ("bin/stanc", "src/cmdstan/main.cpp")


@dataclass(frozen=True)
class Executable:
    """A program that CmdStan has compiled.

    Attributes
    ----------
    path : pathlib.Path
        The executable.
    version : str
        CmdStan's, as the executable tells it.
    of_the_program : bool
        Whether it is known to be the program: it was compiled here from it.
    """

    path: Path
    version: str
    of_the_program: bool = False


def find_installation() -> Path:
    """Return the folder of the CmdStan installation that cmdstanpy finds.

    Raises
    ------
    EngineError
        cmdstanpy is not installed, or finds no CmdStan that can compile programs.
    """
    try:
        import cmdstanpy

        folder = Path(cmdstanpy.cmdstan_path())
    except ImportError:
        raise EngineError(
            f"CmdStan is found by the package cmdstanpy, which is not installed; {_INSTALL_PACKAGE}"
        ) from None
    except ValueError as error:
        raise EngineError(
            "cmdstanpy finds no CmdStan installation; install one by "
            "`python -m cmdstanpy.install_cmdstan`, name one by the environment variable CMDSTAN, "
            "or give an executable that CmdStan has compiled (--exe, exe= in Python)",
            str(error),
        ) from None
    missing = [part for part in _NEEDED_TO_COMPILE if not (folder / part).is_file()]
    if missing:
        raise EngineError(
            f"what cmdstanpy finds in {folder} is no whole CmdStan ({missing[0]} is missing), so "
            "it cannot compile programs; install one by `python -m cmdstanpy.install_cmdstan`, or "
            "name another by the environment variable CMDSTAN"
        )
    return folder


def open_executable(exe: str | PathLike[str]) -> Executable:
    """Check that a file is an executable that CmdStan has compiled, and ask for its version.

    Raises
    ------
    EngineError
        It is missing, not executable, or not CmdStan's.
    """
    path = Path(exe).expanduser().resolve()
    if not path.is_file():
        raise EngineError(f"there is no executable at {os.fspath(exe)}")
    if not os.access(path, os.X_OK):
        raise EngineError(f"{path} is not executable; `chmod +x` makes it so")
    try:
        told = subprocess.run(
            [path, "info"],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=30,
            check=False,
        ).stdout
    except OSError as error:
        raise EngineError(f"{path} cannot be run: {reason(error)}") from None
    except subprocess.TimeoutExpired:
        told = ""
    numbers = re.findall(r"^stan_version_(?:major|minor|patch) = (\d+)$", told, re.MULTILINE)
    if len(numbers) != 3:
        raise EngineError(
            f"{path} does not answer as an executable of CmdStan 2.27 or newer does; give one that "
            "CmdStan has compiled from the program"
        )
    return Executable(path, "CmdStan " + ".".join(numbers))


def compile_program(program: StanProgram) -> Executable:
    """Compile a program with the installed CmdStan, unless that was done before.

    Executables are kept beside the native engine's compiled models, by the program's source and the
    CmdStan that compiled it.

    Raises
    ------
    ProgramError
        The Stan compiler refused the program.
    EngineError
        There is no CmdStan, the build failed otherwise, or the cache cannot be written.
    """
    installation = find_installation()
    kept = models_folder() / f"{program.name}-{_cache_key(program, installation)}-cmdstan"
    if not kept.is_file():
        print(f"compiling {program.label} with CmdStan, once (about a minute)", file=sys.stderr)
        with tempfile.TemporaryDirectory(prefix="stanflow-cmdstan-") as scratch:
            built = _build(program, Path(scratch))
            with writing_to_cache():
                keep_file(built, kept)
    mark_used(kept)
    return replace(open_executable(kept), of_the_program=True)


# ---- Compiling --------------------------------------------------------------------------------


def _cache_key(program: StanProgram, installation: Path) -> str:
    files = ("makefile", "make/local")  # CmdStan's version, and what the user has set
    ingredients = {
        "program": program.hash,
        "installation": str(installation),
        **{f: (installation / f).read_text() for f in files if (installation / f).is_file()},
        **{name: os.environ.get(name, "") for name in ("CXX", "CXXFLAGS", "CPPFLAGS")},
    }
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()[:24]


def _build(program: StanProgram, folder: Path) -> Path:
    import cmdstanpy

    source = folder / f"{program.name}.stan"
    source.write_bytes(program.expanded.encode())
    try:
        with cmdstanpy.disable_logging():
            model = cmdstanpy.CmdStanModel(stan_file=str(source))
    except (ValueError, RuntimeError) as error:
        said = str(error)
        raise compiler_error(program, said) or EngineError(
            f"CmdStan could not build {program.label}; the end of its output: "
            f"{one_line(said)[-200:]}",
            said,
        ) from None
    return Path(str(model.exe_file))
