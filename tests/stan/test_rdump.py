"""Data in R's dump format, as R and rstan's stan_rdump write it."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stanflow.errors import DataError
from stanflow.stan.data import bind_data
from stanflow.stan.program import StanProgram
from stanflow.stan.rdump import RDumpError, read_rdump

# As `dump` of R 3.6 and of R 4, and `stan_rdump` of rstan, write them.
WRITTEN = {
    "N <- 3": 3,
    "N <- 3L": 3,
    "`N` <-\n3L\n": 3,
    "x = -1.5e-3": -1.5e-3,
    "x <- 1e+05": 1e5,
    "x <- -Inf": -np.inf,
    "x <- NaN": np.nan,
    'y <-\nc(1, 2.5,\n-3)': [1.0, 2.5, -3.0],
    "k <- c(1L, 3:5, 2)": [1, 3, 4, 5, 2],
    "k <- 4:1": [4, 3, 2, 1],
    "e <- integer(0)": [],
    "e <- c()": [],
    "z <- integer(3)": [0, 0, 0],
    "e <- structure(double(0), .Dim = c(0L, 2L))": np.zeros((0, 2)),
    "m <- structure(c(1, 2, 3, 4, 5, 6), .Dim = c(2L, 3L))": [[1, 3, 5], [2, 4, 6]],
    "m <- structure(1:6, dim = 2:3)": [[1, 3, 5], [2, 4, 6]],
    'v <- structure(c(1, 2), .Names = c("a", "b)"))': [1, 2],
    'm <- structure(1:4, .Dim = c(2L, 2L), .Dimnames = list(NULL, c("a", "b")))': [[1, 3], [2, 4]],
    "# comment\nN <- 3 # more": 3,
}  # fmt: skip


@pytest.mark.parametrize("text", WRITTEN)
def test_what_r_writes_is_read(text):
    ((name, value),) = read_rdump(text).items()
    assert name in text
    expected = np.asarray(WRITTEN[text])
    np.testing.assert_array_equal(value, expected)
    assert np.shape(value) == expected.shape
    if expected.size:
        assert np.asarray(value).dtype.kind == expected.dtype.kind


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("N <- 3\nN <- 4", "N is given more than once"),
        ("N <- 3\nx <- c(1, NA)", "line 2: NA: Stan has no missing values"),
        ("x <- c(1, 2", "line 1: the text breaks off"),
        ("x <- list(1, 2)", r"line 1: list\(\.\.\.\) is not read"),
        ("\n\nx <- c(1 2)", "line 3: '2' is not expected"),
        ("x <- TRUE", "line 1"),
        ("x <- {1}", "line 1: '{' is not expected"),
        ("x <- structure(1:5, .Dim = 2:3)", r"5 numbers do not fill an array of shape \(2, 3\)"),
        ("<- 3", "line 1"),
        ("x <- double(-1)", "line 1: -1 must be a whole number, not negative"),
        ("x <- 1.5:3", "line 1: a range must be of whole numbers"),
        ("x <- structure(1:6, .Dim = c(-2L, -3L))", "6 numbers do not fill"),
    ],
)
def test_what_is_no_dump_is_refused_with_its_line(text, says):
    with pytest.raises(RDumpError, match=says):
        read_rdump(text)


NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,8}", fullmatch=True)
VALUES = st.one_of(
    st.integers(-(2**31) + 1, 2**31 - 1),
    st.floats(),
    hnp.arrays(np.float64, hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4)),
    hnp.arrays(np.int32, hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4)),
)


def spelled(number):
    if isinstance(number, int | np.integer):
        return f"{number}L"
    special = {np.inf: "Inf", -np.inf: "-Inf"}.get(number, "NaN" if np.isnan(number) else None)
    return special or f"{float(number)!r}"


def dumped(value):
    """Write a value as R's dump does."""
    if np.ndim(value) == 0:
        return spelled(value)
    elements = f"c({', '.join(map(spelled, value.ravel(order='F')))})"
    if value.ndim == 1:
        return elements
    return f"structure({elements}, .Dim = c({', '.join(f'{n}L' for n in value.shape)}))"


@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_what_is_written_is_read_back(variables):
    text = "\n".join(f"{name} <-\n{dumped(value)}" for name, value in variables.items())
    found = read_rdump(text)
    assert found.keys() == variables.keys()
    for name, value in variables.items():
        np.testing.assert_array_equal(found[name], value)
        assert np.shape(found[name]) == np.shape(value)


@given(st.text(alphabet='xcL1.5e,:()<-= \n"`NADim#'))
def test_no_text_breaks_the_reader(text):
    try:
        assert isinstance(read_rdump(text), dict)
    except RDumpError as error:
        assert "\n" not in str(error)


def test_a_file_is_read_by_its_name_and_checked_as_json_is(tmp_path):
    program = StanProgram.from_string("data { int N; matrix[2, N] x; }")
    file = tmp_path / "model.data.R"
    file.write_text("N <- 2\nx <- structure(c(1, 2, 3, 4), .Dim = c(2L, 2L))")
    assert json.loads(bind_data(program, file).json) == {"N": 2, "x": [[1, 3], [2, 4]]}
    file.write_text("N <- 2.5\nx <- 1")
    with pytest.raises(DataError, match=r"model\.data\.R: the data variable N is declared"):
        bind_data(program, file)
    file.write_text("N <- ")
    with pytest.raises(DataError, match=r"not in R's dump format: line 1: the text breaks off"):
        bind_data(program, file)
