"""Which engine evaluates a program, and why: the one place that decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from stanflow.errors import EngineError, UsageError
from stanflow.target import embedded, native
from stanflow.target.data import StanData
from stanflow.target.loaded import LoadedModel
from stanflow.target.program import StanProgram

EngineChoice = Literal["auto", "embedded", "bridgestan"]


@dataclass(frozen=True)
class EngineDecision:
    """An engine and the reason it was taken.

    Attributes
    ----------
    toolchain : native.Toolchain or None
        What the native engine compiles with; None for the embedded engine.
    reason : str
        A sentence for the user.
    """

    toolchain: native.Toolchain | None
    reason: str

    @property
    def name(self) -> Literal["embedded", "bridgestan"]:
        """The engine."""
        return "embedded" if self.toolchain is None else "bridgestan"


def decide(engine: EngineChoice) -> EngineDecision:
    """Choose the engine.

    ``"auto"`` takes BridgeStan's native build where its toolchain is installed, which covers the
    whole language, and else the embedded engine, which needs nothing installed.

    Raises
    ------
    EngineError
        ``"bridgestan"`` was asked for and its toolchain cannot be had.
    UsageError
        There is no such engine.
    """
    if engine not in get_args(EngineChoice):
        raise UsageError(f"there is no engine {engine!r}; choose one of auto, embedded, bridgestan")
    if engine == "embedded":
        return EngineDecision(None, "the embedded engine was asked for")
    try:
        toolchain = native.find_toolchain(download=engine == "bridgestan")
    except EngineError as error:
        if engine == "bridgestan":
            raise
        return EngineDecision(None, f"there is no usable BridgeStan toolchain: {error}")
    asked = (
        "BridgeStan was asked for" if engine == "bridgestan" else "BridgeStan's toolchain is here"
    )
    return EngineDecision(toolchain, f"{asked}: {toolchain.folder}")


def load(program: StanProgram, data: StanData, decision: EngineDecision, seed: int) -> LoadedModel:
    """Load a program and its data with the engine decided on."""
    if decision.toolchain is None:
        return embedded.load(program, data, seed)
    return native.load(program, data, seed, decision.toolchain)
