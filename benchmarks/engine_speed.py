"""What one gradient costs in each engine, on ten programs of the zoo, on one thread.

Both engines take turns in one run, so that a busy machine slows both alike; each figure is the
median over the turns.

    python benchmarks/engine_speed.py [--out results.json]
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
from gradient_throughput import medians

from stanflow.stan import batch, native
from stanflow.stan.model import StanModel
from stanflow.stan.program import StanProgram

ZOO = Path(__file__).parents[1] / "stan_models"
PROGRAMS = (
    "eight_schools/eight_schools_noncentered",
    "funnel/funnel",
    "gaussian_process/gaussian_process",
    "item_response/item_response",
    "lasso/lasso",
    "ode/ode",
    "ordered_logit/ordered_logit",
    "poisson_random_effects/poisson_random_effects",
    "simplex_mixture/simplex_mixture",
    "stochastic_volatility/stochastic_volatility",
)
TURNS = 11
SECONDS_A_TURN = 0.05


def compare(name: str) -> dict[str, Any]:
    folder = ZOO / name.partition("/")[0]
    data = folder / f"{folder.name}.json"
    models = {
        engine: StanModel(ZOO / f"{name}.stan", data, engine=engine, threads=1)
        for engine in ("embedded", "native")
    }
    dim = models["embedded"].dim
    z = 0.3 * np.random.default_rng(0).standard_normal((64, dim))
    once = medians({"embedded": lambda: models["embedded"].log_density_gradient(z)}, 3)["embedded"]
    calls = max(1, round(SECONDS_A_TURN / once))

    def several(engine: str) -> None:
        for _ in range(calls):
            models[engine].log_density_gradient(z)

    seconds = medians({e: lambda e=e: several(e) for e in models}, TURNS)
    microseconds = {engine: 1e6 * s / calls / len(z) for engine, s in seconds.items()}
    return {
        "dim": dim,
        "microseconds": microseconds,
        "embedded_over_native": microseconds["embedded"] / microseconds["native"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    toolchain = native.find_toolchain()
    native.compiled_libraries(
        [StanProgram.from_file(ZOO / f"{name}.stan") for name in PROGRAMS], toolchain
    )
    results = {
        "machine": {"cores": batch.available_cores(), "processor": platform.machine()},
        "native": toolchain.name,
        "compiler": toolchain.compiler_version,
        "programs": {name.partition("/")[2]: compare(name) for name in PROGRAMS},
    }
    print(json.dumps(results, indent=2))
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
