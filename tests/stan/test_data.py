import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stanflow.errors import DataError
from stanflow.stan.data import bind_data
from stanflow.stan.model import StanModel
from stanflow.stan.program import StanProgram

SCHOOLS = StanProgram.from_string(
    "data { int<lower=0> J; array[J] real y; array[J] real<lower=0, upper=100> sigma; "
    "array[J] int<upper=J> group; }"
)
GOOD = {"J": 3, "y": [28, 8.5, -3], "sigma": [15, 10, 16], "group": [1, 2, 3]}


def bound(program, data):
    return json.loads(bind_data(program, data).json)


# ---- Forms that people have ----


@pytest.mark.parametrize(
    "y",
    [
        [28, 8.5, -3],
        (28, 8.5, -3),
        np.array([28, 8.5, -3], dtype=np.float32),
        pd.Series([28, 8.5, -3], index=[7, 8, 9]),
        [np.float64(28), 8.5, np.int64(-3)],
    ],
)
def test_lists_tuples_arrays_and_series_are_taken(y):
    assert bound(SCHOOLS, {**GOOD, "y": y})["y"] == [28.0, 8.5, -3.0]


def test_a_json_file_and_its_text_are_taken(tmp_path):
    file = tmp_path / "schools.json"
    file.write_text("\ufeff" + json.dumps(GOOD), encoding="utf-8")
    assert bound(SCHOOLS, file) == bound(SCHOOLS, str(file)) == bound(SCHOOLS, GOOD)
    assert bound(SCHOOLS, json.dumps(GOOD)) == bound(SCHOOLS, GOOD)


def test_python_booleans_are_zero_and_one():
    program = StanProgram.from_string("data { int b; array[2] int c; }")
    assert bound(program, {"b": True, "c": np.array([True, False])}) == {"b": 1, "c": [1, 0]}


def test_infinities_are_taken_in_every_spelling():
    program = StanProgram.from_string("data { vector[3] u; }")
    for u in ([np.inf, -np.inf, 1], ["Infinity", "-Inf", 1]):
        assert bound(program, {"u": u})["u"] == ["Infinity", "-Infinity", 1.0]
    assert bound(program, '{"u": [Infinity, -Infinity, 1]}')["u"][0] == "Infinity"


def test_complex_numbers_and_tuples_are_taken():
    program = StanProgram.from_string(
        "data { complex z; complex_vector[2] w; tuple(int, array[2] real) t; }"
    )
    data = {"z": 1 + 2j, "w": np.array([1j, 2]), "t": (3, [4, 5])}
    expected = {"z": [1, 2], "w": [[0, 1], [2, 0]], "t": {"1": 3, "2": [4, 5]}}
    assert bound(program, data) == expected
    assert bound(program, json.dumps(expected)) == expected


def test_sizes_zero_are_taken():
    program = StanProgram.from_string("data { int N; matrix[N, 3] X; array[N] int k; }")
    assert bound(program, {"N": 0, "X": [], "k": []}) == {"N": 0, "X": [], "k": []}
    assert bound(program, {"N": 0, "X": np.empty((0, 3)), "k": []})["X"] == []


def test_undeclared_variables_are_left_out_and_named():
    data = bind_data(SCHOOLS, {**GOOD, "extra": "whatever"})
    assert data.ignored == ("extra",)
    assert "extra" not in data.json


def test_sizes_and_bounds_may_depend_on_earlier_variables():
    program = StanProgram.from_string(
        "data { int N; array[N] int n; vector[sum(n)] y; vector[N] low; vector<lower=low>[N] x; }"
    )
    good = {"N": 2, "n": [1, 2], "y": [1, 2, 3], "low": [0, 5], "x": [1, 6]}
    bind_data(program, good)
    with pytest.raises(DataError, match=r"y has shape \(2,\).*here of shape \(3,\)"):
        bind_data(program, {**good, "y": [1, 2]})
    with pytest.raises(DataError, match=r"x has 4 at \[2\], below its lower bound 5"):
        bind_data(program, {**good, "x": [1, 4]})


@pytest.mark.parametrize(
    ("block", "data"),
    [
        ("matrix[2, 3] X; vector[size(X)] y;", {"X": [[1, 2, 3]] * 2, "y": [0] * 6}),
        ("row_vector[3] r; vector[rows(r)] y;", {"r": [1, 2, 3], "y": [0]}),
        ("int a; int<lower=a % 3> b;", {"a": -7, "b": 0}),
        ("row_vector[2] r; vector[2] v; vector<lower=r*v>[2] y;",
         {"r": [1, 1], "v": [1, -5], "y": [0, 0]}),
        ("int<upper=2147483647> a; int b;", {"a": 2**31 - 1, "b": -(2**31)}),
        ("real<lower=0, upper=1> p; vector<lower=-1>[1] q;", {"p": 0, "q": [-1]}),
        ("array[0] int a; array[2, 0] real b; vector[0] c;", {"a": [], "b": [[], []], "c": []}),
    ],
)  # fmt: skip
def test_data_that_stan_takes_are_not_refused(block, data):
    code = f"data {{ {block} }} parameters {{ real x; }} model {{ x ~ normal(0, 1); }}"
    StanModel(stan_code=code, data=data, engine="embedded")


def test_several_variables_may_be_declared_at_once():
    program = StanProgram.from_string("data { int N, M; vector<lower=0>[N] a, b; }")
    good = {"N": 2, "M": 1, "a": [1, 2], "b": [3, 4]}
    assert bound(program, good) == good
    with pytest.raises(DataError, match=r"b has -3 at \[1\], .* `vector<lower=0>\[N\] b`"):
        bind_data(program, {**good, "b": [-3, 4]})


def test_variables_without_elements_may_be_left_out():
    program = StanProgram.from_string("data { int N; matrix[N, 3] X; vector[num_elements(X)] y; }")
    assert bound(program, {"N": 0})["X"] == []
    with pytest.raises(DataError, match="X is missing"):
        bind_data(program, {"N": 1})


def test_declarations_that_cannot_be_followed_leave_the_checks_to_the_engine():
    program = StanProgram.from_string("data { real x $ y; }")
    data = {"a": np.inf, "b": {"x": 2}, "c": (1, True), "d": np.eye(2), "e": [-np.inf]}
    assert bound(program, data) == {
        "a": "Infinity", "b": {"x": 2}, "c": [1, 1], "d": [[1, 0], [0, 1]], "e": ["-Infinity"]
    }  # fmt: skip


def test_torch_tensors_and_masked_arrays_are_taken_for_what_they_are():
    program = StanProgram.from_string("data { vector[2] y; }")
    assert bound(program, {"y": torch.ones(2, requires_grad=True)}) == {"y": [1, 1]}
    assert bound(program, {"y": np.ma.array([1, 2], mask=[False, False])}) == {"y": [1, 2]}
    with pytest.raises(DataError, match=r"y has a missing value \(null\) at \[2\]"):
        bind_data(program, {"y": np.ma.array([1, 2], mask=[False, True])})


NAN_AND_OTHERS = """
data { vector[6] y; array[2] vector[1] z; real<lower=0> s; int n; }
"""


@pytest.mark.parametrize(
    "spelled",
    [
        '["NaN", "Inf", "-Inf", "Infinity", "-Infinity", 1]',
        "[NaN, Infinity, -Infinity, Infinity, -Infinity, 1]",
    ],
)
def test_nan_and_infinities_are_taken_however_stan_takes_them(spelled):
    program = StanProgram.from_string(NAN_AND_OTHERS)
    text = f'{{"y": {spelled}, "z": [[0], ["NaN"]], "s": "Inf", "n": 1}}'
    found = bind_data(program, text)
    assert found.with_nan == ("y", "z")
    y = json.loads(found.json)["y"]
    assert (y[0], sorted(y[1:5])) == ("NaN", ["-Infinity"] * 2 + ["Infinity"] * 2)
    assert json.loads(found.json)["s"] == "Infinity"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"s": math.nan}, "s has nan, not within its lower bound 0"),
        ({"n": math.nan}, "n is declared .* it has nan"),
        ({"n": "NaN"}, "n is declared .* it has nan"),
    ],
)
def test_nan_is_refused_where_stan_refuses_it(change, says):
    program = StanProgram.from_string(NAN_AND_OTHERS)
    data = {"y": np.zeros(6), "z": np.zeros((2, 1)), "s": 1.0, "n": 1}
    with pytest.raises(DataError, match=says):
        bind_data(program, data | change)


@pytest.mark.parametrize("engine", ["embedded", pytest.param("native", marks=pytest.mark.slow)])
def test_programs_see_nan_in_data(engine, request):
    if engine == "native":
        request.getfixturevalue("toolchain")
    code = """
    data { int N; vector[N] y; } parameters { real x; }
    model { for (n in 1:N) if (!is_nan(y[n])) y[n] ~ normal(x, 1); }
    """
    data = {"N": 3, "y": [math.nan, 1.0, 2.0]}
    with pytest.warns(UserWarning, match="these data have NaN, .*: y"):
        model = StanModel(stan_code=code, data=data, engine=engine)
    assert model.log_density_gradient(np.zeros((1, 1))).log_density[0] == -2.5


def test_the_hash_is_that_of_the_data():
    one, again, other = (
        bind_data(SCHOOLS, {**GOOD, "y": y}).hash for y in ([1, 2, 3], [1, 2, 3], [1, 2, 4])
    )
    assert one == again != other


# ---- What is refused, by name and place ----


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": ...}, r"variable y is missing; the program declares `array\[J\] real y`"),
        ({"y": [1, 2]}, r"y has shape \(2,\), but .* here of shape \(3,\)"),
        ({"y": 1.5}, r"y is a single number, but .* here of shape \(3,\)"),
        ({"J": [3]}, r"J has shape \(1,\), but the program declares .* a single number"),
        ({"y": [[1, 2, 3]]}, r"y has shape \(1, 3\)"),
        ({"y": [[1, 2], [3]]}, "y is not rectangular"),
        ({"y": "abc"}, "y must be numbers, .* it has 'abc'"),
        ({"y": [1, "{2}", 3]}, r"y must be numbers, .* it has '\{2\}' at \[2\]"),
        ({"y": [1, None, 3]}, r"y has a missing value \(null\) at \[2\]"),
        ({"y": {"a": 1}}, "y is an object"),
        ({"y": [1, {"a": 1}, 3]}, "y is an object"),
        ({"y": np.array([1j, 2, 3])}, "y is complex"),
        ({"y": [1, object(), 3]}, r"y must be numbers, .* at \[2\]"),
        ({"J": 3.5}, r"J is declared `int<lower=0> J`, .* it has 3\.5"),
        ({"J": 3.0}, r"J is declared .* without a decimal point; it has 3\.0"),
        ({"group": [1, 2.5, 3]}, r"group is declared .* it has 2\.5 at \[2\]"),
        ({"J": -1}, "J has -1, below its lower bound 0"),
        ({"sigma": [1, 2, -3]}, r"sigma has -3 at \[3\], below its lower bound 0"),
        ({"sigma": [1, 101, 3]}, r"sigma has 101 at \[2\], above its upper bound 100"),
        ({"group": [1, 2, 4]}, r"group has 4 at \[3\], above its upper bound 3"),
        ({"group": [1, 2**40, 3]}, r"group has 1099511627776 at \[2\], beyond the 32 bits"),
        ({"group": [1, 2**70, 3]}, r"group has \d+ at \[2\], beyond the 32 bits"),
        ({"J": float("inf")}, "J is declared .* it has inf"),
        ({"y": [10**400, 1, 2]}, "y has a whole number beyond the range"),
        ({"y": b"abc"}, "y must be numbers"),
        ({"y": np.array(["2020-01-01"] * 3, dtype="datetime64[D]")}, "y must be numbers"),
        ({"y": []}, r"y has shape \(0,\)"),
        ({"group": [1, 2, -(2**31) - 1]}, "beyond the 32 bits"),
        ({"group": [1, 2, 2**31]}, "beyond the 32 bits"),
    ],
)
def test_data_that_do_not_fit_are_refused(change, message):
    data = {k: v for k, v in {**GOOD, **change}.items() if v is not ...}
    with pytest.raises(DataError, match=message) as caught:
        bind_data(SCHOOLS, data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"J": 3,', "not valid JSON: .* at line 1, column"),
        ("", "not valid JSON"),
        ("[1, 2]", "must be a JSON object"),
        ('{"J": true, "y": [], "sigma": [], "group": []}', "J holds true or false"),
        ('{"J": 1, "J": 2}', "J is given 2 times"),
        ("[" * 100_000, "nest too deep"),
        ('{"y": ' + "[" * 900 + "1" + "]" * 900 + "}", "the data variable J is missing"),
        (
            '{"J": 1, "y": ' + "[" * 950 + "1" + "]" * 950 + "}",
            "nest too deep|not rectangular|shape",
        ),
        ('{"J": ' + "9" * 5000 + "}", "not valid Stan JSON"),
        ('{"J": 1' + "0" * 400 + "}", "beyond"),
    ],
)
def test_malformed_files_are_refused_by_name(tmp_path, text, message):
    file = tmp_path / "bad.json"
    file.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        bind_data(SCHOOLS, file)
    assert "bad.json" in str(caught.value)


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(DataError, match=r"no data file at .*nope\.json"):
        bind_data(SCHOOLS, tmp_path / "nope.json")
    with pytest.raises(DataError, match="cannot be read: is a directory"):
        bind_data(SCHOOLS, tmp_path)
    with pytest.raises(DataError, match="cannot be read: embedded null"):
        bind_data(SCHOOLS, "a\0b")
    with pytest.raises(DataError, match="not a list"):
        bind_data(SCHOOLS, [1])
    (tmp_path / "latin.json").write_bytes(b'{"\xe9": 1}')
    with pytest.raises(DataError, match="not UTF-8"):
        bind_data(SCHOOLS, tmp_path / "latin.json")


def test_data_for_a_program_without_a_data_block_are_refused():
    program = StanProgram.from_string("parameters { real x; } model { }")
    assert bind_data(program, None).json == bind_data(program, {}).json == "{}"
    with pytest.raises(DataError, match=r"has variables \(J, y, .*no data block"):
        bind_data(program, GOOD)


def test_a_negative_size_is_refused():
    program = StanProgram.from_string("data { int N; vector[N] y; }")
    with pytest.raises(DataError, match=r"y has a negative size: N is -1"):
        bind_data(program, {"N": -1, "y": []})


def test_tuples_of_another_length_are_refused():
    program = StanProgram.from_string("data { tuple(int, real) t; array[2] tuple(int, int) a; }")
    with pytest.raises(DataError, match="t must be a tuple of 2"):
        bind_data(program, {"t": (1, 2, 3), "a": [(1, 2), (3, 4)]})
    with pytest.raises(DataError, match=r"a must be a list of tuples"):
        bind_data(program, {"t": (1, 2), "a": [(1, 2)]})
    with pytest.raises(DataError, match=r"a\[2\]\.1 is declared"):
        bind_data(program, {"t": (1, 2), "a": [(1, 2), (3.5, 4)]})


# ---- Properties ----

numbers = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=4),
    elements=st.floats(allow_nan=False, width=64),
)


@given(numbers)
def test_real_arrays_survive_the_round_trip_bit_for_bit(x):
    program = StanProgram.from_string("data { int R; int C; matrix[R, C] x; }")
    read = bound(program, {"R": x.shape[0], "C": x.shape[1], "x": x})["x"]
    assert np.array_equal(np.array([[float(v) for v in row] for row in read]), x)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=12,
)


@settings(max_examples=300)
@given(json_values, json_values, json_values)
def test_any_json_either_fits_or_is_refused_in_one_sentence(j, y, group):
    data = {"J": j, "y": y, "sigma": y, "group": group}
    for form in (data, json.dumps(data)):
        try:
            bind_data(SCHOOLS, form)
        except DataError as error:
            assert str(error)


@settings(max_examples=200)
@given(st.binary(max_size=60))
def test_any_bytes_either_fit_or_are_refused(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("fuzz") / "data.json"
    file.write_bytes(content)
    with pytest.raises(DataError):
        bind_data(SCHOOLS, file)
