"""The horseshoe's coefficients against a long NUTS run, quantile by quantile.

What is compared are probabilities: the share of a fit's draws below each quantile of NUTS's, as
coefficients of separable data have no means. NUTS's quantiles are kept in benchmarks/references
and made anew, in some ten minutes, where they are not there.

    python benchmarks/coefficients.py [--seeds 3] [--out benchmarks/results/coefficients.json]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from models import MODELS
from refining import simulated

import stanflow
from stanflow.files import write_file

REFERENCE = Path(__file__).parent / "references" / "horseshoe_100_0.1.json"
PROBABILITIES = (0.05, 0.25, 0.5, 0.75, 0.95)
CHAINS, WARMUP, DRAWS, ADAPT_DELTA = 4, 2000, 10_000, 0.9


def model_of(form: str) -> stanflow.StanModel:
    """Return the horseshoe with 100 coefficients, rho = 0.1, in a form."""
    program = MODELS / "horseshoe_logistic" / f"horseshoe_logistic{form}.stan"
    data = simulated("horseshoe_logistic", n=100, d=100, rho=0.1, seed=2)
    return stanflow.StanModel(program, data)


def scalars(run: stanflow.Fit | stanflow.NutsFit) -> dict[str, Any]:
    """Return the draws of tau, the intercept and each coefficient, (S,) each."""
    beta = run.stan_variable("beta")
    of_beta = {f"beta[{j + 1}]": beta[:, j] for j in range(beta.shape[1])}
    return {"alpha": run.stan_variable("alpha"), "tau": run.stan_variable("tau"), **of_beta}


def make_reference() -> dict[str, Any]:
    """Return NUTS's quantiles of the non-centered form."""
    run = stanflow.nuts(
        model_of("_noncentered"),
        seed=1,
        chains=CHAINS,
        warmup=WARMUP,
        draws=DRAWS,
        adapt_delta=ADAPT_DELTA,
    )
    keys = ("engine", "divergences", "max_rhat", "min_ess_bulk", "seconds", "warnings")
    return {
        "chains": CHAINS,
        "warmup": WARMUP,
        "draws": DRAWS,
        "adapt_delta": ADAPT_DELTA,
        **{key: run.report[key] for key in keys},
        "probabilities": PROBABILITIES,
        "quantiles": {
            name: [float(f"{q:.5g}") for q in np.quantile(x, PROBABILITIES)]
            for name, x in scalars(run).items()
        },
    }


def against(fit: stanflow.Fit, quantiles: dict[str, list[float]]) -> dict[str, Any]:
    """Return how far the shares of a fit's draws below NUTS's quantiles are from what they are."""
    draws = scalars(fit)
    off = {
        name: np.abs([(draws[name] <= q).mean() for q in qs] - np.array(PROBABILITIES))
        for name, qs in quantiles.items()
    }
    worst = max(off, key=lambda name: off[name].max())
    return {
        "largest": float(off[worst].max()),
        "worst": worst,
        "root_mean_square": float(np.sqrt(np.mean([x**2 for x in off.values()]))),
        "tau": float(off["tau"].max()),
        "verdict": fit.verdict,
        "log_evidence": fit.log_evidence,
        "log_evidence_se": fit.log_evidence_se,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/coefficients.json"))
    options = parser.parse_args()
    if not REFERENCE.exists():
        REFERENCE.parent.mkdir(exist_ok=True)
        write_file(REFERENCE, (json.dumps(make_reference(), indent=1) + "\n").encode())
    quantiles = json.loads(REFERENCE.read_text())["quantiles"]
    results = []
    for seed in range(1, options.seeds + 1):
        for form in ("", "_noncentered"):
            found = against(stanflow.fit(model_of(form), seed=seed, progress=False), quantiles)
            results.append({"form": form or "centered", "seed": seed, **found})
            print(results[-1], flush=True)
            options.out.parent.mkdir(parents=True, exist_ok=True)
            write_file(options.out, (json.dumps(results, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
