"""The guides say what is true: code blocks, limits, options, keys of the report, links."""

import contextlib
import io
import re
from pathlib import Path

import numpy as np
import pytest
import typer

import stanflow
from stanflow.cli.main import app
from stanflow.estimates import verdict
from stanflow.estimates.importance import highest_pareto_k
from stanflow.refine import verdict as refined_verdict
from tests.one_of import one_of

ROOT = Path(__file__).parents[2]
GUIDES = ROOT / "docs" / "guides"
PAGES = sorted(GUIDES.glob("*.md"))
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
NATS = 0.02  # that documented numbers may be off by on another machine


def blocks(page, language):
    """Code blocks of a language, each with the block of plain text that follows it, if any."""
    pattern = rf"```{language}\n(.*?)```(?:\n\n```\n(.*?)```)?"
    return re.findall(pattern, page.read_text(encoding="utf-8"), re.DOTALL)


def table_rows(page, heading):
    """Rows of the table with this heading, as lists of cells."""
    text = page.read_text(encoding="utf-8")
    table = text[text.index(heading) :].partition("\n\n")[0]
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()]


@one_of("first", 2, 6)
def test_model_comparison_prints_what_it_says(monkeypatch, first):
    monkeypatch.chdir(ROOT)
    names = {}
    found = blocks(GUIDES / "model-comparison.md", "python")
    assert len(found) == 6
    for code, documented in found[:first]:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, "model-comparison.md", "exec"), names)
        assert NUMBER.sub("#", printed.getvalue()).split() == NUMBER.sub("#", documented).split()
        ours, theirs = (
            np.array(NUMBER.findall(text), dtype=float) for text in (printed.getvalue(), documented)
        )
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=NATS)


def test_limits_of_the_verdict_are_those_of_the_code():
    v = verdict
    bridge = f"nats and {v._STANDARD_ERRORS} se"
    expected = {
        "chains from elsewhere: missing mass": (
            f"above {v._MISSING_MASS:.0%}",
            f"above {v.MISSING_MASS_NOTICED:.1%}",
        ),
        "chains from elsewhere: R-hat": (
            f"{v._LARGEST_RHAT} or more",
            "the same, where all else vouches",
        ),
        "tails too light for": (
            f"above {v._MISSING_TAIL:.2%} of the posterior",
            f"above {v._MISSING_TAIL_NOTICED:.2%}",
        ),
        "evidence by bridge against importance sampling": (
            f"above {v._LARGEST_GAP} {bridge}",
            f"above {v._LARGEST_GAP_UNNOTICED} {bridge}",
        ),
        "log evidence less ELBO": ("", f"above {v._LARGEST_KL} nats + 3 se"),
        "Pareto k-hat": (
            "min(1 - 1 / log10 S, 0.7) or more",
            f"{v.HIGHEST_K_UNWEIGHTED} or more",
        ),
        "effective draws": (f"below {v._FEWEST_EFFECTIVE_DRAWS}", ""),
        "evidence from raw against smoothed weights": (
            f"above {v._LARGEST_GAP_OF_ESTIMATES} nats apart",
            "",
        ),
        "rejected draws": (
            f"above {v._MOST_REJECTED:.0%}",
            f"above {v._MOST_REJECTED_UNWEIGHTED:.0%}",
        ),
        "steps without a gradient": (f"above {v._MOST_SKIPPED:.0%}", ""),
        "ELBO's rise over the last fifth of training": (
            f"above {v._GAIN_UNCONVERGED:.0f} nat and 3 se",
            f"above {v._GAIN_STILL_RISING} nats and 3 se",
        ),
        "training steps": (f"below {v._FEWEST_STEPS}", ""),
        "training broke down for good": ("yes", ""),
        "the posterior may be improper": ("yes", ""),
        "halves of the draws": (f"differ (chance {v._FALSE_ALARMS:.0e})", ""),
        "weighting moves a mean, beyond its error": ("", f"above {v._LARGEST_SHIFT} sds"),
        "weighting changes an sd, beyond its error": (
            f"wider by above {v._WIDEST:.0%}",
            f"by above {v._LARGEST_SHIFT:.0%}",
        ),
    }
    assert v._LAST_SHARE == 0.2
    assert highest_pareto_k(1000) == pytest.approx(1 - 1 / 3)
    rows = table_rows(GUIDES / "read-a-verdict.md", "| check | unreliable")[2:]
    documented = {row[0]: tuple(cell.replace(" %", "%") for cell in row[1:3]) for row in rows}
    assert documented == {
        name: tuple(limit.replace("1e-04", "1e-4") for limit in limits)
        for name, limits in expected.items()
    }


def test_limits_of_refined_fits_are_those_of_the_code():
    v = refined_verdict
    beyond = f"annealing against bridge sampling, beyond {v._STANDARD_ERRORS:.0f} se"
    below = f"log evidence below the ELBO, beyond {v._STANDARD_ERRORS:.0f} se"
    gaps = (f"above {v._LARGEST_GAP} nats", f"above {v._GAP_NOTICED} nats")
    expected = {
        "islands: nested R-hat, worst coordinate": (
            f"{v._LARGEST_RHAT} or more",
            f"{v._RHAT_NOTICED} or more",
        ),
        "way that a mean has still to go": (
            f"{v._LARGEST_SHIFT} sds or more",
            f"{v._SHIFT_NOTICED} sds or more",
        ),
        "effective draws, worst coordinate": (
            f"below {v._FEWEST_EFFECTIVE}",
            f"below {v._EFFECTIVE_NOTICED}",
        ),
        "standard error of the log evidence": (
            f"{v._LARGEST_ERROR:.0f} nat or more",
            f"{v._ERROR_NOTICED} nats or more",
        ),
        beyond: gaps,
        below: gaps,
        "the way outward": ("not gone to its end", ""),
        "what lies outward, of the log evidence": (f"{v._LARGEST_ADDED:.0f} nats or more", ""),
        "EUBO above the log evidence, both without what lies outward": (
            {2.0: "twice as much"}[v._LARGEST_DIVERGENCE],
            f"max({v._DIVERGENCE_NOTICED:.0f}, {v._NOTICED_A_ROOT_DIMENSION} sqrt(D)) nats or more",
        ),
        "EUBO above the log evidence, where moves ended before draws had settled": (
            "",
            f"{v._FAR_FOR_UNSETTLED:.0f} nat or more",
        ),
        "mass in tails that draws have not come to, up to D = 50": (
            f"above {v._MISSING:.0%}",
            f"above {v._TAIL_NOTICED:.0%}",
        ),
        "mass where chains from elsewhere ended and draws are not": (
            f"above {v._MISSING:.0%}",
            f"above {v.MISSING_MASS_NOTICED:.1%}",
        ),
        "chains from elsewhere that ended there": (
            {0.5: "above half"}[v._MOST_ESCAPED],
            {0.1: "above a tenth"}[v._ESCAPED_NOTICED],
        ),
        "chains from elsewhere against the draws: R-hat": (
            f"{v._LARGEST_APART} or more",
            f"{v._APART_NOTICED} or more",
        ),
        "bridge sampling: Pareto k-hat of its terms": ("", f"{v._HIGHEST_K} or more"),
        "steps of training": ("", f"below {v._FEWEST_STEPS}"),
    }
    rows = table_rows(GUIDES / "from-flow-to-posterior.md", "| check | unreliable")[2:]
    assert {row[0]: tuple(c.replace(" %", "%") for c in row[1:3]) for row in rows} == expected


@pytest.mark.parametrize(
    ("page", "when"), [("read-a-verdict", "never"), ("from-flow-to-posterior", "always")]
)
def test_keys_named_are_in_the_report(page, when):
    model = stanflow.StanModel(stan_code="parameters { real x; } model { x ~ normal(0, 1); }")
    report = stanflow.fit(
        model,
        training=stanflow.TrainConfig(max_steps=20),
        refining=stanflow.RefineConfig(when=when),
        progress=False,
    ).report
    rows = table_rows(GUIDES / f"{page}.md", "| check | unreliable")[2:]
    keys = [key for row in rows for key in re.findall(r"`([\w.]+)`", row[-1])]
    assert len(keys) > 9
    for key in set(keys) - {"trace.csv"}:
        entry = report
        for part in key.split("."):
            assert part in entry, key
            entry = entry[part]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_options_named_exist(page):
    commands = typer.main.get_command(app).commands
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    calls = re.findall(r"stanflow (fit|nuts|compare|check|doctor)\b([^`\n]*)", text)
    for name, arguments in calls:
        known = {option for parameter in commands[name].params for option in parameter.opts}
        unknown = set(re.findall(r"--[a-z][a-z-]*", arguments)) - known
        assert not unknown, f"stanflow {name} has no {', '.join(unknown)}"
    assert calls


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target, _, anchor in re.findall(r"\]\((?!http)([^)#]*)(#?)([^)]*)\)", text):
        there = (page.parent / target).resolve() if target else page
        assert there.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor in slugs, anchor
