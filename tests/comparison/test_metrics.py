import numpy as np
import pytest
from scipy import stats

from stanflow.comparison.metrics import difference_table, marginal_wasserstein, reference_table
from stanflow.comparison.montecarlo import from_independent

GRID = (np.arange(20_000) + 0.5) / 20_000
NORMAL = stats.norm.ppf(GRID)[:, None]


@pytest.mark.parametrize(
    ("shift", "scale", "sd", "distance"),
    [(0.7, 1.0, 1.0, 0.7), (-0.7, 1.0, 2.0, 0.35), (0.0, 1.4, 1.0, 0.4 * np.sqrt(2 / np.pi))],
)
def test_wasserstein_distances_of_normals_are_the_closed_form(shift, scale, sd, distance):
    found = marginal_wasserstein(shift + scale * NORMAL, NORMAL, np.array([sd]))
    assert found[0] == pytest.approx(distance, rel=1e-3)


def test_weights_take_the_distance_away():
    weights = stats.norm.pdf(NORMAL[:, 0] * 1.3) / stats.norm.pdf(NORMAL[:, 0])
    found = marginal_wasserstein(1.3 * NORMAL, NORMAL, np.ones(1), weights)
    assert found[0] < 1e-3
    assert marginal_wasserstein(1.3 * NORMAL, NORMAL, np.ones(1))[0] > 0.2


def test_differences_are_in_units_of_the_reference():
    reference = 5 + 2 * NORMAL
    first = 5.5 + 3 * NORMAL
    table = difference_table(["x"], from_independent(first), from_independent(reference))
    row = table.loc["x"]
    assert row["mean_error"] == pytest.approx(0.25, rel=1e-3)
    assert row["log_sd_ratio"] == pytest.approx(np.log(1.5))
    n = len(GRID)
    assert row["mean_z"] == pytest.approx(0.5 / np.hypot(3, 2) * np.sqrt(n), rel=1e-2)
    # The log sd of n normal draws has variance 1 / 2 n.
    assert row["log_sd_z"] == pytest.approx(np.log(1.5) * np.sqrt(n), rel=1e-2)
    assert row["judged_by"] == "moments"
    assert (row["location_error"], row["spread_z"]) == (row["mean_error"], row["log_sd_z"])
    assert row["5%"] == pytest.approx(5.5 + 3 * stats.norm.ppf(0.05), abs=1e-3)
    theirs = reference_table(["x"], from_independent(reference)).loc["x"]
    assert theirs["reference_95%"] == pytest.approx(5 + 2 * stats.norm.ppf(0.95), abs=1e-3)


def test_heavy_tails_are_judged_by_quantiles():
    grid = (np.arange(4000) + 0.5) / 4000
    reference = stats.cauchy.ppf(grid)[:, None]
    table = difference_table(
        ["x"], from_independent(1.2 * reference + 0.5), from_independent(reference)
    )
    row = table.loc["x"]
    assert row["judged_by"] == "quantiles"
    width = 2 * stats.cauchy.ppf(0.95)
    assert row["spread_error"] == pytest.approx(np.log(1.2), rel=1e-3)
    scale = width / (2 * stats.norm.ppf(0.95))
    assert row["location_error"] == pytest.approx(0.5 / scale, rel=1e-2)


def test_z_scores_of_quantiles_are_standard_normal():
    rng = np.random.default_rng(1)
    first, reference = rng.standard_t(2, size=(2, 1000, 300))
    table = difference_table(
        [str(j) for j in range(300)], from_independent(first), from_independent(reference)
    )
    assert (table["judged_by"] == "quantiles").mean() > 0.8
    for column in ("location_z", "spread_z"):
        assert np.sqrt((table[column] ** 2).mean()) == pytest.approx(1, abs=4 / np.sqrt(600) + 0.05)
