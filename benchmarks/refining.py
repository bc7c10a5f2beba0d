"""Fits that importance weights cannot mend: evidence, verdict and time, by annealing.

Each case is a whole `stanflow fit` with default settings. Where the evidence is known, its error is
shown. The horseshoe's, and its coefficients, are held against references/ (see horseshoe_gibbs.py):
how far from its probability the share of draws below each quantile is, as coefficients of separable
data have no means. Results that the output file holds already are not computed again.

    python benchmarks/refining.py [--only SECTION] [--seeds 3] [--out results.json]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from models import MODELS
from scipy import integrate, stats

import stanflow
from stanflow.files import write_file

REFERENCES = Path(__file__).parent / "references"
_REPORTED = (
    "dim", "log_evidence", "log_evidence_se", "elbo", "pareto_k", "verdict", "reasons", "refined",
    "refine", "modes", "steps", "stages", "gradient_evaluations", "seconds", "peak_memory_mb",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A program, its data, options of the command, and what is known of the posterior."""

    section: str
    name: str
    program: Path
    data: dict[str, Any]
    log_evidence: float | None = None
    options: tuple[str, ...] = ()
    reference: dict[str, Any] | None = None


def module_of(folder: str, name: str) -> ModuleType:
    spec = spec_from_file_location(name, MODELS / folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def simulated(folder: str, **options: Any) -> dict[str, Any]:
    data: dict[str, Any] = module_of(folder, "simulate").simulate(**options)
    return data


def of_file(folder: str, name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((MODELS / folder / name).read_text())
    return data


def hierarchical_evidence(data: dict[str, Any]) -> float:
    """The log of the integral over the variance (stan_models/hierarchical_normal)."""
    log_v = np.linspace(-16, 10, 40_001)
    v = np.exp(log_v)
    log_p = stats.invgamma.logpdf(v, data["a"], scale=data["b"]) + log_v
    for y in data["y"]:
        log_p += stats.norm.logpdf(y, 0, np.sqrt(1 + v))
    top = log_p.max()
    return float(top + np.log(integrate.trapezoid(np.exp(log_p - top), log_v)))


def cases() -> Iterator[Case]:
    for folder in ("funnel", "student_t", "normal_mixture"):
        program = MODELS / folder / f"{folder}.stan"
        small = "funnel.json" if folder == "funnel" else f"{folder}_10.json"
        yield Case("exact", f"{folder}_10", program, of_file(folder, small), 0.0)
        yield Case("exact", f"{folder}_100", program, of_file(folder, f"{folder}_100.json"), 0.0)
    folder = MODELS / "hierarchical_normal"
    for groups in (10, 100, 1000):
        data = simulated("hierarchical_normal", J=groups, seed=1)
        for form in ("", "_noncentered"):
            yield Case(
                "exact",
                f"hierarchical_normal{form}_{groups}",
                folder / f"hierarchical_normal{form}.stan",
                data,
                hierarchical_evidence(data),
            )
    data = of_file("year_regression", "year_regression.json")
    program = MODELS / "year_regression" / "year_regression.stan"
    exact = module_of("year_regression", "exact").exact(data).log_evidence
    yield Case("exact", "year_regression", program, data, exact)
    for dim in (2, 10, 50):
        data = of_file("two_modes", f"two_modes_{dim}.json")
        program = MODELS / "two_modes" / "two_modes.stan"
        yield Case("exact", f"two_modes_{dim}", program, data, 0.0)
    for d, rho in ((100, 0.1), (100, 0.5), (1000, 0.1)):
        data = simulated("horseshoe_logistic", n=100, d=d, rho=rho, seed=2)
        reference = json.loads((REFERENCES / f"horseshoe_{d}_{rho}.json").read_text())
        for form in ("", "_noncentered"):
            yield Case(
                "horseshoe" if d == 100 else "horseshoe, large",
                f"horseshoe{form}_{d}_{rho}",
                MODELS / "horseshoe_logistic" / f"horseshoe_logistic{form}.stan",
                data,
                reference["log_evidence"],
                reference=reference,
            )
    yield from cases_to_spoil()
    yield from cases_of_training_before()


def cases_to_spoil() -> Iterator[Case]:
    """Flows trained for 50 steps, then refined."""
    short = ("--max-steps", "50", "--refine", "always")
    for folder, small in (
        ("funnel", "funnel.json"),
        ("student_t", "student_t_10.json"),
        ("normal_mixture", "normal_mixture_10.json"),
        ("student_t", "student_t_100.json"),
        ("funnel", "funnel_100.json"),
        ("normal_mixture", "normal_mixture_100.json"),
    ):
        program = MODELS / folder / f"{folder}.stan"
        name = f"{small.removesuffix('.json')}, 50 steps"
        yield Case("spoiled", name, program, of_file(folder, small), 0.0, short)
    data = of_file("hierarchical_normal", "hierarchical_normal_10.json")
    for form in ("", "_noncentered"):
        program = MODELS / "hierarchical_normal" / f"hierarchical_normal{form}.stan"
        name = f"hierarchical_normal{form}_10, 50 steps"
        yield Case("spoiled", name, program, data, hierarchical_evidence(data), short)


def cases_of_training_before() -> Iterator[Case]:
    """How much to train before draws are moved."""
    horseshoe = simulated("horseshoe_logistic", n=100, d=100, rho=0.5, seed=2)
    volatility = of_file("stochastic_volatility", "stochastic_volatility_500.json")
    for folder, program, data in (
        ("horseshoe_logistic", "horseshoe_logistic", horseshoe),
        ("horseshoe_logistic", "horseshoe_logistic_noncentered", horseshoe),
        ("stochastic_volatility", "stochastic_volatility", volatility),
        ("student_t", "student_t", of_file("student_t", "student_t_10.json")),
    ):
        for steps in (150, 300, 600, 1200, 2400):
            yield Case(
                "training before",
                f"{program}, {steps} steps",
                MODELS / folder / f"{program}.stan",
                data,
                options=("--max-steps", str(steps), "--refine", "always"),
            )


def run(case: Case, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.json"
        data.write_text(json.dumps(case.data))
        command = [str(Path(sys.executable).with_name("stanflow")), "fit", str(case.program)]
        command += [str(data), "--seed", str(seed), "--json", "--out", f"{folder}/fit"]
        began = time.perf_counter()
        done = subprocess.run([*command, *case.options], check=True, capture_output=True, text=True)
        wall_seconds = time.perf_counter() - began
        quantiles = case.reference and off_quantiles(case.reference, f"{folder}/fit")
    report = json.loads(done.stdout)
    result = {key: report.get(key) for key in _REPORTED} | {"wall_seconds": wall_seconds}
    return result | {
        "section": case.section, "name": case.name, "seed": seed, "exact": case.log_evidence,
        "quantiles": quantiles,
    }  # fmt: skip


def off_quantiles(reference: dict[str, Any], folder: str) -> dict[str, Any]:
    """Return how far shares of draws below a reference's quantiles are from what they are."""
    fit = stanflow.load(folder)
    of_beta = {f"beta[{j + 1}]": beta for j, beta in enumerate(fit.stan_variable("beta").T)}
    draws = {name: fit.stan_variable(name) for name in ("alpha", "tau")} | of_beta
    off = {
        name: np.abs((draws[name][:, None] < quantiles).mean(axis=0) - reference["probabilities"])
        for name, quantiles in reference["quantiles"].items()
    }
    worst = max(off, key=lambda name: float(off[name].max()))
    return {
        "root_mean_square": float(np.sqrt(np.mean([x**2 for x in off.values()]))),
        "largest": float(off[worst].max()),
        "worst": worst,
        "tau": float(off["tau"].max()),
    }


def line(result: dict[str, Any]) -> str:
    exact = result["exact"]
    error = "" if exact is None else f"  off by {result['log_evidence'] - exact:+.3f}"
    refine = result["refine"]
    quantiles = result["quantiles"]
    if quantiles:
        error += "  quantiles off by {root_mean_square:.3f}, {worst} {largest:.3f}".format(
            **quantiles
        )
    how = f"R-hat {refine['rhat']:.3f}" if refine else f"k-hat {result['pareto_k']:.2f}"
    return (
        f"{result['name']:36} seed {result['seed']}  {result['wall_seconds']:6.1f} s  log evidence "
        f"{result['log_evidence']:10.3f} (se {result['log_evidence_se']:.3f}){error}  {how}  "
        f"{result['verdict']}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", help="a section: exact, horseshoe, 'horseshoe, large', spoiled, 'training before'"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/refining.json"))
    options = parser.parse_args()
    results = json.loads(options.out.read_text()) if options.out.exists() else []
    known = {(result["name"], result["seed"]) for result in results}
    for seed in range(1, options.seeds + 1):
        for case in cases():
            if options.only not in {None, case.section} or (case.name, seed) in known:
                continue
            results.append(run(case, seed))
            print(line(results[-1]), flush=True)
            options.out.parent.mkdir(parents=True, exist_ok=True)
            write_file(options.out, (json.dumps(results, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
