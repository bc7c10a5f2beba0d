"""The affine coupling layer of Real NVP."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from stanflow.flow.bijection import Bijection, Passes
from stanflow.flow.clamp import make_clamp
from stanflow.flow.conditioner import GlobalConditioner, LocalConditioner
from stanflow.flow.config import FlowConfig
from stanflow.flow.coupling_passes import CouplingPasses
from stanflow.flow.wiring import Halves
from stanflow.flow.workspace import Workspace


class AffineCoupling(Bijection):
    """Move one half of the coordinates, b, given the other, a.

    ``b' = b * exp(s(u)) + t`` (Dinh, Sohl-Dickstein, Bengio 2017, arXiv 1605.08803). The raw log
    scale u and the shift t are functions of a: those of a global conditioner and, where the halves
    name partners, of a local one. s is the clamp. The layer starts as the identity.

    Parameters
    ----------
    halves : Halves
        Which coordinates are moved, and which of the kept ones are their partners.
    config : FlowConfig
        Sizes and clamp.
    """

    def __init__(self, halves: Halves, config: FlowConfig) -> None:
        super().__init__()
        self.kept: Tensor
        self.moved: Tensor
        self.register_buffer("kept", torch.from_numpy(halves.kept), persistent=False)
        self.register_buffer("moved", torch.from_numpy(halves.moved), persistent=False)
        dim = len(halves.kept) + len(halves.moved)
        downward = config.downward_threshold(dim)
        self.clamp = make_clamp(config.clamp, config.clamp_positive, downward)
        self.conditioner = GlobalConditioner(
            len(self.kept),
            len(self.moved),
            config.hidden_units(dim),
        )
        self.local = (
            LocalConditioner(
                torch.from_numpy(halves.partner_positions),
                config.local_features,
            )
            if halves.partners.shape[1] > 0
            else None
        )

    def _condition(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log scale s and the shift t."""
        u, t = self.conditioner(a) if self.local is None else self.conditioner(a) + self.local(a)
        return self.clamp(u), t

    @override
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        s, t = self._condition(x[:, self.kept])
        moved = x[:, self.moved] * s.exp() + t
        return x.index_copy(1, self.moved, moved), s.sum(-1)

    @override
    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        s, t = self._condition(y[:, self.kept])
        moved = (y[:, self.moved] - t) * (-s).exp()
        return y.index_copy(1, self.moved, moved), s.sum(-1)

    @override
    def passes(self, workspace: Workspace) -> Passes:
        return CouplingPasses(self, workspace)
