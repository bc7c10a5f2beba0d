"""What the embedded engine says of a program or data: whose fault, which, and where."""

import numpy as np
import pytest

import stanflow
from stanflow.errors import BeyondEmbeddedError, DataError, ProgramError, UsageError

HEAD = "data {\n  int N;\n  vector[2] y;\n}\n"
DATA = {"N": 3, "y": [1.0, 2.0]}
LIMITS = {
    "transformed data": (
        HEAD + "transformed data {\n  int a = int_step(N);\n}\n"
        "parameters { real x; } model { x ~ normal(a, 1); }",
        r"cannot run .*: unsupported function int_step \(the Stan program, line 6\); use --engine",
    ),
    "generated quantities": (
        HEAD + "parameters { matrix[2, 2] x; } model { to_vector(x) ~ normal(0, 1); }\n"
        "generated quantities {\n  real q = x[1, 1];\n  matrix[2, 2] u = svd_U(x);\n}",
        r"cannot compute the generated quantities of .*: unsupported function svd_U "
        r"\(the Stan program, line 8\); use --engine",
    ),
}
FAULTS = {
    "transformed data": (
        HEAD + "transformed data {\n  real b = 1;\n  real a = y[N];\n}\n"
        "parameters { real x; } model { x ~ normal(a, b); }",
        r"refuses the data: index 3 out of bounds for size 2 \(the Stan program, line 7\)",
    ),
    "model": (
        HEAD + "parameters { real x; } model {\n  x ~ normal(0, 1);\n  x ~ normal(y[N], 1);\n}",
        r"refuses the data: index 3 out of bounds for size 2 \(the Stan program, line 7\)",
    ),
    "loop": (
        HEAD + "parameters { real x; } model {\n  for (n in 1:N)\n    y[n] ~ normal(x, 1);\n}",
        r"refuses the data: range \[1, 3\] out of bounds for size 2 \(the Stan program, line 7\)",
    ),
    "generated quantities": (
        HEAD + "parameters { real x; } model { x ~ normal(0, 1); }\n"
        "generated quantities {\n  real z = y[N];\n}",
        r"cannot compute its generated quantities with these data: index 3 out of bounds for size "
        r"2 \(the Stan program, line 7\)",
    ),
    "reject": (
        HEAD + 'transformed data {\n  if (N > 2) {\n    reject("N is ", N);\n  }\n}\n'
        "parameters { real x; } model { x ~ normal(0, 1); }",
        r"refuses the data: N is 3 \(the Stan program, line 7\)",
    ),
    "size": (
        HEAD + "parameters { vector[N - 5] x; } model { x ~ normal(0, 1); }",
        "refuses the data: the parameter x has the size -2",
    ),
}


@pytest.mark.parametrize("case", LIMITS)
def test_a_limit_of_the_engine_is_told_as_such_with_its_line(case):
    code, says = LIMITS[case]
    with pytest.raises(BeyondEmbeddedError, match=says):
        stanflow.StanModel(stan_code=code, data=DATA, engine="embedded")


@pytest.mark.parametrize("case", FAULTS)
def test_what_does_not_fit_the_data_is_told_as_such_with_its_line(case):
    code, says = FAULTS[case]
    with pytest.raises(DataError, match=says):
        stanflow.StanModel(stan_code=code, data=DATA, engine="embedded")


def test_a_line_in_an_included_file_is_told_as_of_that_file(tmp_path):
    (tmp_path / "part.stan").write_text("x ~ normal(0, 1);\nx ~ normal(y[N], 1);\n")
    main = tmp_path / "main.stan"
    main.write_text(HEAD + "parameters { real x; }\nmodel {\n#include part.stan\n}")
    with pytest.raises(DataError, match=r"size 2 \(part\.stan, line 2\)"):
        stanflow.StanModel(main, DATA, engine="embedded")


def test_a_program_that_does_not_compile_is_told_before_its_data():
    """Its first line hides the data block from whoever looks for it without a compiler."""
    code = "# comment\n" + HEAD + "parameters { real x; } model { x ~ normal(0, 1); }"
    with pytest.raises(ProgramError, match="line 1, column 0 to column 1: Invalid character"):
        stanflow.StanModel(stan_code=code, data=DATA)


EMPTY = """
data { int N; } parameters { vector[N] x; array[2] vector[N] w; real y; }
transformed parameters { vector[N] t = 2 * x; }
model { x ~ normal(0, 1); y ~ normal(0, 1); }
generated quantities { matrix[N, 3] g = rep_matrix(1, N, 3); }
"""


@pytest.mark.parametrize("engine", ["embedded", pytest.param("native", marks=pytest.mark.slow)])
def test_variables_without_elements_are_variables(engine, request):
    if engine == "native":
        request.getfixturevalue("toolchain")
    model = stanflow.StanModel(stan_code=EMPTY, data={"N": 0}, engine=engine)
    np.testing.assert_array_equal(model.unconstrain({"y": 1.5}), [1.5])
    np.testing.assert_array_equal(model.unconstrain({"y": 1.5, "x": []}), [1.5])
    quick = stanflow.TrainConfig(max_steps=5)
    fit = stanflow.fit(model, draws=20, evidence_draws=20, training=quick, progress=False)
    shapes = {"x": (20, 0), "w": (20, 2, 0), "t": (20, 0), "g": (20, 0, 3), "y": (20,)}
    assert {name: fit.stan_variable(name).shape for name in shapes} == shapes
    with pytest.raises(UsageError, match="no variable 'q'"):
        fit.stan_variable("q")
