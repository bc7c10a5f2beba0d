import re

import numpy as np
import pytest

from stanflow.comparison.compare import compare
from stanflow.comparison.report import render
from stanflow.errors import UsageError
from tests.report.reader import HOSTILE, Reader

from .runs import flow_run, nuts_run


@pytest.fixture(scope="module")
def runs():
    rng = np.random.default_rng(1)
    return flow_run(rng.normal(size=(1000, 3))), nuts_run(
        rng.normal(size=(4, 250, 3)), warnings=["3 of 1000 transitions diverged"], warmup=500,
        seconds=12.3, gradient_evaluations=54321, warmup_gradient_evaluations=30000,
        versions={"cmdstanpy": "1.3"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def comparison(runs):
    return compare(*runs)


@pytest.fixture(scope="module")
def page(comparison):
    return render(comparison)


def test_the_page_is_whole_and_stands_alone(page):
    reader = Reader.of(page)
    assert "script" not in reader.tags
    assert all(source.startswith("data:image/png;base64,") for source in reader.loaded)
    assert len(reader.loaded) == 6
    without_images = re.sub(r"base64,[^\"]*", "", page)
    assert not re.search(r"https?://|@import|url\(", without_images)
    assert len(page) < 3_000_000


def test_the_page_says_what_must_be_known(comparison, page):
    words = Reader.of(page).words
    caution = words.index("NUTS: 3 of 1000 transitions diverged")
    assert caution < words.index(comparison.headline)
    for text in (
        "Agree", "Good", "all is well", "54,321, 30,000 of them in warmup", "12.3 s",
        "4 chains of 250 after 500 of warmup", "cmdstanpy 1.3", "importance sampling",
        "x[1]", "x[3]", "bridge sampling", comparison.summary["program_sha256"],
    ):  # fmt: skip
        assert text in words, text


def test_hostile_names_are_text(runs):
    fit, reference = runs
    program = f"/* {HOSTILE} */ {fit.program}"
    hostile = {"model": HOSTILE, "engine_version": HOSTILE, "out": HOSTILE, "warnings": [HOSTILE]}
    columns = ("x.1", "<b>&.1", "x.3")
    found = compare(
        flow_run(fit.values, columns=columns, program=program, **hostile, reasons=[HOSTILE]),
        nuts_run(reference.values, columns=columns, program=program, **hostile),
    )
    page = render(found)
    assert "<script" not in page
    assert "<b>&" not in page
    reader = Reader.of(page)
    assert "script" not in reader.tags
    assert reader.words.count(HOSTILE) >= 6
    assert "<b>&[1]" in reader.words
    assert "<b>" not in re.sub(r"<b>CAUTION|<p><b>", "", found._repr_html_())


def test_nuts_against_nuts_has_no_part_of_a_flow(runs):
    _, reference = runs
    other = nuts_run(np.random.default_rng(2).normal(size=(4, 250, 3)), seed=2)
    words = Reader.of(render(compare(other, reference))).words
    for text in ("Training", "Evidence", "Importance weights", "says of itself"):
        assert text not in words
    assert "Marginals" in words


@pytest.mark.slow
def test_thousands_of_scalars_are_cut_and_it_is_said():
    rng = np.random.default_rng(3)
    fit, reference = (
        flow_run(rng.normal(size=(200, 500))),
        nuts_run(rng.normal(size=(2, 100, 500))),
    )
    found = compare(fit, reference)
    page = render(found)
    reader = Reader.of(page)
    assert "The 200 worst of 500 scalars; 300 more are in the comparison's table" in reader.words
    assert reader.tags.count("tr") < 200 + 60
    assert len(page) < 3_000_000


def test_the_file_is_written_whole_and_its_path_kept(comparison, tmp_path):
    path = tmp_path / "new" / "report.html"
    path.parent.mkdir()
    path.write_text("an earlier one")
    assert comparison.report(path) == path
    assert comparison.summary["report"] == str(path)
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("where", "message"),
    [("", "is a folder; name a file"), ("file/below.html", "cannot be written")],
)
def test_where_it_cannot_be_written_is_said(comparison, tmp_path, where, message):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UsageError, match=message):
        comparison.report(tmp_path / where)
