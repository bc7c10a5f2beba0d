"""Prophet's own program on its own daily data: our flow against genuine CmdStan.

The prophet package ships its program, an executable of it that CmdStan has built, and two years
of a daily series; prophet itself makes Stan's data from these.

Three forms are compared. In the one that prophet takes by default the trend is a sum of 25 hinge
functions of time, and with yearly seasonality beside them the correlations of the posterior have a
condition number of 150,000 (15,000 in the second form here, with ten hinges). CmdStan's NUTS with
its default diagonal metric takes some 700 steps a draw there; it has a dense one here.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import arviz
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import stanflow
from stanflow.reference.sampling import nuts

STANDARD_ERRORS = 4.5
MEAN_MARGIN = 0.1  # reference standard deviations
SD_MARGIN = 0.1

PACKAGE = Path(str(files("prophet")))
PROGRAM = PACKAGE / "stan_model" / "prophet.stan"
EXECUTABLE = PACKAGE / "stan_model" / "prophet_model.bin"


def stan_data(**settings: Any) -> dict[str, Any]:
    """Stan's data for prophet's daily series, as prophet makes them for CmdStan.

    Parameters
    ----------
    settings
        Of `prophet.Prophet`.
    """
    logging.getLogger("prophet").setLevel(logging.ERROR)
    from prophet import Prophet
    from prophet.models import CmdStanPyBackend

    series = pd.read_csv(PACKAGE / "tests" / "data.csv", parse_dates=["ds"])
    forecaster = Prophet(**settings)
    inputs = forecaster.preprocess(series)
    start = forecaster.calculate_initial_params(inputs.K)
    _, data = CmdStanPyBackend.prepare_data(asdict(start), asdict(inputs))
    return data


FORMS = {
    # The series has no weekends, so five weekdays can tell a level and two harmonics.
    "seasons": {"growth": "flat", "yearly_seasonality": 10, "weekly_seasonality": 2},
    "trend": {"n_changepoints": 10, "yearly_seasonality": False, "weekly_seasonality": False},
    "default": {"weekly_seasonality": False},
}
STEPS = {"seasons": 1000, "trend": 3000, "default": None}
SLOW = [pytest.param(form, marks=pytest.mark.slow) for form in ("trend", "default")]


@pytest.fixture(scope="module", params=["seasons", *SLOW])
def runs(request):
    """A fit and a run of CmdStan's NUTS of the same posterior."""
    model = stanflow.StanModel(PROGRAM, stan_data(**FORMS[request.param]), engine="embedded")
    reference = nuts(
        model, seed=1, warmup=300, draws=600, exe=EXECUTABLE, metric="dense_e", progress=False
    )
    training = stanflow.TrainConfig(max_steps=STEPS[request.param])
    fit = stanflow.fit(model, seed=1, training=training, progress=False)
    return model, fit, reference


def weighted_moments(x, weights):
    """Mean and standard deviation of weighted draws, with Monte Carlo standard errors.

    By the delta method, for a ratio of weighted sums; that of the sd is relative.
    """
    mean = weights @ x
    variance = weights @ (x - mean) ** 2
    mean_se = np.sqrt(weights**2 @ (x - mean) ** 2)
    sd_se = np.sqrt(weights**2 @ ((x - mean) ** 2 - variance) ** 2) / (2 * variance)
    return mean, np.sqrt(variance), mean_se, sd_se


def test_cmdstan_has_converged(runs):
    _, _, reference = runs
    assert reference.report["engine_version"].startswith("CmdStan 2.")
    assert reference.report["max_rhat"] < 1.02
    assert reference.report["min_ess_bulk"] > 400
    assert reference.report["divergences"] == 0


def test_the_flow_agrees_with_cmdstan(runs):
    model, fit, reference = runs
    weights = np.exp(fit.log_weights)
    for i, name in enumerate(model.parameter_columns):
        theirs = reference.values[..., i]
        mean, sd, mean_se, sd_se = weighted_moments(fit.values[:, i], weights)
        error = abs(mean - theirs.mean())
        noise = np.hypot(mean_se, arviz.mcse(theirs, method="mean"))
        assert error < STANDARD_ERRORS * noise + MEAN_MARGIN * theirs.std(), name
        error = abs(np.log(sd / theirs.std()))
        noise = np.hypot(sd_se, arviz.mcse(theirs, method="sd") / theirs.std())
        assert error < STANDARD_ERRORS * noise + SD_MARGIN, name


@pytest.mark.parametrize("runs", ["seasons"], indirect=True)
def test_what_a_flat_trend_does_not_use_keeps_its_prior(runs):
    """Of both: with a flat trend the likelihood knows neither growth nor changepoints."""
    model, fit, reference = runs
    prior = stats.laplace(scale=0.05)
    for name, law in (("k", stats.norm(0, 5)), ("delta.7", prior), ("delta.25", prior)):
        i = model.columns.index(name)
        mean, sd, mean_se, sd_se = weighted_moments(fit.values[:, i], np.exp(fit.log_weights))
        assert abs(mean) < STANDARD_ERRORS * mean_se + 0.03 * law.std(), name
        assert abs(np.log(sd / law.std())) < STANDARD_ERRORS * sd_se + 0.03, name
        theirs = reference.values[..., i]
        assert abs(theirs.mean()) < STANDARD_ERRORS * arviz.mcse(theirs, method="mean"), name
        sd_se = arviz.mcse(theirs, method="sd")
        assert abs(theirs.std() - law.std()) < STANDARD_ERRORS * sd_se, name


@pytest.mark.slow
@pytest.mark.parametrize("runs", ["default"], indirect=True)
def test_the_default_form_is_fitted_by_default_settings(runs):
    _, fit, _ = runs
    assert fit.verdict == "good"
    assert fit.log_evidence_se < 0.02
