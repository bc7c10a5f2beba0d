import numpy as np
import pytest

from stanflow.reference.diagnostics import convergence, min_bfmi
from stanflow.statistics.markov_chains import bfmi, ess_bulk, ess_tail, mcse_mean, rhat


@pytest.fixture
def values():
    """Independent draws, correlated ones, chains that disagree; then what has no diagnostics."""
    rng = np.random.default_rng(1)
    independent = rng.normal(size=(4, 600))
    correlated = np.cumsum(rng.normal(size=(4, 600)), axis=1)
    apart = rng.normal(size=(4, 600)) + np.arange(4)[:, None]
    constant = np.full((4, 600), 1 / 3)
    rounded = 1 + np.finfo(float).eps * rng.integers(0, 2, size=(4, 600))
    one_nan = independent.copy()
    one_nan[2, 5] = np.nan
    infinite = np.full((4, 600), -np.inf)
    columns = [independent, correlated, apart, constant, rounded, one_nan, infinite]
    return np.stack(columns, axis=-1)


def test_each_scalar_has_its_diagnostics(values):
    found = convergence(values)
    columns = found.columns
    for i in range(3):
        x = values[..., i]
        assert columns["R_hat"][i] == rhat(x)
        assert columns["ESS_bulk"][i] == ess_bulk(x)
        assert columns["ESS_tail"][i] == ess_tail(x)
        assert columns["MCSE"][i] == mcse_mean(x)
    assert found.max_rhat == columns["R_hat"][:3].max() > 1.1
    assert found.min_ess_bulk == columns["ESS_bulk"][:3].min() < 50


def test_what_has_no_diagnostics_spoils_none(values):
    found = convergence(values)
    assert all(np.isnan(column[3:]).all() for column in found.columns.values())
    assert (found.constant, found.not_finite) == (2, 2)
    good = convergence(values[..., [0, 3, 4, 5, 6]])
    assert good.max_rhat < 1.02
    assert good.min_ess_bulk > 1500


def test_without_any_diagnostics_there_is_no_extreme(values):
    none = convergence(values[..., [3, 6]])
    assert (none.max_rhat, none.min_ess_bulk) == (None, None)
    few = convergence(values[:, :3, :1])
    assert few.max_rhat is None
    empty = convergence(values[..., :0])
    assert (empty.max_rhat, empty.constant, empty.not_finite) == (None, 0, 0)


def test_one_chain_has_no_rhat_but_effective_draws(values):
    one = convergence(values[:1, :, :1])
    assert one.max_rhat is None
    assert one.min_ess_bulk == ess_bulk(values[:1, :, 0])


def test_huge_values_are_told_from_constants():
    x = np.random.default_rng(2).choice([-1e308, 1e308], size=(4, 100, 1))
    assert convergence(x).constant == 0


def test_the_smallest_bfmi_of_the_chains():
    rng = np.random.default_rng(3)
    energy = np.stack([rng.normal(size=500), np.cumsum(rng.normal(size=500))])
    assert min_bfmi(energy) == bfmi(energy)[1]
    assert min_bfmi(energy) < 0.3
    assert min_bfmi(np.ones((2, 10))) is None
    energy[0, 3] = np.nan
    assert min_bfmi(energy) is None
