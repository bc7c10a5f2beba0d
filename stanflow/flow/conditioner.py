"""Conditioners: the functions of the kept coordinates that say how the others are moved.

Each gives the raw log scale u and the shift t of every moved coordinate, stacked as (2, B, n).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softsign

_CENTRES_REACH = 1.5


class GlobalConditioner(nn.Module):
    """Two networks, of u and of t, that see all kept coordinates.

    Each has one hidden layer of ReLU units. Their weights stand stacked, so that a matrix product
    serves both. The output layers start at zero.

    Parameters
    ----------
    n_kept, n_moved : int
        Inputs and outputs of each network.
    hidden : int
        Units of the hidden layer, H.
    """

    def __init__(self, n_kept: int, n_moved: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.input_weight = nn.Parameter(torch.empty(2 * hidden, n_kept))
        self.input_bias = nn.Parameter(torch.empty(2 * hidden))
        self.output_weight = nn.Parameter(torch.empty(2, n_moved, hidden))
        self.output_bias = nn.Parameter(torch.empty(2, n_moved))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the hidden layer's parameters as torch.nn.Linear does; set the others to zero."""
        n_kept = self.input_weight.shape[1]
        for first in (self.input_weight, self.input_bias):
            first.uniform_(-1 / math.sqrt(n_kept), 1 / math.sqrt(n_kept))
        self.output_weight.zero_()
        self.output_bias.zero_()

    def forward(self, kept: Tensor) -> Tensor:
        """Return u and t, (2, B, n_moved), for kept coordinates of shape (B, n_kept)."""
        h = torch.relu(kept @ self.input_weight.T + self.input_bias)
        h = h.view(len(h), 2, self.hidden).transpose(0, 1)
        return h @ self.output_weight.transpose(1, 2) + self.output_bias.unsqueeze(1)


class LocalConditioner(nn.Module):
    """For each moved coordinate, its own functions of a few partners.

    It adds to u, and with w and v of its own to t,

        ``sum_k [ w_k x_k + sum_m v_km phi(g_km x_k + h_km) ]``,

    phi the softsign, x_k the k-th partner, k = 1..K, m = 1..M; g and h serve both. w and v start at
    zero, g at one, and h spreads the features' centres over where a standardised partner lies.

    Parameters
    ----------
    partners : Tensor of shape (n_moved, K)
        Positions among the kept coordinates, -1 for none.
    features : int
        M.
    """

    def __init__(self, partners: Tensor, features: int) -> None:
        super().__init__()
        self.features = features
        self.partners: Tensor
        self.register_buffer("partners", partners, persistent=False)
        n_moved, n_partners = partners.shape
        self.linear = nn.Parameter(torch.empty(2, n_moved, n_partners))
        self.weight = nn.Parameter(torch.empty(2, n_moved, n_partners, features))
        self.inner = nn.Parameter(torch.empty(2, n_moved, n_partners, features))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set w and v to zero, g to one, and spread h."""
        self.linear.zero_()
        self.weight.zero_()
        slope, offset = self.inner
        slope.fill_(1)
        reach = _CENTRES_REACH if self.features > 1 else 0.0
        # Made on the CPU: on the meta device this would import torch's compiler, in half a second.
        offset.copy_(torch.linspace(-reach, reach, self.features, device="cpu"))

    def forward(self, kept: Tensor) -> Tensor:
        """Return what is added to u and t, (2, B, n_moved), for kept of shape (B, n_kept)."""
        x = torch.where(self.partners < 0, 0.0, kept[:, self.partners.clamp(min=0)])
        present = (self.partners >= 0).to(x.dtype).unsqueeze(-1)
        phi = present * softsign(self.inner[0] * x.unsqueeze(-1) + self.inner[1])
        linear = torch.einsum("bnk,ink->ibn", x, self.linear)
        return linear + torch.einsum("bnkm,inkm->ibn", phi, self.weight)
