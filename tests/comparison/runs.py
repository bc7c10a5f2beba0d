"""Runs made of given draws, for tests that need no Stan."""

from __future__ import annotations

import numpy as np

from stanflow.fitting.result import Fit
from stanflow.flow.config import FlowConfig
from stanflow.flow.realnvp import build_flow
from stanflow.reference.result import NutsFit

CONSTANT = {"value": 0.0, "known": True, "reason": "exact"}


def columns_of(n):
    return ("x",) if n == 1 else tuple(f"x.{i + 1}" for i in range(n))


def program_of(n):
    declaration = "real x;" if n == 1 else f"vector[{n}] x;"
    return f"parameters {{ {declaration} }} model {{ }}"


def nuts_run(values, *, columns=None, program=None, statistics=None, **report):
    """A NUTS run with draws of shape (chains, draws, n)."""
    n = values.shape[-1]
    return NutsFit(
        report={"model": "given", "engine": "embedded", "seed": 1, "warnings": [], **report},
        columns=columns or columns_of(n),
        values=values,
        statistics=statistics or {},
        program=program or program_of(n),
        data="{}",
    )


def flow_run(values, *, columns=None, program=None, log_weights=None, **report):
    """A fit with independent draws of shape (S, n); its flow has nothing to do with them."""
    draws, n = values.shape
    if log_weights is None:
        log_weights = np.full(draws, -np.log(draws))
    known = {
        "model": "given", "engine": "embedded", "family": "meanfield", "dim": n, "seed": 1,
        "elbo": -1.0, "elbo_se": 0.1, "normalized": True, "normalizing_constant": CONSTANT,
        "log_evidence": -0.9, "log_evidence_se": 0.1, "pareto_k": 0.2, "importance_ess": draws,
        "verdict": "good", "reasons": ["all is well"],
    }  # fmt: skip
    return Fit(
        report={**known, **report},
        columns=columns or columns_of(n),
        values=values,
        z=values,
        log_p=log_weights - 2.0,
        log_q=np.full(draws, -2.0),
        log_weights=log_weights,
        flow=build_flow(FlowConfig(family="meanfield", base="gaussian"), n, 0, None).double(),
        steps={
            "step": np.arange(1.0, 101),
            "elbo": -1 - 100 / np.arange(1, 101),
            "rejected": np.zeros(100),
        },
        program=program or program_of(n),
        data="{}",
    )


def autoregression(rng, correlation, chains, draws, n):
    """Chains that are standard normal at every step, correlated from step to step."""
    noise = rng.normal(size=(chains, draws, n))
    x = noise.copy()
    for step in range(1, draws):
        x[:, step] = correlation * x[:, step - 1] + np.sqrt(1 - correlation**2) * noise[:, step]
    return x
