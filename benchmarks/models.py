"""Targets that the benchmarks share."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np

from stanflow.flow.realnvp import Flow
from stanflow.stan.density import CountingTarget, DensityBatch, Target
from stanflow.stan.model import StanModel
from stanflow.training.config import TrainConfig
from stanflow.training.limits import Limits
from stanflow.training.start import begin
from stanflow.training.train_step import TrainStep
from stanflow.training.trainer import TrainResult, train

MODELS = Path(__file__).parents[1] / "stan_models"


def eight_schools(engine: str = "auto", threads: int | None = None) -> StanModel:
    """The noncentered eight schools program, D = 10."""
    folder = MODELS / "eight_schools"
    program = folder / "eight_schools_noncentered.stan"
    return StanModel(program, folder / "eight_schools.json", engine=engine, threads=threads)


def funnel(engine: str = "auto") -> StanModel:
    """Neal's funnel, D = 10."""
    folder = MODELS / "funnel"
    return StanModel(folder / "funnel.stan", folder / "funnel.json", engine=engine)


def horseshoe(d: int, engine: str = "auto") -> StanModel:
    """Horseshoe logistic regression with d coefficients on 100 simulated cases, D = 2 d + 2."""
    folder = MODELS / "horseshoe_logistic"
    spec = spec_from_file_location("simulate", folder / "simulate.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    data: dict[str, Any] = module.simulate(n=100, d=d, rho=0.5, seed=1)
    return StanModel(folder / "horseshoe_logistic.stan", data, engine=engine)


class StandardNormal(Target):
    """N(0, I): next to nothing to evaluate, so that a step's time is the flow's."""

    def __init__(self, dim: int) -> None:
        self._dim = dim

    @property
    def dim(self) -> int:
        return self._dim

    def log_density_gradient(self, z: np.ndarray) -> DensityBatch:
        log_density = -0.5 * np.einsum("ij,ij->i", z, z)
        return DensityBatch(log_density, -z, np.ones(len(z), dtype=bool))

    def starting_points(self, n: int, rng: np.random.Generator) -> np.ndarray:
        return rng.uniform(-2, 2, size=(n, self._dim))


def begin_and_train(
    flow: Flow,
    model: Target,
    config: TrainConfig,
    seed: int,
    on_step: Callable[[TrainStep], None] = lambda step: None,
) -> TrainResult:
    """Train a flow from where its configuration says that training begins."""
    target = CountingTarget(model)
    with Limits(config.max_seconds) as limits:
        start = begin(target, config, seed, limits.end_the_start)
        return train(flow, target, start, config, seed, limits=limits, on_step=on_step)
