import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

import stanflow
from stanflow.comparison.agreement import threshold
from stanflow.comparison.compare import compare
from stanflow.comparison.joint import mmd_test
from stanflow.comparison.montecarlo import from_independent
from stanflow.errors import UsageError
from stanflow.reference.sampling import nuts

from .runs import autoregression, flow_run, nuts_run

CONTRACT = {
    "parameters", "max_mean_error", "max_abs_log_sd_ratio", "max_mean_error_weighted",
    "max_abs_log_sd_ratio_weighted", "worst_parameter", "sliced_wasserstein", "reference_engine",
    "report",
}  # fmt: skip


def normal_run(seed, *, shift=0.0, scale=1.0, draws=1000, n=3, **report):
    """NUTS draws of a normal; the last scalar is shifted and scaled."""
    values = np.random.default_rng(seed).normal(size=(4, draws, n))
    values[..., -1] = shift + scale * values[..., -1]
    return nuts_run(values, seed=seed, **report)


def test_correlated_chains_raise_no_alarm_where_draws_taken_as_independent_would():
    rng = np.random.default_rng(1)
    naive_z = naive_mmd = 0
    for repeat in range(20):
        first, reference = (nuts_run(autoregression(rng, 0.9, 4, 500, 4)) for _ in range(2))
        found = compare(first, reference, seed=repeat)
        assert found.summary["agreement"] == "undecided"  # for these draws are worth about 100
        assert (found.table["level"] == "agree").all()
        x, y = from_independent(first.pooled), from_independent(reference.pooled)
        z = (x.mean - y.mean) / np.hypot(x.mean_se, y.mean_se)
        naive_z += np.abs(z).max() > threshold(8)
        if repeat < 5:
            p = mmd_test(first.pooled[::2], reference.pooled[::2], seed=repeat).p_value
            naive_mmd += p == 0.001
    assert naive_z >= 10
    assert naive_mmd >= 3


@pytest.mark.parametrize("shape", ["cauchy", "lognormal"])
def test_heavy_tails_raise_no_alarm(shape):
    rng = np.random.default_rng(2)
    for _ in range(3):
        u = [stats.norm.cdf(autoregression(rng, 0.5, 4, 500, 4)) for _ in range(2)]
        quantile = stats.cauchy.ppf if shape == "cauchy" else stats.lognorm(1.5).ppf
        found = compare(*(nuts_run(quantile(p)) for p in u))
        assert found.summary["agreement"] == "agree"
        assert set(found.summary["judged_by_quantiles"]) == {"x[1]", "x[2]", "x[3]", "x[4]"}
        assert "judged by median and 90 % interval" in str(found)


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        ({"shift": 0.4}, "the mean of x[3] is 0."),
        ({"scale": 0.6}, "the sd of x[3] is 0.6"),
        ({"scale": 1.5}, "the sd of x[3] is 1.5"),
    ],
)
def test_a_shifted_or_scaled_side_is_named(difference, words):
    summary = compare(normal_run(1, **difference), normal_run(2)).summary
    assert summary["agreement"] == "differ"
    assert summary["worst_parameter"] == "x[3]"
    assert words in summary["reasons"][0]
    shift, scale = difference.get("shift", 0), difference.get("scale", 1)
    assert summary["max_mean_error"] == pytest.approx(shift, abs=0.1)
    assert summary["max_abs_log_sd_ratio"] == pytest.approx(abs(np.log(scale)), abs=0.07)


def test_small_differences_need_many_draws_and_are_close():
    found = compare(normal_run(1, shift=0.08, draws=10_000), normal_run(2, draws=10_000))
    assert found.summary["agreement"] == "close"
    assert "is close to" in found.headline
    fewer = compare(normal_run(1, shift=0.08, draws=500), normal_run(2, draws=500))
    assert fewer.summary["agreement"] == "agree"
    assert 0.1 < fewer.summary["mean_resolution"] < 0.15
    assert "cannot be told from Monte Carlo error" in str(fewer)
    few = compare(normal_run(1, shift=0.08, draws=100), normal_run(2, draws=100))
    assert few.summary["agreement"] == "undecided"
    assert "no difference is beyond Monte Carlo error, but these draws would not show" in str(few)


def test_equal_marginals_with_another_correlation_differ():
    rng = np.random.default_rng(3)
    values = rng.normal(size=(4, 1000, 2))
    values[..., 1] = 0.6 * values[..., 0] + 0.8 * values[..., 1]
    summary = compare(nuts_run(rng.normal(size=(4, 1000, 2))), nuts_run(values)).summary
    assert summary["agreement"] == "differ"
    assert "rank correlation of x[1] and x[2]" in " ".join(summary["reasons"])
    assert summary["mmd_p_value"] == 0.001


def test_weights_are_taken_into_account():
    """A flow twice as wide as the posterior, whose weights are exact."""
    rng = np.random.default_rng(4)
    z = 2 * rng.normal(size=(8000, 1))
    log_weights = stats.norm.logpdf(z[:, 0]) - stats.norm.logpdf(z[:, 0], 0, 2)
    log_weights -= np.logaddexp.reduce(log_weights)
    fit = flow_run(z, log_weights=log_weights)
    found = compare(fit, nuts_run(rng.normal(size=(4, 1000, 1))))
    summary = found.summary
    assert summary["agreement"] == "differ"
    assert summary["max_abs_log_sd_ratio"] == pytest.approx(np.log(2), abs=0.05)
    assert summary["agreement_weighted"] == "agree"
    assert summary["max_abs_log_sd_ratio_weighted"] < 0.05
    row = found.table.iloc[0]
    # What is far out has little weight, so the mean is better than that of as many exact draws.
    assert row["ess_weighted"] == pytest.approx((row["sd_weighted"] / row["mean_se_weighted"]) ** 2)
    assert row["ess_weighted"] > 8000
    assert row["wasserstein_weighted"] < 0.06 < row["wasserstein"]
    assert "importance-weighted draws agree with the reference" in str(found)


def test_weights_that_are_all_on_one_draw_decide_nothing():
    rng = np.random.default_rng(14)
    log_weights = np.full(1000, -np.inf)
    log_weights[3] = 0
    fit = flow_run(rng.normal(size=(1000, 2)), log_weights=log_weights)
    found = compare(fit, nuts_run(rng.normal(size=(4, 500, 2))))
    assert found.summary["agreement"] == "agree"
    assert found.summary["agreement_weighted"] == "undecided"
    assert found.summary["max_abs_log_sd_ratio_weighted"] is None
    assert "nan" in str(found)  # shown as what it is


def test_a_fit_can_be_the_reference_too():
    rng = np.random.default_rng(5)
    first, reference = (flow_run(rng.normal(size=(2000, 2)), seed=s) for s in (1, 2))
    found = compare(first, reference)
    assert found.summary["agreement"] == "agree"
    assert found.sides.first.label == "first flow"
    assert len(found.evidence.entries) == 4
    against_nuts = compare(nuts_run(rng.normal(size=(4, 500, 2))), reference)
    assert against_nuts.summary["agreement"] == "agree"
    assert against_nuts.summary["max_mean_error_weighted"] is None
    assert "mean_weighted" not in against_nuts.table


# ---- What cannot be compared ------------------------------------------------------------------


def with_odd_columns(values, a, b, c):
    odd = np.stack([np.broadcast_to(x, values.shape[:2]) for x in (a, b, c)], axis=-1)
    return np.concatenate([values, odd], axis=-1)


def test_constant_and_missing_values_are_listed_and_spoil_nothing():
    rng = np.random.default_rng(6)
    columns = ("x.1", "x.2", "one", "sometimes", "only")
    missing = rng.normal(size=(4, 500))
    missing[0, :7] = np.nan
    values = [rng.normal(size=(4, 500, 2)) for _ in range(2)]
    program = "parameters { vector[2] x; } model { }"
    first = nuts_run(
        with_odd_columns(values[0], 1.0, missing, np.inf),
        columns=(*columns[:4], "mine"),
        program=program,
    )
    reference = nuts_run(
        with_odd_columns(values[1], 1.0 + 1e-15, missing, 0.0), columns=columns, program=program
    )
    summary = compare(first, reference).summary
    assert summary["parameters"] == 2
    assert summary["agreement"] == "agree"
    assert summary["left_out"] == {
        "one": "constant, 1",
        "sometimes": "not finite in 7 of 2000 draws of first NUTS run",
        "mine": "only first NUTS run has it",
        "only": "only reference NUTS run has it",
    }


def test_a_scalar_that_moves_on_one_side_only_is_an_alarm_unless_chance_explains_it():
    rng = np.random.default_rng(7)
    columns, program = ("x", "event"), "parameters { real x; } model { }"

    def run(events):
        values = np.stack([rng.normal(size=(4, 500)), events.reshape(4, 500)], axis=-1)
        return nuts_run(values, columns=columns, program=program)

    never, rarely, often = np.zeros(2000), np.zeros(2000), rng.integers(0, 2, 2000).astype(float)
    rarely[:2] = 1
    found = compare(run(often), run(never)).summary
    assert found["agreement"] == "differ"
    assert found["reasons"][0] == (
        "event is always 0 in reference NUTS run, but not on the other side"
    )
    assert compare(run(rarely), run(never)).summary["agreement"] == "agree"
    assert compare(run(never), run(rarely)).summary["agreement"] == "agree"
    assert compare(run(never), run(often)).summary["agreement"] == "differ"
    continuous = compare(run(never), run(rng.normal(size=2000))).summary
    assert continuous["agreement"] == "differ"


def test_runs_with_nothing_in_common_are_refused():
    program = "parameters { real x; } model { }"
    one, other = (
        nuts_run(np.random.default_rng(8).normal(size=(2, 50, 1)), columns=c, program=program)
        for c in (("x",), ("y",))
    )
    with pytest.raises(UsageError, match="no scalar that can be compared"):
        compare(one, other)
    still = nuts_run(np.full((4, 100, 1), 2.0))
    with pytest.raises(UsageError, match=r"no scalar that can be compared .*constant, 2"):
        compare(still, still)


def test_different_programs_and_data_are_refused():
    run = normal_run(1)
    with pytest.raises(UsageError, match=r"different programs .*run both on the same program"):
        compare(run, replace(run, program="parameters { vector[3] x; } model { x ~ cauchy(0, 1);}"))
    with pytest.raises(UsageError, match="different data"):
        compare(run, replace(run, data='{"N": 1}'))
    hashed = replace(run, report={**run.report, "program_sha256": "0" * 64})
    with pytest.raises(UsageError, match="SHA-256 000000000000"):
        compare(hashed, run)


def test_wrong_arguments_are_refused():
    run = normal_run(1)
    with pytest.raises(UsageError, match="second argument of compare is a str"):
        compare(run, "fits/demo")
    with pytest.raises(UsageError, match="seed must be"):
        compare(run, run, seed=-1)
    with pytest.raises(UsageError, match="3 draws a chain are too few"):
        compare(run, normal_run(1, draws=3))
    with pytest.raises(UsageError, match="3 draws a chain are too few"):
        compare(run, flow_run(np.zeros((3, 3))))


def test_few_draws_are_compared_without_a_joint_test():
    found = compare(normal_run(1, draws=10), normal_run(2, draws=10))
    assert found.summary["sliced_wasserstein"] is None
    assert "parameters jointly" not in str(found)


# ---- The summary ------------------------------------------------------------------------------


def test_problems_of_the_reference_come_first():
    rng = np.random.default_rng(9)
    unhappy = nuts_run(rng.normal(size=(4, 500, 2)), warnings=["the sampler is unhappy"])
    found = compare(nuts_run(rng.normal(size=(4, 500, 2))), unhappy)
    text = str(found)
    assert text.index("the sampler is unhappy") < text.index(found.headline)
    found = compare(flow_run(rng.normal(size=(2000, 2)), verdict="unreliable"), unhappy)
    assert found.summary["cautions"] == ["NUTS: the sampler is unhappy"]
    assert "The flow judges itself unreliable" in str(found)


def test_chains_that_started_from_the_flow_are_no_independent_witness():
    rng = np.random.default_rng(10)
    reference = nuts_run(rng.normal(size=(4, 500, 1)), warnings=[], initialized_from="flow")
    found = compare(flow_run(rng.normal(size=(1000, 1))), reference)
    assert "may miss what the flow misses" in found.summary["cautions"][0]


def test_the_summary_is_json_and_keeps_the_contract():
    rng = np.random.default_rng(11)
    found = compare(flow_run(rng.normal(size=(1000, 2))), nuts_run(rng.normal(size=(4, 500, 2))))
    assert set(found.summary) >= CONTRACT
    assert json.loads(json.dumps(found.summary, allow_nan=False)) == found.as_dict()
    assert found.summary["reference_engine"] == "embedded"
    assert found.summary["parameters"] == 2
    row = found.table.loc[found.summary["max_mean_error_parameter"]]
    assert found.summary["max_mean_error"] == abs(row["mean_error"])


def test_the_same_seed_gives_the_same_comparison():
    rng = np.random.default_rng(12)
    runs = flow_run(rng.normal(size=(1000, 2))), nuts_run(rng.normal(size=(4, 500, 2)))
    first, again, other = (compare(*runs, seed=s).summary for s in (1, 1, 2))
    assert first == again
    assert first["sliced_wasserstein"] != other["sliced_wasserstein"]
    assert first["max_mean_error"] == other["max_mean_error"]


def test_the_table_is_worst_first_and_long_ones_are_cut():
    rng = np.random.default_rng(13)
    values = rng.normal(size=(4, 200, 60))
    values[..., 7] += 0.8
    values[..., 30] *= 3
    found = compare(nuts_run(values), nuts_run(rng.normal(size=(4, 200, 60))))
    assert list(found.table.index[:2]) == ["x[31]", "x[8]"]
    z = found.table[["location_z", "spread_z"]].abs().max(axis=1)
    assert (np.diff(z[found.table["level"] == "agree"]) <= 0).all()
    assert "and 30 more" in str(found)
    assert len(str(found).splitlines()) < 60
    assert "x[31]" in found._repr_html_()


# ---- Real runs --------------------------------------------------------------------------------


def test_nuts_agrees_with_nuts_of_another_seed(zoo):
    folder = zoo / "eight_schools"
    model = stanflow.StanModel(
        folder / "eight_schools_noncentered.stan",
        folder / "eight_schools.json",
        engine="embedded",
    )
    runs = [
        nuts(model, seed=seed, engine="embedded", adapt_delta=0.95, progress=False)
        for seed in (1, 2)
    ]
    found = compare(*runs)
    assert found.summary["agreement"] == "agree"
    assert found.summary["parameters"] == 18
    assert found.summary["first"]["gradient_evaluations"] > 10_000
    # mu, tau and theta_raw, not what follows from them.
    assert len(found.sides.joint) == 10


def test_a_mean_field_fit_of_a_correlated_normal_differs():
    """Its sds are the conditional ones: sqrt(1 - 0.9^2) of the marginal ones."""
    model = stanflow.StanModel(
        stan_code="""
        parameters { vector[2] x; real y; }
        model { x ~ multi_normal([1, -1]', [[1, 0.9], [0.9, 1]]); y ~ normal(0, 1); }
        """,
        engine="embedded",
    )
    fit = stanflow.fit(
        model,
        flow=stanflow.FlowConfig(family="meanfield", base="gaussian"),
        refining=stanflow.RefineConfig(when="never"),
        progress=False,
    )
    reference = nuts(model, seed=1, engine="embedded", progress=False)
    found = compare(fit, reference, model=model)
    assert found.summary["agreement"] == "differ"
    reasons = " ".join(found.summary["reasons"])
    for name in ("x[1]", "x[2]"):
        assert f"the sd of {name} is 0.4" in reasons
        ratio = found.table.loc[name, "log_sd_ratio"]
        assert ratio == pytest.approx(0.5 * np.log(1 - 0.9**2), abs=0.1)
    assert "rank correlation of x[1] and x[2]" in reasons or "x[2] and x[1]" in reasons
    assert found.table.loc["y", "level"] == "agree"
