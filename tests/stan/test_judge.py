"""The engines held against each other; the native one is here a double with a fault, or none."""

import json

import numpy as np
import pytest

from stanflow.errors import BeyondEmbeddedError, EngineError
from stanflow.stan import agreement, engine, judge
from stanflow.stan.model import StanModel

CODE = """
data { real y; }
parameters { real<lower=0> s; vector[2] v; }
transformed parameters { real t = s + v[2]; }
model { s ~ gamma(2, 3); v ~ normal(0, s); y ~ normal(t, 1); }
generated quantities {
  array[2] int k = {1, 2};
  real drawn = normal_rng(t, 1);
  real g = not_a_number();
}
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STANFLOW_CACHE_DIR", str(tmp_path))
    return tmp_path


def embedded(code=CODE):
    return StanModel(stan_code=code, data={"y": 1.0}, engine="embedded")


def test_nothing_differs_from_itself():
    found = judge.compare(embedded(), embedded())
    assert found.agrees
    assert found.differs == ()
    assert "gradients" in found.compared


@pytest.mark.parametrize(
    ("right", "wrong", "differs"),
    [
        ("real t = s + v[2];", "real t = s + v[1];", {"t", "log density", "gradient of v.1"}),
        ("v ~ normal(0, s);", "v ~ normal(0, 1.00001 * s);", {"log density", "gradient of s"}),
        ("y ~ normal(t, 1);", "y ~ normal(t, 1); target += 1e-3;", {"log density"}),
        ("{1, 2}", "{1, 3}", {"k"}),
        ("not_a_number()", "0", {"g"}),
        ("normal_rng(t, 1)", "t", set()),  # drawn by one of the two, so not to be compared
        ("int k", "int l", {"k", "l"}),
        ("real<lower=0> s;", "real<lower=0.01> s;", {"the constraints of parameters"}),
        ("s ~ gamma(2, 3);", "s ~ gamma(2, 3); if (s > 1) reject(s);", {"log density"}),
    ],
)
def test_a_planted_fault_is_found_by_name(right, wrong, differs):
    found = judge.compare(embedded(), embedded(CODE.replace(right, wrong)))
    assert differs <= set(found.differs)
    assert found.agrees is (not differs)


def test_densities_are_compared_by_volume_where_the_constraints_are_other_functions():
    """As for simplexes before and after Stan 2.37."""
    code = CODE.replace("vector[2] v;", "vector[2] v; simplex[3] p;")
    bounded = code.replace("real<lower=0> s;", "real<lower=0, upper=50> s;")
    found = judge.compare(embedded(code), embedded(bounded))
    assert found.agrees, found
    assert "by volume" in found.compared
    wrong = bounded.replace("gamma(2, 3)", "gamma(2, 3.001)")
    assert "log density" in judge.compare(embedded(code), embedded(wrong)).differs


def test_a_parameter_that_the_other_cannot_unconstrain_differs():
    code = CODE.replace("vector[2] v;", "vector[2] v; simplex[3] p;")
    narrow = code.replace("<lower=0>", "<lower=0, upper=1e-9>")
    found = judge.compare(embedded(code), embedded(narrow))
    assert found.differs == ("the constraints of parameters",)


# ---- What was found is kept ----


def keep(model, **changes):
    found = judge.compare(model, model)
    agreement.keep_agreement(model.program, agreement.Agreement(
        **{"stan_version": "2.39.0", "compared": found.compared, "differs": (),
           "data_sha256": model.data.hash} | changes))  # fmt: skip


def test_a_fit_later_says_that_they_agreed():
    model = embedded()
    assert model.engine_report["engine_agreement"] is None
    keep(model)
    told = model.engine_report["engine_agreement"]
    assert (told["agrees"], told["same_data"], told["stan_version"]) == (True, True, "2.39.0")
    report = {"engine": "embedded", **model.engine_report}
    assert agreement.second_engine(report) == "agreed with Stan 2.39.0"
    other = StanModel(stan_code=CODE, data={"y": 2.0}, engine="embedded")
    report = {"engine": "embedded", **other.engine_report}
    assert agreement.second_engine(report) == "agreed with Stan 2.39.0, on other data"
    report["engine"] = "native"
    assert agreement.second_engine(report) == "agreed with the embedded engine, on other data"


def test_what_was_found_to_differ_is_not_left_to_the_embedded_engine(monkeypatch):
    keep(embedded(), differs=("k", "log density"))
    monkeypatch.setattr(engine.stan_wheel, "_folders", lambda: iter(()))
    with pytest.raises(
        EngineError, match=r"is wrong on .* DIFFERED from Stan 2\.39\.0 in k, log d"
    ):
        StanModel(stan_code=CODE, data={"y": 1.0}, engine="auto")
    assert embedded().engine == "embedded"  # who asks for it gets it, and is told
    told = agreement.second_engine({"engine": "embedded", **embedded().engine_report})
    assert told == "DIFFERED from Stan 2.39.0 in k, log density"


def test_other_data_do_not_take_back_a_difference():
    model = embedded()
    keep(model, differs=("k",))
    keep(model, data_sha256="of other data")
    assert agreement.kept_agreement(model.program).differs == ("k",)
    keep(model)
    assert agreement.kept_agreement(model.program).agrees


@pytest.mark.parametrize("text", ["", "{}", "[1]", json.dumps({"differs": None}), "\0"])
def test_a_damaged_note_is_none(text):
    model = embedded()
    keep(model)
    agreement._path(model.program).write_text(text)
    assert agreement.kept_agreement(model.program) is None


def test_a_cache_that_cannot_be_written_keeps_nothing(monkeypatch, cache):
    (cache / "file").write_text("")
    monkeypatch.setenv("STANFLOW_CACHE_DIR", str(cache / "file"))
    model = embedded()
    keep(model)
    assert agreement.kept_agreement(model.program) is None


# ---- With the real engines ----


@pytest.fixture
def real_cache(monkeypatch):
    monkeypatch.delenv("STANFLOW_CACHE_DIR")


@pytest.mark.slow
@pytest.mark.usefixtures("real_cache")
def test_the_engines_agree(toolchain):
    model = embedded()
    found = judge.judge(model)
    assert found.agrees, found
    assert found.stan_version == model.in_engine("native").stan_version
    assert agreement.kept_agreement(model.program) == found
    np.testing.assert_array_equal(judge.judge(model.in_engine("native")).differs, [])


@pytest.mark.slow
def test_a_program_for_one_engine_only_is_not_compared(toolchain, monkeypatch):
    monkeypatch.delenv("STANFLOW_CACHE_DIR")
    code = "parameters { tuple(real, real) t; } model { t.1 ~ normal(0, 1); t.2 ~ normal(0, 2); }"
    with pytest.raises(BeyondEmbeddedError, match="STuple"):
        judge.judge(StanModel(stan_code=code, engine="native"))
