"""Figures, from the results alone."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from .sections import STARTS, TIMES, WIRINGS
from .store import Results

STYLES: dict[str, dict[str, Any]] = {
    "default": {"color": "C0", "linewidth": 1.8},
    "paper": {"color": "C1"},
    "meanfield": {"color": "C2"},
    "fullrank": {"color": "C3"},
}
NAMES = {
    "default": "default",
    "paper": "the paper's settings",
    "meanfield": "mean-field",
    "fullrank": "full-rank",
}
MARKERS = ("o", "s", "^", "D")
_NEAREST, _FARTHEST = 1.0, 1e6  # nats below the best


def draw_figures(results: Results, folder: Path) -> list[Path]:
    """Draw what there are results for; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "horseshoe.png": (_draw_horseshoe, results.section("horseshoe")),
        "wiring_study.png": (_draw_wiring, results.section("wiring")),
        "starts.png": (_draw_starts, results.section("starts")),
    }
    drawn = []
    for name, (draw, items) in figures.items():
        done = [item for item in items if "error" not in item]
        if done:
            draw(done, folder / name)
            drawn.append(folder / name)
    return drawn


def _draw_horseshoe(items: list[dict[str, Any]], path: Path) -> None:
    """How far below the best the ELBO is, over seconds, a panel a dimension; dots are final fits.

    In logarithms, as full-rank may be tens of thousands of nats below.
    """
    plt = _pyplot()
    models = list(dict.fromkeys(item["model"] for item in items))
    figure, panels = plt.subplots(1, len(models), figsize=(5.5 * len(models), 3.6), squeeze=False)
    for panel, model in zip(panels[0], models, strict=True):
        own = [item for item in items if item["model"] == model]
        best = max(item["elbo"] for item in own)
        cut = False
        for item in own:
            variant = item["variant"]
            style = STYLES.get(variant, {"color": "C0", "linewidth": 0.7, "alpha": 0.5})
            label = NAMES.get(variant)
            if label is None and not cut:
                label, cut = "default, cut short", True
            trace = item["trace"]
            below = best - np.array(trace["elbo"], dtype=np.float64)
            panel.plot(trace["seconds"], np.maximum(below, _NEAREST), label=label, **style)
            end = max(best - item["elbo"], _NEAREST)
            panel.plot(item["trained_seconds"], end, "o", color=style["color"], ms=4)
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_ylim(_FARTHEST, _NEAREST / 2)
        panel.set_xlabel("seconds of training")
        panel.set_title(f"{model}, D = {own[0]['dim']}", fontsize=10)
    panels[0][0].set_ylabel("nats below the best of these")
    panels[0][0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _draw_wiring(items: list[dict[str, Any]], path: Path) -> None:
    """ELBO of each wiring less that of the first, a row a model, medians over seeds."""
    plt = _pyplot()
    found = _medians(items, "elbo")
    first, *others = WIRINGS
    models = [m for m in dict.fromkeys(i["model"] for i in items) if (m, first) in found]
    figure, panel = plt.subplots(figsize=(7, 0.25 * len(models) + 1.6))
    for variant, marker in zip(others, MARKERS, strict=False):
        rows = [row for row, model in enumerate(models) if (model, variant) in found]
        differences = [found[models[r], variant] - found[models[r], first] for r in rows]
        panel.plot(differences, rows, marker, label=variant, alpha=0.8, ms=5)
    _finish_rows(panel, items, models)
    panel.set_xlabel(f"ELBO less that of the wiring by {first}, nats, at equal seconds")
    panel.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _draw_starts(items: list[dict[str, Any]], path: Path) -> None:
    """ELBO after so many seconds less the best of a model's ends, a panel a time."""
    plt = _pyplot()
    models = list(dict.fromkeys(item["model"] for item in items))
    best = {m: max(i["elbo"] for i in items if i["model"] == m) for m in models}
    figure, panels = plt.subplots(
        1, len(TIMES), figsize=(11, 0.25 * len(models) + 1.6), sharey=True, sharex=True
    )
    for panel, time in zip(panels, TIMES, strict=True):
        for start, marker in zip(STARTS, MARKERS, strict=False):
            gaps, rows = [], []
            for row, model in enumerate(models):
                after = [
                    item["elbo_after"][str(time)]
                    for item in items
                    if (item["model"], item["variant"]) == (model, start)
                ]
                if after and None not in after:
                    gaps.append(median(after) - best[model])
                    rows.append(row)
            panel.plot(gaps, rows, marker, label=start, alpha=0.8, ms=5)
        _finish_rows(panel, items, models)
        panel.set_title(f"after {time} s", fontsize=10)
    panels[len(TIMES) // 2].set_xlabel("ELBO less the best of all starts at the end, nats")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="lower left", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _medians(items: list[dict[str, Any]], name: str) -> dict[tuple[str, str], float]:
    groups: dict[tuple[str, str], list[float]] = {}
    for item in items:
        groups.setdefault((item["model"], item["variant"]), []).append(item[name])
    return {key: median(values) for key, values in groups.items()}


def _finish_rows(panel: Any, items: list[dict[str, Any]], models: list[str]) -> None:
    """Name the rows and take an axis that shows tenths and thousands of nats alike."""
    dims = {item["model"]: item["dim"] for item in items}
    panel.axvline(0, color="0.7", linewidth=0.8, zorder=0)
    panel.set_xscale("symlog", linthresh=0.1)
    panel.set_yticks(range(len(models)), [f"{m} ({dims[m]})" for m in models], fontsize=8)
    panel.set_ylim(len(models) - 0.5, -0.5)
    panel.grid(axis="y", linewidth=0.3)
    panel.tick_params(axis="x", labelsize=8)


def _pyplot() -> Any:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    return plt
