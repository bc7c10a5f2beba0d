import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanflow.stan.declarations import (
    UnknownValueError,
    evaluate,
    find_blocks,
    parse_declarations,
)


@pytest.mark.parametrize(
    ("text", "base", "sizes", "bounds"),
    [
        ("int N", "int", (), ()),
        ("int<lower=0, upper=N + 1> k", "int", (), (("lower", "0"), ("upper", "N + 1"))),
        ("array[N, 2 * K] vector<lower=a[1]>[D] v", "vector", ("N", "2 * K", "D"),
         (("lower", "a[1]"),)),
        ("matrix<offset=mu, multiplier=2>[R, C] m", "matrix", ("R", "C"),
         (("offset", "mu"), ("multiplier", "2"))),
        ("cov_matrix[K] S", "cov_matrix", ("K", "K"), ()),
        ("corr_matrix[K] S", "corr_matrix", ("K", "K"), ()),
        ("cholesky_factor_corr[K] S", "cholesky_factor_corr", ("K", "K"), ()),
        ("cholesky_factor_cov[K] S", "cholesky_factor_cov", ("K", "K"), ()),
        ("cholesky_factor_cov[M, N] L", "cholesky_factor_cov", ("M", "N"), ()),
        ("array[max({N, 3}), size(x)] int x", "int", ("max({N, 3})", "size(x)"), ()),
        ("complex_vector[3] z", "complex_vector", ("3",), ()),
        ("array[(N > 2) ? 1 : 2] real y", "real", ("(N > 2) ? 1 : 2",), ()),
        ("array[N] simplex[K] arrays", "simplex", ("N", "K"), ()),
    ],
)  # fmt: skip
def test_declarations_are_parsed(text, base, sizes, bounds):
    (declaration,) = parse_declarations(f"{text};")
    assert (declaration.type.base, declaration.type.sizes) == (base, sizes)
    assert declaration.type.bounds == bounds
    assert declaration.text == text


def test_tuples_are_parsed():
    (declaration,) = parse_declarations("array[3] tuple(int<lower=0>, array[2] real) t;")
    assert declaration.type.sizes == ("3",)
    assert [element.base for element in declaration.type.elements] == ["int", "real"]
    assert declaration.type.elements[1].sizes == ("2",)


def test_text_that_is_no_declaration_gives_no_checks():
    assert parse_declarations("int N = 3; print(N);") == ()


def test_braces_in_comments_and_strings_do_not_count():
    blocks = find_blocks('/* } */ data { // }\n int N; } model { print("}"); }')
    assert set(blocks) == {"data", "model"}


@given(st.text(alphabet="{}/*\"'\n abN;data", max_size=60))
def test_no_text_breaks_finding_blocks(text):
    for body in find_blocks(text).values():
        parse_declarations(body)


@given(st.integers(-100, 100), st.integers(-100, 100).filter(bool))
def test_integer_division_truncates_toward_zero_as_in_stan(a, b):
    assert evaluate("a / b", {"a": a, "b": b}) == math.trunc(a / b)


@given(st.integers(-100, 100), st.integers(-100, 100).filter(bool))
def test_remainders_have_the_sign_of_the_dividend_as_in_stan(a, b):
    assert evaluate("a % b", {"a": a, "b": b}) == int(math.fmod(a, b))


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("-N", -3), ("max(n)", 6), ("min(n)", 5), ("max(N, 9)", 9), ("sum(n)", 11), ("size(n)", 2),
        ("num_elements(A)", 4), ("A[2, 1] - 1", 2), ("n[2]", 6), ("2 * 1.5", 3.0),
        ("negative_infinity()", -math.inf), ("positive_infinity()", math.inf), ("7.0 / 2", 3.5),
    ],
)  # fmt: skip
def test_what_is_followed(expression, value):
    assert evaluate(expression, {"N": 3, "n": [5, 6], "A": [[1, 2], [3, 4]]}) == value


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
def test_arithmetic_follows_precedence(a, b, c):
    values = {"a": a, "b": b, "c": c}
    assert evaluate("a + b * (c - 2) - 1", values) == a + b * (c - 2) - 1


def test_indexing_counts_from_one():
    values = {"x": [[1, 2], [3, 4]], "n": [5, 6]}
    assert evaluate("x[2, 1]", values) == 3
    assert evaluate("n[1] + sum(n)", values) == 16


@pytest.mark.parametrize(
    "expression",
    ["foo(N)", "N ? 1 : 2", "M", "x[0]", "x[3]", "N'", "__import__('os')", "N.real", "x * x",
     "A[1] * A[2]", "x + 1", "size(A)", "rows(A)", "N / 0"],
)  # fmt: skip
def test_other_expressions_are_left_to_the_engine(expression):
    with pytest.raises(UnknownValueError):
        evaluate(expression, {"N": 2, "x": [1, 2], "A": [[1, 2], [3, 4]]})
