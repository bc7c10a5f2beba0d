"""StanModel: a Stan program conditioned on data."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt
import stanio

from stanflow.arrays import FloatArray
from stanflow.errors import (
    DataError,
    EngineError,
    InitializationError,
    ProgramError,
    UsageError,
    one_line,
)
from stanflow.stan import batch
from stanflow.stan.agreement import kept_agreement
from stanflow.stan.compiler_messages import with_own_places
from stanflow.stan.data import DataLike, StanData, bind_data
from stanflow.stan.declared_sizes import empty_variables
from stanflow.stan.density import CompiledDensity, DensityBatch, NormalizingConstant, Target
from stanflow.stan.embedded import compile_program
from stanflow.stan.engine import EngineChoice, open_model
from stanflow.stan.loaded import EngineName
from stanflow.stan.program import StanProgram
from stanflow.stan.unit_vectors import log_radius_mass

_POINTS_TO_VERIFY = 5
_ROUNDING = 1e-12  # of a log density, relative
_LARGEST_ROUNDING = 1e-3
_SMALLEST_TOLERANCE = 1e-9
_STARTS_TRIED = 100


@dataclass(frozen=True)
class ConstrainedDraws:
    """Draws on the scale of the program.

    Attributes
    ----------
    columns : tuple of str
        One name a scalar, as CmdStan's CSV files have them: ``mu``, ``theta.1``, ``L.2.1``.
    values : array of shape (S, n)
        One row a draw, last-index-major as ``columns``.
    failed : int array
        Rows for which generated quantities could not be computed; theirs are NaN.
    """

    columns: tuple[str, ...]
    values: FloatArray
    failed: npt.NDArray[np.intp]

    def variables(self) -> dict[str, npt.NDArray[Any]]:
        """Return each variable as an array of shape (S, *shape of the variable)."""
        parsed = stanio.parse_header(",".join(self.columns))
        return {name: variable.extract_reshape(self.values) for name, variable in parsed.items()}


class StanModel(Target):
    """A Stan program conditioned on data, as a density on unconstrained space.

    Parameters
    ----------
    stan_file : path, optional
        The program; give this or `stan_code`.
    data : path, str, mapping or None
        A Stan JSON file, one in R's dump format (its name ends in ``.R``), or a mapping from
        variable names to numbers, lists or arrays.
    stan_code : str, optional
        The program as text.
    include_paths : iterable of path
        Folders searched for ``#include`` files, before the program's own.
    engine : {"auto", "embedded", "native"}
        What evaluates the program: the embedded engine, or Stan's own C++. ``"auto"`` takes
        BridgeStan's build where its sources are installed, else the embedded engine, and for what
        that cannot run Stan's C++ of a pip install.
    seed : int
        For random numbers in the transformed data block.
    threads : int, optional
        Threads that share a batch; by default one a core.

    Raises
    ------
    ProgramError, DataError, EngineError
        With one sentence saying what is wrong, where, and what to do.

    Examples
    --------
    >>> import numpy as np
    >>> model = StanModel(
    ...     stan_code="data { real y; } parameters { real mu; } "
    ...     "model { mu ~ normal(0, 1); y ~ normal(mu, 1); }",
    ...     data={"y": 2.0},
    ...     engine="embedded",
    ... )
    >>> batch = model.log_density_gradient(np.zeros((3, 1)))
    >>> batch.log_density
    array([-2., -2., -2.])
    >>> batch.gradient[0]
    array([2.])
    """

    def __init__(
        self,
        stan_file: str | PathLike[str] | None = None,
        data: DataLike = None,
        *,
        stan_code: str | None = None,
        include_paths: Iterable[str | PathLike[str]] = (),
        engine: EngineChoice = "auto",
        seed: int = 0,
        threads: int | None = None,
    ) -> None:
        if stan_file is not None and stan_code is None:
            self.program = StanProgram.from_file(stan_file, include_paths)
        elif stan_code is not None and stan_file is None:
            self.program = StanProgram.from_string(stan_code, include_paths)
        else:
            raise UsageError("give the Stan program either as a file or as code")
        if threads is not None and threads < 1:
            raise UsageError(f"threads must be at least 1, not {threads}")
        self.data = _bind_or_refuse_the_program(self.program, data)
        if self.data.with_nan:
            warnings.warn(
                f"these data have NaN, which most statements turn into an error: "
                f"{', '.join(self.data.with_nan)}",
                stacklevel=2,
            )
        self._seed = seed
        self._open(engine, threads)

    def _open(self, engine: EngineChoice, threads: int | None) -> None:
        self._loaded, self._decision = open_model(self.program, self.data, engine, self._seed)
        stan_model = self._loaded.stan_model
        self._dim = stan_model.param_unc_num()
        if self._dim == 0:
            raise ProgramError(
                f"{self.program.label} has no parameters, so there is no posterior to fit"
            )
        if not self._loaded.thread_safe:
            threads = 1
        self._evaluator = batch.BatchEvaluator(
            stan_model, threads or batch.available_cores(), batch.compiled_loop()
        )

    def in_engine(self, engine: EngineChoice, seed: int | None = None) -> StanModel:
        """Return the same program and data in an engine.

        Parameters
        ----------
        engine : {"auto", "embedded", "native"}
        seed : int, optional
            Of the transformed data block; by default this model's.

        Raises
        ------
        DataError, EngineError
        """
        other = object.__new__(StanModel)
        other.program, other.data = self.program, self.data
        other._seed = self._seed if seed is None else seed
        other._open(engine, None)
        return other

    def __repr__(self) -> str:
        return f"StanModel({self.name!r}, dim={self.dim}, engine={self.engine!r})"

    @property
    def name(self) -> str:
        """The program's name."""
        return self.program.name

    @property
    def dim(self) -> int:
        """Number of unconstrained parameters, D."""
        return self._dim

    @property
    def seed(self) -> int:
        """Seed of the transformed data block."""
        return self._seed

    @property
    def engine(self) -> EngineName:
        """The engine that evaluates the program: ``"embedded"`` or ``"native"``."""
        return self._loaded.engine

    @property
    def engine_version(self) -> str:
        """The engine and its version."""
        return self._loaded.engine_version

    @property
    def stan_version(self) -> str | None:
        """The version of Stan whose language and functions the engine has; None if not known."""
        return self._loaded.stan_version

    @property
    def engine_reason(self) -> str:
        """Why this engine was taken."""
        return self._decision.reason

    @property
    def engine_agreement(self) -> dict[str, Any] | None:
        """Whether a second engine has agreed; None where none was compared on this program.

        `stanflow check` compares them.
        """
        agreement = kept_agreement(self.program)
        return None if agreement is None else agreement.in_report(self.data.hash)

    @property
    def engine_report(self) -> dict[str, Any]:
        """What `stanflow check` says of the engine besides its version."""
        return {
            "engine_reason": self.engine_reason,
            "stan_version": self.stan_version,
            "engine_agreement": self.engine_agreement,
        }

    @property
    def threads(self) -> int:
        """Threads that share a batch."""
        return self._evaluator.threads

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of all constrained scalars, generated quantities included, as CmdStan has them."""
        return self._columns(include_tp=True, include_gq=True)

    @cached_property
    def parameter_columns(self) -> tuple[str, ...]:
        """Names of the scalars of the parameters block."""
        return self._columns(include_tp=False, include_gq=False)

    @cached_property
    def unconstrained_names(self) -> tuple[str, ...]:
        """Names of the D unconstrained parameters."""
        return tuple(self._loaded.stan_model.param_unc_names())

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each variable, generated quantities included; () for a scalar."""
        parsed = stanio.parse_header(",".join(self.columns))
        return {name: tuple(variable.dimensions) for name, variable in parsed.items()}

    def log_density_gradient(self, z: npt.ArrayLike) -> DensityBatch:
        """Evaluate log density and gradient on a batch, in one call across threads.

        The density is that of the unconstrained parameters, Jacobian included, without the
        constants that ``~`` statements drop (see `normalizing_constant`).

        Parameters
        ----------
        z : array of shape (B, D)

        Returns
        -------
        DensityBatch
            A row that throws or is not finite is not accepted, and disturbs no other.

        Raises
        ------
        ValueError
            `z` has another shape.
        """
        log_density, gradient, status = self._evaluator.log_density_gradient(self._as_batch(z))
        return DensityBatch(log_density, gradient, status == batch.OK)

    def log_density(self, z: npt.ArrayLike) -> FloatArray:
        """Evaluate the log density on a batch where gradients are not wanted, which is quicker.

        Parameters
        ----------
        z : array of shape (B, D)

        Returns
        -------
        array of shape (B,)
            As `log_density_gradient` has it; NaN where the row threw.

        Raises
        ------
        ValueError
            `z` has another shape.
        """
        return self._evaluator.log_density(self._as_batch(z))

    def compiled(self) -> CompiledDensity | None:
        """Return the density for compiled code, None where the compiled loops were not built."""
        return self._evaluator.compiled_density()

    def constrain(
        self, z: npt.ArrayLike, *, seed: int = 0, include_generated: bool = True
    ) -> ConstrainedDraws:
        """Map unconstrained draws to the program's scale.

        Transformed parameters are included, and generated quantities unless told otherwise. Each
        row has a random number generator of its own, so that the result depends on the seed alone
        and not on the number of threads.

        Parameters
        ----------
        z : array of shape (S, D)
        seed : int
            For the random numbers of generated quantities.
        include_generated : bool
            Include generated quantities.
        """
        rows = self._as_batch(z)
        seeds = np.random.default_rng(seed).choice(2**32, size=len(rows), replace=False)
        values, status = self._evaluator.constrain(
            rows, seeds.astype(np.uint32), include_tp=True, include_gq=include_generated
        )
        failed = np.flatnonzero(status != batch.OK)
        self._recover(rows, values, failed)
        columns = self._columns(include_tp=True, include_gq=include_generated)
        return ConstrainedDraws(columns, values, failed)

    def unconstrain(self, parameters: Mapping[str, Any]) -> FloatArray:
        """Map one set of parameters, by name, to its unconstrained draw of shape (D,).

        Parameters
        ----------
        parameters : mapping
            A value of its declared shape for each parameter of the program; those without elements
            may be left out.

        Raises
        ------
        DataError
            A parameter is missing, of the wrong shape, or violates its constraint.
        """
        given = self._empty_parameters | dict(parameters)
        try:
            z = np.asarray(self._loaded.stan_model.param_unconstrain_json(given))
        except (RuntimeError, TypeError) as error:
            problem = one_line(error)
            raise DataError(f"these parameters cannot be unconstrained: {problem}") from None
        if not np.isfinite(z).all():
            name = self.unconstrained_names[int(np.argmin(np.isfinite(z)))]
            raise DataError(
                f"these parameters cannot be unconstrained: {name} is not finite, or lies on the "
                "boundary of its constraint"
            )
        return z

    @cached_property
    def _empty_parameters(self) -> dict[str, FloatArray]:
        empty = empty_variables(self.program, self.data.json, ("parameters",))
        return {name: np.zeros(shape) for name, shape in empty.items()}

    @cached_property
    def normalizing_constant(self) -> NormalizingConstant:
        """What Stan's ``~`` statements dropped, verified at a few starting points."""
        return self.normalizing_constant_at(
            self.starting_points(_POINTS_TO_VERIFY, np.random.default_rng(0))
        )

    def normalizing_constant_at(self, points: FloatArray) -> NormalizingConstant:
        """Find what Stan's ``~`` statements dropped from the log density.

        What the radii of unit vectors add to it is taken off (see `unit_vectors`).

        The log density is computed with and without these constants at several points; their
        difference must be the same at all of them, to rounding. Where the log density is so
        large that rounding would hide a difference, nothing is known.

        Parameters
        ----------
        points : array of shape (n, D)
            Points of finite log density, best in the bulk of the posterior.
        """
        with_constants = self._loaded.log_density_with_constants
        try:
            full = np.array([with_constants(point) for point in points])
        except (EngineError, RuntimeError) as error:
            return NormalizingConstant(0.0, known=False, reason=one_line(error))
        dropped = full - self.log_density_gradient(points).log_density
        largest, spread = float(np.max(np.abs(full))), float(np.ptp(dropped))
        if _ROUNDING * largest > _LARGEST_ROUNDING:
            reason = (
                f"the log density reaches {largest:.1g} at the points tried, where rounding "
                "hides its constants"
            )
            return NormalizingConstant(0.0, known=False, reason=reason)
        if not spread <= max(_ROUNDING * largest, _SMALLEST_TOLERANCE):
            reason = (
                "the density with all constants differs from the one without by an amount that "
                f"varies (by {spread:.3g}) from point to point"
            )
            return NormalizingConstant(0.0, known=False, reason=reason)
        reason = f"the same at {len(points)} points within {spread:.1g}"
        value = float(np.median(dropped)) - log_radius_mass(self.program, self.parameter_columns)
        return NormalizingConstant(value, known=True, reason=reason)

    def starting_points(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Return n points of finite log density, tried as Stan does: uniform on (-2, 2).

        Where a radius of 2 finds none in 100 tries, smaller ones are tried, and 0 at last.

        Raises
        ------
        InitializationError
            No point was found; the message is Stan's for the last one.
        """
        for radius in (2.0, 0.5, 0.1, 0.0):
            tried = rng.uniform(-radius, radius, size=(max(n, _STARTS_TRIED), self.dim))
            found = tried[self.log_density_gradient(tried).accepted]
            if len(found) > 0:
                return np.resize(found, (n, self.dim))
        raise InitializationError(
            f"the log density of {self.program.label} is not finite at any of "
            f"{3 * _STARTS_TRIED + 1} starting points: {self.explain(np.zeros(self.dim))}"
        )

    def explain(self, z: FloatArray) -> str:
        """Say in Stan's words why an unconstrained draw of shape (D,) is not accepted."""
        try:
            log_density, gradient = self._loaded.stan_model.log_density_gradient(z)
        except RuntimeError as error:
            return with_own_places(self.program, one_line(error))
        if not np.isfinite(log_density):
            return f"the log density is {log_density}"
        bad = np.flatnonzero(~np.isfinite(gradient))
        if len(bad) == 0:
            return "the log density and its gradient are finite"
        return f"the gradient is {gradient[bad[0]]} for {self.unconstrained_names[bad[0]]}"

    def _columns(self, *, include_tp: bool, include_gq: bool) -> tuple[str, ...]:
        return tuple(
            self._loaded.stan_model.param_names(include_tp=include_tp, include_gq=include_gq)
        )

    def _as_batch(self, z: npt.ArrayLike) -> FloatArray:
        rows = np.ascontiguousarray(z, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != self.dim:
            raise ValueError(f"expected draws of shape (B, {self.dim}), not {rows.shape}")
        return rows

    def _recover(self, z: FloatArray, values: FloatArray, failed: npt.NDArray[np.intp]) -> None:
        """Keep what can be had of draws whose generated quantities throw: all the rest."""
        if len(failed) == 0:
            return
        part, status = self._without_generated.constrain(
            np.ascontiguousarray(z[failed]),
            np.zeros(len(failed), dtype=np.uint32),
            include_tp=True,
            include_gq=False,
        )
        whole = status == batch.OK
        values[failed[whole], : part.shape[1]] = part[whole]

    @cached_property
    def _without_generated(self) -> batch.BatchEvaluator:
        """An evaluator that never runs the generated quantities block.

        The embedded engine runs it whether asked to or not, so there it takes another model.
        """
        if self.engine == "native":
            return self._evaluator
        program = self.program.without_block("generated quantities")
        with self._loaded.printing.muted():
            loaded = self._decision.load(program, self.data, self._seed)
        return replace(self._evaluator, stan_model=loaded.stan_model)


def _bind_or_refuse_the_program(program: StanProgram, data: DataLike) -> StanData:
    """Bind data; where they do not fit, the program itself may be wrong, and that is said first."""
    try:
        return bind_data(program, data)
    except DataError:
        with contextlib.suppress(EngineError):
            compile_program(program)
        raise
