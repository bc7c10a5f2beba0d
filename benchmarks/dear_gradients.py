"""What a fit of a program with dear gradients costs beside NUTS: gradients and seconds.

Four programs whose gradient takes a tenth of a millisecond to several: a stiff ODE, a hidden Markov
model, a latent Gaussian process, and a regression with 50,000 cases. Each is fitted with default
settings, and sampled by the embedded engine's NUTS (4 chains, 1000 + 1000) in the same run; and by
nutpie with its own defaults on the same engine, where that is installed. Errors of a fit are those
of the zoo's rule (`benchmarks.defaults`) by quantiles, as 4000 draws tell no moments of heavy
tails, held against NUTS's draws of all seeds: the largest of a median, over the interquartile range
/ 1.349, and of that range, of its logarithm. Results that the output file holds already are not
computed again.

    python -m benchmarks.dear_gradients [--only NAME ...] [--seeds 3] [--nuts-seeds 1]
        [--out results.json]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

import stanflow
from stanflow.files import write_file

from .defaults.accuracy import accuracy, estimates
from .defaults.targets import module_of
from .models import MODELS

_REPORTED = (
    "dim", "log_evidence", "log_evidence_se", "verdict", "reasons", "pareto_k", "refined", "steps",
    "gradient_evaluations", "density_evaluations", "cost", "stages",
)  # fmt: skip


def _data(name: str) -> Any:
    if name == "gaussian_process":
        return MODELS / name / "gaussian_process_100.json"
    if name == "logistic_regression":
        return module_of(name, "simulate").simulate(n=50_000)
    return MODELS / name / f"{name}.json"


NAMES = ("stiff_ode", "hidden_markov", "gaussian_process", "logistic_regression")


def _fit(model: stanflow.StanModel, seed: int) -> dict[str, Any]:
    began = time.perf_counter()
    fit = stanflow.fit(model, seed=seed, progress=False)
    item = {key: fit.report.get(key) for key in _REPORTED}
    item["seconds"] = time.perf_counter() - began
    names = model.parameter_columns
    columns = [fit.columns.index(name) for name in names]
    item["estimates"] = estimates(names, fit.values[:, columns], fit.weights)
    return item


def _nuts(model: stanflow.StanModel, seed: int) -> dict[str, Any]:
    run = stanflow.nuts(model, seed=seed, engine="embedded", progress=False)
    names = model.parameter_columns
    values = run.values[..., : len(names)].reshape(-1, len(names))
    return {
        "seconds": run.report["seconds"],
        "gradient_evaluations": run.report["gradient_evaluations"],
        "min_ess_bulk": run.report["min_ess_bulk"],
        "max_rhat": run.report["max_rhat"],
        "divergences": run.report["divergences"],
        "estimates": estimates(names, values),
    }


def _nutpie(model: stanflow.StanModel, seed: int) -> dict[str, Any] | None:
    """Sample by nutpie, whose gradients are this engine's, a draw at a time."""
    if importlib.util.find_spec("nutpie") is None:
        return None
    import arviz
    import nutpie
    from nutpie.compiled_pyfunc import from_pyfunc

    taken = []

    def gradient(z: np.ndarray) -> tuple[float, np.ndarray]:
        taken.append(1)
        batch = model.log_density_gradient(z[None])
        if not batch.accepted[0]:
            raise ValueError("the log density is not finite")
        return float(batch.log_density[0]), batch.gradient[0]

    compiled = from_pyfunc(
        model.dim,
        lambda: gradient,
        lambda *_, **__: lambda z: {"z": z},
        [np.dtype(np.float64)],
        [(model.dim,)],
        ["z"],
        make_initial_point_fn=lambda seed: model.starting_points(1, np.random.default_rng(seed))[0],
    )
    began = time.perf_counter()
    draws = nutpie.sample(compiled, seed=seed, progress_bar=False)
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "gradient_evaluations": len(taken),
        "min_ess_bulk": float(arviz.ess(draws, var_names=["z"])["z"].min()),
        "chains": int(draws.posterior.sizes["chain"]),
        "draws": int(draws.posterior.sizes["draw"]),
    }


def _errors(results: list[dict[str, Any]], item: dict[str, Any]) -> dict[str, Any] | None:
    """Hold a fit against the draws of all NUTS runs of its program."""
    runs = [
        x["estimates"] for x in results if x["by"] == "NUTS" and x["program"] == item["program"]
    ]
    if not runs:
        return None
    reference = {
        name: {key: float(np.mean([run[name][key] for run in runs])) for key in scalar}
        | {"statistic": "quantiles"}
        for name, scalar in runs[0].items()
    }
    return accuracy(item["estimates"], reference)


def _line(item: dict[str, Any], results: list[dict[str, Any]]) -> str:
    told = f"{item['program']:20} {item['by']:7} seed {item['seed']}  {item['seconds']:6.1f} s  "
    told += f"{item['gradient_evaluations']:8,} gradients"
    if item["by"] != "fit":
        return f"{told}  least effective draws {item['min_ess_bulk']:.0f}"
    told += f", {item['density_evaluations']:,} log densities  {item['verdict']}"
    errors = _errors(results, item)
    if errors is not None:
        told += "  errors {mean_error:.3f} ({mean_worst}), {sd_error:.3f} ({sd_worst})".format(
            **errors
        )
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--nuts-seeds", type=int, default=1, help="of NUTS and nutpie")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/dear_gradients.json"))
    options = parser.parse_args()
    results = json.loads(options.out.read_text()) if options.out.exists() else []
    known = {(item["program"], item["by"], item["seed"]) for item in results}
    samplers = {"fit": _fit, "NUTS": _nuts, "nutpie": _nutpie}
    for name in options.only:
        program = MODELS / name / f"{name}.stan"
        model = stanflow.StanModel(program, _data(name), engine="embedded")
        for seed in range(1, options.seeds + 1):
            for by, run in samplers.items():
                if (by != "fit" and seed > options.nuts_seeds) or (name, by, seed) in known:
                    continue
                measured = run(model, seed)
                if measured is None:
                    continue
                results.append({"program": name, "by": by, "seed": seed, **measured})
                print(_line(results[-1], results), flush=True)
                options.out.parent.mkdir(parents=True, exist_ok=True)
                write_file(options.out, (json.dumps(results) + "\n").encode())
    print()
    for item in results:
        print(_line(item, results))


if __name__ == "__main__":
    main()
