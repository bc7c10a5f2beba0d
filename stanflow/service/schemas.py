"""What requests and responses look like."""

from __future__ import annotations

from datetime import datetime
from itertools import islice
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stanflow.service.tables import JobKind, Status

MOST_DRAWS = 1_000_000
_MOST_FIELDS = 100  # far more than any request has: beyond it one that is not known is among them
_Seed = Annotated[int, Field(ge=0, lt=2**32, description="Source of every random choice.")]
_PROGRAM = "parameters { real x; } model { x ~ normal(0, 1); }"


class _Closed(BaseModel):
    """A request: a field that is not known is a mistake."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, given: Any) -> Any:
        """Take 1.0 for a whole number, which it is in JSON."""
        if not isinstance(given, dict):
            return given
        fields = islice(given.items(), _MOST_FIELDS)
        return {name: _as_whole(value) for name, value in fields}


def _as_whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


class Problem(BaseModel):
    """What went wrong, as RFC 9457 has it."""

    title: str = Field(description="The status in words.")
    status: int
    detail: str = Field(description="One sentence: what is wrong, where, and what to do.")
    kind: str | None = Field(
        None,
        description="What is at fault: `program`, `data`, `engine`, `numerics` or `usage`; or what "
        "the server ran into: `limit`, `crash` or `storage`.",
    )
    output: str | None = Field(None, description="What the compiler or the engine said, in full.")
    line: int | None = Field(None, description="Of the program, counted from 1.")
    column: int | None = Field(None, description="As the Stan compiler counts it, from 0.")


class NewModel(_Closed):
    """A Stan program."""

    program_code: str = Field(min_length=1, examples=[_PROGRAM])
    name: str = Field("model", pattern="^[A-Za-z][A-Za-z0-9_]{0,63}$", description="In results.")


class DeclaredData(BaseModel):
    """A variable of the data block."""

    name: str
    declaration: str


class Model(BaseModel):
    """A Stan program that compiles."""

    id: str
    name: str
    program_code: str
    data: list[DeclaredData] = Field(description="What the data block declares.")
    created: datetime


class Models(BaseModel):
    """All of them, the newest first."""

    models: list[Model]


_Data = Annotated[
    dict[str, Any], Field(default_factory=dict, description="The program's data, by name.")
]
_Draw = Annotated[list[float], Field(fail_fast=True)]  # of millions of errors one is enough
_Draws = Annotated[
    list[_Draw],
    Field(
        min_length=1, max_length=100_000, fail_fast=True,
        description="Unconstrained draws, D numbers each.",
    ),
]  # fmt: skip


class WithData(_Closed):
    """Data for a program."""

    data: _Data


class AtDraws(WithData):
    """Unconstrained draws to evaluate."""

    unconstrained: _Draws


class WriteArray(AtDraws):
    """Unconstrained draws to map to the program's scale."""

    include_generated: bool = Field(True, description="Generated quantities, too.")
    seed: _Seed = 1


class TransformInits(WithData):
    """Parameters to map to unconstrained space."""

    parameters: dict[str, Any] = Field(description="A value for each parameter, by name.")


class Params(BaseModel):
    """The parameters of a program given its data."""

    dim: int = Field(description="Unconstrained parameters, D.")
    unconstrained: list[str]
    columns: list[str] = Field(description="All scalars, generated quantities included.")
    shapes: dict[str, list[int]]
    engine: str
    ignored_data: list[str] = Field(description="Data that the program does not declare.")


class LogProb(BaseModel):
    """The log density, Jacobian of the constraints included, one number a draw."""

    log_prob: list[float | None] = Field(description="null where it is not finite.")
    normalized: bool = Field(description="Whether the constants that Stan drops are in it.")


class LogProbGrad(LogProb):
    """The log density and its gradient."""

    gradient: list[list[float | None]]


class Constrained(BaseModel):
    """Draws on the program's scale."""

    columns: list[str]
    values: list[list[float | None]]


class Unconstrained(BaseModel):
    """A draw in unconstrained space."""

    unconstrained: list[float]


class FitOptions(_Closed):
    """Options of a fit; each is chosen by the program and its dimension where it is not given."""

    seed: _Seed = 1
    draws: int = Field(4000, ge=2, le=MOST_DRAWS)
    evidence_draws: int | None = Field(None, ge=2, le=MOST_DRAWS)
    preset: Literal["auto", "paper"] = "auto"
    family: Literal["realnvp", "fullrank", "meanfield"] | None = None
    layers: int | None = Field(None, ge=1, le=1024)
    hidden: int | None = Field(None, ge=1, le=4096)
    base: Literal["student-t", "gaussian"] | None = None
    batch: int | None = Field(None, ge=1, le=65_536)
    max_steps: int | None = Field(None, ge=1, le=10_000_000)
    max_seconds: float | None = Field(None, gt=0, allow_inf_nan=False)
    refine: Literal["auto", "always", "never"] | None = None


class NewFit(WithData):
    """A fit to begin."""

    options: FitOptions = FitOptions()


class NutsOptions(_Closed):
    """Options of a NUTS run."""

    seed: _Seed = 1
    chains: int = Field(4, ge=1, le=64)
    warmup: int = Field(1000, ge=0, le=MOST_DRAWS)
    draws: int = Field(1000, ge=1, le=MOST_DRAWS)
    adapt_delta: float | None = Field(None, gt=0, lt=1)
    max_treedepth: int | None = Field(None, ge=1, le=20)
    metric: Literal["diag_e", "dense_e"] = "diag_e"


class NewNuts(WithData):
    """A NUTS run to begin."""

    options: NutsOptions = NutsOptions()


class NewComparison(_Closed):
    """Two runs of one program and data to compare."""

    fit: str = Field(description="Id of a fit, or of a NUTS run.")
    reference: str = Field(description="Id of the NUTS run to hold it against.")
    seed: _Seed = 1


class Round(BaseModel):
    """Refining at one moment: draws are on their way from the flow to the posterior."""

    round: int = Field(description="Of moves, counted from 1.")
    seconds: float = Field(description="Since refining began.")
    inverse_temperature: float = Field(
        description="From 0, the flow, to 1, the posterior, where draws go on until they settle."
    )
    acceptance: float | None = Field(description="Mean probability, in the last move.")
    rhat: float | None = Field(description="Of the islands; null before there is one.")
    log_evidence: float | None = Field(
        description="For this inverse temperature, Stan's constants included where they are known."
    )
    share: float = Field(
        description="Spent of the most gradients; 1 where it ends. Outward it begins anew."
    )
    outward: bool = Field(
        description="Whether draws have been moved, and what lies beyond them is looked at."
    )


class Step(BaseModel):
    """Training at one moment; of a fit that is refined, its last step and the refining."""

    step: int
    seconds: float = Field(description="Since training began.")
    elbo: float | None
    rejected: int
    refine: Round | None = Field(None, description="Once training has ended.")


class Operation(BaseModel):
    """A job under way or done."""

    id: str = Field(description="Also of the fit, NUTS run or comparison that comes of it.")
    kind: JobKind
    name: str
    model: str | None
    options: dict[str, Any]
    status: Status
    done: bool
    attempts: int = Field(description="How often it was begun; more than once after a crash.")
    created: datetime
    started: datetime | None
    finished: datetime | None
    verdict: str | None = Field(None, description="Of a fit; the agreement, of a comparison.")
    progress: Step | None = Field(None, description="The last one told, of a fit under way.")
    failure: Problem | None = None


class Asked(BaseModel):
    """What a job was asked to do; sent again with another seed, it is done anew."""

    name: str
    program_code: str = Field(description="Empty for a comparison.")
    data: dict[str, Any]
    options: dict[str, Any]


class Operations(BaseModel):
    """Jobs, the newest first."""

    operations: list[Operation]


class RunHead(BaseModel):
    """A fit, a NUTS run or a comparison."""

    id: str
    kind: JobKind
    name: str
    model: str | None
    options: dict[str, Any]
    created: datetime


class Run(RunHead):
    """What came of a job."""

    result: dict[str, Any] = Field(description="As `--json` prints it; `scalars` is the table.")


class Runs(BaseModel):
    """Those that succeeded, the newest first."""

    runs: list[RunHead]


class Draws(BaseModel):
    """Some of the draws."""

    columns: list[str]
    rows: list[list[float | None]]
    offset: int
    total: int


class Health(BaseModel):
    """Whether the server works."""

    status: Literal["ok"]
    version: str
    queued: int
    running: int
