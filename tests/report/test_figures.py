import io

import numpy as np
import pytest
from matplotlib.figure import Figure

from stanflow.report import figures
from tests.comparison.runs import flow_run


def drawn(figure):
    assert isinstance(figure, Figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    assert buffer.getvalue().startswith(b"\x89PNG")
    return figure


def histograms_of(values, importance=None, **known):
    (axes,) = drawn(figures.marginals(flow_run(values, **known), importance)).axes
    return [patch.get_data() for patch in axes.patches], axes


def test_a_wild_beginning_of_training_does_not_hide_its_end():
    fit = flow_run(np.random.default_rng(2).normal(size=(50, 1)))
    fit.trace["elbo"] = -1 - np.exp(30 - np.arange(100.0))
    fit.trace.loc[50, "elbo"] = np.nan
    (axes,) = drawn(figures.elbo_trace(fit)).axes
    low, high = axes.get_ylim()
    assert -1e6 < low < -1 < high
    assert any("not shown" in text.get_text() for text in axes.texts)


def test_weights_can_be_zero_and_k_unknown():
    log_weights = np.full(100, -np.log(90))
    log_weights[:10] = -np.inf
    values = np.random.default_rng(3).normal(size=(100, 1))
    fit = flow_run(values, log_weights=log_weights, pareto_k=None)
    (axes,) = drawn(figures.weights(fit)).axes
    assert "not known" in axes.get_title(loc="left")
    bad = flow_run(values, pareto_k=0.9)
    assert "cannot be trusted" in figures.weights(bad).axes[0].get_title(loc="left")


def test_weights_of_few_draws_are_judged_by_all_that_k_was_fitted_to():
    values = np.random.default_rng(3).normal(size=(100, 1))
    few = flow_run(values, pareto_k=0.6)
    assert "cannot be trusted (limit 0.50)" in figures.weights(few).axes[0].get_title(loc="left")
    more = flow_run(values, pareto_k=0.6, evidence_draws=20_000)
    assert "can be trusted (limit 0.70)" in figures.weights(more).axes[0].get_title(loc="left")


def test_marginals_are_of_the_first_scalars_in_their_order():
    fit = flow_run(np.random.default_rng(4).normal(size=(100, 30)))
    titles = [axes.get_title() for axes in drawn(figures.marginals(fit, fit.weights)).axes]
    assert titles == [f"x[{i}]" for i in range(1, 13)]


def test_weighted_and_plain_histograms_have_the_same_bins():
    x = np.random.default_rng(5).normal(0, 2, size=(20_000, 1))
    log_weights = -0.5 * x[:, 0] ** 2 + 0.5 * (x[:, 0] / 2) ** 2
    importance = np.exp(log_weights) / np.exp(log_weights).sum()
    (plain, weighted), _ = histograms_of(x, importance)
    np.testing.assert_array_equal(plain.edges, weighted.edges)
    middle, width = plain.edges[:-1] + np.diff(plain.edges) / 2, np.diff(plain.edges)[0]
    for shown, sd in ((plain, 2.0), (weighted, 1.0)):
        density = np.exp(-0.5 * (middle / sd) ** 2) / (sd * np.sqrt(2 * np.pi))
        assert np.abs(shown.values - density).sum() * width < 0.1


def test_whole_numbers_have_a_bar_each():
    counts = np.random.default_rng(6).poisson(3, size=(1000, 1)).astype(float)
    (plain,), _ = histograms_of(counts)
    np.testing.assert_array_equal(plain.edges[:3], [-0.5, 0.5, 1.5])
    assert plain.values[3] == pytest.approx((counts == 3).mean())


@pytest.mark.parametrize("constant", [0.0, 7.0, -7.3, 1e-150, 1e60])
def test_a_constant_is_drawn(constant):
    (plain,), _ = histograms_of(np.full((100, 1), constant))
    assert plain.edges[0] < constant < plain.edges[-1]
    assert (plain.values > 0).sum() == 1


def test_draws_without_a_value_are_left_out():
    x = np.random.default_rng(7).normal(size=(1000, 1))
    x[:500] = np.nan
    x[500], x[501:510] = np.inf, 1e300
    (plain, weighted), _ = histograms_of(x, np.full(1000, 1e-3))
    np.testing.assert_allclose(plain.values, weighted.values)
    assert plain.values @ np.diff(plain.edges) == pytest.approx(1, abs=0.02)
    none, axes = histograms_of(np.full((100, 1), np.nan))
    assert (none, axes.texts[0].get_text()) == ([], "no draw can be shown")


def test_a_name_is_no_formula():
    _, axes = histograms_of(np.zeros((10, 1)), columns=(r"$\nothing{$",))
    assert axes.get_title() == r"$\nothing{$"
