"""The affine coupling layer of Real NVP."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import override

from stanflow.flow.bijection import Bijection
from stanflow.flow.clamp import AsymmetricSoftClamp


class AffineCoupling(Bijection):
    """Move one half of the coordinates, given the other.

    ``b' = b * exp(s(a)) + t(a)`` (Dinh, Sohl-Dickstein, Bengio 2017, arXiv 1605.08803). The
    halves are the even and the odd coordinates. s and t come from networks with one hidden layer
    of ReLU units; s passes through a soft clamp. The output layers start at zero, so the layer
    starts as the identity.

    Parameters
    ----------
    dim : int
        D, at least 2.
    moves_odd : bool
        Whether the odd coordinates (1, 3, ...) are moved and the even ones kept, or the reverse.
    hidden : int
        Hidden units of each of the two networks.
    clamp : AsymmetricSoftClamp
        Bounds the log scale.

    Raises
    ------
    ValueError
        D is 1: one coordinate cannot be split.
    """

    def __init__(
        self, dim: int, *, moves_odd: bool, hidden: int, clamp: AsymmetricSoftClamp
    ) -> None:
        super().__init__()
        if dim < 2:
            raise ValueError("a coupling layer needs at least two coordinates")
        self._kept = slice(0, None, 2) if moves_odd else slice(1, None, 2)
        self._moved = slice(1, None, 2) if moves_odd else slice(0, None, 2)
        n_moved = dim // 2 if moves_odd else (dim + 1) // 2
        self._hidden_units = hidden
        self._clamp = clamp
        self.hidden = nn.Linear(dim - n_moved, 2 * hidden)
        self.raw_scale = nn.Linear(hidden, n_moved)
        self.shift = nn.Linear(hidden, n_moved)
        for output in (self.raw_scale, self.shift):
            nn.init.zeros_(output.weight)
            nn.init.zeros_(output.bias)

    def _condition(self, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the raw scale u, the shift t and the hidden activations."""
        h = torch.relu(self.hidden(a))
        return (
            self.raw_scale(h[:, : self._hidden_units]),
            self.shift(h[:, self._hidden_units :]),
            h,
        )

    def _join(self, like: Tensor, kept: Tensor, moved: Tensor) -> Tensor:
        joined = torch.empty_like(like)
        joined[:, self._kept] = kept
        joined[:, self._moved] = moved
        return joined

    def _move(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return y and the log-determinant, and what the score needs: u, exp(s) and h."""
        a, b = x[:, self._kept], x[:, self._moved]
        u, t, h = self._condition(a)
        s = self._clamp(u)
        scale = s.exp()
        return self._join(x, a, b * scale + t), s.sum(-1), u, scale, h

    @override
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, log_det, *_ = self._move(x)
        return y, log_det

    @override
    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        a, moved = y[:, self._kept], y[:, self._moved]
        u, t, _ = self._condition(a)
        s = self._clamp(u)
        return self._join(y, a, (moved - t) * (-s).exp()), s.sum(-1)

    @override
    def push_score(self, x: Tensor, score: Tensor) -> Tensor:
        return self.forward_with_score(x, score)[2]

    @override
    def forward_with_score(self, x: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, log_det, u, scale, h = self._move(x)
        with torch.no_grad():
            score_moved = score[:, self._moved] / scale
            # What the networks' outputs (u, t) add to the moved half and to the log-determinant,
            # pulled back to the kept half through the networks.
            from_u = (score_moved * x[:, self._moved] * scale + 1) * self._clamp.derivative(u)
            back = torch.cat(
                (from_u @ self.raw_scale.weight, score_moved @ self.shift.weight), dim=1
            )
            score_kept = score[:, self._kept] - (back * (h > 0)) @ self.hidden.weight
            return y, log_det, self._join(x, score_kept, score_moved)
