import numpy as np
import pytest

from stanflow.comparison.correlations import correlation_table


def normals(rng, rho, shape):
    z = rng.normal(size=(*shape, 2))
    z[..., 1] = rho * z[..., 0] + np.sqrt(1 - rho**2) * z[..., 1]
    return z


@pytest.mark.parametrize("rho", [0.0, 0.5, -0.9])
def test_rank_correlations_of_normals_and_their_errors(rho):
    rng = np.random.default_rng(1)
    truth = 6 / np.pi * np.arcsin(rho / 2)
    values, scores = [], []
    for _ in range(150):
        table = correlation_table(["a", "b"], *(normals(rng, rho, (2, 400)) for _ in range(2)))
        values += [*table["correlation"], *table["reference_correlation"]]
        scores += [*table["z"]]
    values, scores = np.array(values), np.array(scores)
    assert values.mean() == pytest.approx(truth, abs=4 * values.std() / np.sqrt(300) + 2e-3)
    assert np.sqrt(np.mean(scores**2)) == pytest.approx(1, abs=4 / np.sqrt(300) + 0.05)


def test_the_pair_that_differs_comes_first():
    rng = np.random.default_rng(2)
    first, reference = rng.normal(size=(2, 4, 500, 6))
    reference[..., [1, 4]] = normals(rng, 0.6, (4, 500))
    table = correlation_table(list("abcdef"), first, reference)
    assert set(table.loc[0, ["a", "b"]]) == {"b", "e"}
    assert table.loc[0, "z"] < -10
    assert table["z"].iloc[1:].abs().max() < 4


def test_tails_do_not_matter():
    rng = np.random.default_rng(3)
    first, reference = (np.exp(5 * normals(rng, 0.5, (4, 500))) for _ in range(2))
    table = correlation_table(["a", "b"], first, reference)
    assert table.loc[0, "correlation"] == pytest.approx(6 / np.pi * np.arcsin(0.25), abs=0.08)
    assert abs(table.loc[0, "z"]) < 4


def test_one_scalar_has_no_pairs():
    assert correlation_table(["a"], *np.random.default_rng(4).normal(size=(2, 4, 100, 1))).empty
