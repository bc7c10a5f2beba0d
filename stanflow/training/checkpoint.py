"""Checkpoints: a run that was cut off goes on to the same numbers."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch

from stanflow.errors import UsageError, one_line, reason
from stanflow.files import write_file

_FORMAT = "7"
_LARGEST_SHARE_OF_TIME = 0.05


# What a stage of a run needs to go on, each tensor as "part.name".
State: TypeAlias = Mapping[str, torch.Tensor]


class Checkpoint:
    """A file that holds the states of a run's stages, replaced whole every so often.

    Parameters
    ----------
    path : path
        The file; its folder must exist.
    identity : mapping
        What the run is: program, data, seed, settings, versions; JSON-able. A checkpoint of another
        run is refused.
    every : float
        Seconds between writes; more where writing would take more than a twentieth of the time.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], every: float = 30.0) -> None:
        self._path = path
        self._identity = json.loads(json.dumps(dict(identity)))
        self._wait = self._every = every
        self._written = time.perf_counter()
        self._states: dict[str, State] = {}

    @property
    def due(self) -> bool:
        """Whether it is time to write."""
        return time.perf_counter() - self._written >= self._wait

    def keep(self, stage: str) -> Keep:
        """Return a stage's own part of it."""
        return Keep(self, stage)

    def state(self, stage: str) -> State | None:
        """Return the last state of a stage, written or read; None where there is none."""
        return self._states.get(stage)

    def add(self, stage: str, state: State) -> None:
        """Take up a state of a stage, to be in the file from the next write on."""
        self._states[stage] = {name: tensor.contiguous() for name, tensor in state.items()}

    def write(self, stage: str, state: State) -> None:
        """Replace the file by one with another state of a stage, and the others' last ones.

        Its tensors are written again with those of later stages: nobody may change them.

        Raises
        ------
        UsageError
            It cannot be written; the one before is untouched.
        """
        from safetensors.torch import save

        began = time.perf_counter()
        self.add(stage, state)
        tensors = {
            f"{stage}/{name}": tensor
            for stage, state in self._states.items()
            for name, tensor in state.items()
        }
        metadata = {
            "format": _FORMAT,
            "identity": json.dumps(self._identity),
            "sha256": _hash(tensors),
        }
        try:
            write_file(self._path, save(tensors, metadata))
        except OSError as error:
            raise UsageError(
                f"the checkpoint {self._path} cannot be written: {reason(error)}; the one before "
                "is kept, so --resume goes on from there once there is room"
            ) from None
        self._written = time.perf_counter()
        self._wait = max(self._every, (self._written - began) / _LARGEST_SHARE_OF_TIME)

    def read(self) -> None:
        """Take up the states in the file, if there is one.

        Raises
        ------
        UsageError
            The file is damaged, or belongs to another run.
        """
        from safetensors import SafetensorError, safe_open

        if not self._path.exists():
            return
        try:
            with safe_open(self._path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if metadata["format"] != _FORMAT:
                raise UsageError(
                    f"{self._path} was written by another version of StanFlow; start anew with "
                    "--force"
                )
            identity = json.loads(metadata["identity"])
            _verify(tensors, metadata["sha256"])
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            problem = reason(error) if isinstance(error, OSError | ValueError) else one_line(error)
            raise UsageError(
                f"the checkpoint {self._path} is damaged ({problem}); start anew with --force"
            ) from None
        self._refuse_another_run(identity)
        stages = sorted({name.partition("/")[0] for name in tensors})
        self._states = {stage: part(f"{stage}/", tensors) for stage in stages}

    def _refuse_another_run(self, identity: Mapping[str, Any]) -> None:
        for name in dict.fromkeys([*identity, *self._identity]):
            before, now = identity.get(name), self._identity.get(name)
            if before != now:
                what = _difference(name, before, now)
                raise UsageError(
                    f"{self._path} is the checkpoint of another run, {what}; take the same "
                    "program, data and options, or start anew with --force"
                )


@dataclass(frozen=True)
class Keep:
    """A stage's own part of a checkpoint."""

    _checkpoint: Checkpoint
    _stage: str

    @property
    def due(self) -> bool:
        """Whether it is time to write."""
        return self._checkpoint.due

    @property
    def state(self) -> State | None:
        """The stage's last state, written or read; None where there is none."""
        return self._checkpoint.state(self._stage)

    def add(self, state: State) -> None:
        """Keep another state in its place from the next write on; see `Checkpoint.add`."""
        self._checkpoint.add(self._stage, state)

    def write(self, state: State) -> None:
        """Keep another state in its place; see `Checkpoint.write`."""
        self._checkpoint.write(self._stage, state)


def part(prefix: str, state: State) -> State:
    """Return the tensors whose names begin so, without that."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(prefix)
    }


def _difference(name: str, before: Any, now: Any) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        name = next(key for key in sorted({*before, *now}) if before.get(key) != now.get(key))
        before, now = before.get(name), now.get(name)
    if name.endswith("_sha256"):
        return f"with another {name.removesuffix('_sha256')}"
    return f"with {name} {before} instead of {now}"


def _verify(tensors: Mapping[str, torch.Tensor], expected: str) -> None:
    if _hash(tensors) != expected:
        raise ValueError("its checksum differs")


def _hash(tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].numpy().tobytes())
    return digest.hexdigest()
