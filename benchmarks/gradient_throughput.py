"""What a gradient of a Stan model costs, one draw at a time and in batches.

Compares, side by side in one run, (a) ``bridgestan.StanModel.log_density_gradient`` in a Python
loop, (b) the compiled loop on one thread, (c) the compiled loop on all cores; likewise for
constraining draws. Each figure is the median over repetitions that take turns, so that a busy
machine slows all of them alike; a turn of the compiled loop is a few calls one after another, as in
training.

    python benchmarks/gradient_throughput.py [--engine embedded] [--out results.json]
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from models import eight_schools, horseshoe

from stanflow.stan import batch
from stanflow.stan.model import StanModel

BATCH = 256
DRAWS_CONSTRAINED = 10_000
REPETITIONS = 15
CALLS_A_TURN = 5


def medians(ways: dict[str, Callable[[], Any]], repetitions: int) -> dict[str, float]:
    """Time each way in turn, repeatedly; return the median seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for _ in range(repetitions):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(times)) for name, times in seconds.items()}


def gradients(model: StanModel) -> dict[str, Any]:
    z = 0.5 * np.random.default_rng(0).standard_normal((BATCH, model.dim))
    stan_model = model._loaded.stan_model
    library = batch.compiled_loop()
    cores = batch.available_cores()
    alone, together = (batch.BatchEvaluator(stan_model, t, library) for t in (1, cores))

    def python_loop() -> None:
        for row in z:
            stan_model.log_density_gradient(row)

    def several(evaluator: batch.BatchEvaluator) -> None:
        for _ in range(CALLS_A_TURN):
            evaluator.log_density_gradient(z)

    seconds = medians(
        {
            "python_loop": python_loop,
            "compiled_1_thread": lambda: several(alone),
            "compiled_all_cores": lambda: several(together),
        },
        REPETITIONS,
    )
    per_gradient = {
        name: total / BATCH / (1 if name == "python_loop" else CALLS_A_TURN)
        for name, total in seconds.items()
    }
    return {
        "dim": model.dim,
        "engine": model.engine_version,
        "microseconds_per_gradient": {name: 1e6 * s for name, s in per_gradient.items()},
        "one_thread_over_python_loop": per_gradient["python_loop"]
        / per_gradient["compiled_1_thread"],
        "all_cores_over_one_thread": per_gradient["compiled_1_thread"]
        / per_gradient["compiled_all_cores"],
    }


def constraining(model: StanModel) -> dict[str, Any]:
    z = 0.5 * np.random.default_rng(0).standard_normal((DRAWS_CONSTRAINED, model.dim))
    seeds = np.arange(DRAWS_CONSTRAINED, dtype=np.uint32)
    stan_model = model._loaded.stan_model
    library = batch.compiled_loop()
    everything = {"include_tp": True, "include_gq": True}
    evaluators = {
        "compiled_1_thread": batch.BatchEvaluator(stan_model, 1, library),
        "compiled_all_cores": batch.BatchEvaluator(stan_model, batch.available_cores(), library),
    }

    def python_loop() -> None:
        rng = stan_model.new_rng(1)
        np.stack([stan_model.param_constrain(row, rng=rng, **everything) for row in z])

    seconds = medians(
        {"python_loop": python_loop}
        | {
            name: lambda evaluator=evaluator: evaluator.constrain(z, seeds, **everything)
            for name, evaluator in evaluators.items()
        },
        3,
    )
    return {"dim": model.dim, "draws": DRAWS_CONSTRAINED, "seconds": seconds}


def import_cost() -> float:
    """Milliseconds that loading the compiled loop adds to a process that has bridgestan."""
    code = (
        "import time, stanflow.stan.loaded; start = time.perf_counter(); "
        "from stanflow.stan import batch; assert batch.compiled_loop() is not None; "
        "print(1e3 * (time.perf_counter() - start))"
    )
    runs = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
        for _ in range(5)
    ]
    return float(np.median(runs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", default="auto", choices=["auto", "embedded", "native"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if batch.compiled_loop() is None:
        sys.exit("the compiled loop was not built (see `stanflow doctor`), so nothing to compare")
    small, large = eight_schools(options.engine), horseshoe(1000, options.engine)
    results = {
        "machine": {"cores": batch.available_cores(), "processor": platform.machine()},
        "batch": BATCH,
        "gradients": {"eight_schools": gradients(small), "horseshoe_logistic": gradients(large)},
        "constraining": {"horseshoe_logistic": constraining(large)},
        "import_milliseconds": import_cost(),
    }
    print(json.dumps(results, indent=2))
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
