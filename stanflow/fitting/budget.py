"""How a fit's time is shared between training and judging."""

from __future__ import annotations

from stanflow.fitting.assessment import SHARE_OF_TRAINING, evaluations_to_judge

_MOST_FOR_JUDGING = 0.5  # of the time
_SLACK = 1.2  # of judging
_LEAST_FOR_TRAINING = 0.1  # of the time
_SHORTEST = 1e-9  # seconds


def share_time(
    a_gradient: float, seconds: float, draws: int, evidence_draws: int
) -> tuple[float, int]:
    """Divide the time that is left between training and judging.

    A program whose gradients are dear has fewer draws for the evidence, though no fewer than are
    kept.

    Parameters
    ----------
    a_gradient : float
        Seconds that one takes.
    seconds : float
        What is left.
    draws, evidence_draws : int
        Draws to keep, and to judge by.

    Returns
    -------
    seconds : float
        For training.
    evidence_draws : int
        To judge by.
    """
    a_draw = _SLACK * a_gradient
    affordable = int(_MOST_FOR_JUDGING * seconds / a_draw) - evaluations_to_judge(0)
    judged_by = min(evidence_draws, max(draws, affordable))
    training = (seconds - a_draw * evaluations_to_judge(judged_by)) / (1 + SHARE_OF_TRAINING)
    return max(training, _LEAST_FOR_TRAINING * seconds, _SHORTEST), judged_by
