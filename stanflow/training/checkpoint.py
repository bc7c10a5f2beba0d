"""Checkpoints: a training run that was cut off goes on to the same numbers."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch

from stanflow.errors import UsageError, one_line, reason
from stanflow.files import write_file

_FORMAT = "5"
_LARGEST_SHARE_OF_TIME = 0.05


# What the parts of a training run need to go on after a step, each tensor as "part.name".
State: TypeAlias = Mapping[str, torch.Tensor]


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

    def write(self, state: State) -> None:
        """Replace the file.

        Raises
        ------
        UsageError
            It cannot be written; the one before is untouched.
        """
        from safetensors.torch import save

        began = time.perf_counter()
        tensors = {name: tensor.contiguous() for name, tensor in state.items()}
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

    def read(self) -> State | None:
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
            _verify(tensors, metadata["sha256"])
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            problem = reason(error) if isinstance(error, OSError | ValueError) else one_line(error)
            raise UsageError(
                f"the checkpoint {self._path} is damaged ({problem}); start anew with --force"
            ) from None
        self._refuse_another_run(identity)
        return tensors

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


def _verify(tensors: Mapping[str, torch.Tensor], expected: str) -> None:
    if _hash(tensors) != expected:
        raise ValueError("its checksum differs")


def _hash(tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].numpy().tobytes())
    return digest.hexdigest()
