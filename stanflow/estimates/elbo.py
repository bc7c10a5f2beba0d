"""The evidence lower bound and its standard error."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from stanflow.estimates.draws import LogDensities
from stanflow.stan.density import NormalizingConstant


@dataclass(frozen=True)
class Elbo:
    """An estimate of the evidence lower bound.

    Attributes
    ----------
    value : float
        The estimate, in nats.
    se : float
        Its Monte Carlo standard error.
    normalized : bool
        Whether it includes the constants that Stan drops, and so bounds the evidence itself.
    """

    value: float
    se: float
    normalized: bool


def estimate_elbo(draws: LogDensities, constant: NormalizingConstant) -> Elbo:
    """Estimate the ELBO, ``E_q[log p(z) - log q(z)]``, from independent draws.

    Draws without a finite log density were left out, so the draws follow q restricted to the
    target's support, whose log density is ``log q - log(1 - r)`` with r the share left out: the
    bound is the mean of ``log p - log q`` plus ``log(1 - r)``.

    Parameters
    ----------
    draws : LogDensities
        At independent draws of the flow.
    constant : NormalizingConstant
        Added where it is known.

    Examples
    --------
    >>> import numpy as np
    >>> draws = LogDensities(np.array([-1.0, -3.0]), np.array([-1.0, -1.0]), 0)
    >>> estimate_elbo(draws, NormalizingConstant(0.0, True, "exact"))
    Elbo(value=-1.0, se=1.0, normalized=True)
    """
    log_ratio = draws.log_ratio
    n = len(log_ratio)
    share = draws.rejected_share
    variance = np.var(log_ratio, ddof=1) / n if n > 1 else math.nan
    variance += share / ((1 - share) * draws.evaluated)
    value = float(np.mean(log_ratio)) + math.log1p(-share) + constant.value
    return Elbo(value, float(np.sqrt(variance)), constant.known)
