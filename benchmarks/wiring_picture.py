"""Draw how one program's couplings are wired: its curvature, the cuts and some partners.

python benchmarks/wiring_picture.py [--out docs/figures/wiring.png]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np
from models import MODELS

import stanflow
from stanflow.flow.config import FlowConfig
from stanflow.sampling.standardize import StandardizedTarget
from stanflow.training.config import TrainConfig
from stanflow.training.start import begin
from stanflow.training.wiring import curvature, wire

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.colors import ListedColormap

CUTS, POINTS, SEED = 4, 16, 1


def draw(path: Path) -> None:
    folder = MODELS / "horseshoe_logistic"
    model = stanflow.StanModel(
        folder / "horseshoe_logistic.stan", folder / "horseshoe_logistic_10.json"
    )
    start = begin(model, TrainConfig(), SEED)
    target = StandardizedTarget(model, start.location, start.log_scale)
    dependence = curvature(target, target.in_units(start.points)[:POINTS])
    config = FlowConfig()
    wiring = wire(
        dependence,
        layers=2 * CUTS,
        partners=config.partners,
        cuts=CUTS,
        rng=np.random.default_rng(SEED),
    )
    names = model.unconstrained_names
    sides = np.zeros((CUTS, model.dim))
    for cut in range(CUTS):
        sides[cut, wiring.halves[2 * cut].moved] = 1
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10, 5.6), width_ratios=[3, 1], layout="constrained"
    )
    image = left.imshow(np.sqrt(dependence.toarray()), cmap="Blues")
    left.set_xticks(range(model.dim), names, rotation=90, fontsize=7)
    left.set_yticks(range(model.dim), names, fontsize=7)
    left.set_title("Dependence: mean |mixed derivative|, root scale", fontsize=9)
    figure.colorbar(image, ax=left, shrink=0.7)
    for half in wiring.halves:
        for row, coordinate in enumerate(half.moved):
            for partner in half.partners[row][half.partners[row] >= 0]:
                left.plot(partner, coordinate, ".", color="C3", markersize=3)
    right.imshow(sides.T, cmap=ListedColormap(["#f2f2f2", "#404040"]), aspect="auto")
    right.set_xticks(range(CUTS), [str(cut + 1) for cut in range(CUTS)])
    right.set_yticks(range(model.dim), names, fontsize=7)
    right.set_title("Sides of the four cuts", fontsize=9)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/figures/wiring.png"))
    draw(parser.parse_args().out)
