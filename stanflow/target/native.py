"""The native engine: BridgeStan's own build of a program, compiled once and kept.

A compiled library is found again by everything that went into it: the program with its includes,
the flags, and the versions of BridgeStan, of the Stan compiler and of the C++ compiler. It enters
the cache by a rename, after the build has succeeded, so an interrupted build leaves nothing that
could be taken for a library.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

import bridgestan
import platformdirs
from bridgestan.download import CURRENT_BRIDGESTAN
from filelock import FileLock

from stanflow.errors import DataError, EngineError, StanFlowError, one_line
from stanflow.target.compiler_messages import compiler_error
from stanflow.target.data import StanData
from stanflow.target.loaded import FloatArray, LoadedModel
from stanflow.target.printing import print_to_stderr
from stanflow.target.program import StanProgram

MAKE_ARGS = ("STAN_THREADS=true",)
_NEEDED_SYMBOLS = ("bs_model_construct", "bs_param_initialize", "bs_log_density_gradient")
_PACKAGE_VERSION = version("bridgestan")
_NOT_DOWNLOADED = "not downloaded"


@dataclass(frozen=True)
class Toolchain:
    """BridgeStan's sources and what compiles them.

    Attributes
    ----------
    folder : pathlib.Path
        BridgeStan's sources.
    bridgestan_version, stanc_version, compiler_version : str
        What each says of itself; the Stan compiler's is "not downloaded" before the first build.
    """

    folder: Path
    bridgestan_version: str
    stanc_version: str
    compiler_version: str


def cache_folder() -> Path:
    """Return the folder of compiled models: STANFLOW_CACHE_DIR, or one in the user's cache."""
    base = os.environ.get("STANFLOW_CACHE_DIR") or platformdirs.user_cache_dir("stanflow")
    return Path(base) / "models"


def find_toolchain(*, download: bool = False) -> Toolchain:
    """Find the installed toolchain.

    BridgeStan's sources are looked for where the environment variable BRIDGESTAN says, or where
    the bridgestan package keeps its download.

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
    compiler = os.environ.get("CXX") or "g++"
    for tool in (os.environ.get("MAKE") or "make", compiler):
        if shutil.which(tool.split()[0]) is None:
            raise EngineError(
                f"{tool} is not on the PATH; BridgeStan needs make and a C++17 compiler"
            )
    return Toolchain(
        folder=folder,
        bridgestan_version=sources or "unknown",
        stanc_version=_first_line(str(folder / "bin" / "stanc"), "--version") or _NOT_DOWNLOADED,
        compiler_version=_first_line(*compiler.split(), "--version") or compiler,
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


def load(program: StanProgram, data: StanData, seed: int, toolchain: Toolchain) -> LoadedModel:
    """Compile a program with BridgeStan, unless that was done before, and condition it on data.

    Parameters
    ----------
    program, data
        The program and its data.
    seed : int
        For random numbers in the transformed data block.
    toolchain : Toolchain
        From `find_toolchain`.

    Raises
    ------
    ProgramError
        The Stan compiler refused the program.
    DataError
        The data violate a constraint, or the transformed data block threw.
    EngineError
        The build failed otherwise.
    """
    _ = program.expanded  # a missing include is reported by name and line
    return open_library(compiled_library(program, toolchain), program, data, seed)


def compiled_library(program: StanProgram, toolchain: Toolchain) -> Path:
    """Return the program's compiled library, from the cache or by compiling it now."""
    library = _cached(program, toolchain)
    if library.is_file():
        return library
    folder = library.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{library.stem}.lock"):
            if library.is_file():
                return library
            with _built(program) as built:
                if toolchain.stanc_version == _NOT_DOWNLOADED:  # the build has downloaded it
                    library = _cached(program, find_toolchain())
                arriving = library.with_suffix(f".arriving-{os.getpid()}")
                try:
                    shutil.copy2(built, arriving)
                    arriving.replace(library)
                finally:
                    arriving.unlink(missing_ok=True)
    except OSError as error:
        raise EngineError(
            f"the cache folder {folder} cannot be written ({error.strerror}); set "
            "STANFLOW_CACHE_DIR to one that can"
        ) from None
    return library


def _cached(program: StanProgram, toolchain: Toolchain) -> Path:
    return cache_folder() / f"{program.name}-{_cache_key(program, toolchain)}.so"


def open_library(library: Path, program: StanProgram, data: StanData, seed: int = 0) -> LoadedModel:
    """Condition a compiled library on data.

    Raises
    ------
    EngineError
        The library is not a BridgeStan model, or of a version that the Python package cannot use.
    DataError
        The data violate a constraint, or the transformed data block threw.
    """
    handle = _open_checked(library)
    printing = print_to_stderr(handle)
    try:
        with warnings.catch_warnings():
            # Versions were compared above; a later minor version of the library is fine.
            warnings.simplefilter("ignore", RuntimeWarning)
            stan_model = bridgestan.StanModel(
                library, data.json, seed=seed, capture_stan_prints=False, warn=False
            )
    except RuntimeError as error:
        problem = one_line(error)
        raise DataError(f"{program.label} refuses the data: {problem}", str(error)) from None
    info = stan_model.model_info()
    stan_version = re.search(r"^Stan version: (\S+)", info, re.MULTILINE)

    def log_density_with_constants(z: FloatArray) -> float:
        with printing.muted():
            return float(stan_model.log_density(z, propto=False))

    return LoadedModel(
        stan_model=stan_model,
        engine="bridgestan",
        engine_version="BridgeStan {}.{}.{}".format(*stan_model.model_version())
        + (f", Stan {stan_version[1]}" if stan_version else ""),
        thread_safe="STAN_THREADS=true" in info,
        printing=printing,
        log_density_with_constants=log_density_with_constants,
    )


# ---- Building ---------------------------------------------------------------------------------


def _cache_key(program: StanProgram, toolchain: Toolchain) -> str:
    local = toolchain.folder / "make" / "local"
    ingredients = {
        "program": program.hash,
        "make_args": MAKE_ARGS,
        "make_local": local.read_text() if local.is_file() else "",
        "flags": {name: os.environ.get(name, "") for name in ("CXX", "CXXFLAGS", "CPPFLAGS")},
        "folder": str(toolchain.folder),  # where a library looks for TBB
        "bridgestan": toolchain.bridgestan_version,
        "stanc": toolchain.stanc_version,
        "compiler": toolchain.compiler_version,
    }
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()[:24]


@contextlib.contextmanager
def _built(program: StanProgram) -> Iterator[Path]:
    """Compile a program in a folder of its own, gone when the block ends; give the library."""
    print(f"compiling {program.label} with BridgeStan, once (about a minute)", file=sys.stderr)
    # make cannot handle spaces, which a user's own folders may have.
    with tempfile.TemporaryDirectory(prefix="stanflow-") as scratch:
        source = Path(scratch) / f"{program.name}.stan"
        source.write_text(program.code, encoding="utf-8")
        folders = []
        for i, folder in enumerate(program.search_path):
            link = Path(scratch) / f"include{i}"
            link.symlink_to(folder, target_is_directory=True)
            folders.append(str(link))
        try:
            built = bridgestan.compile_model(
                source,
                stanc_args=[f"--include-paths={','.join(folders)}"],
                make_args=list(MAKE_ARGS),
            )
        except RuntimeError as error:
            raise _build_error(program, str(error)) from None
        yield built


def _build_error(program: StanProgram, message: str) -> StanFlowError:
    return compiler_error(program, message) or EngineError(
        f"BridgeStan could not build {program.label}; the end of its output: "
        f"{' '.join(message.split())[-200:]}",
        message,
    )


# ---- Versions ---------------------------------------------------------------------------------


def _is_noexec(folder: Path) -> bool:
    return folder.is_dir() and bool(os.statvfs(folder).f_flag & getattr(os, "ST_NOEXEC", 0))


def _open_checked(library: Path) -> ctypes.CDLL:
    try:
        handle = ctypes.CDLL(str(library.resolve()))
    except OSError as error:
        remedy = "; its folder is mounted noexec, let STANFLOW_CACHE_DIR name another"
        raise EngineError(
            f"the model library {library} cannot be loaded: {error}"
            f"{remedy if _is_noexec(library.parent) else ''}"
        ) from None
    missing = [name for name in _NEEDED_SYMBOLS if not hasattr(handle, name)]
    if missing:
        try:
            built_by = "BridgeStan {}.{}.{}".format(
                *(
                    ctypes.c_int.in_dll(handle, f"bs_{part}_version").value
                    for part in ("major", "minor", "patch")
                )
            )
        except ValueError:
            built_by = "BridgeStan 1, or is no BridgeStan library"
        raise EngineError(
            f"the model library {library} was built by {built_by} and lacks {missing[0]}, which "
            f"the bridgestan Python package {_PACKAGE_VERSION} needs; build it again with "
            f"BridgeStan {_PACKAGE_VERSION}"
        )
    return handle


@cache
def _sources_version(folder: Path) -> str | None:
    header = folder / "src" / "version.hpp"
    if not header.is_file():
        return None
    numbers = re.findall(r"BRIDGESTAN_(?:MAJOR|MINOR|PATCH)\s+(\d+)", header.read_text())
    return ".".join(numbers[:3]) if len(numbers) >= 3 else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _first_line(*command: str) -> str:
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return ""
    return (result.stdout.splitlines() or [""])[0]
