import arviz
import numpy as np
import pytest

from stanflow.reference.diagnostics import convergence, min_bfmi


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


NAMES = list("abcdefg")


def test_each_scalar_has_arvizs_diagnostics(values):
    found = convergence(NAMES, values)
    assert list(found.table.index) == NAMES
    for i, name in enumerate("abc"):
        row, x = found.table.loc[name], values[..., i]
        assert row["R_hat"] == pytest.approx(arviz.rhat(x))
        assert row["ESS_bulk"] == pytest.approx(arviz.ess(x, method="bulk"))
        assert row["ESS_tail"] == pytest.approx(arviz.ess(x, method="tail"))
        assert row["MCSE"] == pytest.approx(arviz.mcse(x, method="mean"))
    assert found.max_rhat == found.table.loc[["a", "b", "c"], "R_hat"].max() > 1.1
    assert found.min_ess_bulk == found.table.loc[["a", "b", "c"], "ESS_bulk"].min() < 50


def test_what_has_no_diagnostics_spoils_none(values):
    found = convergence(NAMES, values)
    assert found.table.loc[["d", "e", "f", "g"]].isna().all(axis=None)
    assert (found.constant, found.not_finite) == (2, 2)
    good = convergence(list("adefg"), values[..., [0, 3, 4, 5, 6]])
    assert good.max_rhat < 1.02
    assert good.min_ess_bulk > 1500


def test_without_any_diagnostics_there_is_no_extreme(values):
    none = convergence(["d", "g"], values[..., [3, 6]])
    assert (none.max_rhat, none.min_ess_bulk) == (None, None)
    few = convergence(["a"], values[:, :3, :1])
    assert few.max_rhat is None
    empty = convergence([], values[..., :0])
    assert (empty.max_rhat, empty.constant, empty.not_finite) == (None, 0, 0)


def test_one_chain_has_no_rhat_but_effective_draws(values):
    one = convergence(["a"], values[:1, :, :1])
    assert one.max_rhat is None
    assert one.min_ess_bulk == pytest.approx(arviz.ess(values[:1, :, 0]))


def test_huge_values_are_told_from_constants():
    x = np.random.default_rng(2).choice([-1e308, 1e308], size=(4, 100, 1))
    assert convergence(["x"], x).constant == 0


def test_the_smallest_bfmi_of_the_chains():
    rng = np.random.default_rng(3)
    energy = np.stack([rng.normal(size=500), np.cumsum(rng.normal(size=500))])
    assert min_bfmi(energy) == pytest.approx(arviz.bfmi(energy)[1])
    assert min_bfmi(energy) < 0.3
    assert min_bfmi(np.ones((2, 10))) is None
    energy[0, 3] = np.nan
    assert min_bfmi(energy) is None
