import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import stanflow
from stanflow.errors import UsageError
from stanflow.flow.wiring import Wiring
from stanflow.statistics.summary import Summary, number, summarize

CODE = """
parameters { real mu; matrix[2, 3] A; array[2] vector[2] v; }
transformed parameters { real twice = 2 * mu; }
model { mu ~ normal(1, 2); to_vector(A) ~ std_normal(); for (i in 1:2) v[i] ~ std_normal(); }
generated quantities { array[2] int k; k[1] = poisson_rng(3); k[2] = 7; }
"""


@pytest.fixture(scope="module")
def fit():
    model = stanflow.StanModel(stan_code=CODE, engine="embedded")
    quick = stanflow.TrainConfig(max_steps=30)
    return stanflow.fit(
        model,
        seed=3,
        draws=500,
        evidence_draws=500,
        training=quick,
        refining=stanflow.RefineConfig(when="never"),
        progress=False,
    )


@pytest.fixture(scope="module")
def saved(fit, tmp_path_factory):
    return fit.save(tmp_path_factory.mktemp("fits") / "one")


@pytest.fixture(scope="module", params=["fresh", "loaded"])
def either(request, fit, saved):
    """What holds for a fit must hold for it after saving and loading."""
    return fit if request.param == "fresh" else stanflow.load(saved)


def test_columns_are_named_as_cmdstanpy_names_them(either):
    assert either.column_names[:4] == ("lp_approx__", "lp__", "mu", "A[1,1]")
    assert either.column_names[4] == "A[2,1]"  # column-major, as in Stan's CSV files
    assert either.column_names[-2:] == ("k[1]", "k[2]")
    assert either.draws().shape == (500, len(either.column_names))


def test_variables_have_their_declared_shapes(either):
    shapes = {name: values.shape for name, values in either.stan_variables().items()}
    assert shapes == {
        "mu": (500,), "A": (500, 2, 3), "v": (500, 2, 2), "twice": (500,), "k": (500, 2)
    }  # fmt: skip
    table = either.draws_pd()
    np.testing.assert_array_equal(table["lp__"], either.log_p)
    np.testing.assert_array_equal(table["lp_approx__"], either.log_q)
    np.testing.assert_array_equal(either.stan_variable("A")[:, 1, 2], table["A[2,3]"])
    np.testing.assert_array_equal(either.stan_variable("v")[:, 1, 0], table["v[2,1]"])
    np.testing.assert_array_equal(either.stan_variable("twice"), 2 * table["mu"])
    assert set(either.stan_variable("k")[:, 1]) == {7}


def test_tables_can_be_limited_to_variables_or_columns(either):
    assert list(either.draws_pd("v")) == ["v[1,1]", "v[2,1]", "v[1,2]", "v[2,2]"]
    assert list(either.draws_pd(["mu", "A[2,1]", "lp__"])) == ["mu", "A[2,1]", "lp__"]
    for call in (either.draws_pd, either.stan_variable):
        with pytest.raises(UsageError, match="no variable 'sigma'; it has mu, A, v"):
            call("sigma")


def test_log_densities_belong_to_the_draws(either):
    model = stanflow.StanModel(stan_code=CODE, engine="embedded")
    names = ("mu", "A", "v")
    z = np.stack(
        [
            model.unconstrain({name: either.stan_variable(name)[i] for name in names})
            for i in range(20)
        ]
    )
    stats = either.method_variables()
    np.testing.assert_allclose(model.log_density_gradient(z).log_density, stats["lp__"][:20])
    with torch.no_grad():
        log_q = either.flow.log_prob(torch.from_numpy(z)).numpy()
    np.testing.assert_allclose(log_q, stats["lp_approx__"][:20], rtol=1e-9, atol=1e-9)


def test_the_summary_is_that_of_the_draws(either):
    table = either.summary().table
    draws = either.draws_pd().drop(columns=["lp__", "lp_approx__"])
    assert list(table.index) == list(draws.columns)
    np.testing.assert_allclose(table["Mean"], draws.mean())
    np.testing.assert_allclose(table["StdDev"], draws.std())
    for percent in (5, 50, 95):
        np.testing.assert_allclose(table[f"{percent}%"], draws.quantile(percent / 100))


def test_the_elbo_is_that_of_the_draws(either):
    constant = either.report["normalizing_constant"]["value"]
    stats = either.method_variables()
    ratio = stats["lp__"] - stats["lp_approx__"] + constant
    assert either.elbo == pytest.approx(ratio.mean())
    assert either.elbo_se == pytest.approx(ratio.std(ddof=1) / np.sqrt(500))
    assert either.normalized


def test_arviz_gets_posterior_and_sample_stats(either):
    data = either.to_arviz()
    assert data.posterior["A"].shape == (1, 500, 2, 3)
    np.testing.assert_array_equal(data.posterior["A"][0], either.stan_variable("A"))
    np.testing.assert_array_equal(data.sample_stats["lp"][0], either.log_p)
    assert data.posterior.attrs["inference_library"] == "stanflow"


def test_a_loaded_fit_is_the_fit(fit, saved):
    loaded = stanflow.load(saved)
    np.testing.assert_array_equal(loaded.draws(), fit.draws())
    assert loaded.columns == fit.columns
    assert {**loaded.report, "out": None} == json.loads(json.dumps(dict(fit.report)))
    pd.testing.assert_frame_equal(loaded.trace, fit.trace)
    assert loaded.program == CODE
    for name, tensor in fit.flow.state_dict().items():
        assert torch.equal(loaded.flow.state_dict()[name], tensor)


def test_a_wiring_and_every_part_of_the_flow_survive_saving(tmp_path):
    model = stanflow.StanModel(stan_code=CODE, engine="embedded")
    config = stanflow.FlowConfig(layers=2, hidden=4, base_location_scale=True, loft_tau=None)
    wiring = Wiring(11, [[0, 2, 5], [1, 3]], [[[1], [-1], [4]], [[0], [10]]])
    quick = stanflow.TrainConfig(max_steps=5)
    fit = stanflow.fit(model, draws=20, flow=config, training=quick, wiring=wiring, progress=False)
    loaded = stanflow.load(fit.save(tmp_path / "wired"))
    z = torch.randn(6, 11, dtype=torch.float64)
    torch.testing.assert_close(loaded.flow.log_prob(z), fit.flow.log_prob(z))
    assert loaded.flow.wiring.n_partners == 1


def test_a_preset_gives_what_is_not_given():
    model = stanflow.StanModel(stan_code=CODE, engine="embedded")
    quick = stanflow.TrainConfig(max_steps=2)
    fit = stanflow.fit(model, draws=20, preset="paper", training=quick, progress=False)
    assert fit.report["flow_config"]["layers"] == 64
    assert fit.report["train_config"]["max_steps"] == 2
    with pytest.raises(UsageError, match="no preset 'fast'; choose auto or paper"):
        stanflow.fit(model, preset="fast")


def test_saving_replaces_a_fit_only_by_force(fit, tmp_path):
    folder = fit.save(tmp_path / "fit")
    assert stanflow.load(folder).report["out"] == str(folder)
    with pytest.raises(UsageError, match="already holds a fit"):
        fit.save(folder)
    assert fit.save(folder, force=True) == folder


def test_numbers_of_any_size_can_be_read_in_the_table():
    columns = summarize(np.array([[1e-6], [1e7], [0.25], [-3.0]]))
    text = str(Summary("", ("x",), columns, ()))
    assert "2.5e+06" in text
    assert "1e-06" in str(Summary("", ("x",), summarize(np.full((3, 1), 1e-6)), ()))


def test_the_table_is_aligned_as_pandas_aligns_it(fit):
    summary = fit.summary()
    formatters = dict.fromkeys(summary.table.columns, number)
    aligned = summary.table.to_string(index_names=False, formatters=formatters)
    assert aligned in str(summary)


def test_what_went_wrong_on_the_way_is_counted():
    code = """
    parameters { real x; } model { if (x < -0.1) reject("no"); x ~ normal(0, 1); }
    generated quantities { real y = 1; if (x > 1) reject("too far"); }
    """
    model = stanflow.StanModel(stan_code=code, engine="embedded")
    quick = stanflow.TrainConfig(max_steps=3)
    fit = stanflow.fit(model, draws=300, evidence_draws=300, training=quick, progress=False)
    report, x = fit.report, fit.stan_variable("x")
    assert report["failed_generated_quantities"] == (x > 1).sum() > 0
    assert np.isnan(fit.stan_variable("y")).sum() == (x > 1).sum()
    assert np.isfinite(x).all()
    assert report["rejected_draws"] > 0
    assert report["rejected_in_training"] == fit.trace["rejected"].sum() > 0
    steps = report["gradient_evaluations"] - 3 * 256 - 300 - report["rejected_draws"]
    assert steps > 1000  # the start's
    row = fit.summary().table.loc["y"]
    assert (row["Mean"], row["50%"]) == (1, 1)  # of the draws that have it
    for words in ("draws were rejected", "generated quantities failed"):
        assert words in str(fit.summary())


@pytest.mark.parametrize(
    ("change", "message"),
    [({"draws": 1}, "draws must be"), ({"seed": -1}, "seed must be"), ({"seed": 2**32}, "seed")],
)
def test_draws_and_seed_must_be_in_range(change, message):
    model = stanflow.StanModel(
        stan_code="parameters { real x; } model { x ~ normal(0, 1); }", engine="embedded"
    )
    with pytest.raises(UsageError, match=message):
        stanflow.fit(model, **change)


def test_every_random_choice_follows_the_seed():
    """Weights, draws in training, draws of the fit and generated quantities, each on its own."""
    model = stanflow.StanModel(stan_code=CODE, engine="embedded")
    quick = stanflow.TrainConfig(max_steps=1, learning_rate=1e-30)
    fits = [
        stanflow.fit(model, seed=s, draws=50, training=quick, progress=False) for s in (1, 1, 2)
    ]
    weights = [fit.flow.state_dict()["layers.0.conditioner.input_weight"] for fit in fits]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    counts = [fit.stan_variable("k")[:, 0] for fit in fits]
    assert (counts[0] == counts[1]).all()
    assert (counts[0] != counts[2]).any()
    assert fits[0].trace["elbo"].equals(fits[1].trace["elbo"])
    assert not fits[0].trace["elbo"].equals(fits[2].trace["elbo"])


def test_the_summary_says_what_must_be_known(fit):
    text = str(fit.summary())
    assert "Stan's constants included" in text
    assert "30 steps" in text
    assert "verdict: UNRELIABLE" in text
    assert "30 training steps are too few" in text
    assert "what to try: " in text
    bad = {
        "normalized": False,
        "normalizing_constant": {"value": 0.0, "known": False, "reason": "it varies"},
        "rejected_draws": 12,
        "failed_generated_quantities": 3,
        "skipped_steps": 4,
        "stopped": "max_seconds",
    }
    text = str(replace(fit, report={**fit.report, **bad}).summary())
    assert "WITHOUT Stan's dropped constants" in text
    assert "it varies" in text
    for line in ("12 draws were rejected", "failed for 3 draws", "4 training steps had no finite"):
        assert line in text
    assert "cut short (max_seconds) at step 30" in text


def test_long_summaries_are_cut_and_say_so():
    model = stanflow.StanModel(
        stan_code="parameters { vector[60] x; } model { x ~ std_normal(); }", engine="embedded"
    )
    fit = stanflow.fit(model, training=stanflow.TrainConfig(max_steps=2), progress=False)
    text = str(fit.summary())
    assert "x[40]" in text
    assert "x[41]" not in text
    assert "and 20 more" in text
    assert len(fit.summary().table) == 60


def test_tuples_and_complex_numbers_are_saved(fit, tmp_path):
    """As scalars, under the names that Stan gives them: NetCDF has neither."""
    columns = ("x", "z.real", "z.imag", "t:1", "t:2.1", "t:2.2", "B.1.1", "B.2.1", "B.1.2", "B.2.2")
    values = np.random.default_rng(0).normal(size=(500, len(columns)))
    report = {**fit.report, "columns": list(columns)}
    odd = replace(fit, columns=columns, values=values, report=report)
    np.testing.assert_array_equal(odd.stan_variable("z"), values[:, 1] + 1j * values[:, 2])
    loaded = stanflow.load(odd.save(tmp_path / "fit"))
    np.testing.assert_array_equal(loaded.draws(), odd.draws())
    np.testing.assert_array_equal(loaded.stan_variable("z"), odd.stan_variable("z"))
    assert list(loaded.draws_pd("t")) == ["t:1", "t:2[1]", "t:2[2]"]
    assert list(loaded.draws_pd(["z", "B[2,1]"])) == ["z.real", "z.imag", "B[2,1]"]
    first, second = loaded.stan_variable("t")[7]
    assert (first, *second) == tuple(values[7, 3:6])


def test_variables_may_be_named_as_dimensions_are(fit, tmp_path):
    columns = ("chain", "draw", "theta.1", "theta.2", "theta_dim_0")
    values = np.random.default_rng(0).normal(size=(500, 5))
    odd = replace(fit, columns=columns, values=values, report={**fit.report, "columns": [*columns]})
    np.testing.assert_array_equal(stanflow.load(odd.save(tmp_path / "f")).values, values)


def test_programs_are_saved_to_the_byte(fit, tmp_path):
    odd = replace(fit, program="parameters {\r\n  real größe;\r\n}\n")
    assert stanflow.load(odd.save(tmp_path / "f")).program == odd.program


def test_folders_that_hold_no_fit_or_a_damaged_one_are_refused(saved, tmp_path):
    with pytest.raises(UsageError, match="holds no fit"):
        stanflow.load(tmp_path)
    for name in ("fit.json", "draws.nc", "flow.safetensors", "trace.csv", "data.json"):
        damaged = tmp_path / name
        damaged.mkdir()
        for file in saved.iterdir():
            content = file.read_bytes()
            (damaged / file.name).write_bytes(
                content if file.name != name else content[: len(content) // 3]
            )
        if name in ("fit.json", "draws.nc", "flow.safetensors"):
            with pytest.raises(UsageError, match="is damaged"):
                stanflow.load(damaged)
        (damaged / name).unlink()
        with pytest.raises(UsageError, match=r"is damaged|holds no fit"):
            stanflow.load(damaged)


def test_the_public_names_are_there_and_no_others_are_promised():
    for name in stanflow.__all__:
        assert getattr(stanflow, name) is not None
    assert dir(stanflow) == stanflow.__all__
    with pytest.raises(AttributeError, match="no attribute 'advi'"):
        _ = stanflow.advi
