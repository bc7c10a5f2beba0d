"""Checkpoints: a training run that was cut off goes on to the same numbers."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stanflow.arrays import FloatArray
from stanflow.errors import UsageError, one_line, reason
from stanflow.files import write_file

_FORMAT = "4"
_LARGEST_SHARE_OF_TIME = 0.05


@dataclass
class TrainState:
    """All that a training run needs to go on after a step.

    Attributes
    ----------
    parameters, mean, mean_square : Tensor of shape (P,)
        The flow's parameters, and Adam's averages of their gradients and the squares.
    adam_steps : Tensor of shape ()
        Steps that Adam has taken.
    generator : uint8 Tensor
        State of the random number generator.
    trace : Tensor of shape (steps, 6)
        Step, seconds, ELBO, sd of log weights, gradient norm and rejected draws of each step.
    largest : Tensor of shape (steps, r + 1)
        Largest values of each step.
    counts : int64 Tensor of shape (2,)
        Gradient evaluations, and steps in a row without a finite gradient.
    best, best_elbo : Tensor of shape (P,) and ()
        The best parameters so far; of shape (0,) where they are not kept or there are none yet.
    safe, safeguard : Tensor of shape (2, P) and (n,)
        Of the safeguard.
    """

    parameters: torch.Tensor
    mean: torch.Tensor
    mean_square: torch.Tensor
    adam_steps: torch.Tensor
    generator: torch.Tensor
    trace: torch.Tensor
    largest: torch.Tensor
    counts: torch.Tensor
    best: torch.Tensor
    best_elbo: torch.Tensor
    safe: torch.Tensor
    safeguard: torch.Tensor

    @property
    def seconds(self) -> float:
        """Time spent in training so far."""
        return float(self.trace[-1, 1])


class Checkpoint:
    """A file that holds the state of a training run, replaced whole every so often.

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

    @property
    def due(self) -> bool:
        """Whether it is time to write."""
        return time.perf_counter() - self._written >= self._wait

    def write(self, state: TrainState) -> None:
        """Replace the file.

        Raises
        ------
        UsageError
            It cannot be written; the one before is untouched.
        """
        from safetensors.torch import save

        began = time.perf_counter()
        tensors = _tensors(state)
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

    def read(self) -> TrainState | None:
        """Return the state in the file; None where there is no file.

        Raises
        ------
        UsageError
            The file is damaged, or belongs to another run.
        """
        from safetensors import SafetensorError, safe_open

        if not self._path.exists():
            return None
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
            state = TrainState(**tensors)
            _verify(tensors, metadata["sha256"])
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            problem = reason(error) if isinstance(error, OSError | ValueError) else one_line(error)
            raise UsageError(
                f"the checkpoint {self._path} is damaged ({problem}); start anew with --force"
            ) from None
        self._refuse_another_run(identity)
        return state

    def _refuse_another_run(self, identity: Mapping[str, Any]) -> None:
        for name in dict.fromkeys([*identity, *self._identity]):
            before, now = identity.get(name), self._identity.get(name)
            if before != now:
                what = _difference(name, before, now)
                raise UsageError(
                    f"{self._path} is the checkpoint of another run, {what}; take the same "
                    "program, data and options, or start anew with --force"
                )


def _difference(name: str, before: Any, now: Any) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        name = next(key for key in sorted({*before, *now}) if before.get(key) != now.get(key))
        before, now = before.get(name), now.get(name)
    if name.endswith("_sha256"):
        return f"with another {name.removesuffix('_sha256')}"
    return f"with {name} {before} instead of {now}"


def _tensors(state: TrainState) -> dict[str, torch.Tensor]:
    return {field.name: getattr(state, field.name).contiguous() for field in fields(state)}


def _verify(tensors: Mapping[str, torch.Tensor], expected: str) -> None:
    if _hash(tensors) != expected:
        raise ValueError("its checksum differs")


def _hash(tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].numpy().tobytes())
    return digest.hexdigest()


def as_tensor(array: FloatArray) -> torch.Tensor:
    """Return an array as a tensor of its own."""
    return torch.from_numpy(np.array(array, dtype=np.float64))
