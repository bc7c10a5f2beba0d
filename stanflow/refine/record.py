"""Snapshots of particles that move at the posterior."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from stanflow.arrays import FloatArray
from stanflow.sampling.annealing import Annealing
from stanflow.sampling.pullback import PulledBack


class Snapshot(NamedTuple):
    """Points in base space, (N, D), ``log p - log q`` and log density there, (N,)."""

    points: FloatArray
    log_weights: FloatArray
    log_densities: FloatArray


@dataclass(frozen=True)
class Record:
    """Snapshots of all particles at inverse temperature 1, so many moves apart."""

    snapshots: tuple[Snapshot, ...] = ()
    moves: int = 0
    apart: int = 1

    def taken(self, state: Annealing, pulled: PulledBack, most: int) -> Record:
        """Return it with another snapshot, or every other one left out where there are too many."""
        moves = self.moves + 1
        if moves % self.apart:
            return replace(self, moves=moves)
        points, log_density = state.particles.points, state.particles.log_end
        new = Snapshot(points, pulled.log_weights(points, log_density), log_density)
        snapshots = (*self.snapshots, new)
        if len(snapshots) <= most:
            return Record(snapshots, moves, self.apart)
        return Record(snapshots[1::2], moves, 2 * self.apart)

    def kept(self, snapshots: int) -> Snapshot:
        """Return so many snapshots of the later half, evenly spaced, as one of (snapshots, N)."""
        half = self.snapshots[len(self.snapshots) // 2 :]
        chosen = np.linspace(0, len(half) - 1, min(snapshots, len(half))).round().astype(int)
        return Snapshot(*(np.stack(x) for x in zip(*(half[i] for i in chosen), strict=True)))
