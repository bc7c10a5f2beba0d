"""The horseshoe's log evidence and its coefficients, by Gibbs sampling at many values of tau.

With tau held, all else of horseshoe_logistic.stan is drawn by a Gibbs sampler (Polson, Scott,
Windle 2013, JASA 108, for the logistic likelihood; Bhattacharya, Chakraborty, Mallick 2016,
Biometrika 103, for all coefficients at once). The mean of ``d log p(y | tau, rest) / d log tau``,
coefficients in units of their scales, is the slope of log p(y | tau), which begins near tau = 0 as
an integral over the intercept. What was drawn at each tau has the weight that tau has.

At small tau one coefficient after the other leaves zero as suddenly as water boils, and a Gibbs
sampler would wait long for that: some coefficients are proposed anew with their scales integrated
out, half of them from what they would be by themselves.

Two chains go through all values, one upward and one downward; that they agree is the check.

    pip install polyagamma
    OMP_NUM_THREADS=1 python benchmarks/horseshoe_gibbs.py --d 100 --rho 0.1 --seed 2 --out FILE
"""

from __future__ import annotations

import argparse
import json
import math
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from polyagamma import random_polyagamma
from refining import simulated
from scipy import integrate, linalg, special, stats

from stanflow.arrays import FloatArray
from stanflow.files import write_file

PROBABILITIES = (0.05, 0.25, 0.5, 0.75, 0.95)
LOG_TAU = np.arange(-26.0, 6.25, 0.5)
INTERCEPT_SCALE = 10.0
KEPT = 200  # draws of the coefficients at each tau
JUMPS, RESCALINGS, SLICES = 2, 2, 3  # in each sweep
BATCHES = 20
_FARTHEST_SERIES, _FARTHEST_POLYA_GAMMA = 500.0, 50.0

_MAGNITUDES = np.exp(np.linspace(-5, 6, 120))
_GRID = np.concatenate([-_MAGNITUDES[::-1], _MAGNITUDES])
_EDGES = np.concatenate([_GRID[:1], 0.5 * (_GRID[1:] + _GRID[:-1]), _GRID[-1:]])
_WIDTHS = np.diff(_EDGES)
_LOG_PRECISIONS = np.linspace(-70, 70, 2801)


def log_likelihood(eta: FloatArray, y: FloatArray) -> FloatArray:
    return np.asarray((y * eta - np.logaddexp(0, eta)).sum(axis=-1))


def polya_gamma(z: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Return draws of PG(1, z).

    Far out it is an inverse normal distribution up to a factor of ``1 - 3 exp(-2 z)``, and there
    polyagamma 2.0.2 is wrong: at z = 300 its draws are a hundred times too large.
    """
    z = np.abs(z)
    near = random_polyagamma(1, np.minimum(z, _FARTHEST_POLYA_GAMMA), random_state=rng)
    far = rng.wald(0.5 / np.maximum(z, _FARTHEST_POLYA_GAMMA), 0.25)
    return np.where(z < _FARTHEST_POLYA_GAMMA, near, far)


def log_horseshoe(beta: FloatArray | float, tau: float) -> FloatArray:
    """Return a coefficient's log prior density, its scale integrated out.

    It is ``exp(x) E1(x) / sqrt(2 pi^3) / tau``, x = beta^2 / (2 tau^2) (Carvalho, Polson, Scott
    2010, Biometrika 97, appendix).
    """
    x = np.asarray(beta) ** 2 / (2 * tau**2)
    near = np.minimum(x, _FARTHEST_SERIES)
    log_near = near + np.log(special.exp1(near))
    far = np.maximum(x, _FARTHEST_SERIES)
    return np.where(x < _FARTHEST_SERIES, log_near, np.log1p(-1 / far) - np.log(far)) - math.log(
        tau * math.sqrt(2 * math.pi**3)
    )


class Alone(NamedTuple):
    """What each coefficient would be if all others were zero and its prior were 1 / beta^2.

    Attributes
    ----------
    chosen : array of shape (d,)
        How often to propose anew each of them.
    cells : array of shape (d, K)
        Probabilities of the cells of a grid.
    """

    chosen: FloatArray
    cells: FloatArray

    @classmethod
    def of(cls, X: FloatArray, y: FloatArray) -> Alone:  # noqa: N803
        intercepts = np.linspace(-12, 12, 49)
        log_prior = stats.cauchy.logpdf(intercepts, 0, INTERCEPT_SCALE)
        log_p = np.empty((X.shape[1], len(_GRID)))
        for j, x in enumerate(X.T):
            eta = intercepts[:, None, None] + _GRID[:, None] * x
            log_p[j] = np.logaddexp.reduce(log_likelihood(eta, y) + log_prior[:, None], axis=0)
        log_p += np.log(_WIDTHS / _GRID**2)
        whole = np.logaddexp.reduce(log_p, axis=1)
        chosen = 0.5 * special.softmax(whole) + 0.5 / len(whole)
        return cls(chosen, np.exp(log_p - whole[:, None]))

    def log_density(self, j: int, beta: float, tau: float) -> float:
        """Of a proposal: half from here, half from the prior."""
        cell = int(np.searchsorted(_EDGES, beta)) - 1
        inside = 0 <= cell < len(_GRID)
        here = math.log(self.cells[j, cell] / _WIDTHS[cell] + 1e-300) if inside else -math.inf
        return float(np.logaddexp(here, log_horseshoe(beta, tau))) - math.log(2)

    def draw(self, j: int, tau: float, rng: np.random.Generator) -> float:
        if rng.uniform() < 0.5:
            return tau * math.tan(0.5 * math.pi * rng.uniform()) * rng.normal()
        cell = rng.choice(len(_GRID), p=self.cells[j])
        return float(_EDGES[cell] + _WIDTHS[cell] * rng.uniform())


class Chain:
    """A Markov chain of intercept, coefficients and their scales, tau held."""

    def __init__(self, data: dict[str, Any], seed: int) -> None:
        self.X, self.y = np.array(data["X"]), np.array(data["y"], dtype=float)
        self.rng = np.random.default_rng(seed)
        self.alone = Alone.of(self.X, self.y)
        self.alpha, self.alpha_mixing = 0.0, 1.0
        self.beta = np.zeros(self.X.shape[1])
        self.precision = np.ones(self.X.shape[1])  # 1 / lambda^2
        self.rescaling = 0.3

    @property
    def eta(self) -> FloatArray:
        return np.asarray(self.alpha + self.X @ self.beta)

    def slope(self) -> float:
        """Return d log p(y | tau, rest) / d log tau."""
        return float((self.y - special.expit(self.eta)) @ (self.X @ self.beta))

    def sweep(self, tau: float) -> None:
        self._draw_coefficients(tau)
        self._draw_scales(tau)
        for _ in range(RESCALINGS):
            self._rescale()
        for j in self.rng.choice(len(self.beta), size=JUMPS, p=self.alone.chosen):
            self._jump(int(j), tau)

    def _draw_coefficients(self, tau: float) -> None:
        n, rng = len(self.y), self.rng
        root = np.sqrt(polya_gamma(self.eta, rng))
        design = root[:, None] * np.column_stack([np.ones(n), self.X])
        of_alpha = INTERCEPT_SCALE**2 * self.alpha_mixing
        variance = np.concatenate([[of_alpha], tau**2 / self.precision])
        prior = rng.normal(size=len(variance)) * np.sqrt(variance)
        away = (self.y - 0.5) / root - (design @ prior + rng.normal(size=n))
        gram = (design * variance) @ design.T + np.eye(n)
        drawn = prior + variance * (design.T @ linalg.solve(gram, away, assume_a="pos"))
        self.alpha, self.beta = float(drawn[0]), drawn[1:]

    def _draw_scales(self, tau: float) -> None:
        """Slice sampling of the precisions: ``exp(-rate p) / (1 + p)``."""
        rate = np.maximum(self.beta**2 / (2 * tau**2), 1e-12)
        for _ in range(SLICES):
            height = self.rng.uniform(size=len(rate)) / (1 + self.precision)
            below = -np.expm1(-rate * (1 / height - 1))
            drawn = -np.log1p(-self.rng.uniform(size=len(rate)) * below) / rate
            self.precision = np.clip(drawn, 1e-300, 1e300)
        rate_of_alpha = 0.5 + self.alpha**2 / (2 * INTERCEPT_SCALE**2)
        self.alpha_mixing = rate_of_alpha / self.rng.gamma(1.0)

    def _rescale(self) -> None:
        """Propose all scales, and coefficients with them, times the same."""
        log_factor = self.rescaling * self.rng.normal()
        eta, precision = self.eta, self.precision * math.exp(-2 * log_factor)
        proposed = self.alpha + (eta - self.alpha) * math.exp(log_factor)
        log_ratio = log_likelihood(proposed, self.y) - log_likelihood(eta, self.y)
        # of half-Cauchy scales, by log scale: sqrt(p) / (1 + p)
        log_ratio += (np.log1p(self.precision) - np.log1p(precision)).sum()
        log_ratio -= len(precision) * log_factor
        accepted = math.log(self.rng.uniform()) < log_ratio
        if accepted:
            self.beta, self.precision = self.beta * math.exp(log_factor), precision
        self.rescaling *= math.exp(0.01 * (accepted - 0.4))

    def _jump(self, j: int, tau: float) -> None:
        """Propose a coefficient anew, its scale integrated out; then draw that."""
        old, new = float(self.beta[j]), self.alone.draw(j, tau, self.rng)
        eta = self.eta
        log_ratio = log_likelihood(eta + (new - old) * self.X[:, j], self.y)
        log_ratio += log_horseshoe(new, tau) - self.alone.log_density(j, new, tau)
        log_ratio -= log_likelihood(eta, self.y)
        log_ratio -= log_horseshoe(old, tau) - self.alone.log_density(j, old, tau)
        if not math.log(self.rng.uniform()) < log_ratio:
            return
        self.beta[j] = new
        grid = np.exp(_LOG_PRECISIONS)
        p = special.softmax(_LOG_PRECISIONS - new**2 / (2 * tau**2) * grid - np.log1p(grid))
        at = np.interp(self.rng.uniform(), np.cumsum(p), _LOG_PRECISIONS)
        self.precision[j] = math.exp(at)


class Way(NamedTuple):
    """One chain's slopes, (K,), their standard errors, and coefficients, (K, KEPT, d + 1)."""

    slopes: FloatArray
    errors: FloatArray
    coefficients: FloatArray


def go(data: dict[str, Any], draws: int, seed: int, *, upward: bool) -> Way:
    chain = Chain(data, seed)
    order = range(len(LOG_TAU)) if upward else range(len(LOG_TAU))[::-1]
    slopes = np.empty((len(LOG_TAU), draws))
    kept = np.empty((len(LOG_TAU), KEPT, len(chain.beta) + 1))
    for k in order:
        tau = math.exp(LOG_TAU[k])
        for _ in range(draws // 4):
            chain.sweep(tau)
        for i in range(draws):
            chain.sweep(tau)
            slopes[k, i] = chain.slope()
            kept[k, i * KEPT // draws] = np.concatenate([[chain.alpha], chain.beta])
    of_batches = slopes.reshape(len(LOG_TAU), BATCHES, -1).mean(axis=2)
    errors = of_batches.std(axis=1, ddof=1) / math.sqrt(BATCHES)
    return Way(slopes.mean(axis=1), errors, kept)


def log_evidence_without_coefficients(y: FloatArray) -> float:
    alpha = np.linspace(-60, 60, 200_001)
    log_p = log_likelihood(alpha[:, None], y) + stats.cauchy.logpdf(alpha, 0, INTERCEPT_SCALE)
    return float(np.log(integrate.trapezoid(np.exp(log_p), alpha)))


def combined(data: dict[str, Any], ways: list[Way]) -> dict[str, Any]:
    slopes = np.mean([way.slopes for way in ways], axis=0)
    errors = np.hypot.reduce([way.errors for way in ways]) / len(ways)
    at = np.linspace(LOG_TAU[0], LOG_TAU[-1], 8001)
    log_p = np.interp(at, LOG_TAU, integrate.cumulative_trapezoid(slopes, LOG_TAU, initial=0))
    log_p += math.log(2 / math.pi) + at - np.log1p(np.exp(2 * at))
    log_mass = float(np.log(integrate.trapezoid(np.exp(log_p - log_p.max()), at)) + log_p.max())
    below = math.log(2 / math.pi * math.atan(math.exp(LOG_TAU[0])))
    constant = log_evidence_without_coefficients(np.array(data["y"], dtype=float))
    # Stan's density has half of each half-Cauchy.
    constant -= (data["d"] + 1) * math.log(2)
    share_above = 1 - integrate.cumulative_trapezoid(np.exp(log_p - log_mass), at, initial=0)
    step = LOG_TAU[1] - LOG_TAU[0]
    se = step * np.sqrt((np.interp(LOG_TAU, at, share_above) ** 2 * errors**2).sum())
    upward, downward = (integrate.trapezoid(way.slopes, LOG_TAU) for way in ways)
    difference = float(upward - downward)
    of_tau = np.exp(np.interp(LOG_TAU, at, log_p) - log_mass)
    coefficients = np.concatenate([way.coefficients for way in ways], axis=1)
    weights = np.repeat(of_tau, coefficients.shape[1])
    quantiles = {
        name: np.quantile(x, PROBABILITIES, weights=weights, method="inverted_cdf")
        for name, x in zip(
            ["alpha", *(f"beta[{j + 1}]" for j in range(data["d"]))],
            coefficients.reshape(-1, data["d"] + 1).T,
            strict=True,
        )
    }
    quantiles["tau"] = np.exp(np.interp(PROBABILITIES, 1 - share_above, at))
    return {
        "log_evidence": constant + float(np.logaddexp(log_mass, below)),
        "log_evidence_se": max(float(se), 0.5 * abs(difference)),
        "difference_of_chains": difference,
        "log_tau": LOG_TAU.tolist(),
        "slopes": slopes.round(4).tolist(),
        "slopes_se": errors.round(4).tolist(),
        "probabilities": PROBABILITIES,
        "quantiles": {name: [float(f"{x:.4g}") for x in q] for name, q in quantiles.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--d", type=int, default=100)
    parser.add_argument("--rho", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=2, help="of the simulated data")
    parser.add_argument("--draws", type=int, default=8000, help="at each tau")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    design = {"n": 100, "d": options.d, "rho": options.rho, "seed": options.seed}
    data = simulated("horseshoe_logistic", **design)
    with ProcessPoolExecutor(2) as pool:
        going = [pool.submit(go, data, options.draws, seed, upward=seed == 1) for seed in (1, 2)]
        result = {**design, "draws": options.draws} | combined(data, [x.result() for x in going])
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_file(options.out, (json.dumps(result) + "\n").encode())
    print(
        f"log evidence {result['log_evidence']:.3f} (se {result['log_evidence_se']:.3f}); "
        f"chains differ by {result['difference_of_chains']:.3f}"
    )


if __name__ == "__main__":
    main()
