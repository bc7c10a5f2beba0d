"""Where moving draws has got to, as tensors and back: what a run that was cut off goes on from."""

from __future__ import annotations

import json
from dataclasses import astuple, dataclass, fields
from typing import Any

import numpy as np
import torch

from stanflow.refine.record import Record, Snapshot
from stanflow.sampling.annealing import Annealing, Particles
from stanflow.sampling.restraint import Restraint
from stanflow.training.checkpoint import State, part

_NUMBERS = ("acceptance", "temperatures", "rounds", "evaluations", "seconds")


@dataclass(frozen=True)
class UnderWay:
    """Where moving draws has got to.

    Attributes
    ----------
    state : Annealing
    record : Record
        Empty before inverse temperature 1.
    acceptance : float
        In the last move.
    temperatures, rounds : int
        Inverse temperatures, and rounds of moves that were told of.
    evaluations : int
        Gradients taken.
    seconds : float
    generator : dict
        State of the random numbers.
    flow : bytes
        A digest of the flow's parameters.
    held : Restraint or None
        What particles are held by.
    """

    state: Annealing
    record: Record
    acceptance: float
    temperatures: int
    rounds: int
    evaluations: int
    seconds: float
    generator: dict[str, Any]
    flow: bytes
    held: Restraint | None

    def as_tensors(self) -> State:
        """Return it as tensors; see `from_tensors`."""
        state, record = self.state, self.record
        tensors = {
            "numbers": torch.tensor([float(getattr(self, x)) for x in _NUMBERS]).double(),
            "generator": _of_bytes(json.dumps(self.generator).encode()),
            "flow": _of_bytes(self.flow),
            "annealing": torch.tensor([state.beta, state.log_step], dtype=torch.float64),
            "log_weights": torch.from_numpy(state.log_weights),
            "log_evidence": torch.from_numpy(state.log_evidence),
            "record": torch.tensor([record.moves, record.apart]),
        }
        for field in fields(state.particles):
            values = getattr(state.particles, field.name)
            tensors[f"particles.{field.name}"] = torch.from_numpy(values)
        for name in Snapshot._fields if record.snapshots else ():
            values = np.stack([getattr(x, name) for x in record.snapshots])
            tensors[f"snapshots.{name}"] = torch.from_numpy(values)
        if self.held is not None:
            tensors["held"] = torch.tensor(astuple(self.held), dtype=torch.float64)
        return tensors

    @classmethod
    def from_tensors(cls, tensors: State) -> UnderWay:
        """Return what `as_tensors` was asked of."""
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        beta, log_step = arrays["annealing"].tolist()
        particles = Particles(
            **{name: x.numpy() for name, x in part("particles.", tensors).items()}
        )
        state = Annealing(beta, particles, arrays["log_weights"], arrays["log_evidence"], log_step)
        snapshots = part("snapshots.", tensors)
        columns = [snapshots[name].numpy() for name in Snapshot._fields if snapshots]
        moves, apart = arrays["record"].tolist()
        record = Record(tuple(Snapshot(*x) for x in zip(*columns, strict=True)), moves, apart)
        acceptance, temperatures, rounds, evaluations, seconds = arrays["numbers"].tolist()
        return cls(
            state=state,
            record=record,
            acceptance=acceptance,
            temperatures=int(temperatures),
            rounds=int(rounds),
            evaluations=int(evaluations),
            seconds=seconds,
            generator=json.loads(bytes(arrays["generator"])),
            flow=bytes(arrays["flow"]),
            held=_restraint(arrays["held"].tolist()) if "held" in arrays else None,
        )


def _restraint(values: list[float]) -> Restraint:
    coordinate, sign, bound, width = values
    return Restraint(int(coordinate), int(sign), bound, width)


def _of_bytes(x: bytes) -> torch.Tensor:
    return torch.tensor(list(x), dtype=torch.uint8)
