"""What is fitted: the zoo's pairs of a program and data, and larger ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.models import MODELS


@dataclass(frozen=True)
class Target:
    """A program and its data.

    Attributes
    ----------
    name : str
        In results and tables.
    folder : str
        Of `stan_models`.
    dim : int
        D.
    program, file : str
        The program and the data in that folder, without suffix; both are called as the folder is
        where nothing else is said.
    simulated : mapping, optional
        Arguments of the folder's `simulate`, where the data are made anew and not read.
    careful : bool
        Whether NUTS needs small steps there.
    reference : str
        The program that NUTS runs, where it is another one with the same posterior.
    by_quantiles : str
        Variables whose posterior has no variance, or one that no sample finds, by space.
    """

    name: str
    folder: str
    dim: int
    program: str = ""
    file: str = ""
    simulated: tuple[tuple[str, Any], ...] = ()
    careful: bool = False
    reference: str = ""
    by_quantiles: str = ""

    @property
    def program_path(self) -> Path:
        return MODELS / self.folder / f"{self.program or self.folder}.stan"

    @property
    def reference_path(self) -> Path:
        """The program that NUTS runs."""
        return self.program_path.with_stem(self.reference or self.program_path.stem)

    @property
    def data(self) -> Mapping[str, Any]:
        if self.simulated:
            simulated: Mapping[str, Any] = module_of(self.folder, "simulate").simulate(
                **dict(self.simulated)
            )
            return simulated
        path = MODELS / self.folder / f"{self.file or self.folder}.json"
        read: Mapping[str, Any] = json.loads(path.read_text())
        return read

    @property
    def log_evidence(self) -> float | None:
        """Exact, where it is known."""
        if self.folder == "linear_regression":
            return float(module_of("linear_regression", "exact").log_evidence(self.data))
        return 0.0 if self.folder in {"funnel", "student_t", "normal_mixture"} else None


@cache
def module_of(folder: str, name: str) -> ModuleType:
    """Execute a Python file of a model's folder."""
    path = MODELS / folder / f"{name}.py"
    spec = spec_from_file_location(f"{folder}_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _simulated(folder: str, d: int, dim: int) -> Target:
    how = {"n": 100, "d": d, "rho": 0.5, "seed": 1}
    name = folder.removesuffix("_logistic")
    return Target(f"{name}_{d}", folder, dim, simulated=tuple(how.items()))


ZOO = (
    Target(
        "eight_schools_centered", "eight_schools", 10, "eight_schools_centered",
        careful=True, reference="eight_schools_noncentered",
    ),
    Target(
        "eight_schools_noncentered", "eight_schools", 10, "eight_schools_noncentered", careful=True
    ),
    Target("funnel_10", "funnel", 10, by_quantiles="x"),
    Target("bernoulli", "bernoulli", 1),
    Target("linear_regression", "linear_regression", 4),
    Target("student_t_10", "student_t", 10, file="student_t_10", by_quantiles="x"),
    Target("normal_mixture_10", "normal_mixture", 10, file="normal_mixture_10"),
    Target(
        "horseshoe_logistic_10", "horseshoe_logistic", 22, file="horseshoe_logistic_10",
        careful=True, by_quantiles="alpha tau lambda",
    ),
    Target("lasso", "lasso", 43, careful=True),
    Target("hierarchical_schools", "hierarchical_schools", 30, careful=True),
    Target("item_response", "item_response", 36),
    Target("gaussian_process", "gaussian_process", 24, careful=True),
    Target("stochastic_volatility", "stochastic_volatility", 43, careful=True),
    Target("poisson_random_effects", "poisson_random_effects", 20, careful=True),
    Target("ordered_logit", "ordered_logit", 8),
    Target("simplex_mixture", "simplex_mixture", 8),
    Target("covariance", "covariance", 20),
    Target("ode", "ode", 4),
    Target("survival", "survival", 6),
    Target("robust_regression", "robust_regression", 6),
)  # fmt: skip

LARGER = (
    Target("funnel_100", "funnel", 100, file="funnel_100"),
    Target("student_t_100", "student_t", 100, file="student_t_100"),
    Target("normal_mixture_100", "normal_mixture", 100, file="normal_mixture_100"),
    _simulated("linear_regression", 100, 101),
    _simulated("lasso", 100, 203),
    _simulated("horseshoe_logistic", 100, 202),
    Target(
        "poisson_random_effects_200", "poisson_random_effects", 204,
        file="poisson_random_effects_200",
    ),
    Target(
        "stochastic_volatility_500", "stochastic_volatility", 503,
        file="stochastic_volatility_500",
    ),
)  # fmt: skip

_BY_NAME = {target.name: target for target in (*ZOO, *LARGER)}

EVIDENCE = (
    *(
        _BY_NAME[f"{name}_{dim}"]
        for name in ("funnel", "student_t", "normal_mixture")
        for dim in (10, 100)
    ),
    *(_simulated("linear_regression", d, d + 1) for d in (10, 100, 1000)),
)
HORSESHOE = tuple(_simulated("horseshoe_logistic", d, 2 * d + 2) for d in (100, 1000))
LARGE = _simulated("horseshoe_logistic", 5000, 10_002)
WIRED = tuple(target for target in (*ZOO, *LARGER) if target.dim >= 10)
ALL_NAMES = {target.name for target in (*ZOO, *LARGER, *EVIDENCE, *HORSESHOE, LARGE)}
