"""Folders with damaged bytes: each reader says so in one sentence, whatever the bytes are."""

import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import stanflow
from stanflow.comparison.loading import load_run
from stanflow.errors import UsageError
from stanflow.files import CHECKSUMS, write_checksums
from stanflow.reference.sampling import nuts

CODE = """
data { int N; vector[N] y; }
parameters { real mu; real<lower=0> sigma; }
model { mu ~ normal(0, 1); sigma ~ normal(0, 1); y ~ normal(mu, sigma); }
generated quantities { vector[2] twice = 2 * [mu, sigma]'; }
"""
DATA = {"N": 3, "y": [0.5, 1.5, 2.0]}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    model = stanflow.StanModel(stan_code=CODE, data=DATA, engine="embedded")
    parent = tmp_path_factory.mktemp("whole")
    quick = stanflow.TrainConfig(max_steps=20)
    fit = stanflow.fit(model, draws=50, training=quick, progress=False)
    run = nuts(model, seed=3, chains=2, draws=50, engine="embedded", progress=False)
    return [fit.save(parent / "fit"), run.save(parent / "nuts")]


def damage(data, content):
    """Return other bytes in place of a file's."""
    start = data.draw(st.integers(0, len(content)), "start")
    end = data.draw(st.integers(start, min(len(content), start + 4096)), "end")
    kind = data.draw(st.sampled_from(["cut", "flipped", "zeros", "other", "twice", "moved"]))
    piece = content[start:end]
    return {
        "cut": content[:start],
        "flipped": content[:start] + bytes(255 - byte for byte in piece) + content[end:],
        "zeros": content[:start] + bytes(len(piece)) + content[end:],
        "other": content[:start] + data.draw(st.binary(max_size=64)) + content[end:],
        "twice": content[:end] + content[start:],
        "moved": content[:start] + content[end:] + piece,
    }[kind]


def damaged_copy(data, folders, parent):
    """Copy one of the folders, and damage one or two of its files; return it and whether it is."""
    whole = data.draw(st.sampled_from(folders))
    copy = parent / "damaged"
    shutil.copytree(whole, copy)
    names = sorted(file.name for file in whole.iterdir())
    changed = False
    for name in data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True)):
        content = (whole / name).read_bytes()
        (copy / name).write_bytes(damage(data, content))
        changed |= (copy / name).read_bytes() != content
    return copy, changed


def says_in_one_sentence(folder):
    """Whether a folder cannot be read, for a reason given on one line that names it."""
    try:
        load_run(folder)
    except UsageError as error:
        assert "\n" not in str(error)
        assert str(folder) in str(error)
        return True
    return False


@given(data=st.data())
def test_damaged_bytes_are_never_read_as_a_run(folders, tmp_path_factory, data):
    folder, changed = damaged_copy(data, folders, tmp_path_factory.mktemp("damaged"))
    assert says_in_one_sentence(folder) == changed
    shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Exception ignored in. <function File.close")  # h5netcdf's
@settings(max_examples=1000, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_no_bytes_break_a_reader(folders, tmp_path_factory, data):
    """Behind right checksums, too: no exception but the one sentence, and no crash of a library."""
    folder, _ = damaged_copy(data, folders, tmp_path_factory.mktemp("damaged"))
    (folder / CHECKSUMS).unlink()
    write_checksums(folder)
    says_in_one_sentence(folder)
    shutil.rmtree(folder)
