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

from stanflow.errors import EngineError
from stanflow.target import guard
from stanflow.target.guard import find_faults
from stanflow.target.mending import mend
from stanflow.target.program import StanProgram

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
      { array[2, 3] real b; b[1] = m[2]; for (b2 in b) print(b2); }
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
    with pytest.raises(EngineError, match=r"row of a two-dimensional int array \(b\)"):
        mend(StanProgram.from_string(code))


def test_another_compiled_form_is_refused():
    with pytest.raises(EngineError, match="version"):
        find_faults(StanProgram.from_string("model { }"), mir="((functions_block ()))")


# ---- Gaussian process kernels -----------------------------------------------------------------

KERNELS = {
    "gp_exp_quad_cov": lambda r: np.exp(-(r**2) / 2),
    "gp_exponential_cov": lambda r: np.exp(-r),
    "gp_matern32_cov": lambda r: (1 + np.sqrt(3) * r) * np.exp(-np.sqrt(3) * r),
    "gp_matern52_cov": lambda r: (1 + np.sqrt(5) * r + 5 / 3 * r**2) * np.exp(-np.sqrt(5) * r),
}
POINTS = np.random.default_rng(1).normal(size=(5, 2))
POINTS[3] = POINTS[1]  # where a square root's derivative is infinite
OTHERS = np.vstack([POINTS[2], [[0.3, -1.0]]])
GP_DATA = {"x": POINTS.tolist(), "x2": OTHERS.tolist(), "y": np.arange(5.0).tolist()}
GP_HEADER = "data { array[5] vector[2] x; array[2] vector[2] x2; vector[5] y; } "
SCALES = np.array([0.5, 4.0])


def covariance(kernel, x1, x2, magnitude, scales):
    r = np.sqrt((((x1[:, None] - x2[None]) / scales) ** 2).sum(-1))
    return magnitude**2 * KERNELS[kernel](r)


@pytest.mark.parametrize("kernel", KERNELS)
def test_all_length_scales_count_once_mended(kernel):
    code = (
        f"{GP_HEADER} transformed data {{ matrix[5, 5] K = {kernel}(x, 1.5, {{0.5, 4}}); }} "
        f"{NO_PARAMETERS} generated quantities {{ matrix[5, 5] out = K; }}"
    )
    expected = covariance(kernel, POINTS, POINTS, 1.5, SCALES)
    assert not np.allclose(quantity(code, GP_DATA), expected.ravel())
    assert texts(code) == [f"{kernel}(x, 1.5, {{0.5, 4}})"]
    out = quantity(mended(code), GP_DATA).reshape(5, 5)
    np.testing.assert_allclose(out, expected, rtol=1e-13)
    assert (np.diag(out) == 1.5**2).all()
    assert (out == out.T).all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_two_sets_of_points(kernel):
    code = (
        f"{GP_HEADER} {NO_PARAMETERS} "
        f"generated quantities {{ matrix[5, 2] out = {kernel}(x, x2, 1.5, {{0.5, 4}}); }}"
    )
    expected = covariance(kernel, POINTS, OTHERS, 1.5, SCALES)
    out = quantity(mended(code), GP_DATA)
    np.testing.assert_allclose(out, expected.ravel(order="F"), rtol=1e-13)


@pytest.mark.parametrize("kernel", KERNELS)
def test_gradients_by_finite_differences(kernel):
    """In magnitude, length scales and a point, with points that coincide with others."""
    code = (
        f"{GP_HEADER} parameters {{ real<lower=0> s; array[2] real<lower=0> l; vector[2] shift; }} "
        f"model {{ array[5] vector[2] z = x; z[1] = x[1] + shift; "
        f"target += quad_form({kernel}(z, s, l), y) + sum({kernel}(z, x2, s, l)); }}"
    )
    model = load(mended(code), GP_DATA)

    def log_density(u):
        s, scales, moved = np.exp(u[0]), np.exp(u[1:3]), POINTS.copy()
        moved[0] += u[3:]
        y = np.arange(5.0)
        within = y @ covariance(kernel, moved, moved, s, scales) @ y
        return within + covariance(kernel, moved, OTHERS, s, scales).sum() + u[:3].sum()

    for u in np.random.default_rng(2).normal(scale=0.5, size=(3, 5)):
        value, gradient = model.log_density_gradient(u)
        steps = 1e-6 * np.eye(5)
        differences = [(log_density(u + h) - log_density(u - h)) / 2e-6 for h in steps]
        assert value == pytest.approx(log_density(u), rel=1e-12)
        np.testing.assert_allclose(gradient, differences, rtol=1e-6, atol=1e-6)


def test_a_gaussian_process_of_two_dimensions():
    rng = np.random.default_rng(3)
    x = rng.uniform(-2, 2, size=(40, 2))
    noise = 0.3
    y = rng.multivariate_normal(
        np.zeros(40), covariance("gp_exp_quad_cov", x, x, 1.0, SCALES) + noise**2 * np.eye(40)
    )
    code = """
    data { int n; array[n] vector[2] x; vector[n] y; }
    parameters { real<lower=0> s; array[2] real<lower=0> l; }
    model {
      matrix[n, n] K = add_diag(gp_exp_quad_cov(x, s, l), square(0.3));
      target += multi_normal_cholesky_lpdf(y | rep_vector(0, n), cholesky_decompose(K));
    }
    """
    data = {"n": 40, "x": x.tolist(), "y": y.tolist()}
    u = np.array([0.2, np.log(0.5), np.log(4.0)])
    matrix = covariance("gp_exp_quad_cov", x, x, np.exp(0.2), SCALES) + noise**2 * np.eye(40)
    expected = stats.multivariate_normal.logpdf(y, np.zeros(40), matrix) + u.sum()
    assert load(mended(code), data).log_density(u) == pytest.approx(expected, rel=1e-10)
    assert load(code, data).log_density(u) != pytest.approx(expected, rel=1e-2)


def test_only_calls_with_a_scale_per_dimension_are_replaced():
    code = """functions {
  matrix gp_matern32_cov_by_dimension(matrix K) { return K; }
  matrix gp_matern32_cov(matrix K) { return gp_matern32_cov_by_dimension(K); }
}
data { array[5] vector[2] x; array[2] real<lower=0> l; array[2] int k; }
parameters { real<lower=0> s; vector<lower=0>[2] v; }
model {
  // gp_matern32_cov(x, s, l)
  target += sum(gp_matern32_cov(x, s, l[1]) + gp_matern32_cov(x, s, 2));
  target += sum(gp_matern32_cov(x, s, size(l) > 2 ? l : {1.0, 2.0})
                + gp_matern32_cov(gp_matern32_cov(x, s, to_array_1d(v))));
  target += sum(gp_exp_quad_cov(x, s, k) + gp_exp_quad_cov(x, s, 1.0));
  print("gp_matern32_cov(x, s, l)", s);
}
"""
    faults = find_faults(StanProgram.from_string(code))
    assert [(fault.line, fault.column, fault.text) for fault in faults] == [
        (10, 16, "gp_matern32_cov(x, s, size(l) > 2 ? l : {1.0, 2.0})"),
        (11, 34, "gp_matern32_cov(x, s, to_array_1d(v))"),
        (12, 16, "gp_exp_quad_cov(x, s, k)"),
    ]
    after = mended(code)
    assert after.splitlines()[4:9] == code.splitlines()[4:9]
    assert after.splitlines()[9:12] == [
        "  target += sum(gp_matern32_cov_by_dimension2(x, s, size(l) > 2 ? l : {1.0, 2.0})",
        "                + gp_matern32_cov(gp_matern32_cov_by_dimension2(x, s, to_array_1d(v))));",
        "  target += sum(gp_exp_quad_cov_by_dimension(x, s, k) + gp_exp_quad_cov(x, s, 1.0));",
    ]


@pytest.mark.parametrize(
    ("z", "message"),
    [
        ([-1.0, 1.0, 1.0], "magnitude is -1, but must be positive finite"),
        ([1.0, 1.0, 0.0], r"length scale\[2\] is 0, but must be positive finite"),
        ([1.0, np.inf, 1.0], r"length scale\[1\] is inf, but must be positive finite"),
    ],
)
def test_what_stan_refuses_is_refused(z, message):
    code = (
        f"{GP_HEADER} parameters {{ real s; array[2] real l; }} "
        "model { target += sum(gp_matern52_cov(x, s, l)); }"
    )
    model = load(mended(code), GP_DATA)
    assert np.isfinite(model.log_density(np.ones(3)))
    with pytest.raises(RuntimeError, match=message):
        model.log_density(np.array(z))


def test_as_many_scales_as_dimensions_are_wanted():
    code = (
        f"{GP_HEADER} transformed data {{ matrix[5, 5] K = gp_exp_quad_cov(x, 1, {{1, 2, 3}}); }} "
        f"{NO_PARAMETERS}"
    )
    with pytest.raises(RuntimeError, match="number of length scales"):
        load(mended(code), GP_DATA)
