"""The embedded engine: stanli, a Stan compiler and interpreter in one wheel, behind BridgeStan.

stanli compiles a program to Stan's middle-level representation (MIR) and evaluates that. It
gives the density without the constants that ``~`` statements drop. Whether a density call drops
them is one byte of the MIR, the flag that the Stan compiler sets for ``~`` and ``_lupdf`` and
clears for ``_lpdf``; a copy of the model with those bytes cleared therefore keeps every constant,
whatever the program's distributions, truncations, functions and includes. The meaning of the byte
is confirmed on a known pair of programs before it is relied on.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import os
import re
from collections.abc import Callable, Iterator
from functools import cache

import bridgestan
import stanli

from stanflow.arrays import FloatArray
from stanflow.errors import BeyondEmbeddedError, DataError, EngineError, one_line
from stanflow.stan import stanc
from stanflow.stan.compiler_messages import compiler_error, with_own_places
from stanflow.stan.data import StanData
from stanflow.stan.declared_sizes import declared_sizes
from stanflow.stan.failing_statement import failing_statement
from stanflow.stan.loaded import LoadedModel
from stanflow.stan.mending import mend
from stanflow.stan.printing import PrintSink, print_to_stderr
from stanflow.stan.program import StanProgram

_LIMITS = ("stanli compile:", "mir:", "stanli prepare_data: unsupported")
_SIGNS_OF_THE_DATA = ("out of bounds", "extent")
_IMPOSSIBLE_SIZE = "invalid or overflowing extent"
_LARGEST_SIZE = 2**31 - 1
_PLACE = re.compile(r"\bline \d+")
_PART_OF_THE_ENGINE = re.compile(
    r"(stanli( MIR check)?|mir|(stanli )?(compile|prepare_data|write_array)|element|range"
    r"|parameter read shape|\w+_lp[dm]f(?=: stanli))(: *| +(?=\w+:))"
)
_LEFT_OUT = re.compile(r"no compiled path: ([^(]*?) \((.*?)\)\. Unset", re.DOTALL)
_NO_INTERPRETER = "STANLI_NO_INTERPRETER"
_MIR_PREFIX = "STANLI2:"
_DENSITY_CALL = re.compile(
    rb"(?P<call>\x04[\x00\x02])(?P<length>....)(?P<name>[A-Za-z]\w*_lp[dm]f)(?P<drops_constants>\x01)",
    re.DOTALL,
)
STAN_VERSION = "2.40.0"  # of the Stan compiler in this version of stanli


def version() -> str:
    """Return the embedded engine's version."""
    return f"stanli {stanli.__version__}"


def load(program: StanProgram, data: StanData, seed: int) -> LoadedModel:
    """Compile a program with the embedded engine and condition it on data.

    Parameters
    ----------
    program, data
        The program and its data.
    seed : int
        For random numbers in the transformed data block.

    Raises
    ------
    ProgramError
        The Stan compiler refused the program.
    DataError
        The data violate a constraint, or the transformed data block threw.
    BeyondEmbeddedError
        The program is valid but uses something that this engine lacks.
    """
    compiled = compile_program(program)
    safe = mend(program, compiled)
    mir = compiled if safe is program else compile_program(safe)
    library = ctypes.CDLL(str(stanli._runtime_lib_path()))
    printing = print_to_stderr(library)

    def construct(mir: str) -> bridgestan.StanModel:
        model: bridgestan.StanModel = stanli.bridgestan_model(
            mir=mir, data=data.json, name=program.name, seed=seed, capture_stan_prints=False
        )
        return model

    try:
        stan_model = construct(mir)
        with printing.muted():
            _check_quantities(program, stan_model, lambda: construct(mir))
    except RuntimeError as error:
        with printing.muted():
            raise _construction_error(program, data, str(error), construct) from None
    return LoadedModel(
        stan_model=stan_model,
        engine="embedded",
        engine_version=version(),
        stan_version=STAN_VERSION,
        thread_safe=bool(stanli.thread_safe()),
        printing=printing,
        log_density_with_constants=_with_constants(mir, construct, printing),
    )


def compile_program(program: StanProgram) -> str:
    """Return what the Stan compiler makes of a program, for the engine.

    Raises
    ------
    ProgramError
        The compiler refused it.
    BeyondEmbeddedError
        It is valid but uses something that this engine lacks.
    """
    try:
        return stanc.to_mir(program.expanded)
    except RuntimeError as error:
        reported = compiler_error(program, str(error))
        raise reported or BeyondEmbeddedError(
            f"the embedded engine cannot compile {program.label}", str(error)
        ) from None


def mended(program: StanProgram) -> StanProgram:
    """Return a program of the same meaning that the engine computes right.

    Raises
    ------
    ProgramError
        The compiler refused the program.
    BeyondEmbeddedError
        It is valid, but this engine lacks something, or is wrong about something that cannot be
        rewritten.
    """
    return mend(program, compile_program(program))


def _construction_error(
    program: StanProgram,
    data: StanData,
    message: str,
    construct: Callable[[str], bridgestan.StanModel],
) -> DataError | EngineError | MemoryError:
    if "bad_alloc" in message:
        return MemoryError(message)
    left_out = _LEFT_OUT.search(message)
    what, problem = left_out[1] if left_out else "", with_own_places(program, _problem(message))
    if _IMPOSSIBLE_SIZE in problem:
        problem = problem.replace(_IMPOSSIBLE_SIZE, _impossible_size(program, data))
    elif not _PLACE.search(problem):
        place = failing_statement(program, lambda code: _fails_alike(message, code, construct))
        problem += f" ({place})" if place else ""
    is_limit = left_out is not None or message.startswith(_LIMITS)
    if not is_limit or any(sign in message for sign in _SIGNS_OF_THE_DATA):
        refuses = f"cannot compute its {what} with these data" if what else "refuses the data"
        return DataError(f"{program.label} {refuses}: {problem}", message)
    of = f"compute the {what} of" if what else "run"
    return BeyondEmbeddedError(
        f"the embedded engine cannot {of} {program.label}: {problem}", message
    )


def _problem(message: str) -> str:
    """Return what is wrong, without the names of the engine's parts."""
    left_out = _LEFT_OUT.search(message)
    problem = one_line((left_out[2] if left_out else message).split("|")[0])
    while found := _PART_OF_THE_ENGINE.match(problem):
        problem = problem[found.end() :]
    return problem


def _impossible_size(program: StanProgram, data: StanData) -> str:
    """Name a parameter whose size is negative or far too large."""
    sizes = declared_sizes(program, data.json, ("parameters",))
    for name, of_name in sizes.items():
        for size in of_name:
            if not 0 <= size <= _LARGEST_SIZE:
                return f"the parameter {name} has the size {size}"
    return "a parameter has a negative or far too large size"


def _fails_alike(
    message: str, code: str, construct: Callable[[str], bridgestan.StanModel]
) -> bool | None:
    """Return whether a text fails with a message; None where it is no program."""
    try:
        mir = stanc.to_mir(code)
    except RuntimeError:
        return None
    try:
        with _without_interpreter() if _LEFT_OUT.search(message) else contextlib.nullcontext():
            construct(mir)
    except RuntimeError as error:
        return _problem(str(error)) == _problem(message)
    return False


def _check_quantities(
    program: StanProgram, model: bridgestan.StanModel, construct: Callable[[], object]
) -> None:
    """Raise where the engine left out transformed parameters and generated quantities.

    It does so, with no more than a warning, for programs that it can only evaluate in part.
    Constructing the model again with its interpreter switched off makes it say so by an error.
    """
    declared = any(map(program.has_text, ("transformed parameters", "generated quantities")))
    if not declared or model.param_num(include_tp=True, include_gq=True) > model.param_num():
        return
    with _without_interpreter():
        construct()


@contextlib.contextmanager
def _without_interpreter() -> Iterator[None]:
    os.environ[_NO_INTERPRETER] = "1"
    try:
        yield
    finally:
        del os.environ[_NO_INTERPRETER]


# ---- Stan's dropped constants -----------------------------------------------------------------


def _with_constants(
    mir: str, construct: Callable[[str], bridgestan.StanModel], printing: PrintSink
) -> Callable[[FloatArray], float]:
    models: list[bridgestan.StanModel] = []

    def log_density(z: FloatArray) -> float:
        with printing.muted():
            if not models:
                models.append(construct(keep_constants(mir)))
            return float(models[0].log_density(z))

    return log_density


def keep_constants(mir: str) -> str:
    """Return the same model with every density call keeping its constants.

    Parameters
    ----------
    mir : str
        A model as `stanc.to_mir` writes it.

    Raises
    ------
    EngineError
        This version of stanli writes another format.
    """
    if not _flag_is_understood():
        raise EngineError(
            f"the constants that `~` statements drop cannot be told by this version of the "
            f"embedded engine ({version()})"
        )
    return _clear_flags(mir)


def _clear_flags(mir: str) -> str:
    def clear(match: re.Match[bytes]) -> bytes:
        if int.from_bytes(match["length"], "little") != len(match["name"]):
            return match[0]
        return match["call"] + match["length"] + match["name"] + b"\x00"

    payload = base64.b64decode(mir.removeprefix(_MIR_PREFIX))
    return _MIR_PREFIX + base64.b64encode(_DENSITY_CALL.sub(clear, payload)).decode()


@cache
def _flag_is_understood() -> bool:
    """Whether clearing the flags turns `~` statements into exactly their `target +=` forms."""
    shared = (
        "functions { real own_lpdf(real x, real m) { return normal_lpdf(x | m, 2); } } "
        "data { int k; } parameters { real x; real<lower=0> r; } "
    )
    drops = "x ~ normal(0, 1); k ~ poisson(r); r ~ gamma(2, 3) T[1, ]; x ~ own(r);"
    keeps = (
        "target += normal_lpdf(x | 0, 1); target += poisson_lpmf(k | r); "
        "r ~ gamma(2, 3) T[1, ]; target += own_lpdf(x | r);"
    )
    dropping, keeping = (
        stanc.to_mir(f"{shared} model {{ {statements} }}") for statements in (drops, keeps)
    )
    return (
        dropping.startswith(_MIR_PREFIX)
        and dropping != keeping
        and _clear_flags(dropping) == _clear_flags(keeping)
        and _only_truncated_differ(keeping)
    )


def _only_truncated_differ(keeping: str) -> bool:
    """In the `target +=` form, just the truncated statement's own flag was left to clear."""
    before, after = (
        base64.b64decode(mir.removeprefix(_MIR_PREFIX)) for mir in (keeping, _clear_flags(keeping))
    )
    changed = [i for i, (b, a) in enumerate(zip(before, after, strict=True)) if b != a]
    return len(changed) == 1 and before[: changed[0]].endswith(b"gamma_lpdf")
