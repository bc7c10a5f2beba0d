"""The native engine: Stan's own C++, a program compiled once and kept.

It is compiled by BridgeStan's own build where its sources are installed, else over the headers of a
pip install. A compiled library is found again by everything that went into it: the program with its
includes, the flags, and the versions of Stan, of the Stan compiler and of the C++ compiler. It
enters the cache by a rename, after the build has succeeded, so an interrupted build leaves nothing
that could be taken for a library.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import re
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import bridgestan

from stanflow.arrays import FloatArray
from stanflow.errors import DataError, EngineError, one_line
from stanflow.stan import bridgestan_sources, stan_wheel
from stanflow.stan.cache import keep_file, lock, mark_used, models_folder, prune, writing_to_cache
from stanflow.stan.compiler_messages import with_own_places
from stanflow.stan.data import StanData
from stanflow.stan.loaded import LoadedModel
from stanflow.stan.printing import print_to_stderr
from stanflow.stan.program import StanProgram
from stanflow.stan.toolchain import Toolchain

_NEEDED_SYMBOLS = ("bs_model_construct", "bs_param_initialize", "bs_log_density_gradient")
_PACKAGE_VERSION = version("bridgestan")
_OWN_BUILD = "Interface: StanFlow"


def find_toolchain(*, download: bool = False) -> Toolchain:
    """Find what compiles programs here: BridgeStan's sources, else Stan's headers.

    Parameters
    ----------
    download : bool
        Where there is neither, let the bridgestan package download its sources.

    Raises
    ------
    EngineError
        Something is missing, or BRIDGESTAN names a folder that cannot be used; the message names
        it, and what brings it.
    """
    try:
        return bridgestan_sources.find_sources()
    except EngineError:
        if os.environ.get("BRIDGESTAN"):
            raise
    try:
        return stan_wheel.find_headers()
    except EngineError as error:
        if not download:
            raise
        try:
            return bridgestan_sources.find_sources(download=True)
        except EngineError as also:
            raise EngineError(f"{error} ({also})") from None


def load(program: StanProgram, data: StanData, seed: int, toolchain: Toolchain) -> LoadedModel:
    """Compile a program, unless that was done before, and condition it on data.

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
    return open_library(compiled_library(program, toolchain), program, data, seed)


def compiled_library(program: StanProgram, toolchain: Toolchain) -> Path:
    """Return the program's compiled library, from the cache or by compiling it now."""
    return compiled_libraries([program], toolchain)[0]


def compiled_libraries(programs: Sequence[StanProgram], toolchain: Toolchain) -> list[Path]:
    """Return the programs' compiled libraries; those that are missing are compiled together."""
    libraries = [_cached(program, toolchain) for program in programs]
    if all(library.is_file() for library in libraries):
        for library in libraries:
            mark_used(library)
        return libraries
    with writing_to_cache(), contextlib.ExitStack() as locks:
        for library in sorted(set(libraries)):
            locks.enter_context(lock(library.with_suffix("")))
        missing = {
            library: program
            for library, program in zip(libraries, programs, strict=True)
            if not library.is_file()
        }
        if missing:
            with toolchain.build(list(missing.values())) as built, writing_to_cache():
                toolchain = toolchain.as_it_is_now()
                for program, made in zip(missing.values(), built, strict=True):
                    keep_file(made, _cached(program, toolchain))
            prune(models_folder())
    return [_cached(program, toolchain) for program in programs]


def _cached(program: StanProgram, toolchain: Toolchain) -> Path:
    return models_folder() / f"{program.name}-{_cache_key(program, toolchain)}.so"


def _cache_key(program: StanProgram, toolchain: Toolchain) -> str:
    ingredients = {"program": program.hash, **toolchain.ingredients()}
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()[:24]


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
        problem = with_own_places(program, one_line(error))
        raise DataError(f"{program.label} refuses the data: {problem}", str(error)) from None
    info = stan_model.model_info()
    stan = re.search(r"^Stan version: (\S+)", info, re.MULTILINE)
    versions = (
        [] if _OWN_BUILD in info else ["BridgeStan {}.{}.{}".format(*stan_model.model_version())]
    )
    if stan is not None:
        versions.append(f"Stan {stan[1]}")

    def log_density_with_constants(z: FloatArray) -> float:
        with printing.muted():
            return float(stan_model.log_density(z, propto=False))

    return LoadedModel(
        stan_model=stan_model,
        engine="native",
        engine_version=", ".join(versions),
        stan_version=None if stan is None else stan[1],
        thread_safe="STAN_THREADS=true" in info,
        printing=printing,
        log_density_with_constants=log_density_with_constants,
    )


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
