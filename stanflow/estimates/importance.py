"""The evidence by importance sampling, and whether its weights can be trusted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from stanflow.arrays import FloatArray
from stanflow.estimates.draws import LogDensities
from stanflow.stan.density import NormalizingConstant
from stanflow.statistics.importance_weights import (
    effective_sample_size,
    log_sum_exp,
    pareto_smoothed,
)


@dataclass(frozen=True)
class ImportanceEstimate:
    """What the importance weights ``w = p / q`` of S draws of the flow say.

    Attributes
    ----------
    log_evidence : float
        ``log mean w``, in nats.
    se : float
        Its standard error by the delta method, ``sd(w) / (sqrt(S) mean(w))``. Weights whose tail
        has a shape k above 1/2 have no variance, and the error of their mean falls as
        ``S^(k - 1)`` instead of ``S^(-1/2)`` (stable laws), so there it is multiplied by
        ``S^(k-hat - 1/2)``, k-hat up to 1.
    smoothed_log_evidence : float
        The same from Pareto-smoothed weights.
    normalized : bool
        Whether Stan's dropped constants are included.
    pareto_k : float
        The estimated shape of the weights' upper tail, k-hat; see `pareto_smoothed`.
    ess : float
        ``1 / sum w^2`` of the smoothed weights, which add up to one: how many draws of the
        posterior itself the S draws are worth.
    log_weights : array of shape (S,)
        Log of the smoothed weights.
    """

    log_evidence: float
    se: float
    smoothed_log_evidence: float
    normalized: bool
    pareto_k: float
    ess: float
    log_weights: FloatArray


def estimate_evidence(draws: LogDensities, constant: NormalizingConstant) -> ImportanceEstimate:
    """Estimate the evidence, ``Z = E_q[p(z) / q(z)]``, from independent draws.

    The weights' upper tail is smoothed, and judged, by `pareto_smoothed`. Draws that the target
    refuses have weight zero.

    Parameters
    ----------
    draws : LogDensities
        At independent draws of the flow.
    constant : NormalizingConstant
        Added where it is known.

    Examples
    --------
    The flow N(0, 2), the target a standard normal without its constant: Z is sqrt(2 pi).

    >>> import numpy as np
    >>> z = np.random.default_rng(1).normal(0, 2, size=100_000)
    >>> log_q = -0.5 * (z / 2) ** 2 - np.log(2) - 0.5 * np.log(2 * np.pi)
    >>> draws = LogDensities(-0.5 * z**2, log_q, 0)
    >>> estimate = estimate_evidence(draws, NormalizingConstant(0.0, True, "exact"))
    >>> abs(estimate.log_evidence - 0.5 * np.log(2 * np.pi)) < 4 * estimate.se < 0.02
    True
    """
    log_ratio = draws.log_ratio
    log_weights, pareto_k = pareto_smoothed(log_ratio)
    shift = float(log_ratio.max())
    w = np.exp(log_ratio - shift)
    mean = w.sum() / draws.evaluated
    mean_square = (w**2).sum() / draws.evaluated
    se = math.sqrt(max(mean_square / mean**2 - 1, 0.0) / (draws.evaluated - 1))
    se *= draws.evaluated ** (min(max(pareto_k, 0.5), 1.0) - 0.5)
    offset = constant.value - math.log(draws.evaluated)
    # The weights before normalisation: smoothing leaves all but the tail as it was.
    lightest = int(np.argmin(log_ratio))
    smoothed_total = float(log_ratio[lightest] - log_weights[lightest])
    return ImportanceEstimate(
        log_evidence=log_sum_exp(log_ratio) + offset,
        se=se,
        smoothed_log_evidence=smoothed_total + offset,
        normalized=constant.known,
        pareto_k=pareto_k,
        ess=effective_sample_size(log_weights),
        log_weights=log_weights,
    )


def highest_pareto_k(draws: int) -> float:
    """Return the k-hat from which weights cannot be trusted: ``min(1 - 1 / log10(S), 0.7)``.

    The more draws, the heavier a tail they can still describe (Vehtari et al. 2024, section 3.2.4).

    Examples
    --------
    >>> highest_pareto_k(4000)
    0.7
    >>> round(highest_pareto_k(200), 3)
    0.565
    """
    return min(1 - 1 / math.log10(max(draws, 11)), 0.7)
