"""BridgeStan's interface over Stan's headers, through BridgeStan's own Python package."""

import contextlib
import ctypes
import enum
import gc
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import bridgestan
import numpy as np
import pytest
import stanli
from scipy import stats

from stanflow.stan import native, stan_headers
from stanflow.stan.program import StanProgram
from stanflow.stan.toolchain import compiler


class Case(enum.IntEnum):
    """What the program does besides, as its data say."""

    NOTHING = 0
    DATA_PRINT = 1
    DATA_REJECT = 2
    DATA_DIVIDE = 3
    TRANSFORMED_REJECT = 4
    MODEL_PRINT = 5
    MODEL_PRINT_AND_REJECT = 6
    MODEL_PRINT_AND_DIVIDE = 7
    MODEL_DIVIDE = 8
    MODEL_ERROR = 9
    IMPOSSIBLE = 10
    LARGE_MU_ONLY = 11
    THREADS = 12
    QUANTITIES_PRINT = 13
    QUANTITIES_REJECT = 14
    QUANTITIES_DIVIDE = 15


RICH = """
functions {
  int quotient(int a, int b) {
    return a %/% b;
  }
  real refuse(real x) {
    if (x < 1e10) reject("refused ", x);
    return x;
  }
  real chunk(array[] real slice, int start, int end, real mu, int divisor) {
    return normal_lpdf(slice | mu, quotient(start, divisor) > -1000 ? 1 : 2);
  }
}
data {
  int<lower=0> n;
  vector[n] y;
  int case;
  int divisor;
}
transformed data {
  int smallest = -2147483647 - 1;
  real drawn = normal_rng(0, 1);
  array[40] real many = linspaced_array(40, -1, 1);
  if (case == DATA_PRINT) print("data: ", n);
  if (case == DATA_REJECT) reject("no data, ", n);
  if (case == DATA_DIVIDE) print(quotient(smallest, divisor));
}
parameters {
  real mu;
  real<lower=0> sigma;
  real<lower=0, upper=1> p;
  ordered[2] o;
  matrix[2, 3] m;
}
transformed parameters {
  real ratio = mu / sigma;
  if (case == TRANSFORMED_REJECT) reject("no ratio, ", mu);
}
model {
  mu ~ normal(0, 2);
  sigma ~ exponential(0.5);
  p ~ beta(2, 3);
  o ~ normal(1, 3);
  to_vector(m) ~ normal(mu, 1.5);
  y ~ normal(mu, sigma);
  target += normal_lpdf(mu | 1, 1) - 1.25;
  if (case == MODEL_PRINT) print("model: ", mu, " ", sigma, "; ", to_vector(m));
  if (case == MODEL_PRINT_AND_REJECT) print("begun: ", refuse(mu));
  if (case == MODEL_PRINT_AND_DIVIDE) print("begun: ", mu, quotient(smallest, divisor));
  profile("division") {
    if (case == MODEL_DIVIDE) target += quotient(smallest, divisor);
  }
  if (case == MODEL_ERROR) y ~ normal(mu, -sigma);
  if (case == IMPOSSIBLE) target += negative_infinity();
  if (case == LARGE_MU_ONLY && mu < 1.5) reject("mu is ", mu);
  if (case == THREADS) target += reduce_sum(chunk, many, 1, mu, divisor);
}
generated quantities {
  real seeded = drawn;
  array[2] real noise = normal_rng({mu, mu}, sigma);
  if (case == QUANTITIES_PRINT) print("quantities: ", mu);
  if (case == QUANTITIES_REJECT) reject("no quantities, ", mu);
  if (case == QUANTITIES_DIVIDE) print(quotient(smallest, divisor));
}
"""
RICH = re.sub(r"\bcase\b", "situation", RICH)
for _case in Case:
    RICH = re.sub(rf"\b{_case.name}\b", str(int(_case)), RICH)

ODD = """
parameters {
  complex z;
  tuple(real<lower=0>, vector[2]) t;
  array[2] tuple(real, vector<lower=0>[2]) u;
  simplex[3] s;
  complex_vector[2] c;
}
model {
  get_real(z) ~ normal(1, 2);
  t.1 ~ exponential(1);
}
"""

Y = np.array([0.3, -1.1, 2.0, 0.7])
POINTS = [np.linspace(-1, 1, 11), *np.random.default_rng(1).normal(size=(3, 11))]
NO_INT = "^integer division whose result is no int$"
BOTH = {"include_tp": True, "include_gq": True}


def line_of(text):
    """The line of the program where a text is first, as Stan tells it."""
    return f"line {RICH[: RICH.index(text)].count(chr(10)) + 1},"


@pytest.fixture(scope="module")
def libraries(headers):
    return native.compiled_libraries(list(map(StanProgram.from_string, (RICH, ODD))), headers)


@pytest.fixture(scope="module")
def make(libraries):
    """Makes the model of a case, with other data where they are given."""

    def make(case=Case.NOTHING, seed=1, capture=False, **data):
        values = {"n": len(Y), "y": Y, "situation": int(case), "divisor": -1} | data
        values = {name: value for name, value in values.items() if value is not None}
        return bridgestan.StanModel(
            libraries[0], values, seed=seed, capture_stan_prints=capture, warn=False
        )

    return make


@pytest.fixture(scope="module")
def model(make):
    return make()


@pytest.fixture(scope="module")
def odd(libraries):
    return bridgestan.StanModel(libraries[1], capture_stan_prints=False, warn=False)


@pytest.fixture(scope="module")
def embedded():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # stanli's version is its own
        return stanli.bridgestan_model(
            stan_code=RICH,
            data={"n": len(Y), "y": Y, "situation": 0, "divisor": -1},
            capture_stan_prints=False,
            warn=False,
        )


@pytest.fixture
def printed(libraries):
    """What is printed during a test: whole messages, in order, and whether any overlapped."""
    library = ctypes.CDLL(str(libraries[0]))
    callback_type = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t)
    library.bs_set_print_callback.argtypes = [callback_type, ctypes.c_void_p]
    said = SimpleNamespace(messages=[], overlaps=0, busy=False)

    def note(text, size):
        said.overlaps += said.busy
        said.busy = True
        time.sleep(1e-4)
        said.messages.append(ctypes.string_at(text, size).decode())
        said.busy = False

    callback = callback_type(note)
    assert library.bs_set_print_callback(callback, None) == 0
    yield said
    assert library.bs_set_print_callback(callback_type(), None) == 0


# ---- Densities ----


def constrained(z):
    o1 = z[3]
    return {
        "mu": z[0],
        "sigma": np.exp(z[1]),
        "p": 1 / (1 + np.exp(-z[2])),
        "o": np.array([o1, o1 + np.exp(z[4])]),
        "m": z[5:].reshape(3, 2).T,
    }


def closed_form(z, propto, jacobian):
    mu, sigma, p, o, m = constrained(z).values()
    value = stats.norm.logpdf(mu, 1, 1) - 1.25
    if propto:
        value -= 0.5 * (mu / 2) ** 2
        value -= 0.5 * sigma
        value += np.log(p) + 2 * np.log1p(-p)
        value -= 0.5 * np.sum(((o - 1) / 3) ** 2)
        value -= 0.5 * np.sum(((m - mu) / 1.5) ** 2)
        value -= len(Y) * np.log(sigma) + 0.5 * np.sum(((Y - mu) / sigma) ** 2)
    else:
        value += stats.norm.logpdf(mu, 0, 2)
        value += stats.expon.logpdf(sigma, scale=2)
        value += stats.beta.logpdf(p, 2, 3)
        value += stats.norm.logpdf(o, 1, 3).sum()
        value += stats.norm.logpdf(m, mu, 1.5).sum()
        value += stats.norm.logpdf(Y, mu, sigma).sum()
    if jacobian:
        value += z[1] + np.log(p) + np.log1p(-p) + z[4]
    return value


def differences(f, z, step=1e-5):
    """Central differences of a function along each coordinate, as rows."""
    steps = step * np.eye(len(z))
    return np.array([(f(z + s) - f(z - s)) / (2 * step) for s in steps])


@pytest.mark.parametrize("jacobian", [False, True])
@pytest.mark.parametrize("propto", [False, True])
@pytest.mark.parametrize("z", POINTS, ids=range(4))
def test_densities_and_their_derivatives(model, z, propto, jacobian):
    options = {"propto": propto, "jacobian": jacobian}
    value = closed_form(z, **options)
    assert model.log_density(z, **options) == pytest.approx(value, rel=1e-12)

    of_gradient, gradient = model.log_density_gradient(z, **options)
    assert of_gradient == pytest.approx(value, rel=1e-12)
    slopes = differences(lambda z: closed_form(z, **options), z)
    np.testing.assert_allclose(gradient, slopes, rtol=1e-6, atol=1e-7)

    of_hessian, gradient_too, hessian = model.log_density_hessian(z, **options)
    assert of_hessian == pytest.approx(value, rel=1e-12)
    np.testing.assert_array_equal(gradient_too, gradient)
    curvature = differences(lambda z: model.log_density_gradient(z, **options)[1], z)
    np.testing.assert_allclose(hessian, curvature, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(hessian, hessian.T, rtol=1e-12)
    assert hessian[0, 0] == pytest.approx(
        -1 - 1 / 4 - 6 / 1.5**2 - len(Y) / np.exp(2 * z[1]), rel=1e-6
    )

    v = np.cos(np.arange(11))
    of_product, product = model.log_density_hessian_vector_product(z, v, **options)
    assert of_product == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(product, hessian @ v, rtol=1e-5, atol=1e-6)
    of_product, product = model.log_density_hessian_vector_product(z, 0 * v, **options)
    assert of_product == pytest.approx(value, rel=1e-12)
    np.testing.assert_array_equal(product, 0)


def test_the_embedded_engine_says_the_same(model, embedded):
    assert embedded.param_names(**BOTH) == model.param_names(**BOTH)
    assert embedded.param_unc_names() == model.param_unc_names()
    for z in POINTS:
        assert embedded.log_density(z) == pytest.approx(model.log_density(z), rel=1e-12)
        np.testing.assert_allclose(
            embedded.log_density_gradient(z)[1], model.log_density_gradient(z)[1], rtol=1e-10
        )
        theta = model.param_constrain(z, include_tp=True)
        np.testing.assert_allclose(embedded.param_constrain(z, include_tp=True), theta, rtol=1e-12)
        np.testing.assert_allclose(embedded.param_unconstrain(theta[:11]), z, rtol=1e-9)


def test_results_enter_the_arrays_that_are_given(model):
    z, gradient, hessian = POINTS[1], np.zeros(11), np.zeros((11, 11))
    theta, again, product = np.zeros(12), np.zeros(11), np.zeros(11)
    assert model.log_density_gradient(z, out=gradient)[1] is gradient
    assert np.all(gradient != 0)
    model.log_density_hessian(z, out_grad=gradient, out_hess=hessian)
    assert np.all(np.diag(hessian) != 0)
    model.log_density_hessian_vector_product(z, gradient, out=product)
    assert np.all(product != 0)
    assert model.param_constrain(z, include_tp=True, out=theta) is theta
    model.param_unconstrain(np.ascontiguousarray(theta[:11]), out=again)
    np.testing.assert_allclose(again, z, rtol=1e-9)


def test_the_volume_of_a_simplex_and_the_rest(odd):
    z = np.linspace(-1, 1, 17)
    volume = odd.log_density(z) - odd.log_density(z, jacobian=False)
    names = odd.param_names()
    free = [i for i, name in enumerate(names) if name != "s.3"]
    jacobian = differences(lambda z: odd.param_constrain(z)[free], z)
    assert volume == pytest.approx(np.linalg.slogdet(jacobian)[1], rel=1e-6)


def test_reduce_sum_adds_up_whatever_threads_there_are(make, model):
    parallel = make(Case.THREADS, divisor=1)
    many = np.linspace(-1, 1, 40)
    for z in POINTS:
        added = stats.norm.logpdf(many, z[0], 1).sum()
        value, gradient = parallel.log_density_gradient(z)
        before, before_gradient = model.log_density_gradient(z)
        assert value == pytest.approx(before + added, rel=1e-12)
        before_gradient[0] += np.sum(many - z[0])
        np.testing.assert_allclose(gradient, before_gradient, rtol=1e-10)
        assert parallel.log_density(z, propto=False) == pytest.approx(
            closed_form(z, False, True) + added, rel=1e-12
        )


# ---- Names, numbers, versions ----

NAMES = ["mu", "sigma", "p", "o.1", "o.2", "m.1.1", "m.2.1", "m.1.2", "m.2.2", "m.1.3", "m.2.3"]
QUANTITIES = ["seeded", "noise.1", "noise.2"]


@pytest.mark.parametrize("gq", [False, True])
@pytest.mark.parametrize("tp", [False, True])
def test_names_and_numbers(model, tp, gq):
    names = NAMES + tp * ["ratio"] + gq * QUANTITIES
    assert model.param_names(include_tp=tp, include_gq=gq) == names
    assert model.param_num(include_tp=tp, include_gq=gq) == len(names)
    assert model.param_unc_names() == NAMES
    assert model.param_unc_num() == 11


def test_names_of_complex_and_tuple_parameters(odd):
    before_s = ["z.real", "z.imag", "t:1", "t:2.1", "t:2.2"]
    before_s += [f"u.{i}:{part}" for i in (1, 2) for part in ("1", "2.1", "2.2")]
    after_s = [f"c.{i}.{part}" for i in (1, 2) for part in ("real", "imag")]
    assert odd.param_names() == [*before_s, "s.1", "s.2", "s.3", *after_s]
    assert odd.param_unc_names() == [*before_s, "s.1", "s.2", *after_s]
    assert (odd.param_num(), odd.param_unc_num()) == (18, 17)


def test_what_the_model_is(make, headers):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = make()
    assert ".".join(map(str, model.model_version())) == bridgestan.__version__
    assert model.name() == "stan_program_model"
    info = model.model_info()
    assert f"Stan version: {headers.stan_version}\n" in info
    assert "\tSTAN_THREADS=true\n" in info
    assert f"stanc_version = stanc3 v{headers.stan_version}" in info


# ---- Constraining and unconstraining ----


@pytest.mark.parametrize("gq", [False, True])
@pytest.mark.parametrize("tp", [False, True])
def test_param_constrain(model, tp, gq):
    z = POINTS[1]
    rng = model.new_rng(7) if gq else None
    values = model.param_constrain(z, include_tp=tp, include_gq=gq, rng=rng)
    mu, sigma, p, o, m = constrained(z).values()
    expected = [mu, sigma, p, *o, *m.T.ravel()] + tp * [mu / sigma]
    np.testing.assert_allclose(values[: len(expected)], expected, rtol=1e-12)
    assert len(values) == len(expected) + 3 * gq


def test_random_numbers_are_the_generators(model):
    z = POINTS[0]

    def noise(rng):
        return model.param_constrain(z, include_gq=True, rng=rng)[-2:]

    first, same, other = model.new_rng(7), model.new_rng(7), model.new_rng(8)
    a, b = noise(first), noise(first)
    np.testing.assert_array_equal(noise(same), a)
    np.testing.assert_array_equal(noise(same), b)
    assert len({*a, *b, *noise(other)}) == 6
    draws = np.concatenate([noise(first) for _ in range(2000)])
    scaled = (draws - z[0]) / np.exp(z[1])
    assert stats.kstest(scaled, "norm").pvalue > 1e-4


def test_the_seed_is_that_of_transformed_data(make):
    def seeded(seed):
        model = make(seed=seed)
        return model.param_constrain(POINTS[0], include_gq=True, rng=model.new_rng(1))[-3]

    assert seeded(5) == seeded(5)
    assert len({seeded(seed) for seed in (0, 1, 5, 2**32 - 1)}) == 4


def test_quantities_without_a_generator(model):
    with pytest.raises(ValueError, match="rng"):
        model.param_constrain(POINTS[0], include_gq=True)
    error = ctypes.c_char_p()
    out = np.zeros(15)
    code = model._param_constrain(
        model.model, True, True, POINTS[0], out, None, ctypes.byref(error)
    )
    assert code == -1
    assert error.value == b"generated quantities need a random number generator"
    model._free_error(error)
    assert not out.any()


def test_param_unconstrain(model, odd):
    for z in POINTS:
        np.testing.assert_allclose(model.param_unconstrain(model.param_constrain(z)), z, rtol=1e-9)
    z = np.linspace(-1, 1, 17)
    np.testing.assert_allclose(odd.param_unconstrain(odd.param_constrain(z)), z, atol=1e-12)


def test_values_outside_of_their_constraint(model):
    theta = model.param_constrain(POINTS[0])
    theta[1] = -1
    with pytest.raises(RuntimeError, match=r"Lower.* -1.* line "):
        model.param_unconstrain(theta)


def test_param_unconstrain_json(model, odd, tmp_path):
    z = POINTS[1]
    values = constrained(z)
    text = json.dumps({name: np.asarray(value).tolist() for name, value in values.items()})
    file = tmp_path / "values.json"
    file.write_text(text)
    for given in (values, text, str(file)):
        np.testing.assert_allclose(model.param_unconstrain_json(given), z, rtol=1e-9)
    mixed = {
        "z": [1, 2],
        "t": {"1": 3, "2": [4, 5]},
        "u": [{"1": 6, "2": [7, 8]}, {"1": 9, "2": [10, 11]}],
        "s": [1 / 3, 1 / 3, 1 / 3],
        "c": [[12, 13], [14, 15]],
    }
    theta = [*range(1, 12), 1 / 3, 1 / 3, 1 / 3, *range(12, 16)]
    z = odd.param_unconstrain_json(json.dumps(mixed))
    np.testing.assert_allclose(odd.param_constrain(z), theta, rtol=1e-12)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"mu": 1}, "sigma"),
        ("", "mu"),
        ("{", "JSON"),
        ("nowhere.json", "the data file nowhere.json cannot be read"),
    ],
)
def test_param_unconstrain_json_says_what_is_wrong(model, given, problem):
    with pytest.raises(RuntimeError, match=problem):
        model.param_unconstrain_json(given)


# ---- Starting points ----


def test_starting_points_are_drawn(model, odd):
    rng, same = model.new_rng(3), model.new_rng(3)
    drawn = np.array([model.param_initialize(rng) for _ in range(400)])
    np.testing.assert_array_equal(model.param_initialize(same), drawn[0])
    assert stats.kstest(drawn.ravel(), stats.uniform(-2, 4).cdf).pvalue > 1e-4
    near = np.array([model.param_initialize(rng, init_radius=0.1) for _ in range(20)])
    assert 0.08 < np.abs(near).max() <= 0.1
    np.testing.assert_array_equal(model.param_initialize(rng, init_radius=0), 0)
    for _ in range(50):
        assert np.abs(odd.param_initialize(odd.new_rng(1))).max() <= 2


def test_what_is_given_is_kept(model, odd, tmp_path):
    rng = model.new_rng(3)
    z = model.param_initialize(rng, {"sigma": 5.0, "m": np.zeros((2, 3)), "other": 1})
    assert z[1] == pytest.approx(np.log(5))
    np.testing.assert_array_equal(z[5:], 0)
    assert np.all((z[:5] != 0) & (np.abs(z[:5]) < 2))
    file = tmp_path / "start.json"
    file.write_text('{"mu": 1}')
    assert model.param_initialize(rng, str(file))[0] == 1
    np.testing.assert_allclose(
        model.param_initialize(rng, constrained(POINTS[2]), max_tries=1), POINTS[2], rtol=1e-9
    )
    for nothing in (None, "", "{}", {}):
        assert np.all(model.param_initialize(rng, nothing) != 0)
    z = odd.param_initialize(rng, {"t": {"1": 1.5, "2": [1, 2]}, "z": [0, 0]})
    np.testing.assert_allclose(z[:5], [0, 0, np.log(1.5), 1, 2])


def test_starting_points_are_tried(make):
    model = make(Case.LARGE_MU_ONLY)
    rng = model.new_rng(3)
    for _ in range(10):
        assert model.param_initialize(rng, max_tries=1000)[0] >= 1.5
    with pytest.raises(RuntimeError, match=r"was found in 7 tries: .*mu is 1 .*line "):
        model.param_initialize(rng, {"mu": 1}, max_tries=7)
    with pytest.raises(RuntimeError, match="in 0 tries: no try was allowed"):
        model.param_initialize(rng, max_tries=0)
    with pytest.raises(RuntimeError, match="in 100 tries: the log density is -inf"):
        make(Case.IMPOSSIBLE).param_initialize(rng)
    with pytest.raises(RuntimeError, match=r"in 2 tries: .*Lower bounded variable is -1"):
        make().param_initialize(rng, {"sigma": -1}, max_tries=2)
    with pytest.raises(RuntimeError, match="o"):
        make().param_initialize(rng, {"o": [1, 2, 3]})


# ---- Data ----


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"y": None}, "name=y"),
        ({"y": [1, 2]}, "mismatch.*name=y"),
        ({"n": -1, "y": []}, f"n is -1, but must be .* 0.*{line_of('int<lower=0> n')}"),
        ({"n": 1.5, "y": [1]}, "int .*n"),
    ],
)
def test_data_that_do_not_fit(make, changes, problem):
    with pytest.raises(RuntimeError, match=problem):
        make(**changes)


@pytest.mark.parametrize(
    ("data", "problem"),
    [('{"n": 4, "y": [1, ', "JSON"), ("no JSON", "JSON"), ("", "name=n"), (None, "name=n")],
)
def test_data_that_are_none(libraries, data, problem):
    with pytest.raises(RuntimeError, match=problem):
        bridgestan.StanModel(libraries[0], data, capture_stan_prints=False, warn=False)


def test_data_in_a_file(libraries, model, tmp_path):
    file = tmp_path / "data.json"
    file.write_text(model.data)
    of_file = bridgestan.StanModel(libraries[0], file, capture_stan_prints=False, warn=False)
    assert of_file.log_density(POINTS[0]) == model.log_density(POINTS[0])
    # The Python package reads files itself; the library does it for others.
    for path, found in ((file, True), (tmp_path / "gone.json", False)):
        error = ctypes.c_char_p()
        made = model._construct(os.fsencode(path), 1, ctypes.byref(error))
        assert bool(made) is found
        if found:
            model._destruct(made)
        else:
            assert error.value.decode() == f"the data file {path} cannot be read"
            model._free_error(error)


# ---- Failures ----


@pytest.mark.parametrize(
    ("case", "words", "statement"),
    [
        (Case.TRANSFORMED_REJECT, "no ratio, -1", 'reject("no ratio'),
        (Case.MODEL_ERROR, "normal_lpdf: Scale parameter is -0.4493", "y ~ normal(mu, -sigma)"),
        (Case.LARGE_MU_ONLY, "mu is -1", 'reject("mu is'),
    ],
)
def test_what_the_program_throws(make, case, words, statement):
    model, z = make(case), POINTS[0]
    problem = f"{re.escape(words)}.*in 'the Stan program', {line_of(statement)}"
    for evaluate in (
        lambda: model.log_density(z),
        lambda: model.log_density(z, propto=False),
        lambda: model.log_density_gradient(z),
        lambda: model.log_density_hessian(z),
        lambda: model.log_density_hessian_vector_product(z, z),
    ):
        with pytest.raises(RuntimeError, match=problem):
            evaluate()


def test_what_the_other_blocks_throw(make):
    with pytest.raises(RuntimeError, match=f"no data, 4 .*{line_of('no data')}"):
        make(Case.DATA_REJECT)
    z, model = POINTS[0], make(Case.QUANTITIES_REJECT)
    with pytest.raises(RuntimeError, match=f"no quantities, -1 .*{line_of('no quan')}"):
        model.param_constrain(z, include_gq=True, rng=model.new_rng(1))
    assert np.all(np.isfinite(model.param_constrain(z, include_tp=True)))
    model = make(Case.TRANSFORMED_REJECT)
    with pytest.raises(RuntimeError, match="no ratio, -1"):
        model.param_constrain(z, include_tp=True)
    assert np.all(np.isfinite(model.param_constrain(z)))


def test_null_is_accepted_where_no_message_is_wanted(make):
    z, out = POINTS[0], np.zeros(11)
    value = ctypes.c_double()
    model = make(Case.MODEL_ERROR)
    assert model._log_density(model.model, True, True, z, ctypes.byref(value), None) == -1
    gradient = model._log_density_gradient
    assert gradient(model.model, True, True, z, ctypes.byref(value), out, None) == -1
    assert model._param_unconstrain_json(model.model, b"{", out, None) == -1
    assert model._param_initialize(model.model, None, None, 2.0, 10, True, out, None) == -1
    assert model._construct(b"{", 1, None) is None
    assert model._construct(None, 1, None) is None
    model._free_error(None)
    model._destruct(None)


@pytest.mark.parametrize("divisor", [-1, 0])
def test_integer_divisions_without_a_result(make, model, divisor):
    z, threads = POINTS[0], []
    values = [model.log_density_gradient(z)]

    def evaluate():
        broken = make(Case.MODEL_DIVIDE, divisor=divisor)
        for _ in range(20):
            for function in (
                lambda: broken.log_density(z),
                lambda: broken.log_density(z, propto=False),
                lambda: broken.log_density_gradient(z),
                lambda: broken.log_density_hessian(z),
                lambda: broken.log_density_hessian_vector_product(z, z),
                lambda: broken.param_initialize(broken.new_rng(1)),
                lambda: make(Case.DATA_DIVIDE, divisor=divisor),
            ):
                with pytest.raises(RuntimeError, match=NO_INT):
                    function()
            values.append(model.log_density_gradient(z))
        broken = make(Case.QUANTITIES_DIVIDE, divisor=divisor)
        with pytest.raises(RuntimeError, match=NO_INT):
            broken.param_constrain(z, include_gq=True, rng=broken.new_rng(1))
        assert np.all(np.isfinite(broken.param_constrain(z, include_tp=True)))
        threads.append("done")

    evaluate()
    others = [threading.Thread(target=evaluate) for _ in range(3)]
    for thread in others:
        thread.start()
    for thread in others:
        thread.join()
    assert len(threads) == 4
    for value, gradient in values:
        assert value == values[0][0]
        np.testing.assert_array_equal(gradient, values[0][1])


BEFORE = {
    "nothing": "",
    "a handler": "signal.signal(signal.SIGFPE, lambda *_: print('handled', flush=True))",
    "ignored": "signal.signal(signal.SIGFPE, signal.SIG_IGN)",
    "faulthandler": "import faulthandler; faulthandler.enable()",
}
SENT = "os.kill(os.getpid(), signal.SIGFPE)"
DIVISION = "ctypes.CDLL(None).div(-2**31, -1)"
IN_PARALLEL = "construct(12).log_density_gradient(z)"


@pytest.mark.parametrize(
    ("before", "raised", "ends", "says"),
    [
        ("nothing", SENT, True, ""),
        ("nothing", DIVISION, True, ""),
        ("nothing", IN_PARALLEL, True, ""),
        ("a handler", SENT, False, "handled"),
        ("ignored", SENT, False, ""),
        ("ignored", DIVISION, True, ""),
        ("faulthandler", DIVISION, True, "Fatal Python error: Floating"),
    ],
)
def test_other_signals_go_where_they_went_before(libraries, model, before, raised, ends, says):
    script = f"""
import bridgestan, ctypes, json, numpy, os, signal
{BEFORE[before]}
def construct(case):
    data = json.loads({model.data!r}) | dict(situation=case, divisor=0)
    return bridgestan.StanModel({str(libraries[0])!r}, data, warn=False)
z = numpy.zeros(11)
try:
    construct({int(Case.MODEL_DIVIDE)}).log_density(z)
except RuntimeError as error:
    print(error, flush=True)
{raised}
print("survived")
"""
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert "integer division whose result is no int" in ran.stdout
    assert ran.returncode == (-signal.SIGFPE if ends else 0)
    assert ("survived" in ran.stdout) is not ends
    assert says in ran.stdout + ran.stderr


# ---- Printing ----


def test_what_is_printed_in_each_block(make, printed):
    z = POINTS[0]
    make(Case.DATA_PRINT)
    model = make(Case.MODEL_PRINT)
    model.log_density(z)
    model.log_density_gradient(z)
    model = make(Case.QUANTITIES_PRINT)
    model.param_constrain(z, include_gq=True, rng=model.new_rng(1))
    matrix = "[0,0.2,0.4,0.6,0.8,1]"
    of_model = f"model: -1 0.449329; {matrix}\n"
    assert printed.messages == ["data: 4\n", of_model, of_model, "quantities: -1\n"]


@pytest.mark.parametrize("case", [Case.MODEL_PRINT_AND_REJECT, Case.MODEL_PRINT_AND_DIVIDE])
def test_what_had_been_printed_before_an_error(make, printed, case):
    z = POINTS[0]
    broken, printing = make(case), make(Case.MODEL_PRINT)
    with pytest.raises(RuntimeError):
        broken.log_density(z)
    assert [message[:7] for message in printed.messages] == ["begun: "]
    printing.log_density(z)
    assert printed.messages[1].startswith("model: ")
    assert len(printed.messages) == 2


def test_messages_of_threads_stay_whole(make, printed):
    model = make(Case.MODEL_PRINT)
    points = np.random.default_rng(2).normal(size=(200, 11))

    def message(z):
        shown = ",".join(f"{x:.6g}" for x in z[5:])
        return f"model: {z[0]:.6g} {np.exp(z[1]):.6g}; [{shown}]\n"

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(model.log_density_gradient, points))
    assert sorted(printed.messages) == sorted(map(message, points))
    assert printed.overlaps == 0


def test_prints_go_to_the_callback_or_to_standard_output(make, printed, capfd):
    del printed  # which leaves no callback
    shown = "model: -1 0.449329; [0,0.2,0.4,0.6,0.8,1]\n"
    model = make(Case.MODEL_PRINT, capture=True)
    with contextlib.redirect_stdout(io.StringIO()) as output:
        model.log_density(POINTS[0])
        assert output.getvalue() == shown
        assert capfd.readouterr().out == ""
        model.stanlib.bs_set_print_callback(type(bridgestan.model._print_callback)(), None)
        model.log_density(POINTS[0])
        assert output.getvalue() == shown
        assert capfd.readouterr().out == shown


# ---- Threads and memory ----


def test_threads_share_a_model(model, make):
    points = np.random.default_rng(3).normal(size=(400, 11))
    another = make(y=Y + 1)

    def evaluate(z):
        rng = model.new_rng(4)
        return np.concatenate(
            [
                [model.log_density(z), another.log_density(z, propto=False)],
                model.log_density_gradient(z)[1],
                model.log_density_hessian(z)[2].ravel(),
                model.param_constrain(z, rng=rng, **BOTH),
                model.param_unconstrain(model.param_constrain(z)),
                model.param_initialize(rng),
            ]
        )

    one_by_one = np.array([evaluate(z) for z in points])
    with ThreadPoolExecutor(8) as pool:
        at_once = np.array(list(pool.map(evaluate, points)))
    np.testing.assert_array_equal(at_once, one_by_one)


def test_models_of_one_library_have_data_of_their_own(make, model):
    other = make(n=1, y=[100.0])
    z = POINTS[1]
    before = model.log_density(z)
    difference = stats.norm.logpdf(100, z[0], np.exp(z[1]))
    difference -= stats.norm.logpdf(Y, z[0], np.exp(z[1])).sum()
    got = other.log_density(z, propto=False) - model.log_density(z, propto=False)
    assert got == pytest.approx(difference, rel=1e-12)
    del other
    gc.collect()
    assert model.log_density(z) == before


def memory() -> int:
    """Bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc/self/statm")
def test_nothing_grows(make, model):
    large, z = np.random.default_rng(4).normal(size=30_000), POINTS[0]
    broken = make(Case.MODEL_ERROR)
    text = json.dumps({"n": len(large), "y": large.tolist(), "situation": 2, "divisor": 1}).encode()

    def models():
        for _ in range(10):
            data = make(n=len(large), y=large)
            data.log_density_gradient(z)
            assert model._construct(text, 1, None) is None

    def calls():
        for _ in range(2000):
            with pytest.raises(RuntimeError):
                broken.log_density_gradient(z)
            rng = model.new_rng(1)
            model.param_constrain(z, rng=rng, **BOTH)
            model.param_initialize(rng)
            model.log_density(z)

    def threads():
        for _ in range(100):
            thread = threading.Thread(target=model.log_density_gradient, args=(z,))
            thread.start()
            thread.join()

    for work, room in ((models, 2e6), (calls, 3e5), (threads, 3e5)):
        work()
        gc.collect()
        before = memory()
        work()
        work()
        gc.collect()
        assert memory() - before < room, work.__name__


# ---- Sanitizers ----

DRIVER = Path(__file__).parent / "sanitizers" / "driver.cpp"
SUPPRESSED = DRIVER.with_name("thread.suppressions")


def driver_of(folder, headers, *flags):
    """The driver, compiled in one piece with the program and StanFlow's sources."""
    program, header, source = folder / "rich.stan", folder / "rich.hpp", folder / "driver.cpp"
    program.write_text(RICH)
    stanc = [headers.folder / "stanc", "--name=rich", f"--o={header}", program]
    subprocess.run(stanc, check=True, capture_output=True)
    own = Path(native.__file__).with_name("native_cpp")
    cases = ", ".join(f"{case.name} = {int(case)}" for case in Case)
    source.write_text(
        f"""
#define USING_R
#include "{own / "stan.hpp"}"
#define profile unmeasured_profile
#include "{header}"
#undef profile
extern "C" stan::model::model_base* stanflow_new_model(stan::io::var_context& data,
                                                       unsigned int seed, std::ostream* output) {{
  return new stan_model(data, seed, output);
}}
#include "{own / "bridgestan_interface.cpp"}"
#undef PUBLIC
#include "{own / "nuts.cpp"}"
enum which_case {{ {cases} }};
#include "{DRIVER}"
"""
    )
    libraries = headers.folder / "lib"
    command = [
        *compiler(), "-std=c++17", "-O1", "-g", "-fno-omit-frame-pointer", "-w", *flags,
        *(flag for flag in stan_headers._FLAGS if flag.startswith("-D") and flag != "-DNDEBUG"),
        "-isystem", headers.folder / "include", source, *libraries.glob("*.a"),
        next(libraries.glob("libtbb*.dylib" if sys.platform == "darwin" else "libtbb.so.*")),
        f"-Wl,-rpath,{libraries}", "-ldl", "-pthread", "-o", folder / "driver",
    ]  # fmt: skip
    subprocess.run(command, check=True)
    return folder / "driver"


def can_sanitize(folder, *flags):
    """Whether the compiler has a sanitizer that runs here."""
    source = folder / "empty.cpp"
    source.write_text("int main() {}")
    command = [*compiler(), *flags, source, "-o", folder / "empty"]
    made = subprocess.run(command, capture_output=True, check=False)
    return (
        made.returncode == 0
        and subprocess.run([folder / "empty"], capture_output=True, check=False).returncode == 0
    )


def run_sanitized(driver, *parts, **options):
    ran = subprocess.run(
        [driver, *parts],
        env=os.environ | {name: ":".join(values) for name, values in options.items()},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert ran.returncode == 0, ran.stderr[-5000:]
    assert "0 expectations were not met" in ran.stderr


@pytest.mark.slow
def test_the_address_and_undefined_behaviour_sanitizers(headers, tmp_path):
    # Integer divisions by zero are what `divide` is about, and are to raise SIGFPE. TBB's headers
    # call a method of tasks that are not yet constructed.
    flags = (
        "-fsanitize=address,undefined", "-fno-sanitize=integer-divide-by-zero,vptr",
        "-fno-sanitize-recover=undefined",
    )  # fmt: skip
    if not can_sanitize(tmp_path, *flags):
        pytest.skip("the compiler has no address sanitizer that runs here")
    driver = driver_of(tmp_path, headers, *flags)
    run_sanitized(driver, ASAN_OPTIONS=["detect_leaks=1", "detect_stack_use_after_return=1"])
    run_sanitized(driver, "divide", ASAN_OPTIONS=["detect_leaks=0"])


@pytest.mark.slow
def test_the_thread_sanitizer(headers, tmp_path):
    if not can_sanitize(tmp_path, "-fsanitize=thread"):
        pytest.skip("the compiler has no thread sanitizer that runs here")
    driver = driver_of(tmp_path, headers, "-fsanitize=thread")
    run_sanitized(driver, TSAN_OPTIONS=["halt_on_error=1", f"suppressions={SUPPRESSED}"])
    run_sanitized(driver, "divide", TSAN_OPTIONS=["halt_on_error=1", f"suppressions={SUPPRESSED}"])
