import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanflow.flow.config import FlowConfig
from stanflow.flow.wiring import Wiring
from stanflow.stan.density import DensityBatch
from stanflow.training import wiring as wiring_module
from stanflow.training.wiring import (
    Dependence,
    even_odd,
    measure_dependence,
    strongest_partners,
    wire,
    wire_by_curvature,
)

from .targets import GaussianTarget, HalfGaussian


class Funnel(GaussianTarget):
    """v ~ N(0, 1), and the others N(0, exp(v))."""

    def __init__(self, dim):
        super().__init__(np.zeros(dim), np.eye(dim))

    def log_density_gradient(self, z):
        self.evaluations += len(z)
        v, x = z[:, :1], z[:, 1:]
        inverse = np.exp(-2 * v)
        square = (x**2 * inverse).sum(1)
        log_density = -0.5 * v[:, 0] ** 2 - 0.5 * square - x.shape[1] * v[:, 0]
        of_v = -v[:, 0] + square - x.shape[1]
        gradient = np.column_stack([of_v, -x * inverse])
        return DensityBatch(log_density, gradient, np.ones(len(z), bool))


def quadratic(dim, seed=1):
    """A Gaussian with a dense precision whose entries are all different."""
    rng = np.random.default_rng(seed)
    factor = rng.standard_normal((dim, 2 * dim))
    return GaussianTarget(rng.standard_normal(dim), np.linalg.inv(factor @ factor.T))


def off_diagonal(matrix):
    return np.abs(matrix) * (1 - np.eye(len(matrix)))


def dependence_of(dense):
    rows, columns = np.nonzero(dense)
    return Dependence.of_entries(len(dense), rows, columns, dense[rows, columns])


def dense_of(dependence):
    dense = np.zeros((dependence.dim, dependence.dim))
    dense[dependence.rows(), dependence.columns] = dependence.values
    return dense


def graph(dim, edges, weights=1.0):
    """Edges, symmetric."""
    dense = np.zeros((dim, dim))
    rows, columns = np.array(edges, dtype=int).reshape(-1, 2).T
    dense[rows, columns] = dense[columns, rows] = weights
    return dependence_of(dense)


def random_graph(dim, density, seed):
    rng = np.random.default_rng(seed)
    dense = np.triu(rng.uniform(0.1, 1, (dim, dim)) * (rng.random((dim, dim)) < density), 1)
    return dependence_of(dense + dense.T)


def sides_of(wiring):
    """Which coordinates the first of each pair of layers moves, as rows of zeros and ones."""
    return np.array(
        [np.isin(np.arange(wiring.dim), half.moved).astype(int) for half in wiring.halves[::2]]
    )


def cuts_of(dependence, cuts, seed=1):
    generator = np.random.default_rng(seed)
    return sides_of(wire(dependence, layers=2 * cuts, partners=0, cuts=cuts, rng=generator))


def weight_of_cut(dense, side):
    return (dense * (side[:, None] != side[None, :])).sum() / 2


def test_the_curvature_of_a_quadratic_is_its_precision():
    target = quadratic(6)
    points = np.random.default_rng(2).standard_normal((3, 6))
    expected = off_diagonal(target.precision)
    np.testing.assert_allclose(dense_of(measure_dependence(target, points)), expected, rtol=1e-6)
    assert target.evaluations == 3 * 2 * 6


def test_the_curvature_of_a_funnel_is_the_mean_of_its_mixed_derivatives():
    """|d^2 log p / dv dx| = 2 |x| exp(-2 v), of either sign, where x are not tied to each other."""
    points = np.random.default_rng(3).standard_normal((5, 4))
    expected = np.zeros((4, 4))
    v, x = points[:, :1], points[:, 1:]
    expected[0, 1:] = expected[1:, 0] = (2 * np.abs(x) * np.exp(-2 * v)).mean(0)
    np.testing.assert_allclose(dense_of(measure_dependence(Funnel(4), points)), expected, rtol=1e-4)


@pytest.mark.parametrize("rows_at_once", [512, 7])
def test_the_strongest_entries_of_each_row_and_column_are_kept(monkeypatch, rows_at_once):
    monkeypatch.setattr(wiring_module, "_ROWS_AT_ONCE", rows_at_once)
    target = quadratic(50)
    found = measure_dependence(target, np.zeros((1, 50)))
    exact = off_diagonal(target.precision)
    least = -np.sort(-exact, axis=1)[:, 31:32]
    strong = exact >= least
    np.testing.assert_array_equal(dense_of(found) > 0, strong | strong.T)
    np.testing.assert_allclose(dense_of(found), exact * (strong | strong.T), rtol=1e-6)


def test_independent_coordinates_have_no_entries():
    precision = np.diag([1.0, 4, 9])
    precision[0, 1] = precision[1, 0] = 1e-8  # next to nothing
    target = GaussianTarget([0.0, 0, 0], np.linalg.inv(precision))
    assert len(measure_dependence(target, np.ones((2, 3))).values) == 0


def test_points_whose_neighbours_are_rejected_are_left_out():
    class HalfFunnel(Funnel, HalfGaussian):
        def log_density_gradient(self, z):
            batch = super().log_density_gradient(z)
            accepted = z[:, 1] > 0
            gradient = np.where(accepted[:, None], batch.gradient, np.nan)
            return DensityBatch(np.where(accepted, batch.log_density, np.nan), gradient, accepted)

    points = np.abs(np.random.default_rng(3).standard_normal((4, 3))) + 0.1
    expected = dense_of(measure_dependence(Funnel(3), points))
    at_the_edge = np.array([[0.5, 1e-4, 3.0], [0.5, -2.0, 3.0]])
    found = dense_of(measure_dependence(HalfFunnel(3), np.concatenate([at_the_edge, points])))
    np.testing.assert_allclose(found, expected)
    assert len(measure_dependence(HalfFunnel(3), at_the_edge).values) == 0


def test_a_star_is_cut_between_its_centre_and_its_points():
    star = graph(8, [(0, i) for i in range(1, 8)])
    for sides in (cuts_of(star, 4, seed) for seed in range(5)):
        assert (sides[:, :1] != sides[:, 1:]).all()


@pytest.mark.parametrize("seed", range(10))
def test_a_bipartite_graph_is_cut_whole(seed):
    """Groups and their members, say: each edge is between one kind and the other."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(20)
    edges = [(order[i], order[j]) for i in range(6) for j in range(6, 20) if rng.random() < 0.6]
    (side,) = cuts_of(graph(20, edges), 1, seed)
    rows, columns = np.array(edges).T
    assert (side[rows] != side[columns]).all()


@pytest.mark.parametrize("seed", range(20))
def test_cuts_of_small_graphs_are_near_the_best_there_are(seed):
    """No coordinate would cut more on the other side, and all splits are tried for the best."""
    dense = dense_of(random_graph(9, 0.5, seed))
    (side,) = cuts_of(dependence_of(dense), 1, seed)
    ours = weight_of_cut(dense, side)
    for coordinate in range(9):
        other = side.copy()
        other[coordinate] ^= 1
        assert weight_of_cut(dense, other) <= ours + 1e-12
    splits = np.array(list(itertools.product([0, 1], repeat=9)))
    best = max(weight_of_cut(dense, split) for split in splits)
    assert 0.9 * best <= ours <= best + 1e-12


def test_further_cuts_go_through_what_the_former_ones_left():
    """A second cut of a triangle goes between the two that the first one left together."""
    sides = cuts_of(graph(3, [(0, 1), (1, 2), (0, 2)]), 2)
    separated = [{(i, j) for i, j in ((0, 1), (1, 2), (0, 2)) if s[i] != s[j]} for s in sides]
    assert [len(pairs) for pairs in separated] == [2, 2]
    assert separated[0] | separated[1] == {(0, 1), (1, 2), (0, 2)}


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("clique", [3, 4, 6])
def test_every_strong_pair_is_separated_by_some_cut(seed, clique):
    """Groups of coordinates that all depend on each other, among weak ties between any two."""
    rng = np.random.default_rng(seed)
    dim = 5 * clique
    dense = dense_of(random_graph(dim, 0.3, seed)) * 0.02
    members = rng.permutation(dim).reshape(5, clique)
    pairs = [pair for group in members for pair in itertools.combinations(group, 2)]
    rows, columns = np.array(pairs).T
    dense[rows, columns] = dense[columns, rows] = rng.uniform(0.5, 1, len(pairs))
    sides = cuts_of(dependence_of(dense), 4, seed)
    assert (sides[:, rows] != sides[:, columns]).any(axis=0).all()


@given(
    dim=st.integers(2, 40),
    density=st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    layers=st.integers(1, 9),
    partners=st.integers(0, 5),
    cuts=st.integers(1, 4),
    seed=st.integers(0, 10_000),
)
def test_any_dependence_gives_a_valid_wiring(dim, density, layers, partners, cuts, seed):
    """Which `Wiring` looks at; layers in pairs move each coordinate once."""
    dependence = random_graph(dim, density, seed)
    rng = np.random.default_rng(seed)
    wiring = wire(dependence, layers=layers, partners=partners, cuts=cuts, rng=rng)
    assert isinstance(wiring, Wiring)
    assert (wiring.dim, wiring.layers, wiring.n_partners) == (dim, layers, partners)
    for one, other in zip(wiring.halves[::2], wiring.halves[1::2], strict=False):
        np.testing.assert_array_equal(one.kept, other.moved)
    for layer, half in enumerate(wiring.halves):
        again = layer + 2 * cuts
        if again < layers:
            np.testing.assert_array_equal(half.moved, wiring.halves[again].moved)
        assert_strongest(dense_of(dependence), half.moved, half.partners)


def assert_strongest(dense, moved, partners):
    """Partners are the kept coordinates with the largest entries, in descending order."""
    kept = np.setdiff1d(np.arange(len(dense)), moved)
    for coordinate, row in zip(moved, partners, strict=True):
        order = kept[np.argsort(-dense[coordinate, kept], kind="stable")]
        expected = [j for j in order if dense[coordinate, j] > 0][: len(row)]
        np.testing.assert_array_equal(row, expected + [-1] * (len(row) - len(expected)))


def test_partners_are_the_strongest_of_those_that_are_kept():
    dependence = dependence_of(np.array([[0, 5, 1, 3.0], [5, 0, 0, 0], [1, 0, 0, 2], [3, 0, 2, 0]]))
    found = strongest_partners(dependence, np.array([0, 2]), 2)
    np.testing.assert_array_equal(found, [[1, 3], [3, -1]])
    assert strongest_partners(dependence, np.array([0]), 0).shape == (1, 0)


def test_even_and_odd_halves_have_partners_too():
    dependence = random_graph(7, 0.6, 1)
    wiring = even_odd(dependence, layers=3, partners=2)
    for half, plain in zip(wiring.halves, Wiring.alternating(7, 3).halves, strict=True):
        np.testing.assert_array_equal(half.moved, plain.moved)
        assert_strongest(dense_of(dependence), half.moved, half.partners)


def test_a_flow_is_wired_as_its_configuration_says():
    """By the funnel's centre, which every other coordinate has as its partner."""
    target, points = Funnel(6), np.full((300, 6), 0.5)
    rng = np.random.default_rng(1)
    config = FlowConfig(layers=5, partners=1)
    wiring = wire_by_curvature(config, target, points, rng)
    assert (wiring.layers, wiring.n_partners) == (5, 1)
    for half in wiring.halves:
        if 0 in half.kept:
            np.testing.assert_array_equal(half.moved, [1, 2, 3, 4, 5])
            assert (half.partners == 0).all()
    assert target.evaluations <= 16 * 2 * 6
    plain = wire_by_curvature(FlowConfig(layers=5, wiring="even-odd"), target, points, rng)
    np.testing.assert_array_equal(plain.halves[0].moved, [1, 3, 5])
    assert plain.n_partners == FlowConfig().partners


def test_wiring_follows_its_seed():
    dependence = random_graph(30, 0.3, 1)
    one, again, other = (cuts_of(dependence, 4, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
