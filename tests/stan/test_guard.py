"""What the embedded engine computes wrongly is found, and is right once mended.

A test that the engine is wrong which fails means that stanli has been put right, and that the part
of the guard it stands for can go.
"""

import json

import numpy as np
import pytest
import stanli
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from stanflow.errors import BeyondEmbeddedError, EngineError
from stanflow.stan import guard
from stanflow.stan.guard import find_faults
from stanflow.stan.mending import mend
from stanflow.stan.program import StanProgram

DATA = {"m": [[11, 12, 13], [21, 22, 23]], "y": [1, 2, 3]}
HEADER = "data { array[2, 3] int m; array[3] int y; } "
NO_PARAMETERS = "parameters { real p; } model { p ~ normal(0, 1); } "


def load(code, data):
    return stanli.bridgestan_model(
        mir=stanli.stan_to_mir(code), data=json.dumps(data), seed=1, capture_stan_prints=False
    )


def quantity(code, data, name="out"):
    """Return a transformed parameter or generated quantity of that name, at zero."""
    model = load(code, data)
    zeros = np.zeros(model.param_unc_num())
    values = model.param_constrain(zeros, include_tp=True, include_gq=True, rng=model.new_rng(1))
    names = model.param_names(include_tp=True, include_gq=True)
    return np.array([v for n, v in zip(names, values, strict=True) if n.split(".")[0] == name])


def texts(code):
    stanli.stan_to_mir(code)  # or else there is nothing to find
    return [fault.text for fault in find_faults(StanProgram.from_string(code))]


def mended(code):
    return mend(StanProgram.from_string(code)).code


# ---- Rows of int arrays -----------------------------------------------------------------------

BLOCKS = {
    "transformed data": (
        "{header} transformed data {{ array[2] int total; {{ {body} {reads} }} }} {rest} "
        "generated quantities {{ array[2] int out = total; }}"
    ),
    "transformed parameters": (
        "{header} parameters {{ real p; }} transformed parameters {{ array[2] real out; "
        "{{ array[2] int total; {body} {reads} out = total; }} }} model {{ }}"
    ),
    "generated quantities": (
        "{header} {rest} generated quantities {{ array[2] int out; "
        "{{ array[2] int total; {body} {reads} out = total; }} }}"
    ),
    "functions": (
        "functions {{ array[] int f(array[,] int m, array[] int y) {{ array[2] int total; {body} "
        "{reads} return total; }} }} {header} {rest} "
        "generated quantities {{ array[2] int out = f(m, y); }}"
    ),
}
READS = "for (i in 1:2) total[i] = sum(b[i]);"

# What the statements leave as the sums of b's rows, from m and y above.
WRONG_ROWS = {
    "array[2, 3] int b; b[1] = m[2]; b[2] = m[1];": [66, 36],
    "array[2, 3] int b; for (i in 1:2) b[i] = y;": [6, 6],
    "array[2, 3] int b = m; b[1] = m[2]; b[1, 2] = 20;": [64, 66],
    "array[2, 3] int b = m; b[1] = b[2];": [66, 66],
    "array[2, 3] int b = m; { array[3] int t = b[1]; b[1] = b[2]; b[2] = t; }": [66, 36],
    "array[2, 3] int b = rep_array(0, 2, 3); b[y[2]] = y;": [0, 6],
    "array[2, 3] int b = m; if (y[1] == 1) b[1] = y; else b[2] = y;": [6, 66],
    "array[2, 3] int b = m; b[y[1] > 5 ? 2 : 1] = {7, 8, 9};": [24, 66],
    "int n = 0; array[2, n + 3] int a = m, b = a; while (n < 2) { n += 1; b[n] = y; }": [6, 6],
    "array[2] int k = {1, 2}; array[2, 3] int b = m; b[k[2]] = m[1, :];": [36, 36],
    "array[2, 3] int b = m; b[1] /* } */ // ;\n = m[2, {1, 2, 3}];": [66, 66],
}
RIGHT_ROWS = {
    "array[2, 3] int b = m; b[1, :] = m[2];": [66, 66],
    "array[2, 3] int b = m; b[1, ] = m[2];": [66, 66],
    "array[2, 3] int b; b[1:2] = {m[2], y};": [66, 6],
    "array[2, 3] int b; b[:] = m;": [36, 66],
    "array[2, 3] int b; b[] = m;": [36, 66],
    "array[2, 3] int b = m; b[2:] = {y};": [36, 6],
    "array[2, 3] int b; b[{2, 1}] = m;": [66, 36],
    "array[2, 3] int b; array[2] int k = {2, 1}; b[k] = m;": [66, 36],
    "array[2, 3] int b = m; b[:, 2] = {5, 6};": [29, 50],
    "array[2, 3] int b = m; b[1, 2:3] = {5, 6};": [22, 66],
    "array[2, 3] int b = m; b[1][2] = 5; b[2, 1] += 5;": [29, 71],
    "array[2, 3] int b; for (i in 1:2) for (j in 1:3) b[i, j] = y[j];": [6, 6],
    "array[2, 3] int b = {y, m[2]};": [6, 66],
    "array[2, 3] int b; b = m;": [36, 66],
    "array[2, 2, 3] int c; for (i in 1:2) c[i] = m; c[1, 2] = y; array[2, 3] int b = c[1];": [
        36,
        6,
    ],
}


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize(("statements", "sums"), WRONG_ROWS.items())
def test_a_row_assigned_by_its_index_is_wrong_until_mended(block, statements, sums):
    code = in_block(block, statements)
    assert list(quantity(code, DATA)) != sums
    assert list(quantity(mended(code), DATA)) == sums


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize(("statements", "sums"), RIGHT_ROWS.items())
def test_other_indices_are_right_and_left_alone(block, statements, sums):
    code = in_block(block, statements)
    program = StanProgram.from_string(code)
    assert find_faults(program) == ()
    assert mend(program) is program
    assert list(quantity(code, DATA)) == sums


def in_block(block, statements):
    return BLOCKS[block].format(header=HEADER, rest=NO_PARAMETERS, body=statements, reads=READS)


def test_a_function_that_fills_its_rows():
    code = (
        "functions { array[,] int turned(array[,] int a) { int n = size(a); array[n, size(a[1])] "
        "int b; for (i in 1:n) b[i] = a[n + 1 - i]; return b; } } "
        f"{HEADER} {NO_PARAMETERS} generated quantities {{ int out = sum(turned(m)[1]); }}"
    )
    assert list(quantity(code, DATA)) != [66]
    assert list(quantity(mended(code), DATA)) == [66]


def test_rows_drawn_at_random():
    body = "array[2, 3] int b = m; b[1 + binomial_rng(5, 0)] = binomial_rng({4, 5, 6}, 1.0);"
    for block in ("transformed data", "generated quantities"):
        assert list(quantity(mended(in_block(block, body)), DATA)) == [15, 66]


def test_a_row_of_another_size_is_refused():
    code = f"{HEADER} transformed data {{ array[2, 3] int b = m; b[1] = y[1:2]; }} {NO_PARAMETERS}"
    with pytest.raises(RuntimeError):
        load(mended(code), DATA)


def test_visits_in_two_rows():
    """Four of eight visits over 2 of p ~ beta(1, 1), and evidence, in closed form."""
    code = """
    data { int n; array[2 * n] int y; }
    transformed data {
      array[2, n] int visits;
      visits[1] = y[1:n];
      visits[2] = y[(n + 1):(2 * n)];
    }
    parameters { real<lower=0, upper=1> p; }
    model {
      p ~ beta(1, 1);
      for (i in 1:2) for (j in 1:n) (visits[i, j] > 2) ~ bernoulli(p);
    }
    """
    data = {"n": 4, "y": [4, 1, 7, 3, 2, 5, 1, 6]}
    points = [-1.5, 0.0, 0.7]

    def log_densities(code):
        model = load(code, data)
        return np.array([model.log_density(np.array([z])) for z in points])

    p = special.expit(points)
    log_jacobian = np.log(p * (1 - p))
    # The posterior is beta(1 + 5, 1 + 3), and the evidence B(6, 4).
    expected = stats.beta.logpdf(p, 6, 4) + special.betaln(6, 4) + log_jacobian
    assert special.betaln(6, 4) == pytest.approx(-6.2226, abs=1e-4)
    np.testing.assert_allclose(log_densities(mended(code)), expected, rtol=1e-12)
    assert not np.allclose(log_densities(code), expected)


# ---- Rows, at random --------------------------------------------------------------------------

ARRAYS, PLACES, VALUES = st.sampled_from("bc"), st.integers(0, 2), st.integers(0, 9)
ROWS = st.one_of(
    st.tuples(st.sampled_from("bcm"), PLACES),
    st.tuples(st.just("{}"), st.tuples(VALUES, VALUES, VALUES)),
)
OPERATIONS = st.one_of(
    st.tuples(st.just("row"), ARRAYS, PLACES, ROWS),
    st.tuples(st.just("row if"), ARRAYS, PLACES, ROWS),
    st.tuples(st.just("rows"), ARRAYS, PLACES, ROWS),
    st.tuples(st.just("exchange"), ARRAYS, PLACES, PLACES),
    st.tuples(st.just("element"), ARRAYS, PLACES, PLACES),
    st.tuples(st.just("column"), ARRAYS, PLACES, PLACES),
    st.tuples(st.just("whole"), ARRAYS, PLACES, PLACES),
)


def apply(operation, arrays):
    """Do an operation to numpy arrays, and return it as Stan statements."""
    kind, name, place, other = operation
    array, i = arrays[name], place + 1
    if kind in ("row", "row if", "rows"):
        source, where = other
        literal = source == "{}"
        value = np.array(where) if literal else arrays[source][where].copy()
        text = f"{{{', '.join(map(str, where))}}}" if literal else f"{source}[{where + 1}]"
        if kind == "rows":
            array[: place + 1] = value
            return f"{{ array[3] int t = {text}; for (i in 1:{i}) {name}[i] = t; }}"
        array[place] = value
        return f"{'if (m[1, 1] > 0) ' if kind == 'row if' else ''}{name}[{i}] = {text};"
    if kind == "exchange":
        array[[place, other]] = array[[other, place]]
        return (
            f"{{ array[3] int t = {name}[{i}]; {name}[{i}] = {name}[{other + 1}]; "
            f"{name}[{other + 1}] = t; }}"
        )
    if kind == "element":
        array[place, other] += 3
        return f"{name}[{i}, {other + 1}] += 3;"
    if kind == "column":
        array[:, place] = arrays["m"][:, other]
        return f"{name}[:, {i}] = m[:, {other + 1}];"
    another = "b" if name == "c" else "c"
    arrays[name] = arrays[another].copy()
    return f"{name} = {another};"


@given(
    block=st.sampled_from(["transformed data", "transformed parameters", "generated quantities"]),
    operations=st.lists(OPERATIONS, min_size=1, max_size=8),
)
def test_rows_at_random_agree_with_numpy(block, operations):
    arrays = {
        name: np.arange(1, 10).reshape(3, 3) * k for name, k in (("m", 1), ("b", 2), ("c", 3))
    }
    data = {name: array.tolist() for name, array in arrays.items()}
    statements = " ".join(apply(operation, arrays) for operation in operations)
    body = f"array[3, 3] int b = b0; array[3, 3] int c = c0; {statements}"
    reads = " ".join(
        f"total[{3 * k + i + 1}] = sum({name}[{i + 1}]) + 1000 * {name}[{i + 1}, 2];"
        for k, name in enumerate("bc")
        for i in range(3)
    )
    header = "data { array[3, 3] int m; array[3, 3] int b0; array[3, 3] int c0; }"
    code = BLOCKS[block].replace("array[2]", "array[6]")
    code = code.format(header=header, rest=NO_PARAMETERS, body=body, reads=reads)
    expected = [row.sum() + 1000 * row[1] for name in "bc" for row in arrays[name]]
    data["b0"], data["c0"] = data.pop("b"), data.pop("c")
    assert list(quantity(mended(code), data)) == expected


# ---- Where they are found ---------------------------------------------------------------------


def test_names_are_told_by_their_declarations():
    """The same names are vectors, rows and 3-d arrays elsewhere; comments and strings are text."""
    code = """
    functions {
      void sees(array[,] int b);
      array[] vector f(data array[,] int m, tuple(int, real) t) {
        array[2] vector[3] b; b[1] = [1, 2, 3]'; b[2] = b[1];
        return b;
      }
      tuple(int, array[] real) g(array[] int k) { array[3] int b; b[1] = k[1]; return (1, {2}); }
      array[,] int h(array[,] int m) { array[2, 3] int c; c[1] = m[2]; c[2] = m[1];
        return c; }
      void sees(array[,] int b) { print("b[1] = ", b[1]); }
    }
    data { array[2, 3] int m; }
    transformed data {
      array[2, 3] int<lower=0, upper=(1 > 2 ? 1 : 99)> k; k[2] = m[1]; k[1, ] = m[1];
      matrix[2, 3] x; x[1] = [1, 2, 3]; // b[1] = m[1];
      { array[2, 3] int b = m; profile("b[1] = m[1];") { b[1] = m[2]; } }
      { array[2, 2, 3] int b; b[1] = m; b[2, 1] = m[1]; }
      { array[2, 3] real b; b[1] = m[2]; for (b2 in b[1]) print(b2); }
    }
    model {
      array[2, 3] int q = m;
      if (m[1, 1] > 1) q[1] = m[2];
      else if (m[1, 1] < 0) { q[2] = m[1]; }
      else q[1, 1] = 3;
      target += q[1, 1] + sum(h(m)[1]);
    }
    generated quantities { vector[2] q; q[1] = 1; array[2] vector[3] v = f(m, (1, 2.0)); }
    """
    expected = [
        "c[1] = m[2]",
        "c[2] = m[1]",
        "k[2] = m[1]",
        "b[1] = m[2]",
        "q[1] = m[2]",
        "q[2] = m[1]",
    ]
    assert texts(code) == expected
    assert texts(mended(code)) == []


def test_places_are_those_of_the_text_with_its_includes(tmp_path):
    (tmp_path / "rows.stan").write_text("array[2, 3] int b = m;\nb[1] = m[2];\n")
    code = (
        f"{HEADER}\ntransformed data {{\n#include rows.stan\n  b[2]\n  = m[1];\n}}\n{NO_PARAMETERS}"
    )
    program = StanProgram.from_string(code, [tmp_path])
    faults = find_faults(program)
    assert [(fault.line, fault.column, fault.text) for fault in faults] == [
        (4, 0, "b[1] = m[2]"),
        (6, 2, "b[2] = m[1]"),
    ]
    assert {fault.kind for fault in faults} == {
        "assignment to a row of a two-dimensional int array"
    }
    after = mend(program).code
    assert after.count("\n") == program.expanded.count("\n")
    assert after.splitlines()[3] == "b[1, :] = m[2];"


def test_what_is_refused_is_told_at_its_line_in_its_file(tmp_path):
    (tmp_path / "ahead.stan").write_text("int j = 1;\n\n\n")
    (tmp_path / "loop.stan").write_text("int k;\nfor (r in {{normal_rng(0, 1)}}) k = 2;\n")
    loop = "for (r in {{normal_rng(0, 1)}}) j = 2;"
    for last, place in (("#include loop.stan", "loop.stan, line 2"), (loop, "program, line 4")):
        code = f"{HEADER}\ntransformed data {{\n#include ahead.stan\n{last}\n}}\n{NO_PARAMETERS}"
        with pytest.raises(BeyondEmbeddedError, match=place):
            mend(StanProgram.from_string(code, [tmp_path]))


def test_it_agrees_with_the_compiler_on_the_models_that_come_along(zoo):
    for file in sorted(zoo.rglob("*.stan")):
        program = StanProgram.from_file(file)
        assert mend(program) is program


def test_a_program_that_does_not_compile_is_the_compilers_to_refuse():
    program = StanProgram.from_string("transformed data { array[2, 2] int b; b[1] = x; }")
    assert find_faults(program) == ()
    assert mend(program) is program


def test_what_cannot_be_placed_is_refused(monkeypatch):
    code = f"{HEADER} transformed data {{ array[2, 3] int b = m; b[1] = m[2]; }} {NO_PARAMETERS}"
    monkeypatch.setattr(guard, "row_assignments", lambda code: ())
    with pytest.raises(EngineError, match=r"row of a two-dimensional int array wrongly \(b\)"):
        mend(StanProgram.from_string(code))


def test_another_compiled_form_is_refused():
    with pytest.raises(EngineError, match="version"):
        find_faults(StanProgram.from_string("model { }"), mir="((functions_block ()))")
