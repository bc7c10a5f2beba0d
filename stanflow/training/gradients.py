"""Path and total gradients of the ELBO."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from stanflow.arrays import FloatArray
from stanflow.flow.sweep import Sweep
from stanflow.stan.density import Density
from stanflow.training.config import Gradient
from stanflow.training.exchange import Exchange

_FEWEST_TO_DRAW_BACK_TO = 8
_FORCE_BACK = 2.0  # in standard deviations of the draws


@dataclass(frozen=True)
class BatchResult:
    """What one batch said.

    Attributes
    ----------
    elbo : float
        The batch's estimate of the ELBO: the mean of log p - log q over the accepted draws, plus
        the log of their share, as in `estimate_elbo`. Stan's constants are left out, and so are
        draws that are spread out. NaN if none is accepted.
    log_weight_sd : float
        Standard deviation of log p - log q over the same draws; NaN for fewer than two.
    rejected : int
        Draws without finite log densities or gradient; they take no part.
    """

    elbo: float
    log_weight_sd: float
    rejected: int


class GradientEstimator:
    """Estimates the gradient of -ELBO from batches of draws.

    The loss is ``E[log q(z) - log p(z)]``, z = T(e). Its total gradient is

        ``E[ (dT/dtheta)^T (d log q/dz - d log p/dz) + d log q(z; theta)/dtheta ]``.

    The second part, the score term, has mean zero. The path gradient leaves it out (Roeder, Wu,
    Duvenaud 2017, arXiv 1703.09194).

    What is left vanishes at each draw where the flow is the target, so the draws need not be the
    flow's: wherever they lie, no step is taken there once the two agree. Weighted by p/q, for one,
    it is the gradient of the other divergence, KL(p | q) (Vaitl et al. 2024, arXiv 2403.15881). A
    flow trained on its own draws alone has tails that nobody has looked at, and there the largest
    importance weights are. So a share of the draws is spread out in two coordinates of their base
    points; both kinds count alike. Where a density is steep beyond bounds, one of them would decide
    the step, so the derivative of each draw may be shortened.

    Parameters
    ----------
    sweep : Sweep
        Through the flow, whose gradients are written.
    target : Density
        The density p, evaluated in float64.
    kind : {"path", "total"}
        For "total" the sweep must have been made with ``total=True``.
    tail_share : float
        Share of the draws that are spread out; for path gradients only.
    longest : float, optional
        Path derivatives with respect to a draw that are longer than ``longest sqrt(D)`` are
        shortened to it.
    """

    def __init__(
        self,
        sweep: Sweep,
        target: Density,
        kind: Gradient = "path",
        tail_share: float = 0.0,
        longest: float | None = None,
    ) -> None:
        if sweep.score is None:
            raise ValueError("the sweep carries no score")
        self._sweep = sweep
        self._score = sweep.score
        self._exchange = Exchange(target, sweep.z)
        self._total = kind == "total"
        self._tails = int(tail_share * sweep.batch)
        self._longest = None if longest is None else longest * math.sqrt(sweep.flow.dim)
        self._cotangent = torch.empty_like(sweep.z)

    def estimate(
        self, generator: torch.Generator, given: torch.Tensor | None = None
    ) -> BatchResult:
        """Draw a batch and write the gradient of -ELBO; zero if no draw is accepted.

        Parameters
        ----------
        generator : torch.Generator
            Source of the draws.
        given : Tensor of shape (n, D), optional
            Base points to take in place of the first n draws.
        """
        sweep, cotangent = self._sweep, self._cotangent
        sweep.draw(generator, self._tails, given)
        there = self._exchange.evaluate(sweep.z)
        log_q = sweep.log_q.cpu().numpy()
        torch.sub(self._score, there.gradient, out=cotangent)
        # A sum is not finite if one of its terms is not: no need to look at each.
        finite = torch.isfinite(cotangent.sum(0)).cpu().numpy()
        accepted = finite & there.accepted & np.isfinite(log_q)
        n_accepted = int(accepted.sum())
        rejected = sweep.batch - n_accepted
        if n_accepted == 0:
            sweep.flow.flat_gradient.zero_()
            return BatchResult(math.nan, math.nan, rejected)
        keep = torch.from_numpy(accepted).to(cotangent.device)
        weight: torch.Tensor | None = None
        if self._total:
            torch.neg(there.gradient, out=cotangent)
            weight = keep.double() / n_accepted
        elif self._longest is not None:
            _shorten(cotangent, self._longest)
        cotangent.div_(n_accepted)
        if rejected:
            cotangent[:, ~keep] = 0
            self._draw_back(accepted)
        sweep.pull(cotangent, weight)
        return result_of(there.log_density - log_q, accepted, self._tails)

    def _draw_back(self, accepted: npt.NDArray[np.bool_]) -> None:
        """Move the flow's own draws that were rejected towards those that were not.

        Where a density falls to zero at once, nothing else keeps the flow from moving beyond: the
        draws that are accepted know only that it rises towards there.
        """
        own = np.arange(len(accepted)) >= self._tails
        inside, outside = np.flatnonzero(own & accepted), np.flatnonzero(own & ~accepted)
        if self._total or len(inside) < _FEWEST_TO_DRAW_BACK_TO or len(outside) == 0:
            return
        sd, mean = torch.std_mean(self._sweep.z[:, inside], dim=1, keepdim=True)
        away = (self._sweep.z[:, outside] - mean) / sd
        force = _FORCE_BACK / sd * away / torch.sqrt(1 + away.square())
        self._cotangent[:, outside] = force.nan_to_num(0, 0, 0) / int(accepted.sum())

    def log_weights(self, generator: torch.Generator) -> FloatArray:
        """Return log p - log q of a batch of the flow's own draws, those without one left out."""
        self._sweep.draw(generator)
        there = self._exchange.evaluate(self._sweep.z)
        log_weights = there.log_density - self._sweep.log_q.cpu().numpy()
        return np.asarray(log_weights[there.accepted & np.isfinite(log_weights)])

    def largest(self) -> FloatArray:
        """Return the largest ``|x|`` after the base and after each coupling layer, last batch."""
        return self._sweep.largest().double().cpu().numpy()


def result_of(log_weights: FloatArray, accepted: npt.NDArray[np.bool_], tails: int) -> BatchResult:
    """Judge a batch by its draws that are not spread out.

    Parameters
    ----------
    log_weights : array of shape (B,)
        log p - log q.
    accepted : bool array of shape (B,)
    tails : int
        How many draws are spread out, the first ones.
    """
    rejected = len(accepted) - int(np.count_nonzero(accepted))
    counted = accepted[tails:]
    own = log_weights[tails:][counted]
    n = len(own)
    if n == 0:
        return BatchResult(math.nan, math.nan, rejected)
    mean = float(own.sum()) / n
    away = own - mean
    sd = math.sqrt(float(away @ away) / (n - 1)) if n > 1 else math.nan
    return BatchResult(mean + math.log(n / len(counted)), sd, rejected)


def _shorten(cotangent: torch.Tensor, longest: float) -> None:
    """Shorten the columns that are too long."""
    norm = torch.linalg.vector_norm(cotangent, dim=0)
    too_long = norm > longest
    if too_long.any():
        cotangent.mul_(torch.where(too_long, longest / norm, 1.0))
