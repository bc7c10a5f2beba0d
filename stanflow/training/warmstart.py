"""Where training begins: location and scale of a quick mean-field fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stanflow.target.density import Target
from stanflow.target.loaded import FloatArray

_STEPS = 400
_AVERAGED = 100
_BATCH = 16
_BATCH_FOR_ELBO = 64
_GROW, _SHRINK = 1.2, 0.5
_FIRST_STEP = 0.1
_LONGEST_STEP_OF_LOCATION, _LONGEST_STEP_OF_LOG_SCALE = 1e6, 0.5


@dataclass(frozen=True)
class LocationScale:
    """A diagonal Gaussian N(location, diag(exp(log_scale))^2), both of shape (D,)."""

    location: FloatArray
    log_scale: FloatArray
    gradient_evaluations: int


def mean_field_start(target: Target, rng: np.random.Generator) -> LocationScale:
    """Fit a diagonal Gaussian by path gradients and Rprop steps in float64.

    Rprop (Riedmiller and Braun 1993) looks at the signs of a gradient alone: a coordinate's step
    grows while its sign stays and halves when it turns. So a posterior a thousand units away is
    reached in some fifty steps whatever the scales are, and near it the noise of the draws makes
    the steps die out. The average of the last steps is returned, or the start if its ELBO is
    higher.

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
    start = np.concatenate([starts[best], np.full(dim, -1.0)])
    longest = np.repeat([_LONGEST_STEP_OF_LOCATION, _LONGEST_STEP_OF_LOG_SCALE], dim)
    parameters, usable = start, start
    steps, signs = np.full(2 * dim, _FIRST_STEP), np.zeros(2 * dim)
    total = np.zeros(2 * dim)
    for step in range(_STEPS):
        gradient = _path_gradient(target, parameters, rng)
        if gradient is None:  # too far: go back, and on from there more carefully
            parameters = np.concatenate([usable[:dim], usable[dim:] - _FIRST_STEP])
            steps = _SHRINK * steps
        else:
            usable = parameters
            turned = np.sign(gradient) * signs < 0
            steps = np.minimum(np.where(turned, _SHRINK, _GROW) * steps, longest)
            signs = np.sign(gradient)
            parameters = parameters - steps * signs
        if step >= _STEPS - _AVERAGED:
            total += usable / _AVERAGED
    elbos = [_elbo(target, candidate, rng) for candidate in (total, start)]
    mean = total if elbos[0] >= elbos[1] else start
    evaluations = _BATCH * (_STEPS + 1) + 2 * _BATCH_FOR_ELBO
    return LocationScale(mean[:dim], mean[dim:], evaluations)


def _path_gradient(
    target: Target, parameters: FloatArray, rng: np.random.Generator
) -> FloatArray | None:
    """Return the gradient of -ELBO in (location, log scale); None if no draw is accepted."""
    dim = target.dim
    scale = np.exp(parameters[dim:])
    e = rng.standard_normal((_BATCH, dim))
    batch = target.log_density_gradient(parameters[:dim] + scale * e)
    if not batch.accepted.any():
        return None
    e = e[batch.accepted]
    cotangent = -e / scale - batch.gradient[batch.accepted]
    return np.concatenate([cotangent.mean(0), (cotangent * scale * e).mean(0)])


def _elbo(target: Target, parameters: FloatArray, rng: np.random.Generator) -> float:
    """Estimate the ELBO up to a constant; -infinity if any draw is rejected."""
    dim = target.dim
    e = rng.standard_normal((_BATCH_FOR_ELBO, dim))
    batch = target.log_density_gradient(parameters[:dim] + np.exp(parameters[dim:]) * e)
    if not batch.accepted.all():
        return -np.inf
    return float(batch.log_density.mean() + parameters[dim:].sum())
