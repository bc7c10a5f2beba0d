"""A density held within where one coordinate is below a bound, or above one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from stanflow.arrays import FloatArray
from stanflow.stan.density import Density, DensityBatch


@dataclass(frozen=True)
class Restraint:
    """How a coordinate t is held: beyond a bound b, densities fall as a normal's tail does.

    They are multiplied by ``exp(-x^2 / 2)``, ``x = max(0, sign (t - b) / width)``, which is 1 up to
    the bound: draws there are those of the density itself, given that.

    Attributes
    ----------
    coordinate : int
    sign : int
        1 where what is above the bound is beyond it, -1 where what is below.
    bound, width : float
    """

    coordinate: int
    sign: int
    bound: float
    width: float

    @property
    def direction(self) -> tuple[int, int]:
        """The coordinate and the sign."""
        return self.coordinate, self.sign

    def way_beyond(self, z: FloatArray) -> FloatArray:
        """Return how far beyond the bound, in widths, points of shape (n, D) are; negative within.

        Examples
        --------
        >>> Restraint(0, -1, bound=1.0, width=0.5).way_beyond(np.array([[0.0], [2.0]]))
        array([ 2., -2.])
        """
        return np.asarray(self.sign * (z[:, self.coordinate] - self.bound) / self.width)

    def log_factor(self, z: FloatArray) -> FloatArray:
        """Return the log of what densities are multiplied by at points of shape (n, D), (n,)."""
        return np.asarray(-0.5 * np.maximum(self.way_beyond(z), 0.0) ** 2)

    def holds(self, z: FloatArray) -> npt.NDArray[np.bool_]:
        """Return which points of shape (n, D) are within the bound."""
        return np.asarray(self.way_beyond(z) <= 0)


class Restrained(Density):
    """A density held by a restraint.

    Parameters
    ----------
    density : Density
    restraint : Restraint
    """

    def __init__(self, density: Density, restraint: Restraint) -> None:
        self._density, self._restraint = density, restraint

    @property
    @override
    def dim(self) -> int:
        return self._density.dim

    @override
    def log_density_gradient(self, z: FloatArray) -> DensityBatch:
        there, held = self._density.log_density_gradient(z), self._restraint
        beyond = np.maximum(held.way_beyond(z), 0.0)
        gradient = there.gradient.copy()
        gradient[:, held.coordinate] -= held.sign * beyond / held.width
        return DensityBatch(there.log_density + held.log_factor(z), gradient, there.accepted)

    @override
    def log_density(self, z: FloatArray) -> FloatArray:
        return np.asarray(self._density.log_density(z) + self._restraint.log_factor(z))
