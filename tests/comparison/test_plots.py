import io

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from stanflow.comparison import plots
from stanflow.comparison.compare import compare

from .runs import flow_run, nuts_run


@pytest.fixture(scope="module")
def comparisons():
    rng = np.random.default_rng(1)
    flow = flow_run(rng.normal(size=(800, 40)))
    nuts, other = (nuts_run(rng.normal(size=(4, 200, 40))) for _ in range(2))
    one = [nuts_run(rng.normal(size=(2, 100, 1))) for _ in range(2)]
    return {"flow": compare(flow, nuts), "nuts": compare(other, nuts), "one": compare(*one)}


def drawn(figure):
    assert isinstance(figure, Figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    assert buffer.getvalue().startswith(b"\x89PNG")
    return figure


@pytest.mark.parametrize("kind", ["flow", "nuts", "one"])
def test_every_figure_can_be_drawn_without_a_display(comparisons, kind):
    comparison = comparisons[kind]
    names = list(comparison.table.index)
    (axes,) = drawn(plots.forest(comparison)).axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == names[:30]
    titles = [a.get_title() for a in drawn(plots.marginals(comparison)).axes if a.get_visible()]
    assert titles == names[:12]
    chosen = plots.chosen_pairs(comparison)
    assert len(chosen) == (0 if kind == "one" else 6)
    assert len({frozenset(pair) for pair in chosen}) == len(chosen)
    figure = drawn(plots.pairs(comparison))
    assert [(a.get_xlabel(), a.get_ylabel()) for a in figure.axes if a.get_visible()] == chosen
    if kind == "flow":
        drawn(plots.evidence(comparison))


def test_no_global_state_is_touched(comparisons):
    import matplotlib.pyplot as plt

    before = dict(matplotlib.rcParams)
    plots.forest(comparisons["flow"])
    assert plt.get_fignums() == []
    assert dict(matplotlib.rcParams) == before


def test_intervals_are_the_quantiles_of_the_draws(comparisons):
    comparison = comparisons["flow"]
    name = comparison.table.index[0]
    row = comparison.table.loc[name]
    (axes,) = plots.forest(comparison).axes
    in_sds = (row[["5%", "95%"]].astype(float) - row["reference_mean"]) / row["reference_sd"]
    lines = [line for line in axes.lines if line.get_color() == plots.FIRST]
    np.testing.assert_allclose(lines[0].get_xdata(), in_sds, rtol=1e-6)


def test_weighted_histograms_are_of_weighted_draws():
    rng = np.random.default_rng(5)
    x = rng.normal(0, 2, size=(4000, 1))
    log_weights = -0.5 * x[:, 0] ** 2 + 0.5 * (x[:, 0] / 2) ** 2
    fit = flow_run(x, log_weights=log_weights - np.logaddexp.reduce(log_weights))
    comparison = compare(fit, nuts_run(rng.normal(size=(4, 1000, 1))))
    (axes,) = plots.marginals(comparison).axes
    reference, plain, weighted = (patch.get_data().values for patch in axes.patches)
    width = np.diff(axes.patches[0].get_data().edges)[0]
    assert np.abs(weighted - reference).sum() * width < 0.2
    assert np.abs(plain - reference).sum() * width > 0.4


def test_parameters_on_a_line_are_drawn():
    x = np.random.default_rng(4).normal(size=(4, 200, 1))
    both = np.concatenate([x, 2 * x], axis=-1)
    drawn(plots.pairs(compare(nuts_run(both), nuts_run(both[::-1]))))
