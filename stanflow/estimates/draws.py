"""Draws from a trained flow, in float64, with both log densities."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from stanflow.arrays import FloatArray
from stanflow.errors import NumericsError
from stanflow.flow.realnvp import Flow
from stanflow.stan.density import Density

_CHUNK = 4096
_MOST_TRIES_A_DRAW = 50
_MOST_REJECTED_KEPT = 1000


@dataclass(frozen=True)
class LogDensities:
    """Log densities at S independent draws of the flow where the target's is finite.

    Attributes
    ----------
    log_p : array of shape (S,)
        The target's log density, without Stan's dropped constants.
    log_q : array of shape (S,)
        The flow's log density.
    rejected : int
        Draws left out on the way because the target has no finite log density there.
    """

    log_p: FloatArray
    log_q: FloatArray
    rejected: int

    @property
    def log_ratio(self) -> FloatArray:
        """``log p - log q`` of each draw, (S,)."""
        return self.log_p - self.log_q

    @property
    def evaluated(self) -> int:
        """Draws made in all, S of them kept."""
        return len(self.log_p) + self.rejected

    @property
    def rejected_share(self) -> float:
        """Share of the flow's mass where the target has no finite log density."""
        return self.rejected / self.evaluated


@dataclass(frozen=True)
class FlowDraws:
    """S independent draws of the flow where the target's log density is finite.

    Attributes
    ----------
    z : array of shape (S, D)
        Unconstrained draws.
    densities : LogDensities
        Both log densities there.
    rejected : array of shape (R, D)
        Draws left out on the way, the first thousand.
    """

    z: FloatArray
    densities: LogDensities
    rejected: FloatArray


def draw(flow: Flow, target: Density, n: int, seed: int) -> FlowDraws:
    """Draw from the flow until n draws have a finite log density under the target.

    Parameters
    ----------
    flow : Flow
        In float64.
    target : Density
        The density it was trained on.
    n : int
        Draws wanted.
    seed : int
        For the draws.

    Raises
    ------
    NumericsError
        Fewer than one draw in fifty is accepted.
    """
    parts = list(_chunks(flow, target, n, seed))
    return FlowDraws(
        np.concatenate([part.z for part in parts]),
        pool([part.densities for part in parts]),
        np.concatenate([part.rejected for part in parts])[:_MOST_REJECTED_KEPT],
    )


def draw_log_densities(flow: Flow, target: Density, n: int, seed: int) -> LogDensities:
    """Do as `draw`, but keep only the log densities: memory for 16 bytes a draw.

    Raises
    ------
    NumericsError
        Fewer than one draw in fifty is accepted.
    """
    return pool([part.densities for part in _chunks(flow, target, n, seed)])


def pool(parts: list[LogDensities]) -> LogDensities:
    """Return the densities of several sets of draws as those of one."""
    return LogDensities(
        np.concatenate([part.log_p for part in parts]),
        np.concatenate([part.log_q for part in parts]),
        sum(part.rejected for part in parts),
    )


def _chunks(flow: Flow, target: Density, n: int, seed: int) -> Iterator[FlowDraws]:
    generator = torch.Generator().manual_seed(seed)
    accepted = rejected = 0
    while accepted < n:
        with torch.no_grad():
            z_torch, log_q_torch = flow.sample(min(_CHUNK, n), generator)
        z, log_q = z_torch.numpy(), log_q_torch.numpy()
        log_p = target.log_density(z)
        is_finite = np.isfinite(log_p) & np.isfinite(log_q)
        finite = np.flatnonzero(is_finite)
        used = finite[: n - accepted]
        # Draws after the last one used were not needed, so they count for nothing.
        looked_at = len(z) if len(used) == len(finite) else int(used[-1]) + 1
        yield FlowDraws(
            z[used],
            LogDensities(log_p[used], log_q[used], looked_at - len(used)),
            z[:looked_at][~is_finite[:looked_at]][:_MOST_REJECTED_KEPT],
        )
        accepted += len(used)
        rejected += looked_at - len(used)
        if accepted < n and rejected > _MOST_TRIES_A_DRAW * max(accepted, 100):
            raise NumericsError(
                f"only {accepted} of {accepted + rejected} draws of the trained flow have a finite "
                "log density; the program's parameters probably lack constraints that its model "
                "block relies on"
            )
