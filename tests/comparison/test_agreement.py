import numpy as np
import pandas as pd
import pytest
from scipy import stats

from stanflow.comparison.agreement import (
    judge,
    overall_level,
    scalar_levels,
    threshold,
)
from stanflow.comparison.joint import MmdTest, SlicedWasserstein

NO_PAIRS = pd.DataFrame(
    [], columns=["a", "b", "correlation", "reference_correlation", "difference", "z"]
)


def table_of(location_error=0.0, location_z=0.0, spread_error=0.0, spread_z=0.0):
    row = {
        "location_error": location_error, "location_z": location_z,
        "spread_error": spread_error, "spread_z": spread_z, "judged_by": "moments",
        "location_se": 0.01, "spread_se": 0.01,
    }  # fmt: skip
    table = pd.DataFrame([row], index=["x"])
    table["level"] = [("agree", "close", "differ")[level] for level in scalar_levels(table)]
    return table


@pytest.mark.parametrize(
    ("differences", "level"),
    [
        ({"location_error": 5.0, "location_z": 2.0}, "agree"),  # Monte Carlo error explains it
        ({"location_error": -0.04, "location_z": -20.0}, "agree"),  # it does not matter
        ({"location_error": -0.07, "location_z": -20.0}, "close"),
        ({"location_error": 0.2, "location_z": 20.0}, "differ"),
        ({"spread_error": np.log(1.04), "spread_z": 20.0}, "agree"),
        ({"spread_error": -np.log(1.08), "spread_z": -20.0}, "close"),
        ({"spread_error": -np.log(1.2), "spread_z": -20.0}, "differ"),
        ({"spread_error": -np.log(2), "spread_z": -3.0}, "agree"),
    ],
)
def test_a_difference_must_count_and_matter(differences, level):
    table = table_of(**differences)
    found = judge(table, NO_PAIRS, 0, sliced=None, mmd=None)
    assert found.level == level
    assert len(found.reasons) == (level != "agree")
    if level != "agree":
        assert "of x is" in found.reasons[0]


def test_what_is_wrong_is_said_in_words():
    def reason(**differences):
        table = table_of(**differences)
        return judge(table, NO_PAIRS, 0, sliced=None, mmd=None).reasons[0]

    shifted = reason(location_error=-0.31, location_z=-12)
    assert shifted == "the mean of x is 0.31 sds below the reference's (z = -12.0)"
    narrow = reason(spread_error=np.log(0.44), spread_z=-51)
    assert narrow == "the sd of x is 0.44 times the reference's (z = -51.0)"


def test_what_counts_is_said_though_something_else_is_larger():
    table = table_of(location_error=0.5, location_z=2, spread_error=-0.3, spread_z=-12)
    assert "the sd of x" in judge(table, NO_PAIRS, 0, sliced=None, mmd=None).reasons[0]
    table = table_of(location_error=0.2, location_z=12, spread_error=-0.3, spread_z=-2)
    assert "the mean of x" in judge(table, NO_PAIRS, 0, sliced=None, mmd=None).reasons[0]


def test_draws_that_could_show_nothing_decide_nothing():
    table = table_of().assign(location_se=0.08)
    found = judge(table, NO_PAIRS, 0, sliced=None, mmd=None)
    assert found.level == overall_level(table) == "undecided"
    assert f"{0.08 * threshold(2):.2f} sds (x)" in found.reasons[0]
    unknown = judge(table.assign(location_se=np.nan), NO_PAIRS, 0, sliced=None, mmd=None)
    assert unknown.level == "undecided"
    assert unknown.reasons == ("no Monte Carlo error can be told from these draws",)
    differing = table_of(location_error=1, location_z=9).assign(location_se=0.08)
    assert judge(differing, NO_PAIRS, 0, sliced=None, mmd=None).level == "differ"


def test_the_threshold_keeps_one_false_alarm_in_a_thousand():
    assert 2 * stats.norm.sf(threshold(1)) == pytest.approx(0.001)
    assert 1 - (1 - 2 * stats.norm.sf(threshold(50))) ** 50 == pytest.approx(0.001, rel=1e-3)


def test_correlations_are_judged():
    pair = {"a": "x", "b": "y", "correlation": 0.1, "reference_correlation": 0.4}
    pairs = pd.DataFrame([{**pair, "difference": -0.3, "z": -9.0}])
    found = judge(table_of(), pairs, 1, sliced=None, mmd=None)
    assert found.level == "differ"
    assert "rank correlation of x and y is 0.10, the reference's 0.40" in found.reasons[0]
    weak = pairs.assign(z=-3.0)
    assert judge(table_of(), weak, 1, sliced=None, mmd=None).level == "agree"


@pytest.mark.parametrize(
    ("p", "distance", "level"),
    [(0.5, 0.9, "agree"), (0.001, 0.1, "close"), (0.001, 0.3, "differ")],
)
def test_the_joint_distribution_is_judged(p, distance, level):
    sliced = SlicedWasserstein(distance, 0.05, 0.06, 100)
    found = judge(table_of(), NO_PAIRS, 0, sliced=sliced, mmd=MmdTest(0.1, p, 1.0, 999))
    assert found.level == level


def test_alarms_come_first_and_many_scalars_are_summed_up():
    table = pd.concat([table_of(location_error=0.5, location_z=30)] * 6)
    found = judge(table, NO_PAIRS, 0, sliced=None, mmd=None, alarms=["look at this"])
    assert found.level == "differ"
    assert found.reasons[0] == "look at this"
    assert found.reasons[-1] == "3 more scalars are off by more than the tolerances"
