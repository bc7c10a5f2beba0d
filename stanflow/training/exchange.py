"""Between the flow's device and the target, which Stan evaluates on the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stanflow.arrays import FloatArray
from stanflow.stan.density import Density

_PARTS_ON_A_GPU = 4


@dataclass(frozen=True)
class Evaluated:
    """The target at a batch of draws.

    Attributes
    ----------
    log_density : array of shape (B,)
    gradient : Tensor of shape (D, B)
        Of the flow's dtype, on its device; whatever was not finite is as it came.
    accepted : array of shape (B,)
    """

    log_density: FloatArray
    gradient: Tensor
    accepted: npt.NDArray[np.bool_]


class Exchange:
    """Takes draws of shape (D, B) to the target and its gradients back, in buffers made once.

    From a GPU they travel in parts, through page-locked memory: while Stan works on one, the next
    is under way.

    Parameters
    ----------
    target : Density
        The density.
    like : Tensor of shape (D, B)
        Draws of the dtype and device to expect.
    parts : int, optional
        Parts of a batch; by default one on the CPU and four from a GPU.
    """

    def __init__(self, target: Density, like: Tensor, parts: int | None = None) -> None:
        dim, batch = like.shape
        on_gpu = like.device.type == "cuda"
        self._target = target
        self._on_gpu = on_gpu
        self._z = torch.empty(batch, dim, dtype=torch.float64, pin_memory=on_gpu)
        self._back = torch.empty(batch, dim, dtype=torch.float64, pin_memory=on_gpu)
        # On the GPU the draws are transposed and widened before they travel.
        self._z_there = torch.empty(batch, dim, dtype=torch.float64, device=like.device)
        self._gradient_there = torch.empty_like(self._z_there) if on_gpu else self._back
        self._gradient = torch.empty_like(like)
        parts = parts or (_PARTS_ON_A_GPU if on_gpu else 1)
        bounds = np.linspace(0, batch, min(parts, batch) + 1).astype(int)
        self._parts = [slice(*ends) for ends in pairwise(bounds)]

    def evaluate(self, z: Tensor) -> Evaluated:
        """Evaluate the target at draws of shape (D, B)."""
        arrivals = [self._send(z, part) for part in self._parts]
        log_density = np.empty(len(self._z))
        accepted = np.empty(len(self._z), dtype=bool)
        for part, arrival in zip(self._parts, arrivals, strict=True):
            if arrival is not None:
                arrival.synchronize()
            batch = self._target.log_density_gradient(self._z[part].numpy())
            log_density[part], accepted[part] = batch.log_density, batch.accepted
            self._back[part] = torch.from_numpy(batch.gradient)
            if self._on_gpu:
                self._gradient_there[part].copy_(self._back[part], non_blocking=True)
        self._gradient.copy_(self._gradient_there.T)
        return Evaluated(log_density, self._gradient, accepted)

    def _send(self, z: Tensor, part: slice) -> torch.cuda.Event | None:
        if not self._on_gpu:
            self._z[part] = z[:, part].T
            return None
        self._z_there[part] = z[:, part].T
        self._z[part].copy_(self._z_there[part], non_blocking=True)
        arrival = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrival.record()
        return arrival
