"""The zoo's synthetic targets and regressions, against their densities written anew in scipy."""

import json
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import integrate, stats

from stanflow.errors import DataError, UsageError
from stanflow.stan.model import StanModel

STANDARD_ERRORS = 4.5


def load(path):
    """Execute a Python file of the zoo as a module, as the benchmarks do."""
    spec = spec_from_file_location(path.stem, path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def data_of(zoo, path):
    return json.loads((zoo / path).read_text())


def arrays(data):
    return SimpleNamespace(**{name: np.asarray(value) for name, value in data.items()})


def log_density(model, z):
    """Stan's log density with all constants, at rows of z."""
    assert model.normalizing_constant.known
    return model.log_density_gradient(z).log_density + model.normalizing_constant.value


def evidence(model, *axes):
    """The integral of the density over a grid of unconstrained parameters, and its moments.

    The trapezoidal rule, which for smooth densities that vanish at the ends is as good as exact.
    """
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
    cell = np.prod([axis[1] - axis[0] for axis in axes])
    mass = np.exp(log_density(model, grid)) * cell
    return mass.sum(), grid, mass


# ---- Log densities ----


def funnel(data, z):
    v, x = z[0], z[1:]
    return stats.norm(0, 3).logpdf(v) + stats.norm(0, np.sqrt(np.exp(v))).logpdf(x).sum()


def student_t(data, z):
    scale = np.full((data.n, data.n), data.rho)
    np.fill_diagonal(scale, 1)
    return stats.multivariate_t(np.full(data.n, data.location), scale, df=data.nu).logpdf(z)


def normal_mixture(data, z):
    step = np.full(data.D, data.separation / np.sqrt(data.D))
    densities = [stats.multivariate_normal(k * step, np.eye(data.D)).pdf(z) for k in (-1, 0, 1)]
    return np.log(np.mean(densities))


def linear_regression(data, z):
    beta, log_sigma2 = z[:-1], z[-1]
    sigma2 = np.exp(log_sigma2)
    covariance = sigma2 * np.eye(data.N)
    return (
        stats.invgamma(data.a, scale=data.b).logpdf(sigma2)
        + stats.norm(0, data.prior_scale * np.sqrt(sigma2)).logpdf(beta).sum()
        + stats.multivariate_normal(data.X @ beta, covariance).logpdf(data.y)
        + log_sigma2
    )


def lasso(data, z):
    alpha, beta, log_sigma2, log_tau2, log_lambda = np.split(z, [1, 1 + data.d, 2 + data.d, -1])
    sigma2, tau2, penalty = np.exp(log_sigma2), np.exp(log_tau2), np.exp(log_lambda)
    parts = [
        stats.cauchy(0, 10).logpdf(alpha),
        stats.invgamma(0.5, scale=0.5).logpdf(sigma2),
        stats.cauchy(0, 1).logpdf(penalty),
        stats.expon(scale=2 / penalty**2).logpdf(tau2),
        stats.norm(0, np.sqrt(sigma2 * tau2)).logpdf(beta),
        stats.norm(alpha + data.X @ beta, np.sqrt(sigma2)).logpdf(data.y),
        *(log_sigma2, log_tau2, log_lambda),
    ]
    return sum(part.sum() for part in parts)


def horseshoe(data, z):
    alpha, beta, log_tau, log_lambda = np.split(z, [1, 1 + data.d, 2 + data.d])
    probability = 1 / (1 + np.exp(-alpha - data.X @ beta))
    parts = [
        stats.cauchy(0, 10).logpdf(alpha),
        stats.cauchy(0, 1).logpdf(np.exp(log_tau)),
        stats.cauchy(0, 1).logpdf(np.exp(log_lambda)),
        stats.norm(0, np.exp(log_tau + log_lambda)).logpdf(beta),
        stats.bernoulli(probability).logpmf(data.y),
        *(log_tau, log_lambda),
    ]
    return sum(part.sum() for part in parts)


TARGETS = [
    ("funnel", "funnel", 10, funnel),
    ("funnel", "funnel_100", 100, funnel),
    ("student_t", "student_t_10", 10, student_t),
    ("student_t", "student_t_100", 100, student_t),
    ("normal_mixture", "normal_mixture_10", 10, normal_mixture),
    ("normal_mixture", "normal_mixture_100", 100, normal_mixture),
    ("linear_regression", "linear_regression", 4, linear_regression),
    ("lasso", "lasso", 43, lasso),
    ("horseshoe_logistic", "horseshoe_logistic_10", 22, horseshoe),
]


def assert_density(model, truth, data, scale=1.0):
    z = scale * np.random.default_rng(4).standard_normal((5, model.dim))
    exact = [truth(arrays(data), row) for row in z]
    np.testing.assert_allclose(log_density(model, z), exact, rtol=1e-10)


@pytest.mark.parametrize(
    ("folder", "data", "dim", "truth"), TARGETS, ids=[data for _, data, _, _ in TARGETS]
)
def test_the_density_is_the_one_that_the_folder_names(zoo, folder, data, dim, truth):
    file = zoo / folder / f"{data}.json"
    model = StanModel(zoo / folder / f"{folder}.stan", file, engine="embedded")
    assert model.dim == dim
    assert_density(model, truth, json.loads(file.read_text()))


def test_the_regressions_take_more_covariates_than_cases(zoo):
    for folder, truth in [("linear_regression", linear_regression), ("lasso", lasso)]:
        data = load(zoo / folder / "simulate.py").simulate(20, 30, 0.1, seed=2)
        model = StanModel(zoo / folder / f"{folder}.stan", data, engine="embedded")
        assert_density(model, truth, data, scale=0.5)


# ---- Exactly known ----


def test_the_funnel_is_normalised(zoo):
    model = StanModel(zoo / "funnel/funnel.stan", {"K": 1}, engine="embedded")
    # x in units of its sd exp(v / 2), which is the measure's Jacobian.
    v, u = np.meshgrid(np.linspace(-25, 40, 1301), np.linspace(-9, 9, 181), indexing="ij")
    v, x = v.ravel(), (u * np.exp(v / 2)).ravel()
    mass = np.exp(log_density(model, np.column_stack([v, x])) + v / 2) * (65 / 1300) * (18 / 180)
    assert mass.sum() == pytest.approx(1, rel=1e-10)
    assert mass @ v == pytest.approx(0, abs=1e-10)
    assert mass @ v**2 == pytest.approx(9, rel=1e-10)
    assert mass @ x**2 == pytest.approx(np.exp(4.5), rel=1e-6)


def test_the_student_t_is_normalised(zoo):
    data = {"n": 1, "nu": 1, "location": 2, "rho": 0.8}
    program = zoo / "student_t/student_t.stan"
    model = StanModel(program, data, engine="embedded")

    def density(x):
        return float(np.exp(log_density(model, np.array([[x]])))[0])

    assert integrate.quad(density, -np.inf, np.inf)[0] == pytest.approx(1, rel=1e-7)
    # The quartiles are 1, 2 and 3.
    assert integrate.quad(density, 1, 2)[0] == pytest.approx(0.25, rel=1e-9)
    assert integrate.quad(density, 2, 3)[0] == pytest.approx(0.25, rel=1e-9)

    model = StanModel(program, data | {"n": 2}, engine="embedded")
    # Polar coordinates around the location, the radius squeezed into (0, 1).
    s, ds = np.polynomial.legendre.leggauss(200)
    s, ds = (s + 1) / 2, ds / 2
    angle = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    s, angle = np.meshgrid(s, angle, indexing="ij")
    radius = s / (1 - s)
    weight = ds[:, None] * (2 * np.pi / 400) * radius / (1 - s) ** 2
    x = 2 + radius[..., None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    mass = weight.ravel() * np.exp(log_density(model, x.reshape(-1, 2)))
    assert mass.sum() == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("dim", [1, 2])
def test_the_mixture_is_normalised_and_has_its_moments(zoo, dim):
    model = StanModel(
        zoo / "normal_mixture/normal_mixture.stan", {"D": dim, "separation": 6}, engine="embedded"
    )
    total, x, mass = evidence(model, *[np.linspace(-16, 16, 321)] * dim)
    assert total == pytest.approx(1, rel=1e-10)
    np.testing.assert_allclose(mass @ x, 0, atol=1e-10)
    covariance = np.eye(dim) + 2 / 3 * 36 / dim * np.ones((dim, dim))
    np.testing.assert_allclose(x.T @ (mass[:, None] * x), covariance, rtol=1e-10)
    u = x.sum(axis=1) / np.sqrt(dim)
    # A cell on the border of two modes is halved by it.
    right = mass[u > 3 + 1e-9].sum() + mass[np.abs(u - 3) < 1e-9].sum() / 2
    assert right == pytest.approx(1 / 3, abs=1e-4)


def test_the_mixture_in_a_hundred_dimensions_has_a_normal_mixture_on_its_axis(zoo):
    """So weights and covariance do not depend on the dimension."""
    path = "normal_mixture/normal_mixture_100.json"
    model = StanModel(zoo / "normal_mixture/normal_mixture.stan", zoo / path, engine="embedded")
    u = np.linspace(-10, 10, 41)
    axis = np.full(100, 0.1)
    across = stats.norm.logpdf(0) * 99
    expected = np.log(np.mean([stats.norm.pdf(u, mean) for mean in (-6, 0, 6)], axis=0))
    np.testing.assert_allclose(log_density(model, np.outer(u, axis)), expected + across, rtol=1e-10)


@pytest.fixture(scope="module")
def exact(zoo):
    return load(zoo / "linear_regression/exact.py")


def test_the_conjugate_regression_with_one_coefficient_by_quadrature(zoo, exact):
    rng = np.random.default_rng(5)
    X = rng.normal(size=(8, 1))  # noqa: N806
    y = 1.5 * X[:, 0] + rng.normal(size=8)
    data = {"N": 8, "d": 1, "X": X, "y": y, "prior_scale": 1.3, "a": 2.5, "b": 0.7}
    model = StanModel(zoo / "linear_regression/linear_regression.stan", data, engine="embedded")
    total, z, mass = evidence(model, np.linspace(-25, 25, 2501), np.linspace(-4, 9, 651))
    assert np.log(total) == pytest.approx(exact.log_evidence(data), abs=1e-8)
    posterior = exact.posterior(data)
    beta, sigma2 = z[:, 0], np.exp(z[:, 1])
    for values, mean, sd in [
        (beta, posterior.beta_mean[0], posterior.beta_sd[0]),
        (sigma2, posterior.sigma2_mean, posterior.sigma2_sd),
    ]:
        assert mass @ values / total == pytest.approx(mean, rel=1e-7)
        assert np.sqrt(mass @ (values - mean) ** 2 / total) == pytest.approx(sd, rel=1e-4)


@pytest.mark.parametrize("case", ["committed", "d < n", "d > n"])
def test_the_conjugate_evidence_is_prior_times_likelihood_over_posterior(zoo, exact, case):
    """Bayes' rule at any point, with the posterior's textbook density."""
    if case == "committed":
        data = data_of(zoo, "linear_regression/linear_regression.json")
    else:
        d, rho = {"d < n": (10, 0.1), "d > n": (150, 0.5)}[case]
        data = load(zoo / "linear_regression/simulate.py").simulate(100, d, rho, seed=3)
    model = StanModel(zoo / "linear_regression/linear_regression.stan", data, engine="embedded")
    X, y = np.array(data["X"]), np.array(data["y"])  # noqa: N806
    precision = X.T @ X + np.eye(data["d"]) / data["prior_scale"] ** 2
    mean = np.linalg.solve(precision, X.T @ y)
    scale = data["b"] + (y @ y - mean @ precision @ mean) / 2
    sigma2_posterior = stats.invgamma(data["a"] + data["N"] / 2, scale=scale)

    rng = np.random.default_rng(6)
    for _ in range(3):
        sigma2 = sigma2_posterior.rvs(random_state=rng)
        covariance = sigma2 * np.linalg.inv(precision)
        beta = rng.multivariate_normal(mean, covariance)
        joint = log_density(model, np.append(beta, np.log(sigma2))[None])[0] - np.log(sigma2)
        log_posterior = sigma2_posterior.logpdf(sigma2)
        log_posterior += stats.multivariate_normal(mean, covariance).logpdf(beta)
        assert joint - log_posterior == pytest.approx(exact.log_evidence(data), abs=1e-7)

    marginal = np.eye(data["N"]) + data["prior_scale"] ** 2 * X @ X.T
    marginal = stats.multivariate_t(shape=data["b"] / data["a"] * marginal, df=2 * data["a"])
    assert marginal.logpdf(y) == pytest.approx(exact.log_evidence(data), abs=1e-7)

    posterior = exact.posterior(data)
    np.testing.assert_allclose(posterior.beta_mean, mean, rtol=1e-8)
    sd = np.sqrt(np.diag(np.linalg.inv(precision)) * scale / (data["a"] + data["N"] / 2 - 1))
    np.testing.assert_allclose(posterior.beta_sd, sd, rtol=1e-8)
    assert posterior.sigma2_mean == pytest.approx(sigma2_posterior.mean())
    assert posterior.sigma2_sd == pytest.approx(sigma2_posterior.std())


def test_too_few_data_for_a_mean_have_an_infinite_one(exact):
    data = {"N": 1, "d": 1, "X": [[1.0]], "y": [2.0], "prior_scale": 1.0, "a": 0.4, "b": 0.5}
    posterior = exact.posterior(data)
    assert posterior.sigma2_mean == posterior.sigma2_sd == np.inf
    assert posterior.beta_sd[0] == np.inf
    assert posterior.beta_mean[0] == pytest.approx(1)


def test_the_line_over_years_has_its_evidence(zoo):
    """By summing the density over a grid, in coordinates without the ridge."""
    exact = load(zoo / "year_regression/exact.py").exact
    data = data_of(zoo, "year_regression/year_regression.json")
    model = StanModel(zoo / "year_regression/year_regression.stan", data, engine="embedded")
    middle = np.mean(data["year"])
    level, slope, log_sigma = np.linspace(0.7, 0.9, 81), np.linspace(0, 0.035, 81), [-3.3, -1.6]
    log_sigma = np.linspace(*log_sigma, 81)
    u = np.stack(np.meshgrid(level, slope, log_sigma, indexing="ij"), axis=-1).reshape(-1, 3)
    z = np.column_stack([u[:, 0] - middle * u[:, 1], u[:, 1], u[:, 2]])
    cell = np.prod([x[1] - x[0] for x in (level, slope, log_sigma)])
    constant = model.normalizing_constant_at(z[np.abs(u - u.mean(0)).sum(1).argsort()[:5]])
    assert constant.known
    mass = np.exp(model.log_density(z) + constant.value) * cell
    log_evidence, mean, sd = exact(data)
    assert np.log(mass.sum()) == pytest.approx(log_evidence, abs=1e-4)
    values = np.column_stack([z[:, :2], np.exp(z[:, 2])])
    by_grid = mass @ values / mass.sum()
    np.testing.assert_allclose(by_grid, mean, rtol=1e-4)
    np.testing.assert_allclose(np.sqrt(mass @ (values - by_grid) ** 2 / mass.sum()), sd, rtol=2e-3)
    assert data == load(zoo / "year_regression/simulate.py").simulate(30, 1)


def test_the_lasso_has_laplace_priors(zoo):
    """With tau2 integrated out: scale sqrt(sigma2) / lambda."""
    data = {"n": 2, "d": 1, "X": [[0.0], [0.0]], "y": [0.3, -0.2]}
    model = StanModel(zoo / "lasso/lasso.stan", data, engine="embedded")
    log_sigma2, log_lambda = 0.4, -0.3
    scale = np.exp(log_sigma2 / 2 - log_lambda)
    log_tau2 = np.linspace(-60, 12, 7201)

    def marginal(beta):
        z = np.column_stack(np.broadcast_arrays(0.1, beta, log_sigma2, log_tau2, log_lambda))
        return np.exp(log_density(model, z)).sum() * (log_tau2[1] - log_tau2[0])

    # X is zero, so that beta has its prior: only ratios to one point are compared.
    betas = np.array([-2.0, -0.5, 0.2, 1.0])
    ratios = [marginal(beta) / marginal(3.0) for beta in betas]
    laplace = stats.laplace(0, scale)
    np.testing.assert_allclose(ratios, laplace.pdf(betas) / laplace.pdf(3.0), rtol=1e-8)


# ---- Data ----

SIMULATED = ["horseshoe_logistic", "linear_regression", "lasso"]
COMMITTED = {
    "horseshoe_logistic/horseshoe_logistic_10.json": {"n": 100, "d": 10, "rho": 0.5, "seed": 1},
    "lasso/lasso.json": {"n": 100, "d": 20, "rho": 0.5, "seed": 1},
}


@pytest.mark.parametrize("dim", [10, 100])
def test_synthetic_targets_have_the_settings_of_the_paper(zoo, dim):
    student_t = {"n": dim, "nu": 1, "location": 2, "rho": 0.8}
    assert data_of(zoo, f"student_t/student_t_{dim}.json") == student_t
    mixture = {"D": dim, "separation": 6}
    assert data_of(zoo, f"normal_mixture/normal_mixture_{dim}.json") == mixture


@pytest.mark.parametrize("file", COMMITTED)
def test_committed_data_are_what_the_generator_gives(zoo, file):
    simulate = load((zoo / file).parent / "simulate.py").simulate
    assert data_of(zoo, file) == simulate(**COMMITTED[file], digits=6)


@pytest.mark.parametrize("folder", SIMULATED)
def test_a_simulation_is_the_same_as_a_script_and_as_a_module(zoo, tmp_path, folder):
    script, out = zoo / folder / "simulate.py", tmp_path / "data.json"
    options = ["--n", "7", "--d", "6", "--rho", "0.1", "--seed", "3", "--out", out]
    subprocess.run([sys.executable, script, *options], check=True, cwd=tmp_path)
    written = json.loads(out.read_text())
    simulate = load(script).simulate
    assert written == simulate(7, 6, 0.1, 3) == simulate(7, 6, 0.1, 3)
    assert written != simulate(7, 6, 0.1, 4)
    model = StanModel(zoo / folder / f"{folder}.stan", out, engine="embedded")
    assert np.isfinite(log_density(model, np.zeros((1, model.dim)))).all()


def test_the_horseshoe_benchmarks_have_the_data_that_they_had(zoo):
    """Timings and evidences that were reported depend on them."""
    data = load(zoo / "horseshoe_logistic/simulate.py").simulate(100, 1000, 0.5, 1)
    assert data["X"][0][1] == pytest.approx(0.8843342805146045, rel=1e-12)
    assert data["X"][99][999] == pytest.approx(0.47679222937405075, rel=1e-12)
    assert sum(i * y for i, y in enumerate(data["y"])) == 2421


@pytest.mark.parametrize("rho", [0.1, 0.5])
def test_simulated_covariates_have_the_correlations_of_ar1(zoo, rho):
    n = 40_000
    data = arrays(load(zoo / "linear_regression/simulate.py").simulate(n, 6, rho, seed=7))
    expected = rho ** np.abs(np.subtract.outer(np.arange(6), np.arange(6)))
    # A product of two correlated standard normals has variance 1 + correlation**2.
    error = (data.X.T @ data.X / n - expected) / np.sqrt((1 + expected**2) / n)
    assert np.abs(error).max() < STANDARD_ERRORS
    assert np.abs(data.X.mean(axis=0)).max() < STANDARD_ERRORS / np.sqrt(n)


@pytest.mark.parametrize("folder", ["linear_regression", "lasso"])
def test_simulated_linear_outcomes_have_their_coefficients(zoo, folder):
    n = 40_000
    data = arrays(load(zoo / folder / "simulate.py").simulate(n, 6, 0.5, seed=8))
    inverse = np.linalg.inv(data.X.T @ data.X)
    estimate = inverse @ data.X.T @ data.y
    error = (estimate - [3, 1.5, 0, 0, 2, 0]) / (3 * np.sqrt(np.diag(inverse)))
    assert np.abs(error).max() < STANDARD_ERRORS
    sigma = (data.y - data.X @ estimate).std()
    assert abs(sigma / 3 - 1) < STANDARD_ERRORS / np.sqrt(2 * n)


def test_simulated_binary_outcomes_have_their_coefficients(zoo):
    n = 40_000
    data = arrays(load(zoo / "horseshoe_logistic/simulate.py").simulate(n, 6, 0.5, seed=9))
    p = 1 / (1 + np.exp(-data.X @ [3, 1.5, 0, 0, 2, 0]))
    score = data.X.T @ (data.y - p)
    information = (data.X.T * (p * (1 - p))) @ data.X
    assert np.abs(score / np.sqrt(np.diag(information))).max() < STANDARD_ERRORS


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--d", "4"], "d must be at least 5, not 4"),
        (["--n", "0"], "n must be at least 1, not 0"),
        (["--rho", "1.5"], "rho must be between -1 and 1, not 1.5"),
    ],
)
def test_a_design_that_cannot_be_is_refused_in_one_sentence(zoo, tmp_path, options, problem):
    script = zoo / "linear_regression/simulate.py"
    run = subprocess.run(
        [sys.executable, script, *options, "--out", tmp_path / "data.json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1] == f"simulate.py: error: {problem}"
    arguments = {"n": 10, "d": 5, "rho": 0.5}
    name, value = options[0][2:], float(options[1])
    arguments[name] = value if name == "rho" else int(value)
    for folder in SIMULATED:
        with pytest.raises(UsageError, match=problem):
            load(zoo / folder / "simulate.py").simulate(**arguments, seed=1)


# ---- Breast cancer ----


def test_interactions_are_of_all_pairs_and_standardised(zoo):
    prepare = load(zoo / "breast_cancer/prepare.py")
    measurements = np.random.default_rng(10).gamma(2, 5, size=(50, 30))
    X = prepare.with_interactions(measurements)  # noqa: N806
    assert X.shape == (50, 465)
    np.testing.assert_allclose(X.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(X.std(axis=0), 1)
    main = stats.zscore(measurements)
    np.testing.assert_allclose(X[:, :30], main)
    pairs = list(combinations(range(30), 2))
    for column in (0, 28, 29, 434):
        i, j = pairs[column]
        np.testing.assert_allclose(X[:, 30 + column], stats.zscore(main[:, i] * main[:, j]))


def test_the_horseshoe_takes_all_interactions(zoo):
    rng = np.random.default_rng(11)
    X = load(zoo / "breast_cancer/prepare.py").with_interactions(rng.normal(size=(40, 30)))  # noqa: N806
    data = {"n": 40, "d": 465, "X": X, "y": rng.integers(2, size=40)}
    program = zoo / "horseshoe_logistic/horseshoe_logistic.stan"
    model = StanModel(program, data, engine="embedded")
    assert model.dim == 932
    assert_density(model, horseshoe, data, scale=0.3)


def test_without_scikit_learn_one_sentence_says_what_to_install(zoo, tmp_path, monkeypatch):
    script = zoo / "breast_cancer/prepare.py"
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.delitem(sys.modules, "sklearn.datasets", raising=False)
    with pytest.raises(DataError, match="pip install scikit-learn"):
        load(script).prepare()
    # None in sys.modules is what an import that fails looks like, wherever this runs.
    without = (
        "import runpy, sys; sys.modules['sklearn'] = None; script = sys.argv.pop(1); "
        "runpy.run_path(script, run_name='__main__')"
    )
    run = subprocess.run(
        [sys.executable, "-c", without, script, "--out", tmp_path / "data.json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    assert run.stderr == (
        "the breast cancer data come with scikit-learn, which is not installed: "
        "run pip install scikit-learn\n"
    )
    assert not (tmp_path / "data.json").exists()


def test_the_breast_cancer_data(zoo):
    pytest.importorskip("sklearn")
    data = load(zoo / "breast_cancer/prepare.py").prepare()
    assert (data["n"], data["d"], sum(data["y"])) == (569, 465, 357)
    program = zoo / "horseshoe_logistic/horseshoe_logistic.stan"
    model = StanModel(program, data, engine="embedded")
    assert_density(model, horseshoe, data, scale=0.01)
