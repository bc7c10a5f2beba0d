import numpy as np
import pytest

from stanflow.stan.density import DensityBatch
from stanflow.stan.gradient_check import check_gradient
from stanflow.stan.model import StanModel


def model(statements, size=3):
    code = f"parameters {{ vector[{size}] x; }} model {{ {statements} }}"
    return StanModel(stan_code=code, engine="embedded")


def test_a_right_gradient_agrees():
    check = check_gradient(model("x ~ normal(0, 1); target += sin(x[1] * x[2]);"), seed=0)
    assert check.agrees
    assert check.error < 1e-9


def test_the_parameter_whose_gradient_is_wrong_is_named(monkeypatch):
    target = model("x ~ normal(0, 1);")
    evaluate = target.log_density_gradient

    def one_percent_off(z):
        batch = evaluate(z)
        batch.gradient[:, 1] *= 1.01
        return DensityBatch(batch.log_density, batch.gradient, batch.accepted)

    monkeypatch.setattr(target, "log_density_gradient", one_percent_off)
    check = check_gradient(target, seed=0)
    assert not check.agrees
    assert check.worst_parameter == "x.2"
    assert check.error < 0.01


def test_where_nothing_can_be_compared_nothing_agrees():
    check = check_gradient(model('if (x[1] != 0) reject("x"); target += x[1];', size=1), seed=0)
    assert check.error == np.inf
    assert not check.agrees


@pytest.mark.parametrize("size", [500])
def test_many_parameters_are_sampled(size):
    assert check_gradient(model("x ~ normal(0, 1);", size=size), seed=0).agrees
