"""Loops over arrays of containers, in which the embedded engine loses its way."""

import pytest

from stanflow.errors import BeyondEmbeddedError
from stanflow.stan.guard import find_faults
from stanflow.stan.mending import mend
from stanflow.stan.program import StanProgram
from tests.stan.test_guard import NO_PARAMETERS, load, mended, quantity, texts

HEADER = (
    "data { array[2, 3] int b; array[2] vector[3] w; array[2, 2, 3] int c; array[2, 0] int none; "
    "array[3, 1] int ones; matrix[2, 3] m; } "
)
DATA = {
    "b": [[3, 1, 4], [2, 7, 5]],
    "w": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]],
    "c": [[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [10, 11, 12]]],
    "none": [[], []],
    "ones": [[1], [2], [3]],
    "m": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]],
}
# What becomes of `real s = 0`.
CONTAINERS = {
    "for (r in b) s = 100 * s + 10 * r[1] + r[3];": 3425,
    "for (r in w) { s = 100 * s + 10 * r[1] + sum(r[2:]); }": 1551,
    "for (r in c) s = 100 * s + r[2, 3] + num_elements(r);": 1218,
    "for (r in c) for (q in r) s = 10 * s + q[1] - 1;": 369,
    "for (r in b) for (e in r) s = 10 * s + e;": 314275,
    "for (r in c[2]) s = 100 * s + r[1];": 710,
    "for (r in {b[2], b[1]}) { s = 10 * s + r[3]; }": 54,
    "for (r in b) { if (r[1] == 2) break; if (r[2] == 1) continue; s += 1; }": 0,
    "for (r in b) s += size(\n r) /* r */ ; for (r in w) s += r[1];": 11,
    "for (r in none) s += 1 + size(r);": 2,
    "for (r in rep_array(b[1], 2)) s = 100 * s + r[1] + r[3];": 707,
    "for (r in append_array(w, {w[1]})) for (e in r) s = 10 * s + e;": 123456123,
}
NUMBERS = {
    "for (e in b[2]) s = 10 * s + e;": 275,
    "for (e in w[1]) s = 10 * s + e;": 123,
    "for (e in m) s += e;": 21,
    "for (e in b[, 2]) s = 10 * s + e;": 17,
    "for (i in 1:2) s += i;": 3,
    "for (i in (b[1, 1] > 2 ? 1 : 2):3) s += i;": 6,
    "for (e in b[1, 1] > 2 ? b[1] : b[2]) s = 10 * s + e;": 314,
    "for (e in append_array(b[1], b[2])) s += e;": 22,
}


def in_transformed_data(statements):
    return (
        f"{HEADER} transformed data {{ real total; {{ real s = 0; {statements} total = s; }} }} "
        f"{NO_PARAMETERS} generated quantities {{ real out = total; }}"
    )


@pytest.mark.parametrize(("statements", "truth"), CONTAINERS.items())
def test_containers_are_right_once_mended(statements, truth):
    code = in_transformed_data(statements)
    after = mended(code)
    assert quantity(after, DATA)[0] == truth
    assert texts(after) == []
    assert after.count("\n") == code.count("\n")


@pytest.mark.parametrize(("statements", "truth"), CONTAINERS.items())
def test_in_functions_and_other_blocks(statements, truth):
    arguments = "array[,] int b, array[] vector w, array[,,] int c, array[,] int none"
    for code in (
        f"functions {{ real f({arguments}) {{ real s = 0; {statements} return s; }} }} {HEADER} "
        f"transformed data {{ real t = f(b, w, c, none); }} {NO_PARAMETERS} "
        "generated quantities { array[2] real out = {t, f(b, w, c, none)}; }",
        f"{HEADER} parameters {{ real p; }} transformed parameters {{ array[2] real out; {{ "
        f"real s = 0; {statements} out = {{s, s}}; }} }} model {{ }}",
    ):
        assert list(quantity(mended(code), DATA)) == [truth, truth]


@pytest.mark.parametrize(("statements", "truth"), NUMBERS.items())
def test_numbers_are_right_and_left_alone(statements, truth):
    code = in_transformed_data(statements)
    assert texts(code) == []
    assert quantity(code, DATA)[0] == truth


def test_empty_containers_are_passed_over_and_others_end_in_an_error():
    assert quantity(in_transformed_data("for (r in none) s += 1;"), DATA)[0] == 0
    assert quantity(in_transformed_data("for (r in ones) s += r[1];"), DATA)[0] == 6
    with pytest.raises(RuntimeError, match="index 3 out of bounds for size 2"):
        load(in_transformed_data("for (r in b) s += r[1];"), DATA)


@pytest.mark.parametrize(
    "statements",
    [
        "for (r in rep_array({normal_rng(0, 1)}, 2)) s += r[1];",
        "array[2, 3] int z = b; for (r in z) { z[2, 1] = 9; s += r[1]; }",
        "array[2, 3] int z = b; for (r in z) { (z[2, 1], s) = (9, s + r[1]); }",
    ],
)
def test_what_cannot_be_mended_is_refused(statements):
    code = in_transformed_data(f"\n{statements}")
    with pytest.raises(BeyondEmbeddedError, match=r"line 2: .* loop over an array of containers"):
        mended(code)


def test_places_and_text():
    code = in_transformed_data("\n  for (r in c) {\n    for (q in r)\n s += q[2];\n }")
    program = StanProgram.from_string(code)
    faults = find_faults(program)
    assert [(fault.line, fault.column, fault.text) for fault in faults] == [
        (2, 2, "for (r in c)"),
        (3, 4, "for (q in r)"),
    ]
    assert mend(program).code.splitlines()[1:4] == [
        "  for (r_index in 1:size(c)) {",
        "    for (q_index in 1:size(c[r_index]))",
        " s += c[r_index][q_index][2];",
    ]


def test_names_that_are_taken():
    code = in_transformed_data("real r_index = 1; for (r in b) s += r_index + r[1];")
    assert quantity(mended(code), DATA)[0] == 7
