"""Going back to where training was sound."""

from __future__ import annotations

import math
from collections import deque
from statistics import median

import torch

from stanflow.flow.realnvp import Flow
from stanflow.training.checkpoint import State

_RECENT = 20
_STEPS_BETWEEN_COPIES = 50
_SPREADS = 50.0
_LEAST_FALL = 20.0  # nats


class Safeguard:
    """Keeps a copy of the flow's parameters from when training was sound, to go back to.

    A copy is taken every 50 steps, and serves once the steps after it were sound, too.

    Training is unsound where the median ELBO of the last 20 steps is far below what it was at the
    copy (50 of its spreads there, and 20 nats), or none of these steps had a finite gradient. Then
    the parameters of the copy are put back; how to go on from there says `caution`.

    Parameters
    ----------
    flow : Flow
        In training.

    Attributes
    ----------
    returns : int
        How often training went back.
    """

    def __init__(self, flow: Flow) -> None:
        self.returns = 0
        self._flow = flow
        self._copies = flow.flat.repeat(2, 1)  # one to go back to, and a later one on trial
        self._level, self._fall = -math.inf, _LEAST_FALL
        self._recent = deque[float](maxlen=_RECENT)
        self._steps = 0

    def watch(self, elbo: float, *, stepped: bool) -> bool:
        """Take note of a step; go back and return True where training is unsound.

        Parameters
        ----------
        elbo : float
            Of the parameters before the step.
        stepped : bool
            Whether the step had a finite gradient.
        """
        self._steps += 1
        self._recent.append(elbo if stepped else math.nan)
        if len(self._recent) < _RECENT:
            return False
        finite = [recent for recent in self._recent if math.isfinite(recent)]
        level = median(finite) if finite else -math.inf
        if not finite or level < self._level - self._fall:
            self._flow.flat.copy_(self._copies[0])
            self._copies[1] = self._copies[0]
            self.returns += 1
            self._recent.clear()
            return True
        if self._steps % _STEPS_BETWEEN_COPIES == 0:
            self._copies[0] = self._copies[1]
            self._copies[1] = self._flow.flat
            self._level = level
            spread = median(abs(elbo - level) for elbo in finite)
            self._fall = max(_LEAST_FALL, _SPREADS * spread)
        return False

    def convert(self) -> None:
        """Follow the flow, whose dtype has changed."""
        self._copies = self._copies.to(self._flow.flat)

    def state(self) -> State:
        """Return both copies, (2, P), and the numbers to go on from."""
        numbers = [self.returns, self._level, self._fall, self._steps, *self._recent]
        return {"copies": self._copies, "numbers": torch.tensor(numbers, dtype=torch.float64)}

    def restore(self, state: State) -> None:
        """Take up where `state` was asked for."""
        self._copies = state["copies"].to(self._flow.flat.device)
        returns, self._level, self._fall, steps, *recent = state["numbers"].tolist()
        self.returns, self._steps = int(returns), int(steps)
        self._recent.extend(recent)
