"""What a flow saves NUTS: gradient evaluations to an effective sample size, cold and from a fit.

Each run has four chains of 1000 draws after a warmup of some length. From it comes the number of
gradient evaluations to a bulk effective sample size of 400 of every parameter: those of the warmup,
and those of the sampling in proportion. Chains start as Stan starts them ("cold"), or at draws of
the flow and with the flow's variances as their inverse metric ("flow"); below 150 iterations of
warmup Stan adapts the step size alone. Shown are medians over seeds, and the worst R-hat; with one
above 1.05 the effective sample size means nothing, and the number is "not there".

The flow's own training takes gradient evaluations, too, most often more than NUTS needs; they stand
beside, and count where the fit is there anyway.

    python benchmarks/warm_nuts.py [--models eight_schools ...] [--seeds 3] [--out results.json]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from models import MODELS, eight_schools, horseshoe

from stanflow.fitting.fit import fit
from stanflow.fitting.result import Fit
from stanflow.reference.diagnostics import convergence
from stanflow.reference.sampling import nuts
from stanflow.stan.model import StanModel
from stanflow.training.config import TrainConfig

ESS = 400
DRAWS = 1000
LARGEST_RHAT = 1.05
WARMUPS = {"cold": (150, 300, 1000), "flow": (20, 50, 100, 150, 300)}


def linear_regression(engine: str = "auto") -> StanModel:
    """Linear regression with a conjugate prior, D = 5."""
    folder = MODELS / "linear_regression"
    return StanModel(
        folder / "linear_regression.stan", folder / "linear_regression.json", engine=engine
    )


POSTERIORS: dict[str, Callable[[], StanModel]] = {
    "eight_schools": lambda: eight_schools("embedded"),
    "linear_regression": lambda: linear_regression("embedded"),
    "horseshoe_10": lambda: horseshoe(10, "embedded"),
    "horseshoe_100": lambda: horseshoe(100, "embedded"),
}


def measure(model: StanModel, warmup: int, seed: int, init: Fit | None) -> dict[str, Any]:
    """Run NUTS once and say what it cost."""
    run = nuts(
        model, seed=seed, warmup=warmup, draws=DRAWS, init=init, engine="embedded", progress=False
    )
    found = convergence(run.values[..., : len(model.parameter_columns)])
    warmup_cost = run.report["warmup_gradient_evaluations"]
    sampling_cost = run.report["sampling_gradient_evaluations"]
    ess, rhat = found.min_ess_bulk, found.max_rhat
    converged = ess is not None and rhat is not None and rhat <= LARGEST_RHAT
    return {
        "warmup": warmup,
        "seed": seed,
        "start": "cold" if init is None else "flow",
        "warmup_gradient_evaluations": warmup_cost,
        "sampling_gradient_evaluations": sampling_cost,
        "min_ess_bulk": ess,
        "max_rhat": rhat,
        "divergences": run.report["divergences"],
        "gradients_to_ess": warmup_cost + sampling_cost * ESS / ess if converged else None,
        "seconds": run.report["seconds"],
    }


def examine(name: str, seeds: int, max_steps: int | None) -> dict[str, Any]:
    model = POSTERIORS[name]()
    training = TrainConfig() if max_steps is None else TrainConfig(max_steps=max_steps)
    began = time.perf_counter()
    flow = fit(model, seed=1, training=training, progress=False)
    seconds = time.perf_counter() - began
    runs = [
        measure(model, warmup, seed, flow if start == "flow" else None)
        for start, warmups in WARMUPS.items()
        for warmup in warmups
        for seed in range(1, seeds + 1)
    ]
    return {
        "model": name,
        "dim": model.dim,
        "flow": {
            "gradient_evaluations": flow.report["gradient_evaluations"],
            "seconds": seconds,
            "steps": flow.report["steps"],
            "elbo": flow.elbo,
            "pareto_k": flow.report["pareto_k"],
            "verdict": flow.report["verdict"],
        },
        "runs": runs,
    }


def show(result: dict[str, Any]) -> None:
    flow = result["flow"]
    print(
        f"\n{result['model']}, D = {result['dim']}: the flow took {flow['gradient_evaluations']:,} "
        f"gradient evaluations, {flow['seconds']:.0f} s, verdict {flow['verdict']}"
    )
    print("start  warmup  in warmup   to ESS 400   R-hat  divergences")
    for start, warmups in WARMUPS.items():
        for warmup in warmups:
            group = [r for r in result["runs"] if (r["start"], r["warmup"]) == (start, warmup)]
            spent = median(run["warmup_gradient_evaluations"] for run in group)
            costs = [run["gradients_to_ess"] for run in group]
            needed = "not there" if None in costs else f"{median(costs):,.0f}"
            rhat = max(run["max_rhat"] or float("nan") for run in group)
            divergences = sum(run["divergences"] for run in group)
            print(
                f"{start:<6} {warmup:>6} {spent:>10,.0f} {needed:>12} {rhat:>7.3f} "
                f"{divergences:>12}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=POSTERIORS, default=list(POSTERIORS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--max-steps", type=int, help="of the flow's training")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results = []
    for name in options.models:
        results.append(examine(name, options.seeds, options.max_steps))
        show(results[-1])
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
