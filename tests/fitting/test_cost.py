import numpy as np
import pytest

import stanflow
from stanflow.fitting.budget import share_time
from stanflow.fitting.cost import are_dear, seconds_a_gradient
from stanflow.fitting.stages import Stages
from stanflow.stan.density import CountingTarget
from stanflow.stan.model import StanModel
from stanflow.training.checkpoint import Checkpoint

DEAR = """
data { int N; }
parameters { vector[2] x; }
model { x ~ normal(0, 1); for (n in 1:N) target += 1e-9 * square(sin(x[1] + n)); }
"""


def model(terms):
    return StanModel(stan_code=DEAR, data={"N": terms}, engine="embedded")


def test_what_takes_a_thousand_times_as_many_terms_costs_more():
    target = CountingTarget(model(30_000))
    dear, cheap = seconds_a_gradient(target), seconds_a_gradient(model(1))
    assert dear > 10 * cheap > 0
    assert target.gradients == 48


@pytest.mark.parametrize("dear", [True, False])
def test_a_run_that_goes_on_keeps_the_answer_that_it_began_with(tmp_path, dear):
    before, after = (Checkpoint(tmp_path / "state", {}) for _ in range(2))
    assert are_dear(1.0 if dear else 1e-6, before.keep("cost")) is dear
    assert not (tmp_path / "state").exists()
    before.write("another", {})
    after.read()
    assert are_dear(1e-6 if dear else 1.0, after.keep("cost")) is dear


@pytest.mark.parametrize("asked", [None, True, False])
def test_gradients_are_spared_where_they_are_dear_or_it_was_asked_for(asked):
    training = stanflow.TrainConfig(max_steps=5, spare_gradients=asked)
    fit = stanflow.fit(model(30_000), training=training, progress=False)
    assert fit.report["train_config"]["spare_gradients"] is (asked is not False)
    cost, training_stage = fit.report["cost"], fit.report["stages"]["training"]
    assert cost["seconds_a_gradient"] > 5e-5
    assert training_stage["gradient_evaluations"] == 5 * (256 if asked is False else 32)


def test_what_a_stage_takes_beside_its_gradients(monkeypatch):
    target = CountingTarget(model(1))
    clock = iter([0.0, 10.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    stages = Stages(target)
    with stages.measured("training"):
        target.log_density_gradient(np.zeros((4, 2)))
        target.log_density(np.zeros((3, 2)))
    assert stages.evaluations() == {"gradient_evaluations": 4, "density_evaluations": 3}
    assert stages.seconds_beside_gradients("training", 0.5, 4) == pytest.approx(2.0)
    assert stages.seconds_beside_gradients("training", 5.0, 4) is None


def test_of_dear_gradients_judging_takes_fewer():
    assert share_time(1e-6, 100.0, 4000, 20_000)[1] == 20_000
    seconds, judged_by = share_time(1e-2, 100.0, 4000, 20_000)
    assert judged_by == 4000
    assert 0 < seconds < 100
