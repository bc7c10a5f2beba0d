import math

import pytest
import torch

from stanflow.errors import UsageError
from stanflow.training.config import TrainConfig


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 0}, "batch must be at least 1"),
        ({"max_steps": -3}, "max_steps must be at least 1"),
        ({"min_steps": 0}, "min_steps must be at least 1"),
        ({"max_seconds": 0.0}, "max_seconds must be positive"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive"),
        ({"max_gradient_norm": 0.0}, "max_gradient_norm must be positive"),
        ({"memory_budget_mb": -1.0}, "memory_budget_mb must be positive"),
        ({"memory_budget_mb": math.inf}, "memory_budget_mb must be finite"),
        ({"adam_betas": (0.9, 1.0)}, "adam_betas must be in"),
        ({"tail_share": 1.0}, r"tail_share must be in \[0, 1\)"),
        ({"tail_share": float("nan")}, "tail_share must be in"),
        ({"gradient": "total"}, "total gradients need tail_share 0"),
        ({"gradient": "score"}, "gradient must be path or total, not 'score'"),
        ({"memory": "some"}, "memory must be auto or keep or rebuild"),
        ({"precision": "float16"}, "precision must be float32 or float64"),
        ({"schedule": "linear"}, "schedule must be plateau or cosine or constant"),
        ({"start": "map"}, "start must be ensemble or mean-field or none"),
        ({"device": "tpu"}, "device must be cpu or cuda"),
    ],
)
def test_values_out_of_range_are_refused(change, message):
    with pytest.raises(UsageError, match=message):
        TrainConfig(**change)


def test_what_depends_on_the_dimension_is_filled_in_unless_it_is_given():
    small, large = (TrainConfig().resolved(dim) for dim in (40, 5000))
    assert large.learning_rate < small.learning_rate
    assert large.max_steps < small.max_steps == 4000
    given = TrainConfig(batch=7, max_steps=5, learning_rate=0.3)
    assert given.resolved(5000) == given
    assert small.resolved(5000) == small


@pytest.mark.parametrize(
    ("spare", "draws"), [(None, [32, 256, 128]), (True, [32, 64, 64]), (False, [256, 256, 128])]
)
def test_gradients_are_spared_in_few_dimensions_or_where_it_is_said(spare, draws):
    config = TrainConfig(spare_gradients=spare)
    assert [config.draws_a_step(dim) for dim in (20, 21, 501)] == draws


def test_a_device_that_is_not_there_is_refused():
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    TrainConfig().check_device()
    with pytest.raises(UsageError, match="no CUDA device"):
        TrainConfig(device="cuda").check_device()
