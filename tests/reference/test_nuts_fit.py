import json
from dataclasses import replace

import arviz
import numpy as np
import pytest

import stanflow
from stanflow.errors import UsageError
from stanflow.reference.result import load_nuts
from stanflow.reference.sampling import nuts
from tests.arviz_versions import elpd, group_names

CODE = """
data { int N; vector[N] y; }
parameters { real mu; cholesky_factor_corr[3] L; array[2] vector[2] v; }
transformed parameters { real twice = 2 * mu; }
model { mu ~ normal(1, 2); y ~ normal(mu, 1); for (i in 1:2) v[i] ~ std_normal(); }
generated quantities {
  array[N] real y_rep = normal_rng(rep_vector(mu, N), 1);
  vector[N] log_lik;
  for (n in 1:N) log_lik[n] = normal_lpdf(y[n] | mu, 1);
}
"""
Y = [0.5, 1.5, 2.0]
CHAINS, DRAWS = 3, 300


@pytest.fixture(scope="module")
def model():
    return stanflow.StanModel(stan_code=CODE, data={"N": 3, "y": Y}, engine="embedded")


@pytest.fixture(scope="module")
def run(model):
    return nuts(model, seed=3, chains=CHAINS, draws=DRAWS, engine="embedded", progress=False)


@pytest.fixture(scope="module")
def saved(run, tmp_path_factory):
    return run.save(tmp_path_factory.mktemp("runs") / "one")


@pytest.fixture(scope="module", params=["fresh", "loaded"])
def either(request, run, saved):
    """What holds for a run must hold for it after saving and loading."""
    return run if request.param == "fresh" else load_nuts(saved)


def test_draws_are_laid_out_as_cmdstanpys(either):
    assert either.column_names[:8] == (
        "lp__", "accept_stat__", "stepsize__", "treedepth__", "n_leapfrog__", "divergent__",
        "energy__", "mu",
    )  # fmt: skip
    assert "L[2,1]" in either.column_names
    draws = either.draws()
    assert draws.shape == (DRAWS, CHAINS, len(either.column_names))
    np.testing.assert_array_equal(draws[:, 1, 7], either.values[1, :, 0])
    np.testing.assert_array_equal(draws[:, 2, 6], either.statistics["energy__"][2])
    pooled = either.draws(concat_chains=True)
    np.testing.assert_array_equal(pooled[DRAWS : 2 * DRAWS], draws[:, 1])
    np.testing.assert_array_equal(pooled, either.draws_pd().to_numpy())


def test_variables_have_their_declared_shapes(either):
    shapes = {name: values.shape[1:] for name, values in either.stan_variables().items()}
    assert shapes == {
        "mu": (), "L": (3, 3), "v": (2, 2), "twice": (), "y_rep": (3,), "log_lik": (3,)
    }  # fmt: skip
    np.testing.assert_array_equal(either.stan_variable("mu"), either.values[..., 0].ravel())
    assert list(either.draws_pd(["mu", "divergent__"])) == ["mu", "divergent__"]
    with pytest.raises(UsageError, match="no variable 'sigma'"):
        either.stan_variable("sigma")
    assert (either.chains, len(either.divergences), len(either.max_treedepth_hits)) == (3, 3, 3)


def test_the_summary_is_arvizs(either):
    summary = either.summary()
    table = summary.table
    expected = "Mean MCSE StdDev 5% 50% 95% ESS_bulk ESS_tail R_hat"
    assert list(table.columns) == expected.split()
    row, x = table.loc["mu"], either.values[..., 0]
    assert (row["Mean"], row["StdDev"]) == pytest.approx((x.mean(), x.std(ddof=1)))
    assert row["MCSE"] == pytest.approx(float(arviz.mcse(x, method="mean")))
    assert row["R_hat"] == pytest.approx(float(arviz.rhat(x)))
    assert row["ESS_bulk"] == pytest.approx(float(arviz.ess(x, method="bulk")))
    assert row["ESS_tail"] == pytest.approx(
        float(arviz.ess(x, method="tail", prob=(0.05, 0.95))), rel=0.02
    )
    assert row["5%"] == pytest.approx(np.quantile(either.values[..., 0], 0.05))
    text = str(summary)
    assert "3 chains of 300 draws by NUTS in the embedded engine" in text
    assert "log_lik[3]" in text


def test_constant_elements_do_not_spoil_the_diagnostics(either):
    """Such as the 1 and the zeros of a Cholesky factor of correlations."""
    table = either.summary().table
    assert np.isnan(table.loc["L[1,1]", "R_hat"])
    assert either.report["constant_columns"] == 4
    assert either.report["max_rhat"] == np.nanmax(table["R_hat"]) < 1.05
    assert either.report["min_ess_bulk"] == np.nanmin(table["ESS_bulk"]) > 100


def test_arviz_gets_its_own_names(either):
    data = either.to_arviz()
    stats = data.sample_stats
    assert {
        "lp", "diverging", "tree_depth", "energy", "n_steps", "acceptance_rate", "step_size"
    } == set(stats)  # fmt: skip
    assert stats["diverging"].dtype == bool
    assert stats["n_steps"].dtype.kind == "i"
    np.testing.assert_array_equal(stats["lp"], either.statistics["lp__"])
    assert data.posterior["L"].shape == (CHAINS, DRAWS, 3, 3)
    np.testing.assert_array_equal(data.posterior["mu"], either.values[..., 0])
    assert data.posterior.attrs["inference_library"] == "embedded"
    assert group_names(data) >= {"log_likelihood", "posterior_predictive", "observed_data"}
    np.testing.assert_array_equal(data.observed_data["y"], Y)
    assert np.isfinite(elpd(arviz.loo(data)))


def test_a_loaded_run_is_the_run(run, saved):
    loaded = load_nuts(saved)
    np.testing.assert_array_equal(loaded.draws(), run.draws())
    assert loaded.columns == run.columns
    assert loaded.report["out"] == str(saved)
    assert {**loaded.report, "out": None} == dict(run.report)
    assert (loaded.program, loaded.data) == (CODE, run.data)
    assert json.loads(loaded.data) == {"N": 3, "y": Y}
    names = {"nuts.json", "draws.nc", "data.json", "stan_program.stan", "sha256sums.txt"}
    assert {file.name for file in saved.iterdir()} == names


def test_saving_replaces_a_run_only_by_force_and_a_fit_never(run, tmp_path):
    folder = run.save(tmp_path / "run")
    with pytest.raises(UsageError, match="already holds a NUTS run"):
        run.save(folder)
    assert run.save(folder, force=True) == folder
    other = tmp_path / "fit"
    other.mkdir()
    (other / "fit.json").write_text("{}")
    with pytest.raises(UsageError, match="holds no NUTS run"):
        run.save(other, force=True)


def test_folders_that_hold_no_run_or_a_damaged_one_are_refused(saved, tmp_path):
    with pytest.raises(UsageError, match=r"holds no NUTS run \(nuts.json is not there\)"):
        load_nuts(tmp_path)
    for name in ("nuts.json", "draws.nc", "data.json", "stan_program.stan", "sha256sums.txt"):
        damaged = tmp_path / name
        damaged.mkdir()
        for file in saved.iterdir():
            (damaged / file.name).write_bytes(file.read_bytes())
        content = (saved / name).read_bytes()
        (damaged / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(UsageError, match=r"the NUTS run in .* is damaged"):
            load_nuts(damaged)
        (damaged / name).unlink()
        with pytest.raises(UsageError, match=r"is damaged|holds no NUTS run"):
            load_nuts(damaged)


def test_draws_that_are_not_finite_survive_saving(run, tmp_path):
    values = run.values.copy()
    values[0, 3, -1], values[1, 2, -2] = np.nan, np.inf
    odd = replace(run, values=values)
    loaded = load_nuts(odd.save(tmp_path / "odd"))
    np.testing.assert_array_equal(loaded.values, values)
    assert "NaN" not in (tmp_path / "odd" / "nuts.json").read_text()
    row = loaded.summary().table.iloc[-1]
    assert np.isnan(row["R_hat"])
    assert np.isfinite(row["Mean"])  # of the draws that have it


# ---- What the run found wrong -----------------------------------------------------------------


def test_a_good_run_says_so(model):
    good = nuts(model, seed=1, draws=1500, engine="embedded", progress=False)
    assert good.report["warnings"] == []
    assert "no divergences, every R-hat at most 1.01" in str(good.summary())


def test_divergences_are_found_and_counted(zoo):
    folder = zoo / "eight_schools"
    centered = stanflow.StanModel(
        folder / "eight_schools_centered.stan", folder / "eight_schools.json", engine="embedded"
    )
    run = nuts(centered, seed=1, engine="embedded", progress=False)
    n = run.report["divergences"]
    assert n == run.divergences.sum() == run.statistics["divergent__"].sum() > 5
    assert f"{n} of 4000 transitions diverged" in str(run.summary())
    assert "adapt_delta" in str(run.summary())
    assert run.to_arviz().sample_stats["diverging"].sum() == n


def test_treedepth_hits_low_ess_and_high_rhat_are_found(model):
    run = nuts(
        model, seed=1, warmup=5, draws=20, max_treedepth=1, engine="embedded", progress=False
    )
    text = str(run.summary())
    hits = run.report["max_treedepth_hits"]
    assert hits == run.max_treedepth_hits.sum() > 0
    assert f"{hits} of 80 transitions reached the largest treedepth 1" in text
    assert "R-hat is above 1.01 for" in text
    assert "effective sample size is below 400 (100 a chain) for" in text
    assert "fewer than 150, Stan does not adapt the metric" in text


def test_one_chain_is_not_called_converged(model):
    run = nuts(model, seed=1, chains=1, engine="embedded", progress=False)
    assert run.report["max_rhat"] is None
    assert run.report["min_ess_bulk"] > 100
    assert "there is one chain, so there is no R-hat" in str(run.summary())
