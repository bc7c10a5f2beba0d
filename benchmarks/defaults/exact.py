"""References in closed form, with a sampler each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize, stats

from .accuracy import NORMAL_QUARTILES, FloatArray
from .targets import Target, module_of

Sampler = Callable[[np.random.Generator, int], FloatArray]


@dataclass(frozen=True)
class Exact:
    """Exact moments and quantiles by scalar; a sampler of rows in the same order."""

    scalars: dict[str, dict[str, Any]]
    sample: Sampler


def exact(target: Target) -> Exact | None:
    """Return what is known of a target's posterior; None if it is not."""
    known = _KNOWN.get(target.folder)
    return None if known is None else known(target.data)


def _moments(mean: float, sd: float) -> dict[str, Any]:
    return {"mean": float(mean), "mean_se": 0.0, "sd": float(sd), "sd_se": 0.0}


def _quartiles(median: float, interquartile_range: float) -> dict[str, Any]:
    spread = float(interquartile_range) / NORMAL_QUARTILES
    return {"mean": None, "sd": None, "sd_se": None, "median": float(median), "spread": spread}


def _vector(name: str, n: int, scalar: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {f"{name}.{i}": scalar for i in range(1, n + 1)}


def _funnel(data: Any) -> Exact:
    nodes, node_weights = np.polynomial.hermite_e.hermegauss(100)
    scales = np.exp(1.5 * nodes)
    inside = lambda x: (  # noqa: E731
        node_weights @ (2 * stats.norm.cdf(x / scales) - 1) / node_weights.sum() - 0.5
    )
    quartile = optimize.brentq(inside, 1e-3, 10)

    def sample(rng: np.random.Generator, n: int) -> FloatArray:
        v = rng.normal(0, 3, (n, 1))
        return np.hstack([v, np.exp(v / 2) * rng.standard_normal((n, data["K"]))])

    x = _vector("x", data["K"], _quartiles(0, 2 * quartile))
    return Exact({"v": _moments(0, 3), **x}, sample)


def _student_t(data: Any) -> Exact:
    n, rho, nu = data["n"], data["rho"], data["nu"]

    def sample(rng: np.random.Generator, size: int) -> FloatArray:
        shared, own = rng.standard_normal((size, 1)), rng.standard_normal((size, n))
        normal = np.sqrt(rho) * shared + np.sqrt(1 - rho) * own
        return np.asarray(data["location"] + normal / np.sqrt(rng.chisquare(nu, (size, 1)) / nu))

    width = 2 * float(stats.t(nu).ppf(0.75))
    return Exact(_vector("x", n, _quartiles(data["location"], width)), sample)


def _normal_mixture(data: Any) -> Exact:
    d, step = data["D"], data["separation"] / np.sqrt(data["D"])

    def sample(rng: np.random.Generator, n: int) -> FloatArray:
        return np.asarray(step * rng.integers(-1, 2, (n, 1)) + rng.standard_normal((n, d)))

    return Exact(_vector("x", d, _moments(0, np.sqrt(1 + 2 / 3 * step**2))), sample)


def _bernoulli(data: Any) -> Exact:
    heads = sum(data["y"])
    posterior = stats.beta(1 + heads, 1 + data["N"] - heads)
    return Exact(
        {"theta": _moments(posterior.mean(), posterior.std())},
        lambda rng, n: posterior.rvs((n, 1), random_state=rng),
    )


def _linear_regression(data: Any) -> Exact:
    found = module_of("linear_regression", "exact").posterior(data)
    X = np.asarray(data["X"])  # noqa: N806
    shape = data["a"] + data["N"] / 2
    sigma2 = stats.invgamma(shape, scale=found.sigma2_mean * (shape - 1))
    precision = X.T @ X + np.eye(data["d"]) / data["prior_scale"] ** 2
    factor = np.linalg.cholesky(np.linalg.inv(precision))

    def sample(rng: np.random.Generator, n: int) -> FloatArray:
        variance = sigma2.rvs((n, 1), random_state=rng)
        noise = rng.standard_normal((n, data["d"])) @ factor.T
        return np.hstack([found.beta_mean + np.sqrt(variance) * noise, variance])

    beta = {
        f"beta.{i}": _moments(mean, sd)
        for i, (mean, sd) in enumerate(zip(found.beta_mean, found.beta_sd, strict=True), 1)
    }
    return Exact({**beta, "sigma2": _moments(found.sigma2_mean, found.sigma2_sd)}, sample)


_KNOWN: dict[str, Callable[[Any], Exact]] = {
    "funnel": _funnel,
    "student_t": _student_t,
    "normal_mixture": _normal_mixture,
    "bernoulli": _bernoulli,
    "linear_regression": _linear_regression,
}
