"""Programs whose transformed data block draws random numbers: seeds decide on the data."""

import numpy as np
import pytest

import stanflow
from stanflow.errors import UsageError

CODE = """
transformed data { real y = normal_rng(0, 10); }
parameters { real mu; } model { mu ~ normal(0, 1); y ~ normal(mu, 1); }
"""


def runs(fit_seed, nuts_seed):
    model = stanflow.StanModel(stan_code=CODE, engine="embedded", seed=fit_seed)
    quick = stanflow.TrainConfig(max_steps=300)
    fit = stanflow.fit(model, draws=500, evidence_draws=500, training=quick, progress=False)
    run = stanflow.nuts(model, seed=nuts_seed, draws=300, engine="embedded", progress=False)
    return fit, run


def test_runs_that_drew_other_data_are_told_to_have():
    with pytest.raises(
        UsageError,
        match=r"transformed data block, so these runs have different data \(seed 1 of the embedded "
        r"engine and seed 2 of the embedded engine\)",
    ):
        stanflow.compare(*runs(1, 2))


def test_runs_that_drew_the_same_data_are_compared():
    """Bridge sampling, too, whose model must draw them once more."""
    fit, run = runs(3, 3)
    found = stanflow.compare(fit, run)
    bridge = found.evidence.entries[-1]
    assert bridge.method == "bridge sampling"
    assert bridge.value == pytest.approx(fit.log_evidence, abs=0.1)
    assert np.abs(run.stan_variable("mu").mean() - fit.stan_variable("mu").mean()) < 0.3
