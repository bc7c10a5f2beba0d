import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanflow.errors import UsageError
from stanflow.flow.config import FlowConfig
from stanflow.flow.realnvp import build_flow
from stanflow.flow.wiring import Wiring

from .configurations import random_wiring, seeds


@given(st.integers(2, 9), st.integers(1, 5), seeds)
def test_a_wiring_survives_storing(dim, layers, seed):
    rng = np.random.default_rng(seed)
    wiring = random_wiring(FlowConfig(layers=layers), dim, rng) or Wiring.alternating(dim, layers)
    again = Wiring.from_arrays(dim, wiring.to_arrays())
    assert again.layers == layers
    for one, other in zip(wiring.halves, again.halves, strict=True):
        for name in ("moved", "kept", "partners"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_halves_are_sorted_with_their_partners():
    (half,) = Wiring(5, [[4, 0, 3]], [[[1, 2], [2, -1], [-1, 1]]]).halves
    np.testing.assert_array_equal(half.moved, [0, 3, 4])
    np.testing.assert_array_equal(half.kept, [1, 2])
    np.testing.assert_array_equal(half.partners, [[2, -1], [-1, 1], [1, 2]])
    np.testing.assert_array_equal(half.partner_positions, [[1, -1], [-1, 0], [0, 1]])


def test_alternating_moves_odd_coordinates_first():
    odd, even = Wiring.alternating(5, 2).halves
    np.testing.assert_array_equal(odd.moved, [1, 3])
    np.testing.assert_array_equal(even.moved, [0, 2, 4])


@pytest.mark.parametrize(
    ("moved", "partners", "message"),
    [
        ([[0, 4]], None, "layer 0 of the wiring must move different coordinates between 0 and 3"),
        ([[0, 0]], None, "different coordinates"),
        ([[-1]], None, "different coordinates"),
        ([[]], None, "must move at least one and not all of the 4|whole numbers"),
        ([[0, 1, 2, 3]], None, "not all of the 4 coordinates"),
        ([[0.5]], None, "moved: indices must be whole numbers"),
        ([[1], [2]], [[[0]]], "2 layers of moved coordinates and 1 of partners"),
        ([[1], [2, 0]], [[[0]], [[1]]], r"layer 1 .* partners of shape \(2, K\)"),
        ([[[0, 1]]], None, "as a list of"),
        ([[1]], [[0]], r"partners of shape \(1, K\)"),
        ([[1]], [[[1]]], "layer 0 of the wiring has a partner that is not among"),
        ([[1]], [[[-2]]], "partner that is not among"),
        ([[1], [2]], [[[0]], [[0, 1]]], "layers differ in their number of partners"),
    ],
)
def test_bad_wirings_are_refused(moved, partners, message):
    with pytest.raises(UsageError, match=message):
        Wiring(4, moved, partners)


@pytest.mark.parametrize(
    ("config", "dim", "wiring", "message"),
    [
        (FlowConfig(layers=2), 4, Wiring.alternating(5, 2), "for 5 dimensions, but there are 4"),
        (FlowConfig(layers=3), 4, Wiring.alternating(4, 2), "for 2 layers, but the flow has 3"),
        (FlowConfig(family="fullrank"), 4, Wiring.alternating(4, 16), "not fullrank"),
        (FlowConfig(layers=1), 4, Wiring(4, [[0]], [[[1] * 17]]), "at most 16 partners"),
    ],
)
def test_a_wiring_must_fit_the_flow(config, dim, wiring, message):
    with pytest.raises(UsageError, match=message):
        build_flow(config, dim, 1, wiring)
