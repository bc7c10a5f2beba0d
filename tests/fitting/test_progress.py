import math

import numpy as np

from stanflow.fitting.progress import RefineProgress, TrainProgress
from stanflow.refine.refined import RefineStep
from stanflow.training.train_step import TrainStep


def shown(capsys, elbos, rejected=0, constant=0.0):
    with TrainProgress(len(elbos), constant, seconds_of_gradients=0.025) as progress:
        for number, elbo in enumerate(elbos, start=1):
            progress(TrainStep(number, 0.1 * number, elbo, 0.1, 1.0, rejected, np.ones(3)))
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()[-1]


def test_the_last_line_says_steps_elbo_seconds_and_rejected_draws(capsys):
    line = shown(capsys, [-5.0] * 60, rejected=2, constant=-40.0)
    assert line == "step 60/60  ELBO -45.00  6.0 s  100 ms a step, 25% gradients  rejected 120"


def test_a_bad_beginning_is_forgotten_and_a_skipped_step_is_no_number(capsys):
    assert "ELBO -3.00" in shown(capsys, [-1e9] * 20 + [-3.0] * 40 + [math.nan] * 5)
    assert "ELBO nan" in shown(capsys, [math.nan] * 3)


def test_annealing_says_temperature_acceptance_evidence_and_rhat(capsys):
    with RefineProgress(constant=-40.0) as progress:
        progress(RefineStep(1, 0.5, 0.75, -3.0, math.nan, 0.2, 0.1))
        progress(RefineStep(2, 1.0, 0.8, -5.0, 1.004, 1.0, 0.3))
    (line,) = capsys.readouterr().err.splitlines()  # the first is not ten seconds old
    assert line == (
        "settling  inverse temperature 1.000  acceptance 0.80  log evidence -45.00  R-hat 1.004  "
        "0.3 s"
    )


def test_going_outward_is_another_thing_than_settling(capsys):
    with RefineProgress(constant=0.0) as progress:
        progress(RefineStep(9, 1.0, 0.8, -5.0, 1.004, 1.0, 0.3, outward=True))
    assert capsys.readouterr().err.startswith("outward  inverse temperature 1.000")
