"""Beyond which value of which parameter a flow's draws are rejected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stanflow.arrays import FloatArray

_FEWEST_REJECTED = 10
_BEYOND = 0.9  # of the rejected draws
_OVERFLOWN = 1e100
_ON_THIS_SIDE = 0.05  # of the rejected draws


@dataclass(frozen=True)
class Boundary:
    """Bounds of a parameter that the program relies on and does not declare.

    Attributes
    ----------
    parameter : str
        Its name.
    lower, upper : float or None
        About where nearly all draws beyond are rejected; None where there is no such bound.
    """

    parameter: str
    lower: float | None
    upper: float | None

    @property
    def beyond(self) -> str:
        """Where the draws are rejected, in words."""
        if self.lower is None:
            return f"{self.parameter} is above {self.upper:.3g}"
        if self.upper is None:
            return f"{self.parameter} is below {self.lower:.3g}"
        return f"{self.parameter} is below {self.lower:.3g} or above {self.upper:.3g}"

    @property
    def declaration(self) -> str:
        """What the program should declare, in words."""
        bounds = [
            f"{side}={value:.3g}"
            for side, value in (("lower", self.lower), ("upper", self.upper))
            if value is not None
        ]
        return f"<{', '.join(bounds)}> or so for {self.parameter}"


def find_boundary(
    z: FloatArray,
    rejected: FloatArray,
    names: tuple[str, ...],
    constrained: Mapping[str, FloatArray],
) -> Boundary | None:
    """Find the parameter whose value tells rejected draws from the others.

    Parameters
    ----------
    z : array of shape (S, D)
        Unconstrained draws that were accepted.
    rejected : array of shape (R, D)
        And such that were not.
    names : tuple of str
        Of the D unconstrained parameters.
    constrained : mapping of str to array of shape (S,)
        The accepted draws' scalars on the program's scale.

    Returns
    -------
    Boundary or None
        None where no single parameter does.

    Examples
    --------
    >>> z = np.array([[0.1, 3.0], [1.9, -3.0]])
    >>> rejected = np.array([[2.1, 1.0]] * 10)
    >>> columns = {"sigma": z[:, 0], "mu": z[:, 1]}
    >>> find_boundary(z, rejected, ("sigma", "mu"), columns)
    Boundary(parameter='sigma', lower=None, upper=1.9)
    """
    if len(rejected) < _FEWEST_REJECTED:
        return None
    below, above = rejected < z.min(axis=0), rejected > z.max(axis=0)
    found = int(np.argmax((below | above).mean(axis=0)))
    name = names[found]
    values = constrained.get(name)
    if values is None or (below | above)[:, found].mean() < _BEYOND:
        return None
    order = np.argsort(z[:, found])
    steps = np.diff(values[order])
    ends = [
        float(values[order[end]]) if beyond[:, found].mean() > _ON_THIS_SIDE else None
        for end, beyond in ((0, below), (-1, above))
    ]
    if all(end is None or abs(end) > _OVERFLOWN for end in ends):
        return None
    if (steps >= 0).all():
        return Boundary(name, *ends)
    return Boundary(name, *reversed(ends)) if (steps <= 0).all() else None
