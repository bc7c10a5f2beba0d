"""What the help says of defaults is what the code does."""

import re
from functools import partial

import pytest

import stanflow
from stanflow.reference.run import NutsSettings
from tests.command_line import run


def helped(command, option):
    """The help of an option on one line."""
    text = " ".join(run(command, "--help").stdout.split())
    start = text.index(f" --{option} <")
    return text[start : text.index(" --", start + 3)]


@pytest.mark.parametrize(
    ("option", "of"),
    [
        ("layers", stanflow.FlowConfig().depth),
        ("hidden", stanflow.FlowConfig().hidden_units),
        ("batch", stanflow.TrainConfig().draws_a_step),
        ("max-steps", partial(stanflow.RefineConfig().steps_before, otherwise=0)),
    ],
)
def test_defaults_by_dimension(option, of):
    told = helped("fit", option)
    few, then, dim = re.search(r"default: (\d+), (\w+) above (\d+) dimensions", told).groups()
    assert of(2) == of(int(dim)) == int(few)
    above = of(int(dim) + 1)
    if then in {"fewer", "more"}:
        assert (above > int(few)) == (then == "more")
    else:
        assert above == int(then)


def test_defaults_of_nuts():
    settings = NutsSettings()
    for option in ("chains", "warmup", "draws", "adapt_delta", "max_treedepth", "metric"):
        told = helped("nuts", option.replace("_", "-"))
        assert f"[default: {getattr(settings, option)}]" in told
