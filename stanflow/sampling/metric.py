"""The units that points move in."""

from __future__ import annotations

import numpy as np

from stanflow.arrays import FloatArray
from stanflow.statistics.ranks import normal_scores

_DENSE_UP_TO = 200  # dimensions


class Metric:
    """Draws as a map from the standard normal's scale: dense where D is small, and they are many.

    Correlations are those of normal scores, which heavy tails do not spoil.

    Parameters
    ----------
    draws : array of shape (S, D)
        Whose standard deviations, and correlations, are those of the map's image.
    scale : array of shape (D,), optional
        Taken instead of the standard deviations; then there may be no draws.
    factor : array of shape (D, D), optional
        Lower-triangular, of their covariance, where it is known; then the map is this.

    Attributes
    ----------
    scale : array of shape (D,)
    factor : array of shape (D, D) or None
        The map is ``scale * F u``.
    """

    def __init__(
        self,
        draws: FloatArray,
        scale: FloatArray | None = None,
        factor: FloatArray | None = None,
    ) -> None:
        n, dim = draws.shape
        self.scale: FloatArray
        self.factor = factor
        if factor is not None:
            self.scale = np.ones(dim)
            return
        scale = np.std(draws, axis=0) if scale is None else scale
        self.scale = np.maximum(scale, np.finfo(np.float64).tiny)
        if dim <= _DENSE_UP_TO and n >= 10 * dim:
            scores = np.empty_like(draws, order="C")
            for coordinate, x in enumerate(draws.T):
                scores[:, coordinate] = normal_scores(x, 0.5)
            correlation = np.corrcoef(scores, rowvar=False)
            jitter = 1e-6 * np.eye(dim)
            if np.isfinite(correlation).all():
                self.factor = np.asarray(
                    np.linalg.cholesky(np.reshape(correlation, (dim, dim)) + jitter)
                )

    @classmethod
    def of_scale(cls, scale: FloatArray) -> Metric:
        """Return one without correlations; a coordinate with a scale of 0 does not move."""
        metric = cls(np.empty((0, len(scale))), scale)
        metric.scale = scale
        return metric

    def to_space(self, u: FloatArray) -> FloatArray:
        """Map steps of shape (C, D) in units of the draws to steps in z."""
        return np.asarray(self.scale * (u if self.factor is None else u @ self.factor.T))

    def pull_back(self, gradient: FloatArray) -> FloatArray:
        """Map gradients of shape (C, D) in z to gradients in units of the draws."""
        scaled = gradient * self.scale
        return np.asarray(scaled if self.factor is None else scaled @ self.factor)
