import numpy as np
import pytest
from scipy import stats

from stanflow.statistics.medians import gain_of_medians
from stanflow.statistics.ranks import average_ranks


def test_ranks_are_scipys():
    rng = np.random.default_rng(1)
    for x in (rng.normal(size=100), rng.integers(5, size=100).astype(float), np.zeros(3)):
        np.testing.assert_array_equal(average_ranks(x), stats.rankdata(x))


def test_the_gain_of_medians_and_its_error():
    rng = np.random.default_rng(2)
    before, after = rng.normal(size=2000), 1 + rng.normal(size=500)
    gain, se = gain_of_medians(before, after)
    spreads = [stats.median_abs_deviation(x, scale="normal") for x in (before, after)]
    expected = np.sqrt(np.pi / 2 * (spreads[0] ** 2 / 2000 + spreads[1] ** 2 / 500))
    assert se == pytest.approx(expected)
    assert abs(gain - 1) < 4 * se
    after[:100] = np.nan
    assert gain_of_medians(before, after)[0] == pytest.approx(gain, abs=4 * se)
    assert np.isnan(gain_of_medians(before[:1], after)[0])
