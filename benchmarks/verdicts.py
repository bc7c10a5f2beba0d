"""How often the verdict is right: fits of the zoo, and fits made bad on purpose.

Every fit has default settings unless its name says otherwise. Of each kind the script counts the
verdicts, and where the evidence is known exactly, how far the estimate is off in its own standard
errors.

    python benchmarks/verdicts.py [--seeds 3] [--out results.json]
"""

from __future__ import annotations

import argparse
import copy
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import models
import numpy as np
import torch

import stanflow
from stanflow.fitting.assessment import DrawPlan, assess, estimate
from stanflow.stan.density import CountingTarget

MIXTURE = """
data { int D; real w; real s; }
parameters { vector[D] x; }
model { target += log_mix(w, normal_lpdf(x | -s, 1), normal_lpdf(x | s, 1)); }
"""
STUDENT_T = """
data { int D; real nu; }
parameters { vector[D] x; }
model { x ~ student_t(nu, 0, 1); }
"""
EQUICORRELATED = """
data { int D; real rho; }
transformed data {
  matrix[D, D] S = rep_matrix(rho, D, D);
  for (i in 1:D) S[i, i] = 1;
}
parameters { vector[D] x; }
model { x ~ multi_normal(rep_vector(0, D), S); }
"""


@dataclass(frozen=True)
class Case:
    """A fit: what is done to it, its name, and the exact log evidence where it is known."""

    kind: str
    name: str
    report: Callable[[int], dict[str, Any]]
    log_evidence: float | None = None


def fitted(model: stanflow.StanModel, seed: int, flow: Any = None, **training: Any) -> stanflow.Fit:
    return stanflow.fit(
        model, seed=seed, flow=flow, training=stanflow.TrainConfig(**training), progress=False
    )


def from_code(code: str, **data: Any) -> stanflow.StanModel:
    return stanflow.StanModel(stan_code=code, data=data)


def from_zoo(folder: str, program: str) -> stanflow.StanModel:
    path = models.MODELS / folder
    return stanflow.StanModel(path / f"{program}.stan", path / f"{folder}.json")


def frozen(model: stanflow.StanModel, seed: int, log_scale: float) -> dict[str, Any]:
    """Report on a flow whose second coordinate was made narrower after training."""
    fit = fitted(model, seed)
    flow = copy.deepcopy(fit.flow)
    with torch.no_grad():
        centre = float(fit.z[:, 1].mean()) - float(flow.output.shift[1])
        flow.output.log_scale[1] += log_scale
        flow.output.shift[1] += (1 - np.exp(log_scale)) * centre
    plan = DrawPlan(4000, 4000, 4000, *range(6))
    target = CountingTarget(model, 384_000)
    estimates = estimate(flow, model, plan, target)
    return dict(assess(flow, model, estimates, plan, target=target, trace=fit.steps).report)


def cases() -> Iterator[Case]:
    zoo = {
        "eight schools, non-centered": lambda: from_zoo(
            "eight_schools", "eight_schools_noncentered"
        ),
        "eight schools, centered": lambda: from_zoo("eight_schools", "eight_schools_centered"),
        "linear regression": lambda: from_zoo("linear_regression", "linear_regression"),
        "Bernoulli": lambda: from_zoo("bernoulli", "bernoulli"),
        "funnel": models.funnel,
        "horseshoe, D = 22": lambda: models.horseshoe(10),
    }
    for name, model in zoo.items():
        yield Case("zoo", name, lambda seed, model=model: fitted(model(), seed).report)
    for name in ("eight schools, non-centered", "linear regression", "funnel"):
        model = zoo[name]
        for steps in (20, 60):
            yield Case(
                "stopped early",
                f"{name}, {steps} steps",
                lambda seed, model=model, steps=steps: (
                    fitted(model(), seed, max_steps=steps).report
                ),
            )
        for log_scale in (-5.0, -1.0):
            yield Case(
                "frozen coordinate",
                f"{name}, sd times {np.exp(log_scale):.2g}",
                lambda seed, model=model, log_scale=log_scale: frozen(model(), seed, log_scale),
            )
    for dim, share, distance in (
        (1, 0.5, 5.0), (2, 0.5, 4.0), (2, 0.9, 4.0), (10, 0.5, 2.0), (50, 0.5, 2.0), (150, 0.5, 1.0)
    ):  # fmt: skip
        data = {"D": dim, "w": share, "s": distance}
        yield Case(
            "missing mode",
            f"D = {dim}, {share:.0%} and {1 - share:.0%}",
            lambda seed, data=data: fitted(from_code(MIXTURE, **data), seed).report,
            0.0,
        )
    for dim in (1, 2, 5, 10, 30):
        yield Case(
            "Gaussian base, Cauchy posterior",
            f"D = {dim}",
            lambda seed, dim=dim: (
                fitted(
                    from_code(STUDENT_T, D=dim, nu=1), seed, stanflow.FlowConfig(base="gaussian")
                ).report
            ),
            0.0,
        )
    for dim, rho in ((2, 0.9), (5, 0.9), (20, 0.5)):
        model = lambda dim=dim, rho=rho: from_code(EQUICORRELATED, D=dim, rho=rho)  # noqa: E731
        yield Case(
            "mean field, correlated posterior",
            f"D = {dim}, correlation {rho}",
            lambda seed, model=model: (
                fitted(model(), seed, stanflow.FlowConfig(family="meanfield")).report
            ),
            0.0,
        )
        yield Case(
            "Real NVP, correlated posterior",
            f"D = {dim}, correlation {rho}",
            lambda seed, model=model: fitted(model(), seed).report,
            0.0,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results = []
    for case in cases():
        for seed in range(1, options.seeds + 1):
            report = case.report(seed)
            result = {
                "kind": case.kind,
                "name": case.name,
                "seed": seed,
                **{key: report[key] for key in ("verdict", "reasons", "pareto_k", "log_evidence")},
                "log_evidence_se": report["log_evidence_se"],
                "refined": report["refined"],
                "exact": case.log_evidence,
            }
            results.append(result)
            error = "" if case.log_evidence is None else f" (exact {case.log_evidence:.3f})"
            print(
                f"{case.kind:32} {case.name:34} seed {seed}  {result['verdict']:10}  k-hat "
                f"{result['pareto_k'] or np.nan:5.2f}  log evidence {result['log_evidence']:.3f} "
                f"(se {result['log_evidence_se']:.3f}){error}"
                f"{'  refined' if result['refined'] else ''}",
                flush=True,
            )
    print()
    for kind in dict.fromkeys(case.kind for case in cases()):
        counts = Counter(result["verdict"] for result in results if result["kind"] == kind)
        print(f"{kind:34}", ", ".join(f"{counts[v]} {v}" for v in ("good", "usable", "unreliable")))
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
