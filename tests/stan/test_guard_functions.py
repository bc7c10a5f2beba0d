"""What the embedded engine gets wrong with a function's body in place of its call."""

import re

import numpy as np
import pytest

from stanflow.errors import BeyondEmbeddedError
from stanflow.stan.guard import find_faults
from stanflow.stan.mending import mend
from stanflow.stan.program import StanProgram
from tests.stan.test_guard import load, mended, quantity, texts

HEADER = "data { int n; array[4] int a; } parameters { real theta; } "
DATA = {"n": 5, "a": [3, 1, 4, 2]}
THETA = 1.25
BLOCKS = {
    "transformed parameters": (
        "{header} transformed parameters {{ real out = {call}; }} model {{ }}"
    ),
    "model": "{header} model {{ target += theta * ({call}); }}",
    "generated quantities": "{header} model {{ }} generated quantities {{ real out = {call}; }}",
}


def program(functions, call, block):
    return f"functions {{ {functions} }} " + BLOCKS[block].format(header=HEADER, call=call)


def value(code):
    if "target" not in code:
        return quantity(code, DATA)[0]
    log_density, gradient = load(code, DATA).log_density_gradient(np.array([THETA]))
    assert gradient[0] == pytest.approx(log_density / THETA, rel=1e-12)
    return log_density / THETA


# ---- Returns ----------------------------------------------------------------------------------

# Functions, a call, and its value. All but the last few return from within `while`.
WRONG = {
    "while true": (
        "int f(int n) { int i = 0; while (1) { i += 1; if (i * i > n) return i; } return -1; }",
        "f(20)",
        5,
    ),
    "while": (
        "int f(int n) { int i = 0; while (i < n) { i += 1; if (i > 2) { return i; } } return -1; }",
        "f(n)",
        3,
    ),
    "at once": ("int f(int n) { while (n > 2) return 7; return -1; }", "f(n)", 7),
    "real": (
        "real f(real x) { real z = x; while (z < 20) { z *= 1.5; if (z > 10) return z; } "
        "return -1; }",
        "f(2.5)",
        2.5 * 1.5**4,
    ),
    "vector": (
        "vector f(int n) { vector[2] w = [1, 2]'; int i = 0; while (i < 5) { i += 1; "
        "if (i > 2) return w * i; } return w; }",
        "f(n)[2]",
        6,
    ),
    "for within": (
        "int f(int n) { int i = 0; while (1) { i += 1; for (j in 1:n) if (i * j == 6) "
        "return 10 * i + j; } return -1; }",
        "f(n)",
        23,
    ),
    "in for": (
        "int f(int n) { for (k in 2:n) { int i = 0; while (i < 9) { i += 1; if (i > k) "
        "return 10 * i + k; } } return -1; }",
        "f(n)",
        32,
    ),
    "declared ahead": (
        "int f(int n); int f(int n) { int i = 0; while (1) { i += 1; if (i * i > n) return i; } "
        "return -1; }",
        "f(20)",
        5,
    ),
    "only return, in for": ("real f(int n) { for (i in 2:n) { return i; } }", "f(n)", 2),
    "only return, in for each": ("int f(array[] int a) { for (e in a) { return e; } }", "f(a)", 3),
    "only return, in a block": ("int f(int n) { { for (i in 2:n) { return i; } } }", "f(n)", 2),
}
RIGHT = {
    "for": ("int f(int n) { for (i in 1:n) if (i > 2) return i; return -1; }", "f(n)", 3),
    "for, for": (
        "int f(int n) { for (i in 1:n) for (j in 1:n) if (i * j == 6) return 10 * i + j; "
        "return -1; }",
        "f(n)",
        23,
    ),
    "for each": (
        "int f(array[] int a) { for (e in a) { if (e > 3) return e; } return 0; }",
        "f(a)",
        4,
    ),
    "while": ("int f(int n) { int i = 0; while (i < n) { i += 2; } return i; }", "f(n)", 6),
    "break": (
        "int f(int n) { int i = 0; while (1) { i += 1; if (i * i > n) break; } return i; }",
        "f(n)",
        3,
    ),
    "branches": (
        "int f(int n) { if (n > 7) return 1; else if (n > 2) return 2; return 3; }",
        "f(n)",
        2,
    ),
    "refused": ("int f(int n) { if (n < 0) reject(n); else { return 2; } }", "f(n)", 2),
    "after a return": ("int f(int n) { if (n > 2) { return 1; } return 3; }", "f(n)", 1),
    "overloaded": (
        "int f(int n) { while (n > 2) return 7; return -1; } int f(real x) { return 1; }",
        "f(n) - f(2.5)",
        6,
    ),
    "comments": ("int f(int n) { /* while (1) { return 2; } */ return 3; // return\n }", "f(n)", 3),
    "continue": (
        "int f(int n) { int s = 0; int i = 0; while (i < n) { i += 1; if (i % 2) continue; "
        "s += i; } return s; }",
        "f(n)",
        6,
    ),
}


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("name", WRONG)
def test_a_return_that_is_lost_until_mended(block, name):
    functions, call, truth = WRONG[name]
    code = program(functions, call, block)
    assert value(code) != truth
    assert value(mended(code)) == truth
    assert texts(mended(code)) == []


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("name", RIGHT)
def test_other_returns_are_right_and_left_alone(block, name):
    functions, call, truth = RIGHT[name]
    code = program(functions, call, block)
    assert texts(code) == []
    assert value(code) == truth


IN_FOR = "real g(int k, real x) { for (i in 1:4) if (i > 2 && k > 0) return i; return x; } "
IN_WHILE = (
    "real g(int k, real x) { int i = 0; while (k > 0) { i += 1; if (i > 2) return i; } return x; } "
)
OTHER = "real g(real x) { return x; } "
BY_ANOTHER = "real h(int k) { return g(k, 0.5); } "
SUM = "real f(int n) { int i = 0; real s = 0; while (i < n) { i += 1; s += CALL; } return s; }"
REFUSED = {
    "overloaded": (IN_FOR + OTHER + SUM.replace("CALL", "g(i, 0.5)"), 15),
    "overloaded, by another": (IN_FOR + OTHER + BY_ANOTHER + SUM.replace("CALL", "h(i)"), 15),
    "only mended": (IN_WHILE + SUM.replace("CALL", "g(i, 0.5)"), 15),
    "recursive": (
        "int f(int n); int f(int n) { int i = 0; int s = 0; if (n < 2) return 1; "
        "for (j in 1:n) if (j > 2) return 2; while (i < 2) { i += 1; s += f(i + 1); } return s; }",
        None,
    ),
}


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("name", REFUSED)
def test_a_return_in_a_loop_of_a_function_called_in_a_loop_is_refused(block, name):
    """That is, where the function is left in place of its call."""
    functions, truth = REFUSED[name]
    code = program(functions, "f(n)", block)
    if truth is not None:
        assert value(code) != truth
    with pytest.raises(BeyondEmbeddedError, match=r"line 1: .*early return .*\(return "):
        mended(code)


BRANCHES = {
    "return": (
        "for (i in 1:n) { if (x > 1) { if (n > 1) return 3.5; return 2.5; } else return 1.75; }"
    ),
    "return in a loop": (
        "if (x > 1) { for (i in 1:n) { if (i > 2) return 3.5; } return 9; } else { return 2; }"
    ),
    "continue": (
        "int i = 0; while (i < n) { i += 1; if (x < 1) return 2; else { if (n > 1) continue; "
        "return 1.75; } } if (n > 2) return 3.5;"
    ),
}
ENDINGS = {"return": " return -1;", "return in a loop": "", "continue": " return -1;"}


@pytest.mark.parametrize("name", BRANCHES)
def test_branches_that_both_leave_a_function_left_in_place(name):
    function = f"real f(int n, real x) {{ {BRANCHES[name]}{ENDINGS[name]} }} "
    code = (
        f"functions {{ {function} real f(real x) {{ return x; }} }} "
        f"{HEADER} model {{ target += 0 * theta + f(n, theta); }}"
    )
    at = np.array([THETA])
    assert load(code, DATA).log_density(at) != 3.5
    with pytest.raises(BeyondEmbeddedError, match="early return"):
        mended(code)


def test_branches_that_nothing_follows_are_left_alone():
    code = (
        "functions { real f(int n, real x) { if (x > 1) { if (n > 1) return 3.5; return 2.5; } "
        "else return 1.75; } real f(real x) { return x; } } "
        f"{HEADER} model {{ target += 0 * theta + f(n, theta); }}"
    )
    assert texts(code) == []
    assert load(code, DATA).log_density(np.array([THETA])) == 3.5


def test_transformed_data_are_right_either_way():
    functions, call, truth = WRONG["while true"]
    code = (
        f"functions {{ {functions} }} data {{ int n; }} transformed data {{ real t = {call}; }} "
        "parameters { real theta; } model { } "
        "generated quantities { real out = t; }"
    )
    assert quantity(code, DATA)[0] == quantity(mended(code), DATA)[0] == truth


def test_gradients_of_a_series():
    """Of exp, summed until terms are small."""
    functions = (
        "real series(real x, int n) { real term = 1; real total = 1; int i = 0; while (1) { "
        "i += 1; term *= x / i; total += term; if (i == n) return total; } return 0; }"
    )
    code = f"functions {{ {functions} }} {HEADER} model {{ target += series(theta, 30); }}"
    log_density, gradient = load(mended(code), DATA).log_density_gradient(np.array([THETA]))
    assert log_density == pytest.approx(np.exp(THETA), rel=1e-14)
    assert gradient[0] == pytest.approx(np.exp(THETA), rel=1e-14)
    assert load(code, DATA).log_density(np.array([THETA])) != pytest.approx(np.exp(THETA))


SEARCH = "int i = 0; while (1) { i += 1; if (i > 2) return i * t; } return 0;"


@pytest.mark.parametrize(
    ("functions", "statement"),
    [
        (f"real f_lpdf(real y, real t) {{ {SEARCH} }}", "theta ~ f(theta);"),
        (f"real f_lpdf(vector y, real t) {{ {SEARCH} }}", "target += f_lupdf([1]' | theta);"),
        (f"real f_lpmf(int y, real t) {{ {SEARCH} }}", "n ~ f(theta);"),
        (f"real f_lcdf(real y, real t) {{ {SEARCH} }}", "target += f_lcdf(1.0 | theta);"),
        (f"real f_lp(real t) {{ target += 0 * t; {SEARCH} }}", "target += f_lp(theta);"),
        (
            "real f_lpdf(real y, real t) { return 0; } real f_lcdf(real y, real t) { return 0; } "
            f"real f_lccdf(real y, real t) {{ {SEARCH} }}",
            "theta ~ f(-theta) T[1.0, ];",
        ),
    ],
)
def test_densities_and_functions_that_increment_the_target(functions, statement):
    code = f"functions {{ {functions} }} {HEADER} model {{ {statement} }}"

    def found(code):
        log_density, gradient = load(code, DATA).log_density_gradient(np.array([THETA]))
        return [log_density, gradient[0]]

    assert found(code) != [3 * THETA, 3]
    assert found(mended(code)) == [3 * THETA, 3]


def test_what_is_passed_to_a_solver_is_right_and_left_alone():
    code = (
        "functions { vector f(real t, vector y, real k) { int i = 0; while (1) { i += 1; "
        "if (i > 2) return -k * y; } return y; } } "
        f"{HEADER} model {{ target += ode_rk45(f, [1.0]', 0, {{1.0}}, theta)[1][1]; }}"
    )
    assert texts(code) == []
    log_density = load(code, DATA).log_density(np.array([THETA]))
    assert log_density == pytest.approx(np.exp(-THETA), rel=1e-5)


# ---- Functions that return nothing ------------------------------------------------------------

VOID = {
    "if": ("if (k > 3) return; target += t;", 0),
    "block": ("if (k > 1) { target += t; if (k > 2) { return; } } target += 10 * t;", 1),
    "after": ("target += t; return; target += 3 * t;", 1),
    "of a parameter": ("if (t > 1) return; target += t;", 0),
}


def with_void(body):
    return (
        f"functions {{ void f_lp(int k, real t) {{ {body} }} }} "
        f"{HEADER} model {{ f_lp(n, theta); }}"
    )


@pytest.mark.parametrize("name", VOID)
def test_a_return_of_nothing_is_lost_until_mended(name):
    body, truth = VOID[name]
    code = with_void(body)
    assert value(code) != truth
    assert value(mended(code)) == truth


@pytest.mark.parametrize(
    "body", ["target += t;", "if (k > 7) return; else { target += t; return; }"]
)
def test_a_return_of_nothing_that_is_the_last(body):
    code = with_void(body)
    assert texts(code) == []
    assert value(code) == 1


@pytest.mark.parametrize("loop", ["for (i in 1:k)", "while (1)", "for (i in {1, 2})"])
def test_a_return_of_nothing_in_a_loop_is_refused(loop):
    code = with_void(
        f"\n{loop} {{\n target += t;\n if (k > 3) return;\n if (k > 2) break;\n}}\ntarget += t;"
    )
    assert value(code) != 1
    with pytest.raises(BeyondEmbeddedError, match=r"line 4: .*early return .*\(return\)"):
        mended(code)


# ---- Conditions -------------------------------------------------------------------------------

GOES_ON = "int below(int k, int n) { return k < n; }"
CONTINUED = {
    "while": (
        "int i = 0; while (below(i, 4)) { i += 1; if (i == 4) continue; s += i; if (i > 6) break; }"
    ),
    "while, and": (
        "int i = 0; while (n > 2 && below(i, 4)) { i += 1; if (i == 4) { continue; } s += i; "
        "if (i > 6) break; }"
    ),
}


@pytest.mark.parametrize("block", ["transformed parameters", "generated quantities"])
@pytest.mark.parametrize("loop", CONTINUED)
def test_a_condition_not_computed_anew_until_mended(loop, block):
    before = "model { } generated quantities" if block == "generated quantities" else block
    after = "" if block == "generated quantities" else "model { }"
    code = (
        f"functions {{ {GOES_ON} }} {HEADER} {before} {{ real out; {{ real s = 0; "
        f"{CONTINUED[loop]} out = s; }} }} {after}"
    )
    assert value(code) != 6
    assert value(mended(code)) == 6


def test_continue_of_a_loop_within_is_right_and_left_alone():
    code = (
        f"functions {{ {GOES_ON} }} {HEADER} model {{ }} generated quantities {{ real out = 0; {{ "
        "int i = 0; while (below(i, 4)) { i += 1; for (j in 1:3) { if (j == 2) continue; "
        "out += j; } } } }"
    )
    assert texts(code) == []
    assert value(code) == 16


# ---- What differs at each call ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("functions", "statement"),
    [
        ("int f(int k) { return k > 5 ? k : 6; }", "out += f(poisson_rng(5)) < 6;"),
        ("int f(int k) { return k - k; }", "out += f(1 + poisson_rng(50)) != 0;"),
        (
            "real f(vector x) { return sum(x - x); }",
            "out += f(to_vector(normal_rng({0, 1}, 1))) != 0;",
        ),
        ("int f(int k) { return k; }", "out += abs((bernoulli_rng(0.5) ? f(7) : 3) - 5) != 2;"),
        ("int f(int k) { return k; }", "out += bernoulli_rng(0.5) && f(0);"),
    ],
)
def test_random_numbers_are_drawn_once_when_mended(functions, statement):
    code = (
        f"functions {{ {functions} }} {HEADER} model {{ }} "
        f"generated quantities {{ real out = 0; for (i in 1:200) {statement} }}"
    )
    assert quantity(code, DATA)[0] > 0
    assert quantity(mended(code), DATA)[0] == 0


def test_the_target_before_a_call():
    code = (
        "functions { real f_lp(real t) { target += 1; return t; } } "
        f"{HEADER} model {{ target += 2; target += f_lp(target()); }}"
    )
    at_one = np.array([1.0])
    assert load(code, DATA).log_density(at_one) != 5
    assert load(mended(code), DATA).log_density(at_one) == 5


def test_random_numbers_by_themselves_are_left_alone():
    code = (
        "functions { real f(real x) { return x; } "
        "real g_rng(real x) { return normal_rng(x, 1); } } "
        f"{HEADER} model {{ }} generated quantities {{ real x = normal_rng(0, 1); real y = f(x) + "
        "g_rng(f(2)); int z = n > 2 && f(x) > 3; real w = bernoulli_rng(0.5) ? x : 2; }"
    )
    assert texts(code) == []


# ---- Where they are found ---------------------------------------------------------------------


def test_places_and_kinds():
    code = """functions {
  int f(int n);
  int f(int n) {
    while (n > 2)
      if (n > 3) return
        n;
    return -1;
  }
  tuple(int, real) g(tuple(int, int) t) { while (1) { return (1, 2.0); } }
  int below(int n) { return n < 3; }
  int unused(int n) { while (1) { return n; } }
}
data { int n; }
model {
  int i = 0;
  while (below(i)) { i += 1; if (i > 3) continue; }
  print("f(poisson_rng(2))", g((1, 2)).1);
}
generated quantities {
  int k = 2 * f(poisson_rng(2));
}
"""
    faults = find_faults(StanProgram.from_string(code))
    assert [(fault.line, fault.column, fault.kind, fault.text) for fault in faults] == [
        (5, 17, "early return from a function", "return n"),
        (9, 54, "early return from a function", "return (1, 2.0)"),
        (16, 2, "`continue` of a loop whose condition calls a function", "while (below(i))"),
        (
            20,
            14,
            "random number or `target()` next to a call of a function",
            "f(poisson_rng(2))",
        ),
    ]
    after = mend(StanProgram.from_string(code)).code
    assert after.splitlines()[1:] == code.splitlines()[1:]
    assert re.findall(r" real (\w+)\(tuple", after.splitlines()[0]) == ["below", "f", "g"]
