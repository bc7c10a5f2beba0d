"""Stan's gradient held against finite differences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stanflow.stan.model import StanModel

_MOST_COORDINATES = 200
_POINTS = 3
_STEP = 1e-4
_AGREES_BELOW = 1e-4


@dataclass(frozen=True)
class GradientCheck:
    """The largest difference found.

    Attributes
    ----------
    error : float
        ``|gradient - difference quotient| / (1 + |gradient|)``, the largest; infinity where no
        difference quotient was finite.
    worst_parameter : str
        The unconstrained parameter it was found at.
    """

    error: float
    worst_parameter: str

    @property
    def agrees(self) -> bool:
        """Whether the difference is what rounding explains."""
        return self.error < _AGREES_BELOW


def check_gradient(model: StanModel, seed: int) -> GradientCheck:
    """Compare the gradient with differences at a few starting points.

    The five-point formula ``(f(-2h) - 8 f(-h) + 8 f(h) - f(2h)) / 12h`` has an error of order
    h^4, so that h can be large enough for rounding not to matter. At most 200 coordinates a
    point, chosen at random, are compared.

    Parameters
    ----------
    model : StanModel
        The model.
    seed : int
        For the points and coordinates.

    Raises
    ------
    InitializationError
        The log density is not finite at any starting point.
    """
    rng = np.random.default_rng(seed)
    points = model.starting_points(_POINTS, rng)
    gradients = model.log_density_gradient(points).gradient
    worst = GradientCheck(0.0, model.unconstrained_names[0])
    compared = 0
    for point, gradient in zip(points, gradients, strict=True):
        chosen = rng.permutation(model.dim)[:_MOST_COORDINATES]
        directions = np.zeros((len(chosen), model.dim))
        directions[np.arange(len(chosen)), chosen] = _STEP
        offsets = np.array([-2.0, -1.0, 1.0, 2.0])
        shifted = point + offsets[:, None, None] * directions
        values = model.log_density_gradient(shifted.reshape(-1, model.dim)).log_density
        weights = np.array([1.0, -8.0, 8.0, -1.0]) / (12 * _STEP)
        quotients = weights @ values.reshape(len(offsets), len(chosen))
        errors = np.abs(gradient[chosen] - quotients) / (1 + np.abs(gradient[chosen]))
        finite = np.flatnonzero(np.isfinite(errors))
        compared += len(finite)
        for i in finite:
            if errors[i] > worst.error:
                worst = GradientCheck(float(errors[i]), model.unconstrained_names[chosen[i]])
    return worst if compared else GradientCheck(float("inf"), worst.worst_parameter)
