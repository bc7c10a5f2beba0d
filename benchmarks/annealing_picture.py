"""Draw one annealing: Neal's funnel, from a flow of 60 training steps to the posterior.

python benchmarks/annealing_picture.py [--out docs/figures/annealing.png]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np
import torch
from models import funnel
from scipy import stats

import stanflow
from stanflow.sampling import annealing
from stanflow.sampling.annealing import Annealing
from stanflow.sampling.annealing import Path as AnnealingPath
from stanflow.sampling.pullback import PulledBack, images
from stanflow.sampling.widened_base import WidenedBase

matplotlib.use("Agg")
from matplotlib import pyplot as plt

STEPS, PARTICLES, ISLANDS, SEED = 60, 1024, 8, 1
MOVES_AT_THE_END = 40
V, X = np.linspace(-10, 8, 200), np.linspace(-12, 12, 200)


def states(flow: stanflow.Fit) -> list[Annealing]:
    """The state at each inverse temperature, and after more moves at the last one."""
    path = AnnealingPath(WidenedBase(flow.flow.base), PulledBack(flow.flow, funnel()))
    generator = torch.Generator().manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    assert isinstance(path.start, WidenedBase)
    state = annealing.init(path, path.start.sample(PARTICLES, generator), ISLANDS)
    seen = [state]
    while state.beta < 1:
        state = annealing.heat(state, 0.9)
        state = annealing.resample(state, rng, always=state.beta == 1)
        for _ in range(2):
            state, _info = annealing.move(state, path, rng)
        seen.append(state)
    for _ in range(MOVES_AT_THE_END):
        state, _info = annealing.move(state, path, rng)
    return [*seen, state]


def draw(path: Path) -> None:
    training = stanflow.TrainConfig(max_steps=STEPS, noncenter=False)
    never = stanflow.RefineConfig(when="never")
    fit = stanflow.fit(funnel(), seed=SEED, training=training, refining=never, progress=False)
    seen = states(fit)
    middle = min(seen[1:-2], key=lambda s: abs(s.beta - 0.5), default=seen[1])
    chosen = {
        "the flow, widened": seen[0],
        f"inverse temperature {middle.beta:.2f}": middle,
        "inverse temperature 1": seen[-2],
        f"{MOVES_AT_THE_END} moves later": seen[-1],
    }
    density = stats.norm.pdf(V, 0, 3)[:, None] * stats.norm.pdf(X, 0, np.exp(V / 2)[:, None])
    figure, panels = plt.subplots(
        1, len(chosen), figsize=(12, 3.6), sharey=True, layout="constrained"
    )
    for panel, (title, state) in zip(panels, chosen.items(), strict=True):
        z, _ = images(fit.flow, state.particles.points)
        panel.contour(X, V, np.log(density + 1e-30), levels=[-10, -8, -6, -4], colors="#999999",
                      linewidths=0.8)  # fmt: skip
        panel.plot(z[:, 1], z[:, 0], ".", markersize=2.5, color="C0")
        panel.set_title(title, fontsize=10)
        panel.set_xlim(X[0], X[-1])
        panel.set_ylim(V[0], V[-1])
        panel.set_xlabel("x[1]")
    panels[0].set_ylabel("v")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/figures/annealing.png"))
    draw(parser.parse_args().out)
