import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import stanflow
from stanflow.errors import UsageError
from stanflow.report.fit import render
from stanflow.statistics.summary import summarize
from tests.comparison.runs import flow_run
from tests.report.reader import HOSTILE, Reader

FIGURES = ("Training", "Importance weights", "Marginals")


@pytest.fixture(scope="module")
def fit(zoo):
    program = zoo / "bernoulli" / "bernoulli.stan"
    model = stanflow.StanModel(program, program.with_suffix(".json"), engine="embedded")
    quick = stanflow.TrainConfig(max_steps=30)
    return stanflow.fit(
        model,
        seed=3,
        draws=500,
        evidence_draws=1000,
        training=quick,
        refining=stanflow.RefineConfig(when="never"),
        progress=False,
    )


@pytest.fixture(scope="module")
def page(fit):
    return render(fit)


@pytest.fixture(scope="module")
def words(page):
    return Reader.of(page).words


def table_of(page):
    """The rows of the last table, as lists of text."""
    body = page[page.rindex("<tbody>") :]
    return [re.findall(r"<t[hd][^>]*>([^<]*)<", row) for row in re.findall(r"<tr>.*?</tr>", body)]


def test_a_refined_fit_has_no_weights_to_show(zoo):
    program = zoo / "bernoulli" / "bernoulli.stan"
    model = stanflow.StanModel(program, program.with_suffix(".json"), engine="embedded")
    refined = stanflow.fit(
        model,
        draws=500,
        training=stanflow.TrainConfig(max_steps=30),
        refining=stanflow.RefineConfig(when="always"),
        progress=False,
    )
    page = render(refined)
    words = Reader.of(page).words
    refine = refined.report["refine"]
    evidences = {
        "bridge sampling": refine["log_evidence_bridge"],
        "annealing": refine["log_evidence_annealed"],
    }
    for method, evidence in evidences.items():
        page = render(replace(refined, report={**refined.report, "log_evidence": evidence}))
        assert f"log evidence in nats, by {method}; " in Reader.of(page).words
    assert "annealed from the flow to the posterior" in words
    assert "effective draws of 500" in words
    assert "importance" not in words.lower()
    usable = render(replace(refined, report={**refined.report, "verdict": "usable"}))
    assert "with the caution that the reasons name" in Reader.of(usable).words


def test_the_page_is_whole_and_stands_alone(page):
    reader = Reader.of(page)
    assert "script" not in reader.tags
    assert all(source.startswith("data:image/png;base64,") for source in reader.loaded)
    assert len(reader.loaded) == len(FIGURES)
    without_images = re.sub(r"base64,[^\"]*", "", page)
    assert not re.search(r"https?://|@import|url\(", without_images)
    assert "Undefined" not in without_images
    assert len(page) < 1_000_000


def test_the_page_says_what_the_report_says(fit, words):
    report = fit.report
    for text in (
        "bernoulli 500 draws by Real NVP", *report["reasons"], *report["advice"],
        f"{fit.log_evidence:.3f} log evidence", f"{fit.elbo:.3f} ELBO",
        f"standard error {fit.log_evidence_se:.2g}", f"standard error {fit.elbo_se:.2g}",
        "included Stan's constants", f"{fit.pareto_k:.2f} Pareto k-hat",
        "weights can be trusted below 0.67",
        f"{report['importance_ess']:,.0f} importance ESS of 1,000",
        "1 D, the unconstrained parameters", "30 training steps", "0 draws rejected",
        "30 steps, to the limit of steps", "500, independent; 1,000 behind",
        f"embedded ({report['engine_version']})", f"{report['gradient_evaluations']:,}",
        f"{report['seconds']:,.1f} s", f"{report['peak_memory_mb']:,.0f} MB",
        f"torch {report['versions']['torch']}", report["program_sha256"], report["data_sha256"],
        "clamp_negative", "learning_rate", "theta ~ beta(1, 1)", *FIGURES,
    ):  # fmt: skip
        assert " ".join(text.split()) in words, text


def test_the_table_is_the_summary_plain_and_weighted(fit, page):
    ((name, *cells),) = table_of(page)
    assert name == "theta"
    expected = np.concatenate(
        [np.ravel(list(summarize(fit.values, w).values())) for w in (None, fit.weights)]
    )
    np.testing.assert_allclose([float(cell) for cell in cells], expected, atol=5e-4)
    assert all(re.fullmatch(r"\d\.\d{3}", cell) for cell in cells)


def test_what_comes_back_from_a_folder_has_the_same_page(fit, page, tmp_path):
    loaded = render(stanflow.load(fit.save(tmp_path / "fit")))
    assert str(tmp_path / "fit") in loaded
    assert table_of(loaded) == table_of(page)
    folder = rf"\s*<tr><th>folder</th><td>{re.escape(str(tmp_path / 'fit'))}</td></tr>"
    settings = r"<details><summary>The flow's settings.*?</details>"  # a tuple is a list there
    ours, theirs = (re.sub(settings, "", text, flags=re.DOTALL) for text in (page, loaded))
    images = r"base64,[^\"]*"  # the trace is rounded
    assert re.sub(images, "", re.sub(folder, "", theirs)) == re.sub(images, "", ours)


@pytest.mark.parametrize("verdict", ["good", "usable", "unreliable"])
def test_the_verdict_comes_first_and_an_unreliable_fit_is_loud(verdict):
    known = {"verdict": verdict, "reasons": ["because of this"], "advice": ["try that"]}
    page = render(flow_run(np.random.default_rng(1).normal(size=(100, 1)), **known))
    words = Reader.of(page).words
    said = [words.index(text) for text in (verdict.capitalize(), "because of this", "try that")]
    assert said == sorted(said)
    assert said[-1] < words.index("log evidence")
    assert f'<div class="verdict {verdict}"' in page
    assert ('role="alert"' in page) == (verdict == "unreliable")
    assert ("Do not use these draws" in words) == (verdict == "unreliable")


def test_hostile_names_are_text():
    hostile = {"model": HOSTILE, "engine_version": HOSTILE, "out": HOSTILE, "advice": [HOSTILE]}
    fit = flow_run(
        np.random.default_rng(1).normal(size=(100, 2)), columns=("x.1", "<b>&.1"),
        program=f"/* {HOSTILE} */", reasons=[HOSTILE], train_config={HOSTILE: HOSTILE},
        versions={HOSTILE: HOSTILE}, verdict=HOSTILE,
        normalizing_constant={"value": 0.0, "known": False, "reason": HOSTILE},
    )  # fmt: skip
    page = render(replace(fit, report={**fit.report, **hostile}))
    assert "<script" not in page
    assert "<b>&" not in page
    reader = Reader.of(page)
    assert "script" not in reader.tags
    assert reader.words.count(HOSTILE) >= 8
    assert "<b>&[1]" in reader.words


def test_what_is_not_known_is_left_out():
    fit = flow_run(np.random.default_rng(1).normal(size=(100, 1)), pareto_k=None)
    words = Reader.of(
        render(replace(fit, steps={name: column[:0] for name, column in fit.steps.items()}))
    ).words
    for text in ("unknown Pareto k-hat", "a mean-field flow", "Marginals", "Importance weights"):
        assert text in words
    for text in ("Training", "training steps", "peak memory", "None", "The flow's settings"):
        assert text not in words


def test_constants_that_are_missing_are_said_to_be():
    unknown = {"value": 0.0, "known": False, "reason": "no engine tells them"}
    fit = flow_run(
        np.random.default_rng(1).normal(size=(100, 1)),
        normalized=False, normalizing_constant=unknown,
    )  # fmt: skip
    words = Reader.of(render(fit)).words
    assert "missing Stan's constants, so do not compare" in words
    assert "no engine tells them" in words


def test_weights_that_cannot_be_trusted_are_marked():
    values = np.random.default_rng(1).normal(size=(3000, 1))
    for k, marked in ((0.6, False), (0.9, True)):
        page = render(flow_run(values, pareto_k=k))
        assert ("neither can what is weighted" in page) == marked


def test_resampled_draws_have_no_weighted_columns(fit):
    page = render(fit.resampled(300))
    words = Reader.of(page).words
    assert "chosen from by their importance weights" in words
    assert "importance-weighted" not in words
    assert len(table_of(page)[0]) == 6
    assert len(Reader.of(page).loaded) == 2


def test_a_family_without_couplings_has_its_page(zoo):
    model = stanflow.StanModel(
        stan_code="parameters { vector[2] x; } model { x ~ normal(0, 2); } "
        "generated quantities { real never = not_a_number(); int k = 3; }",
        engine="embedded",
    )
    fit = stanflow.fit(
        model, draws=200, evidence_draws=200, flow=stanflow.FlowConfig(family="fullrank"),
        training=stanflow.TrainConfig(max_steps=20), progress=False,
    )  # fmt: skip
    page = render(fit)
    assert "a full-rank affine flow" in Reader.of(page).words
    rows = {name: cells for name, *cells in table_of(page)}
    assert set(rows["never"]) == {"–"}  # noqa: RUF001
    assert rows["k"][:2] == ["3", "0"]
    assert len(rows) == 4


@pytest.mark.slow
def test_thousands_of_scalars_are_cut_and_it_is_said():
    page = render(flow_run(np.random.default_rng(3).normal(size=(200, 2500))))
    reader = Reader.of(page)
    assert "The first 200 of 2,500 scalars; 2,300 more are in" in reader.words
    assert "Marginals of the first 12 scalars" in reader.words
    assert len(table_of(page)) == 200
    assert len(page) < 1_000_000


@pytest.mark.parametrize(
    ("scale", "shown"),
    [(1e-12, r"-?\d(\.\d+)?e-1[0-9]"), (1e-3, r"-?0\.\d{6}"), (1e3, r"-?[\d,]+"),
     (1e30, r"-?\d(\.\d+)?e\+(29|3[01])"), (1e200, r"-?\d(\.\d+)?e\+(199|20[01])")],
)  # fmt: skip
def test_numbers_of_any_size_can_be_read(scale, shown):
    values = scale * (1 + np.random.default_rng(1).normal(size=(400, 1)))
    ((_, *cells),) = table_of(render(flow_run(values)))
    means = [cells[0], cells[4], cells[5], cells[9]]
    assert all(re.fullmatch(shown, mean) for mean in means), means


def test_the_file_is_written_whole(fit, tmp_path):
    path = tmp_path / "new" / "report.html"
    path.parent.mkdir()
    path.write_text("an earlier one")
    assert fit.save_report(str(path)) == path
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("where", "message"),
    [("", "is a folder; name a file"), ("file/below.html", "cannot be written")],
)
def test_where_it_cannot_be_written_is_said(fit, tmp_path, where, message):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UsageError, match=message):
        fit.save_report(Path(tmp_path) / where)
