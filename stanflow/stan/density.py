"""A density on R^D, evaluated on batches of draws: what a flow is trained on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from stanflow.arrays import FloatArray


@dataclass(frozen=True)
class DensityBatch:
    """Log densities and gradients of B draws.

    Attributes
    ----------
    log_density : array of shape (B,)
        Unnormalised log density; NaN where the row threw.
    gradient : array of shape (B, D)
        Its gradient; NaN where the row threw.
    accepted : bool array of shape (B,)
        Rows whose log density and gradient are both finite.
    """

    log_density: FloatArray
    gradient: FloatArray
    accepted: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class NormalizingConstant:
    """What a density lacks because Stan drops constants of ``~`` statements.

    Attributes
    ----------
    value : float
        Add it to a log density, an ELBO or a log evidence; 0 where it is not known.
    known : bool
        Whether it was computed and found to be the same at every point tried.
    reason : str
        How it was verified, or why it is not known.
    """

    value: float
    known: bool
    reason: str


@dataclass(frozen=True)
class CompiledDensity:
    """A density that compiled code evaluates itself, a draw at a time.

    Attributes
    ----------
    log_density_gradient, log_density : int
        Addresses of BridgeStan's ``bs_log_density_gradient`` and ``bs_log_density``.
    model : int
        Their first argument; it lives as long as the density.
    threads : int
        That may call them at once.
    count_gradients, count_densities : callable
        To be told at how many draws it was evaluated with its gradient, and without.
    """

    log_density_gradient: int
    log_density: int
    model: int
    threads: int
    count_gradients: Callable[[int], None] = lambda draws: None
    count_densities: Callable[[int], None] = lambda draws: None


class Density(ABC):
    """A density on R^D, known up to a constant."""

    def compiled(self) -> CompiledDensity | None:
        """Return the same for compiled code, None where there is none."""
        return None

    @property
    @abstractmethod
    def dim(self) -> int:
        """Number of unconstrained parameters, D."""

    @abstractmethod
    def log_density_gradient(self, z: FloatArray) -> DensityBatch:
        """Evaluate a batch.

        Parameters
        ----------
        z : array of shape (B, D)
            Unconstrained draws.
        """

    def log_density(self, z: FloatArray) -> FloatArray:
        """Evaluate a batch where gradients are not wanted.

        Parameters
        ----------
        z : array of shape (B, D)

        Returns
        -------
        array of shape (B,)
            NaN where the row threw.
        """
        return self.log_density_gradient(z).log_density


class Target(Density):
    """A density of which it is known where to begin."""

    @abstractmethod
    def starting_points(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Return n points of shape (n, D) where the log density is finite.

        Raises
        ------
        InitializationError
            No such point was found.
        """


class CountingTarget(Target):
    """A target that counts its evaluations.

    Parameters
    ----------
    target : Target
        What is evaluated.
    gradients, densities : int
        Draws at which it was before, with its gradient and without.

    Attributes
    ----------
    gradients, densities : int
        Draws at which it was so far.
    """

    def __init__(self, target: Target, gradients: int = 0, densities: int = 0) -> None:
        self.gradients, self.densities = gradients, densities
        self._target = target

    @property
    def evaluations(self) -> int:
        """Draws at which it was so far, in either way."""
        return self.gradients + self.densities

    @property
    @override
    def dim(self) -> int:
        return self._target.dim

    @override
    def compiled(self) -> CompiledDensity | None:
        density = self._target.compiled()
        if density is None:
            return None
        return replace(
            density, count_gradients=self._count_gradients, count_densities=self._count_densities
        )

    def _count_gradients(self, draws: int) -> None:
        self.gradients += draws

    def _count_densities(self, draws: int) -> None:
        self.densities += draws

    @override
    def log_density_gradient(self, z: FloatArray) -> DensityBatch:
        self._count_gradients(len(z))
        return self._target.log_density_gradient(z)

    @override
    def log_density(self, z: FloatArray) -> FloatArray:
        self._count_densities(len(z))
        return self._target.log_density(z)

    @override
    def starting_points(self, n: int, rng: np.random.Generator) -> FloatArray:
        return self._target.starting_points(n, rng)
