import numpy as np
import pytest
from scipy import stats

from stanflow.comparison.joint import mmd_test, sliced_wasserstein


def test_in_one_dimension_it_is_the_wasserstein_distance():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(300, 1)), rng.gamma(2, size=(170, 1))
    found = sliced_wasserstein(x, y, seed=1, projections=3, permutations=3)
    assert found.value == pytest.approx(stats.wasserstein_distance(x[:, 0], y[:, 0]))
    assert found.projections == 3


def test_a_shift_in_the_plane_is_seen_from_random_directions():
    """The mean of |cos| over the circle is 2 / pi."""
    x = np.random.default_rng(2).normal(size=(400, 2))
    found = sliced_wasserstein(
        x + np.array([0.6, 0.8]), x, seed=1, projections=4000, permutations=1
    )
    assert found.value == pytest.approx(2 / np.pi, rel=4 * 0.49 / np.sqrt(4000))


def test_the_null_reference_is_what_draws_of_one_distribution_show():
    rng = np.random.default_rng(3)
    pairs = [rng.normal(size=(2, 150, 3)) for _ in range(40)]
    found = [sliced_wasserstein(x, y, seed=1, permutations=60) for x, y in pairs]
    values = np.array([f.value for f in found])
    expected = np.mean([f.null_mean for f in found])
    assert values.mean() == pytest.approx(expected, abs=4 * values.std() / np.sqrt(40))
    assert sum(f.value > f.null_95 for f in found) <= stats.binom.ppf(0.9999, 40, 0.05)


def test_the_statistic_is_its_definition_written_out():
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(7, 2)), rng.normal(1, size=(5, 2))
    found = mmd_test(x, y, seed=1, permutations=9)

    def k(a, b):
        return np.exp(-((a - b) ** 2).sum() / (2 * found.bandwidth**2))

    within_x = np.mean([k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    within_y = np.mean([k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    between = np.mean([k(a, b) for a in x for b in y])
    assert found.mmd_squared == pytest.approx(within_x + within_y - 2 * between)
    pooled = np.concatenate([x, y])
    distances = [np.linalg.norm(a - b) for i, a in enumerate(pooled) for b in pooled[:i]]
    assert found.bandwidth == pytest.approx(np.sqrt(np.median(np.square(distances))))


def test_the_statistic_of_shifted_normals_is_the_closed_form():
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(1500, 1)), rng.normal(0.8, 1, size=(1500, 1))
    found = mmd_test(x, y, seed=1, permutations=9)
    s = found.bandwidth
    truth = 2 * s / np.sqrt(s**2 + 2) * (1 - np.exp(-(0.8**2) / (2 * (s**2 + 2))))
    assert found.mmd_squared == pytest.approx(truth, rel=0.2)


def test_p_values_are_uniform_where_there_is_no_difference():
    rng = np.random.default_rng(6)
    p = []
    for repeat in range(200):
        x, y = rng.normal(size=(30, 2)), rng.normal(size=(40, 2))
        p.append(mmd_test(x, y, seed=repeat, permutations=99).p_value)
    for level in (0.05, 0.2, 0.5):
        low, high = stats.binom.ppf([1e-4, 1 - 1e-4], 200, level)
        assert low <= (np.array(p) <= level).sum() <= high
    assert min(p) >= 0.01


def test_correlation_with_equal_marginals_is_found():
    rng = np.random.default_rng(7)
    x = rng.normal(size=(500, 2))
    y = rng.multivariate_normal([0, 0], [[1, 0.7], [0.7, 1]], size=500)
    assert mmd_test(x, y, seed=1).p_value == 0.001
    found = sliced_wasserstein(x, y, seed=1)
    assert found.value > found.null_95


def test_draws_that_are_all_the_same_do_not_differ():
    x = np.zeros((20, 2))
    assert mmd_test(x, x, seed=1, permutations=19).p_value == 1
    assert sliced_wasserstein(x, x, seed=1, permutations=19).value == 0
