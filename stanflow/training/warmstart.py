"""Where training begins: location and scale of a quick mean-field fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stanflow.target.density import Target
from stanflow.target.loaded import FloatArray

_STEPS = 400
_BATCH = 16
_FIRST_STEP, _LAST_STEP = 0.2, 0.01
_DECAY_MEAN, _DECAY_SQUARE = 0.9, 0.99


@dataclass(frozen=True)
class LocationScale:
    """A diagonal Gaussian N(location, diag(exp(log_scale))^2), both of shape (D,)."""

    location: FloatArray
    log_scale: FloatArray
    gradient_evaluations: int


def mean_field_start(target: Target, rng: np.random.Generator) -> LocationScale:
    """Fit a diagonal Gaussian by path gradients and Adam in float64.

    It begins at the best of Stan's own starting points. Each step costs a few gradients of the
    target and next to nothing else, and brings the flow's output layer near the posterior
    wherever that lies.

    Parameters
    ----------
    target : Target
        The density.
    rng : numpy.random.Generator
        Source of the starting points and draws.

    Raises
    ------
    InitializationError
        No starting point has a finite log density.
    """
    starts = target.starting_points(_BATCH, rng)
    best = int(np.argmax(target.log_density_gradient(starts).log_density))
    dim = target.dim
    parameters = np.concatenate([starts[best], np.full(dim, -1.0)])
    mean, square = np.zeros(2 * dim), np.zeros(2 * dim)
    for step in range(1, _STEPS + 1):
        scale = np.exp(parameters[dim:])
        e = rng.standard_normal((_BATCH, dim))
        batch = target.log_density_gradient(parameters[:dim] + scale * e)
        if not batch.accepted.any():
            parameters[dim:] -= 0.1  # every draw was rejected: draw closer to the centre
            continue
        cotangent = (-e / scale - batch.gradient)[batch.accepted]
        gradient = np.concatenate(
            [cotangent.mean(0), (cotangent * scale * e[batch.accepted]).mean(0)]
        )
        mean += (1 - _DECAY_MEAN) * (gradient - mean)
        square += (1 - _DECAY_SQUARE) * (gradient**2 - square)
        size = _FIRST_STEP * (_LAST_STEP / _FIRST_STEP) ** (step / _STEPS)
        corrected = mean / (1 - _DECAY_MEAN**step)
        norm = np.sqrt(square / (1 - _DECAY_SQUARE**step)) + 1e-12
        parameters -= size * corrected / norm
    evaluations = 2 * _BATCH + _STEPS * _BATCH
    return LocationScale(parameters[:dim], parameters[dim:], evaluations)
