"""What the clamp and LOFT buy: Neal's funnel with each, both and neither, at three depths.

Every flow is trained alike, from the origin, by path gradients of 256 draws and Adam at a constant
rate; no gradient is shortened. Recorded are the largest |x| after each layer at every step, the
variance of the gradient at the end (the trace of its covariance, from 50 batches) and the ELBO of
10,000 draws of the final flow; the exact log evidence is 0.

    python benchmarks/stability.py [--steps N] [--out results.json] [--figures docs/figures]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from models import begin_and_train, funnel

from stanflow.errors import NumericsError
from stanflow.estimates.draws import draw_log_densities
from stanflow.estimates.elbo import estimate_elbo
from stanflow.flow.config import FlowConfig
from stanflow.flow.realnvp import Flow, build_flow
from stanflow.flow.sweep import Sweep
from stanflow.stan.model import StanModel
from stanflow.training.config import TrainConfig
from stanflow.training.gradients import GradientEstimator
from stanflow.training.train_step import TrainStep

DEPTHS = (4, 16, 64)
VARIANTS: dict[str, dict[str, Any]] = {
    "clamp and LOFT": {},
    "clamp, no LOFT": {"loft_tau": None},
    "LOFT, no clamp": {"clamp": "none"},
    "neither": {"clamp": "none", "loft_tau": None},
}
BATCHES_FOR_VARIANCE = 50


def gradient_variance(flow: Flow, model: StanModel) -> float:
    """The trace of the covariance of the gradient of one batch."""
    estimator = GradientEstimator(Sweep(flow, 256), model)
    generator = torch.Generator().manual_seed(2)
    gradients = []
    for _ in range(BATCHES_FOR_VARIANCE):
        estimator.estimate(generator)
        gradients.append(flow.flat_gradient.clone())
    return float(torch.stack(gradients).var(0).sum())


def run(depth: int, variant: str, steps: int) -> dict[str, Any]:
    model = funnel()
    config = FlowConfig(layers=depth, hidden=100, marginal_layers=0, **VARIANTS[variant])
    flow = build_flow(config, model.dim, seed=1)
    training = TrainConfig(
        max_steps=steps,
        learning_rate=1e-3,
        adam_betas=(0.9, 0.999),
        schedule="constant",
        max_gradient_norm=None,
        tail_share=0.0,
        start="none",
    )
    trace: list[TrainStep] = []
    result: dict[str, Any] = {"layers": depth, "variant": variant, "elbo": None, "elbo_se": None}
    result |= {"gradient_variance": None, "broke_down": None}
    try:
        begin_and_train(flow, model, training, 1, trace.append)
        result["gradient_variance"] = gradient_variance(flow, model)
        drawn = draw_log_densities(flow, model, 10_000, seed=3)
        elbo = estimate_elbo(drawn, model.normalizing_constant)
        result |= {"elbo": elbo.value, "elbo_se": elbo.se}
    except NumericsError as error:
        result["broke_down"] = str(error)
    largest = np.array([step.largest for step in trace])
    result |= {
        "steps": len(trace),
        "skipped": sum(bool(np.isnan(step.gradient_norm)) for step in trace),
        "rejected": sum(step.rejected for step in trace),
        "largest": float(largest[len(largest) // 2 :].max()),
        "largest_by_layer": largest.tolist(),
    }
    return result


def table(results: list[dict[str, Any]]) -> str:
    """The results as Markdown; largest |x| is that of the second half of training."""
    lines = [
        "| r | variant | largest \\|x\\| | gradient variance | ELBO (se) | steps skipped |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for r in results:
        elbo = "broke down" if r["elbo"] is None else f"{r['elbo']:.3g} ({r['elbo_se']:.1g})"
        variance = "" if r["gradient_variance"] is None else f"{r['gradient_variance']:.2g}"
        lines.append(
            f"| {r['layers']} | {r['variant']} | {r['largest']:.2g} | {variance} | {elbo} | "
            f"{r['skipped']} of {r['steps']} |"
        )
    return "\n".join(lines)


def draw_by_layer(results: list[dict[str, Any]], path: Path) -> None:
    """Largest |x| of each layer of the deepest flow through training, a panel a variant."""
    deepest = [r for r in results if r["layers"] == max(DEPTHS)]
    figure, panels = plt.subplots(1, len(deepest), figsize=(11, 3.2), sharey=True)
    for panel, r in zip(panels, deepest, strict=True):
        size = np.log10(np.maximum(np.array(r["largest_by_layer"], dtype=float), 1e-3)).T
        image = panel.imshow(
            size, aspect="auto", origin="lower", cmap="viridis", vmin=0, vmax=4,
            extent=(1, r["steps"], -0.5, len(size) - 0.5), interpolation="nearest",
        )  # fmt: skip
        panel.set_title(r["variant"], fontsize=10)
        panel.set_xlabel("step")
    panels[0].set_ylabel("coupling layer (0: the base)")
    bar = figure.colorbar(image, ax=panels, extend="max", fraction=0.02, pad=0.01)
    bar.set_label("log10 of largest |x|")
    figure.savefig(path, dpi=130, bbox_inches="tight")
    plt.close(figure)


def draw_by_depth(results: list[dict[str, Any]], path: Path) -> None:
    """Largest |x|, gradient variance and distance of the ELBO from the evidence, by depth."""
    figure, panels = plt.subplots(1, 3, figsize=(11, 3.2))
    measures = (
        ("largest", "largest |x|, second half of training"),
        ("gradient_variance", "gradient variance at the end"),
        ("gap", "log evidence - ELBO, nats"),
    )
    for r in results:
        r["gap"] = None if r["elbo"] is None else max(-r["elbo"], 1e-3)
    for panel, (key, label) in zip(panels, measures, strict=True):
        for variant, style in zip(VARIANTS, ("o-", "s--", "o-", "s--"), strict=True):
            own = [r for r in results if r["variant"] == variant and r[key] is not None]
            panel.plot([r["layers"] for r in own], [r[key] for r in own], style, label=variant)
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.set_xticks(DEPTHS, [str(depth) for depth in DEPTHS])
        panel.set_xlabel("coupling layers, r")
        panel.set_title(label, fontsize=10)
    panels[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--figures", type=Path)
    options = parser.parse_args()
    results = []
    for depth in DEPTHS:
        for variant in VARIANTS:
            results.append(run(depth, variant, options.steps))
            print(table(results[-1:]).splitlines()[-1], flush=True)
    print(table(results))
    if options.figures is not None:
        options.figures.mkdir(parents=True, exist_ok=True)
        draw_by_layer(results, options.figures / "largest_by_layer.png")
        draw_by_depth(results, options.figures / "stability.png")
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results) + "\n")


if __name__ == "__main__":
    main()
