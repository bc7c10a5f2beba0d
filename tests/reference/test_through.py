"""NUTS through a flow: against Stan's NUTS where that is right, and as a run like any other."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

import stanflow
from stanflow.comparison.sides import same_posterior
from stanflow.errors import UsageError
from stanflow.reference.run import STATISTICS
from stanflow.reference.sampling import nuts
from stanflow.reference.through import base_starts
from stanflow.sampling.pullback import PulledBack, images
from stanflow.statistics.markov_chains import mcse_mean, rhat
from tests.command_line import run, run_json

MCSES = 4
TYPES = """
transformed data { real where = normal_rng(3, 1e-9); }
parameters { real<lower=0> s; simplex[3] p; ordered[2] o; real x; }
model { s ~ gamma(3, 2); p ~ dirichlet([2, 3, 5]'); o ~ std_normal(); x ~ normal(where, s); }
generated quantities { real ahead = normal_rng(x, 1); real twice = 2 * s; }
"""


def schools(zoo, form):
    folder = zoo / "eight_schools"
    program = folder / f"eight_schools_{form}.stan"
    return stanflow.StanModel(program, folder / "eight_schools.json", engine="embedded")


def quick_fit(model, steps=300, **settings):
    training = stanflow.TrainConfig(max_steps=steps)
    return stanflow.fit(model, seed=1, draws=1000, training=training, progress=False, **settings)


def assert_same_mean(one, other):
    """Two sets of chains, or one and a number, within Monte Carlo error."""
    error = np.hypot(mcse_mean(one), 0 if np.isscalar(other) else mcse_mean(other))
    assert abs(one.mean() - np.mean(other)) < MCSES * error


@pytest.fixture(scope="module")
def centered(zoo):
    return schools(zoo, "centered")


@pytest.fixture(scope="module")
def fit(centered):
    return quick_fit(centered)


@pytest.fixture(scope="module")
def through(centered, fit):
    settings = {"seed": 1, "warmup": 150, "draws": 600, "adapt_delta": 0.9}
    return nuts(centered, through=fit, progress=False, **settings)


@pytest.fixture(scope="module")
def typed():
    return stanflow.StanModel(stan_code=TYPES, engine="embedded", seed=5)


@pytest.fixture(scope="module")
def typed_fit(typed):
    never = stanflow.RefineConfig(when="never")
    return quick_fit(typed, 150, refining=never)


def test_a_funnel_is_drawn_from_to_its_neck(zoo, through):
    noncentered = schools(zoo, "noncentered")
    settings = {"draws": 4000, "adapt_delta": 0.95, "engine": "embedded", "progress": False}
    reference = nuts(noncentered, seed=2, **settings)

    def chains(of, name):
        return of.values[..., of.columns.index(name)]

    for name in ("mu", "tau", "theta.1", "theta.8"):
        one, other = chains(through, name), chains(reference, name)
        assert_same_mean(one, other)
        for probability in (0.05, 0.5, 0.95):
            quantile = np.quantile(other, probability)
            assert_same_mean(1.0 * (one < quantile), 1.0 * (other < quantile))
    assert through.divergences.sum() < 0.01 * 2400
    assert through.report["max_rhat"] < 1.02


def test_statistics_are_of_the_program_and_the_chain(centered, through):
    assert list(through.statistics) == list(STATISTICS)
    z = [
        centered.unconstrain({"mu": v[0], "tau": v[1], "theta": v[2:]})
        for v in through.values[0, :5]
    ]
    np.testing.assert_allclose(
        centered.log_density_gradient(np.array(z)).log_density, through.statistics["lp__"][0, :5]
    )
    assert through.statistics["accept_stat__"].mean() == pytest.approx(0.9, abs=0.08)
    report = through.report
    sampling = through.statistics["n_leapfrog__"].sum()
    assert report["sampling_gradient_evaluations"] == sampling
    assert report["gradient_evaluations"] == sampling + report["warmup_gradient_evaluations"]
    assert (report["engine"], report["model_engine"], report["metric"]) == (
        "flow", "embedded", "diag_e"
    )  # fmt: skip
    assert report["initialized_from"] == "flow"
    assert report["engine_version"] == f"StanFlow {stanflow.__version__}, stanli 0.24.0"
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert "NUTS in the base space of a flow" in str(through.summary())


def test_every_type_is_mapped_back(typed, typed_fit):
    drawn = nuts(typed, through=typed_fit, seed=3, warmup=100, draws=600, progress=False)
    assert drawn.columns == typed.columns
    named = {
        name: drawn.values[..., i] for i, name in enumerate(drawn.columns)
    }  # fmt: skip
    for i, alpha in enumerate((2, 3, 5), start=1):
        assert_same_mean(named[f"p.{i}"], alpha / 10)
        assert_same_mean(named[f"p.{i}"] ** 2, stats.beta(alpha, 10 - alpha).moment(2))
    assert_same_mean(named["s"], 1.5)
    assert_same_mean(named["s"] ** 2, 3.0)
    assert_same_mean(named["x"], 3.0)
    assert_same_mean(named["o.2"] - named["o.1"], 2 / np.sqrt(np.pi))
    assert_same_mean((named["ahead"] - named["x"]) ** 2, 1.0)
    assert (named["o.1"] < named["o.2"]).all()
    np.testing.assert_allclose(named["twice"], 2 * named["s"])
    # Transformed data are the model's own, whatever the seed of NUTS.
    assert not any("transformed data" in line for line in drawn.report["warnings"])
    same_posterior(typed_fit, drawn)  # the random data are the same
    assert all(rhat(chains) < 1.05 for chains in named.values())


def test_the_seed_decides(typed, typed_fit):
    settings = {"through": typed_fit, "warmup": 20, "draws": 10, "progress": False}
    one, same, other = (nuts(typed, seed=seed, **settings) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.draws(), same.draws())
    assert not (one.values[..., 0] == other.values[..., 0]).any()


def test_chains_start_at_draws_by_weight(typed, typed_fit):
    pulled_back = PulledBack(typed_fit.flow, typed)
    log_weights = np.full(1000, -np.inf)
    log_weights[100:110] = np.log(0.1)
    z = typed_fit.z.copy()
    z[100:103] = np.inf
    weighted = replace(typed_fit, log_weights=log_weights, z=z)
    e = base_starts(weighted, pulled_back, chains=7, seed=1)
    starts = images(typed_fit.flow, e)[0]
    np.testing.assert_allclose(np.sort(starts[:, 0]), np.sort(z[103:110, 0]), rtol=1e-6)


def test_draws_without_a_base_point_do_not_start_chains(typed, typed_fit):
    pulled_back = PulledBack(typed_fit.flow, typed)
    z = typed_fit.z.copy()
    z[:995] = 1e300
    far = replace(typed_fit, z=z)
    with pytest.raises(UsageError, match="can start a chain in the base space of its flow, and 6"):
        base_starts(far, pulled_back, chains=6, seed=1)


def test_a_refined_fit_and_its_run_are_compared(centered, fit, through, tmp_path):
    loaded = stanflow.load_nuts(through.save(tmp_path / "nuts"))
    np.testing.assert_array_equal(loaded.draws(), through.draws())
    comparison = stanflow.compare(fit, loaded, model=centered)
    assert comparison.summary["reference_engine"] == "flow"
    cautions = comparison.summary["cautions"]
    assert any("its chains started at draws of a flow" in caution for caution in cautions)
    assert comparison.summary["agreement"] in ("agree", "close", "undecided")


@pytest.mark.parametrize(
    ("also", "option"),
    [
        ({"exe": "model"}, "exe"),
        ({"engine": "embedded"}, "engine"),
        ({"metric": "dense_e"}, "metric"),
    ],
)
def test_what_does_not_go_with_a_flow_is_refused(typed, typed_fit, also, option):
    with pytest.raises(UsageError, match=f"leave out {option} or through"):
        nuts(typed, through=typed_fit, progress=False, **also)


def test_one_fit_at_a_time_and_of_this_posterior(centered, typed, typed_fit):
    with pytest.raises(UsageError, match="leave out init or through"):
        nuts(typed, through=typed_fit, init=typed_fit, progress=False)
    with pytest.raises(UsageError, match="the fit to sample through is of another program"):
        nuts(centered, through=typed_fit, progress=False)


def test_the_command_takes_a_folder(centered, fit, zoo, tmp_path):
    folder = fit.save(tmp_path / "fit")
    schools = [zoo / "eight_schools" / name for name in ("eight_schools_centered.stan",
                                                         "eight_schools.json")]  # fmt: skip
    short = ("--through", folder, "--warmup", 20, "--draws", 20, "--chains", 2)
    status, report = run_json("nuts", *schools, *short, cwd=tmp_path)
    assert (status, report["engine"], report["chains"]) == (0, "flow", 2)
    refused = run("nuts", *schools, *short, "--metric", "dense_e", cwd=tmp_path)
    assert refused.returncode == 2
    assert "leave out metric or through" in refused.stderr
