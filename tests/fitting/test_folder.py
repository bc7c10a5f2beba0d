"""Fits on disk: everything survives, and nothing damaged or foreign is taken for a fit."""

import json
import shutil
import subprocess
from dataclasses import replace

import arviz
import cmdstanpy
import numpy as np
import pytest

import stanflow
from stanflow.errors import UsageError
from stanflow.runs.folder import NUTS, written_whole
from tests.arviz_versions import IS_BEFORE_1, elpd, group_names

CODE = """
data { int N; vector[N] x; vector[N] y; }
parameters { real a; real b; real<lower=0> s; cholesky_factor_corr[2] L; }
model { a ~ normal(0, 1); b ~ normal(0, 1); s ~ normal(0, 1); y ~ normal(a + b * x, s); }
generated quantities {
  vector[N] log_lik; array[N] real y_rep; real mean_rep = 0;
  for (i in 1:N) {
    log_lik[i] = normal_lpdf(y[i] | a + b * x[i], s);
    y_rep[i] = normal_rng(a + b * x[i], s);
  }
}
"""
DATA = {"N": 5, "x": [-1.0, -0.5, 0.0, 0.5, 1.0], "y": [-0.9, -0.7, 0.2, 0.4, 1.3]}
FILES = (
    "fit.json", "draws.nc", "flow.safetensors", "trace.csv", "data.json", "stan_program.stan",
    "sha256sums.txt",
)  # fmt: skip


@pytest.fixture(scope="module")
def fit():
    model = stanflow.StanModel(stan_code=CODE, data=DATA, engine="embedded")
    quick = stanflow.TrainConfig(max_steps=300)
    return stanflow.fit(model, seed=3, draws=600, training=quick, progress=False)


@pytest.fixture(scope="module")
def saved(fit, tmp_path_factory):
    return fit.save(tmp_path_factory.mktemp("fits") / "one")


def test_the_checksums_are_those_of_the_sha256sum_command(saved):
    if shutil.which("sha256sum") is None:
        pytest.skip("there is no sha256sum command here")
    checked = subprocess.run(
        ["sha256sum", "-c", "sha256sums.txt"], cwd=saved, capture_output=True, text=True, check=True
    )
    assert checked.stdout.count(": OK") == len(FILES) - 1


@pytest.mark.parametrize("name", FILES)
def test_missing_and_truncated_files_are_named(saved, tmp_path, name):
    for keep in (None, 0, 0.5, -2):
        damaged = tmp_path / f"{keep}"
        shutil.copytree(saved, damaged)
        content = (damaged / name).read_bytes()
        (damaged / name).unlink()
        if keep is not None:
            length = int(keep * len(content)) if 0 <= keep < 1 else len(content) + keep
            (damaged / name).write_bytes(content[:length])
        with pytest.raises(UsageError, match=r"is damaged|holds no fit") as error:
            stanflow.load(damaged)
        assert name in str(error.value) or name == "sha256sums.txt"


def test_foreign_folders_are_no_fits(saved, tmp_path):
    with pytest.raises(UsageError, match="holds no fit"):
        stanflow.load(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="holds no fit"):
        stanflow.load(tmp_path / "file")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "fit.json").write_text('{"model": "another tool\'s"}')
    with pytest.raises(UsageError, match="is damaged"):
        stanflow.load(foreign)
    with written_whole(tmp_path / "nuts", kind=NUTS) as folder:
        (folder / "nuts.json").write_text("{}")
    with pytest.raises(UsageError, match=r"NUTS run; read it with stanflow\.load_nuts"):
        stanflow.load(tmp_path / "nuts")


def test_a_fit_of_a_later_version_is_not_misread(fit, tmp_path):
    later = replace(fit, report={**fit.report, "format": 99})
    with pytest.raises(UsageError, match="by a later version of StanFlow"):
        stanflow.load(later.save(tmp_path / "later"))


def test_a_flow_in_correlated_units_survives(tmp_path):
    code = "parameters { vector[30] x; } model { x ~ std_normal(); sum(x) ~ normal(0, 1e-4); }"
    model = stanflow.StanModel(stan_code=code, engine="embedded")
    quick = stanflow.TrainConfig(max_steps=20)
    fit = stanflow.fit(model, draws=50, training=quick, progress=False)
    assert fit.flow.correlated_units is not None
    loaded = stanflow.load(fit.save(tmp_path / "fit"))
    np.testing.assert_array_equal(loaded.flow.correlated_units, fit.flow.correlated_units)
    np.testing.assert_array_equal(loaded.log_prob(fit.z), fit.log_prob(fit.z))


def test_the_density_needs_no_engine(fit, saved, monkeypatch):
    loaded = stanflow.load(saved)
    monkeypatch.setattr(stanflow.StanModel, "__init__", None)
    np.testing.assert_allclose(loaded.log_prob(fit.z[:50]), fit.log_q[:50], rtol=1e-9)
    assert loaded.log_prob(fit.z[0]) == pytest.approx(fit.log_q[0])
    for points in (np.zeros((3, 7)), np.zeros(3)):
        with pytest.raises(UsageError, match="4 unconstrained parameters each"):
            loaded.log_prob(points)


def test_a_loaded_fit_can_draw_anew(fit, saved):
    loaded = stanflow.load(saved)
    new = loaded.sample(700, seed=9)
    assert new.values.shape == (700, len(fit.columns))
    assert new.report["draws"] == 700
    assert not np.array_equal(new.values[:600], fit.values)
    pooled = np.hypot(*(f.values[:, 0].std() / np.sqrt(len(f.values)) for f in (fit, new)))
    assert abs(new.values[:, 0].mean() - fit.values[:, 0].mean()) < 4.5 * pooled
    assert abs(new.elbo - fit.elbo) < 4.5 * np.hypot(new.elbo_se, fit.elbo_se)
    assert new.verdict in ("good", "usable", "unreliable")
    again = fit.sample(700, seed=9)
    np.testing.assert_array_equal(new.values, again.values)
    assert new.report["log_evidence"] == again.report["log_evidence"]
    other = stanflow.StanModel(stan_code=CODE, data={**DATA, "y": [0.0] * 5}, engine="embedded")
    with pytest.raises(UsageError, match="other data or another program"):
        fit.sample(10, model=other)


def test_resampled_draws_have_the_weighted_means(fit, tmp_path):
    """With weights that matter: those of a target moved by a standard deviation."""
    log_weights = fit.z[:, 0] / fit.z[:, 0].std() - 0.5
    log_weights -= np.log(np.exp(log_weights).sum())
    tilted = replace(fit, log_weights=log_weights)
    chosen = tilted.resampled(20_000, seed=2)
    mean = tilted.weights @ fit.values[:, 0]
    assert chosen.values[:, 0].mean() == pytest.approx(mean, abs=4.5 / np.sqrt(20_000))
    assert mean - fit.values[:, 0].mean() > 0.5 * fit.values[:, 0].std()
    np.testing.assert_allclose(chosen.weights, 1 / 20_000)
    rows = {tuple(row) for row in fit.values}
    assert all(tuple(row) in rows for row in chosen.values[:100])
    assert "were resampled" in str(chosen.summary())
    loaded = stanflow.load(chosen.save(tmp_path / "resampled"))
    assert loaded.report["resampled"] is True

    table, plain = tilted.summary(weighted=True).table, tilted.summary().table
    assert table.loc["a", "Mean"] == pytest.approx(mean)
    assert plain.loc["a", "Mean"] == pytest.approx(fit.values[:, 0].mean())
    for column in ("StdDev", "5%", "50%", "95%"):
        assert table.loc["a", column] == pytest.approx(
            chosen.summary().table.loc["a", column],
            abs=0.1,  # quantiles lie between draws
        )
    equal = replace(fit, log_weights=np.full(600, -np.log(600)))
    np.testing.assert_allclose(
        equal.summary(weighted=True).table[["Mean", "StdDev"]],
        plain[["Mean", "StdDev"]],
        atol=1e-12,
    )


def test_a_fit_with_settings_that_are_no_more_is_refused(fit, tmp_path):
    config = {**fit.report["flow_config"], "activation": "relu"}
    folder = replace(fit, report={**fit.report, "flow_config": config}).save(tmp_path / "once")
    assert stanflow.load(folder).report["flow_config"]["activation"] == "relu"
    config["activation"] = "elu"
    folder = replace(fit, report={**fit.report, "flow_config": config}).save(tmp_path / "other")
    with pytest.raises(UsageError, match="its flow has activation elu, which is no setting"):
        stanflow.load(folder)


def test_inference_data_has_its_proper_groups_and_loo(fit, saved, tmp_path):
    data = stanflow.load(saved).to_arviz()
    assert group_names(data) == {
        "posterior", "sample_stats", "log_likelihood", "posterior_predictive", "observed_data",
        "unconstrained_posterior",
    }  # fmt: skip
    assert set(data.posterior) == {"a", "b", "s", "L", "mean_rep"}
    np.testing.assert_array_equal(data.posterior_predictive["y_rep"][0], fit.stan_variable("y_rep"))
    np.testing.assert_array_equal(data.observed_data["y"], DATA["y"])
    np.testing.assert_array_equal(data.unconstrained_posterior["z"][0], fit.z)
    np.testing.assert_allclose(np.exp(data.sample_stats["log_weight"]).sum(), 1)
    loo = arviz.loo(data)
    assert loo.n_data_points == 5
    assert np.isfinite(elpd(loo))
    data.to_netcdf(str(tmp_path / "data.nc"))
    assert group_names(arviz.from_netcdf(str(tmp_path / "data.nc"))) == group_names(data)


def test_stan_csv_files_are_read_back(fit, tmp_path):
    (file,) = fit.save_csvfiles(tmp_path / "csv")
    read = cmdstanpy.from_csv(str(file))
    for name, values in fit.stan_variables().items():
        np.testing.assert_array_equal(read.stan_variable(name), values)
    np.testing.assert_array_equal(read.method_variables()["lp__"], fit.log_p)
    np.testing.assert_array_equal(read.method_variables()["lp_approx__"], fit.log_q)
    if IS_BEFORE_1:
        data = arviz.from_cmdstan(str(file))
        np.testing.assert_array_equal(data.posterior["L"][0], fit.stan_variable("L"))
    assert list(tmp_path.glob("csv/*")) == [file]
    (tmp_path / "in_the_way").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        fit.save_csvfiles(tmp_path / "in_the_way")


def test_a_notebook_shows_verdict_table_and_trace(fit):
    odd = replace(fit, report={**fit.report, "reasons": ["a < b"]})
    html = odd._repr_html_()
    assert fit.verdict in html
    assert "a &lt; b" in html
    assert "<svg" in html
    assert "log evidence" in html
    assert "y_rep[1]" in html
    assert "http" not in html.replace("http://www.w3.org", "").replace(
        "http://purl.org", ""
    ).replace("http://creativecommons.org", "").replace("https://matplotlib.org", "")


def test_the_report_is_json_without_odd_numbers(saved):
    def refuse(constant):
        raise AssertionError(constant)

    json.loads((saved / "fit.json").read_text(), parse_constant=refuse)
