"""What a direct view of one partner buys: ELBO against time on horseshoe logistic regression.

Each coefficient sees its own local scale and the other way round; these pairs are given by hand.
The ELBO leaves out the constants that Stan drops. Compared with is the paper's conditioner, without
partners, at two sizes.

    python benchmarks/local_conditioner.py [--d 100 1000] [--out results.json]
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from models import begin_and_train, horseshoe

from stanflow.estimates.draws import draw_log_densities
from stanflow.estimates.elbo import estimate_elbo
from stanflow.flow.config import FlowConfig
from stanflow.flow.realnvp import build_flow
from stanflow.flow.wiring import Wiring
from stanflow.stan.density import NormalizingConstant
from stanflow.training.config import TrainConfig

PROPORTIONAL = NormalizingConstant(0.0, False, "left out here")


def coefficient_scale_pairs(names: list[str], layers: int) -> Wiring:
    """Coefficients and hyperparameters move in one layer, local scales in the next.

    Parameters
    ----------
    names : list of str
        Of the unconstrained parameters.
    layers : int
        Coupling layers.
    """
    position = {name: i for i, name in enumerate(names)}
    scales = [i for i, name in enumerate(names) if name.startswith("lambda.")]
    others = [i for i in range(len(names)) if i not in set(scales)]
    partner = {}
    for i in scales:
        coefficient = position[names[i].replace("lambda.", "beta.")]
        partner[i], partner[coefficient] = coefficient, i
    halves = [others, scales]
    return Wiring(
        len(names),
        [halves[layer % 2] for layer in range(layers)],
        [[[partner.get(i, -1)] for i in halves[layer % 2]] for layer in range(layers)],
    )


def fit(d: int, flow: FlowConfig, training: TrainConfig, *, wired: bool) -> dict[str, Any]:
    model = horseshoe(d)
    wiring = coefficient_scale_pairs(model.unconstrained_names, flow.layers) if wired else None
    trained = build_flow(flow, model.dim, seed=1, wiring=wiring)
    start = time.perf_counter()
    result = begin_and_train(trained, model, training, 1)
    seconds = time.perf_counter() - start
    elbo = estimate_elbo(draw_log_densities(trained, model, 10_000, seed=2), PROPORTIONAL)
    return {
        "d": d,
        "dim": model.dim,
        "wired": wired,
        "flow": asdict(flow),
        "training": asdict(training),
        "elbo": elbo.value,
        "elbo_se": elbo.se,
        "seconds": seconds,
        "skipped_steps": result.skipped_steps,
        "rejected": sum(step.rejected for step in result.trace),
        "median_elbo_of_last_steps": float(np.median([s.elbo for s in result.trace[-50:]])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--d", nargs="+", type=int, default=[100, 1000])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results = []
    for d in options.d:
        quick = TrainConfig(
            batch=256 if d < 1000 else 128,
            max_steps=1000,
            learning_rate=1e-2,
            adam_betas=(0.9, 0.95),
            max_gradient_norm=10.0,
            schedule="cosine",
            tail_share=0.0,
            start="none",
        )
        narrow = FlowConfig(layers=16, hidden=16, marginal_layers=0)
        ways = [
            ("one partner", narrow, quick, True),
            ("no partner", narrow, quick, False),
            (
                "no partner, 100 hidden units",
                replace(narrow, hidden=100),
                replace(quick, learning_rate=2e-3),  # diverges at the others'
                False,
            ),
        ]
        for name, flow, training, wired in ways:
            results.append({"way": name, **fit(d, flow, training, wired=wired)})
            shown = {k: v for k, v in results[-1].items() if k not in ("flow", "training")}
            print(json.dumps(shown), flush=True)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
