"""Which engine evaluates a program, and why: the one place that decides."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import Literal, get_args

from stanflow.errors import (
    BeyondEmbeddedError,
    EngineError,
    ProgramError,
    StanFlowError,
    UsageError,
    what_brings_native,
)
from stanflow.stan import bridgestan_sources, embedded, native, stan_wheel
from stanflow.stan.agreement import kept_agreement
from stanflow.stan.data import StanData
from stanflow.stan.loaded import EngineName, LoadedModel
from stanflow.stan.program import StanProgram
from stanflow.stan.toolchain import Toolchain

EngineChoice = Literal["auto", "embedded", "native", "bridgestan"]
"""``"bridgestan"`` is an older name of ``"native"``."""


@dataclass(frozen=True)
class EngineDecision:
    """An engine and the reason it was taken.

    Attributes
    ----------
    toolchain : Toolchain or None
        What the native engine compiles with; None for the embedded engine.
    reason : str
        A sentence for the user.
    """

    toolchain: Toolchain | None
    reason: str

    @property
    def name(self) -> EngineName:
        """The engine."""
        return "embedded" if self.toolchain is None else "native"

    def load(self, program: StanProgram, data: StanData, seed: int) -> LoadedModel:
        """Load a program and its data with this engine."""
        if self.toolchain is None:
            return embedded.load(program, data, seed)
        try:
            return native.load(program, data, seed, self.toolchain)
        except ProgramError as error:
            raise _too_old(program, self.toolchain, error) from None


def decide(engine: EngineChoice) -> EngineDecision:
    """Choose the engine, as far as that does not depend on the program.

    ``"auto"`` takes BridgeStan's own build where its user has set that up, and else the embedded
    engine, which needs nothing installed. ``"native"`` takes BridgeStan's own build, else Stan's
    headers of a pip install.

    Raises
    ------
    EngineError
        ``"native"`` was asked for and cannot be had.
    UsageError
        There is no such engine.
    """
    if engine not in get_args(EngineChoice):
        raise UsageError(f"there is no engine {engine!r}; choose one of auto, embedded, native")
    if engine == "embedded":
        return EngineDecision(None, "the embedded engine was asked for")
    if engine != "auto":
        toolchain = native.find_toolchain(download=True)
        return EngineDecision(
            toolchain, f"the native engine was asked for: {toolchain.name} in {toolchain.folder}"
        )
    try:
        sources = bridgestan_sources.find_sources()
    except EngineError as error:
        unusable = f", and BridgeStan's sources cannot be used: {error}"
        configured = bool(os.environ.get("BRIDGESTAN"))
        return EngineDecision(None, f"it needs no compiler{unusable if configured else ''}")
    return EngineDecision(sources, f"BridgeStan's toolchain is here: {sources.folder}")


def open_model(
    program: StanProgram, data: StanData, engine: EngineChoice, seed: int
) -> tuple[LoadedModel, EngineDecision]:
    """Load a program and its data, and say with which engine.

    With ``"auto"``, what the embedded engine cannot run goes to Stan's headers of a pip install.

    Raises
    ------
    ProgramError, DataError, EngineError
        With one sentence saying what is wrong, where, and what to do.
    UsageError
        There is no such engine.
    """
    decision = decide(engine)
    try:
        if engine == "auto" and decision.name == "embedded":
            _refuse_known_to_differ(program)
        return decision.load(program, data, seed), decision
    except BeyondEmbeddedError as beyond:
        if engine != "auto":
            raise
        try:
            headers = stan_wheel.find_headers()
        except EngineError as error:
            raise EngineError(f"{beyond.problem}; {error}", beyond.detail) from None
        decision = EngineDecision(headers, beyond.problem)
    return decision.load(program, data, seed), decision


def check_program(program: StanProgram) -> None:
    """Have the Stan compiler look at a program, that of the engine which ``"auto"`` will take.

    Raises
    ------
    ProgramError
        It refuses the program.
    BeyondEmbeddedError
        No engine here can compile it.
    """
    decision = decide("auto")
    if decision.toolchain is not None:
        decision.toolchain.check(program)
        return
    try:
        embedded.compile_program(program)
    except BeyondEmbeddedError as beyond:
        with contextlib.suppress(EngineError):
            stan_wheel.find_headers().check(program)
            return
        raise beyond from None


def _too_old(program: StanProgram, toolchain: Toolchain, error: ProgramError) -> StanFlowError:
    """Return what is wrong with a program that a native engine's Stan compiler has refused."""
    try:
        embedded.compile_program(program)
    except StanFlowError:
        return error
    known = f"{program.label}, which Stan {embedded.STAN_VERSION} takes"
    brought = f"; {what_brings_native('a newer one')}"
    newer = "" if stan_wheel.is_newest(toolchain.folder) else brought
    return EngineError(f"{toolchain.name} is too old for {known}: {error}{newer}", error.detail)


def _refuse_known_to_differ(program: StanProgram) -> None:
    agreement = kept_agreement(program)
    if agreement is not None and not agreement.agrees:
        raise BeyondEmbeddedError(
            f"the embedded engine is wrong on {program.label}, as was found before: it {agreement}"
        )
