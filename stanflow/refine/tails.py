"""Whether draws that were moved from a flow have come to all of the posterior's tails."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from stanflow.arrays import FloatArray
from stanflow.refine.refined import Refined
from stanflow.stan.density import Density

_MOST_DIMENSIONS = 50
_DRAWS_A_COORDINATE = 400
_OUTERMOST = 0.004  # share of the draws, both sides of a coordinate together
_STANDARD_ERRORS = 3.0
_LARGEST_EXPONENT = 100.0  # of a finite weight


@np.errstate(all="ignore")  # what is not finite is left out
def mass_in_tails(target: Density, refined: Refined, *, seed: int) -> float:
    """Estimate how much of the posterior is beyond the outermost draws.

    Of each coordinate 0.4 % of the draws are beyond two quantiles. The posterior's share there
    comes from draws whose coordinate i is put at t from a Cauchy distribution c, with median and
    quartiles of the draws: as z_-i and t are independent then,

        P(z_i beyond) = E[ 1(t beyond) p(t, z_-i) c(z_i) / (p(z) c(t)) ],    z ~ p, t ~ c.

    Draws that never came to a tail do not know it; t does.

    Parameters
    ----------
    target : Density
    refined : Refined
        Its draws.
    seed : int
        For draws chosen and for t.

    Returns
    -------
    float
        The posterior's share there, over all coordinates, less the draws' own; 0 where that is
        within three standard errors of nothing, and NaN above 50 dimensions, where it is not
        looked at.
    """
    dim = target.dim
    if dim > _MOST_DIMENSIONS:
        return math.nan
    rng = np.random.default_rng(seed)
    terms = np.stack([_terms(target, refined, i, rng) for i in range(dim)])
    expected = _OUTERMOST * dim
    excess = float(terms.mean(axis=1).sum()) - expected
    of_terms = math.sqrt(terms.var(axis=1).sum() / terms.shape[1])
    of_draws = math.sqrt(expected / max(1.0, refined.settling.ess))
    significant = excess > _STANDARD_ERRORS * math.hypot(of_terms, of_draws)
    return min(1.0, excess) if significant else 0.0


def _terms(target: Density, refined: Refined, i: int, rng: np.random.Generator) -> FloatArray:
    """Return what the expectation for coordinate i is the mean of."""
    z, rows = refined.z, rng.integers(len(refined.z), size=_DRAWS_A_COORDINATE)
    low, first, median, third, high = np.quantile(
        z[:, i], [_OUTERMOST / 2, 0.25, 0.5, 0.75, 1 - _OUTERMOST / 2]
    )
    cauchy = stats.cauchy(median, (third - first) / 2)
    t = cauchy.rvs(size=len(rows), random_state=rng)
    moved = z[rows]
    moved[:, i] = t
    log_weight = target.log_density(moved) - refined.log_p[rows]
    log_weight += cauchy.logpdf(z[rows, i]) - cauchy.logpdf(t)
    beyond = ((t < low) | (t > high)) & np.isfinite(log_weight)
    return np.where(beyond, np.exp(np.minimum(log_weight, _LARGEST_EXPONENT)), 0.0)
