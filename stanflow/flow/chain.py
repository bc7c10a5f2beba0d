"""Runs of small layers as one compiled call each way (chain_passes.h).

In few dimensions a layer's passes take microseconds, as long as it takes to call them. A chain
makes one call for all of its layers, and gives each thread a part of the batch to take through all
of them. The parts follow from the batch alone, so that results do not depend on how many threads
there are.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import partial
from itertools import groupby, pairwise

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from stanflow.flow.affine import ShiftScale
from stanflow.flow.bijection import Bijection, Passes
from stanflow.flow.coupling import AffineCoupling
from stanflow.flow.loft import Loft
from stanflow.flow.network import MOST_DIMENSIONS_OF_SMALL_LAYERS, is_small
from stanflow.flow.sinh_arcsinh import SinhArcsinh
from stanflow.flow.workspace import Workspace
from stanflow.kernels import layers as compiled


def passes_of(
    dim: int, layers: Sequence[Bijection], workspace: Workspace, flat_gradient: Tensor | None
) -> list[Passes]:
    """Return the passes of a flow's layers, runs of small ones as chains.

    Parameters
    ----------
    dim : int
        D.
    layers : sequence of Bijection
    workspace : Workspace
        Source of the buffers. Where it shares them between layers, or has no compiled passes,
        there are no chains.
    flat_gradient : Tensor of shape (P,), optional
        Where the flow's gradients are, if they will be wanted.
    """
    made: list[Passes] = []
    for links, group in groupby(layers, partial(_links, workspace, dim)):
        run = list(group)
        if links and workspace.library is not None:
            chain = Chain(dim, run, workspace, workspace.library, flat_gradient)
            made.append(chain)
        else:
            made += [layer.passes(workspace) for layer in run]
    return made


def _links(workspace: Workspace, dim: int, bijection: Bijection) -> bool:
    """Return whether a layer may be part of a chain."""
    if workspace.library is None or not workspace.keep:
        return False
    if isinstance(bijection, AffineCoupling):
        return is_small(bijection)
    elementwise = isinstance(bijection, SinhArcsinh | Loft | ShiftScale)
    return elementwise and dim <= MOST_DIMENSIONS_OF_SMALL_LAYERS


class Chain(Passes):
    """The passes of a run of small layers, each of which has a link (see `Passes.link`).

    Parameters
    ----------
    dim : int
        D.
    layers : sequence of Bijection
        At least one.
    workspace : Workspace
        Source of the buffers.
    library : ctypes.CDLL
        The compiled passes.
    flat_gradient : Tensor of shape (P,), optional
        Where the flow's gradients are, if they will be wanted. Each part but the first writes its
        own to a tensor alike, and these are added.
    """

    def __init__(
        self,
        dim: int,
        layers: Sequence[Bijection],
        workspace: Workspace,
        library: ctypes.CDLL,
        flat_gradient: Tensor | None,
    ) -> None:
        batch, parts = workspace.batch, workspace.parts_of_columns
        bounds = np.linspace(0, batch, parts + 1).astype(int)
        self.layers = len(layers)
        self._gradient = flat_gradient
        self.more_gradients: list[Tensor] = []
        self._keep_alive: list[object] = []
        structures = (compiled.ChainPart * parts)()
        for i, (first, end) in enumerate(pairwise(bounds)):
            own = workspace.of_part(i, int(end - first), self._gradients_away(i))
            passes = [layer.passes(own) for layer in layers]
            links = (compiled.Link * len(layers))(*[p.link(dim) for p in passes])
            points, score = (own.empty(dim, own.batch) for _ in range(2))
            structures[i] = compiled.ChainPart(
                first=int(first),
                columns=own.batch,
                links=ctypes.addressof(links),
                points=points.data_ptr(),
                score=score.data_ptr(),
            )
            self._keep_alive += [passes, links, points, score]
        workspace.skip_rows_of_largest(sum(isinstance(x, AffineCoupling) for x in layers))
        self.parts = structures
        self._arguments = compiled.Chain(
            dim=dim,
            batch=batch,
            layers=len(layers),
            parts=parts,
            threads=workspace.threads,
            part=ctypes.addressof(structures),
        )
        self._address = ctypes.addressof(self._arguments)
        self.calls = compiled.Calls(library, workspace.like.dtype)

    def _gradients_away(self, part: int) -> int:
        """Return how many bytes from the flow's own a part's gradients are."""
        if self._gradient is None or part == 0:
            return 0
        more = torch.zeros_like(self._gradient)
        self.more_gradients.append(more)
        return more.data_ptr() - self._gradient.data_ptr()

    @override
    def push(self, x: Tensor, score: Tensor | None, log_q: Tensor) -> None:
        score_address = None if score is None else score.data_ptr()
        self.calls.chain_push(self._address, x.data_ptr(), score_address, log_q.data_ptr())

    @override
    def pull(self, cotangent: Tensor, log_q_weight: Tensor | None) -> None:
        weight = None if log_q_weight is None else log_q_weight.data_ptr()
        self.calls.chain_pull(self._address, cotangent.data_ptr(), weight)
        for more in self.more_gradients:
            assert self._gradient is not None
            self._gradient.add_(more)

    @override
    def restore(self, x: Tensor) -> None:
        raise NotImplementedError("a chain keeps what its layers need")
