import sys

import pytest

from stanflow import progress
from stanflow.reference.progress import NutsProgress
from stanflow.reference.run import NutsSettings

SETTINGS = NutsSettings(chains=2, warmup=10, draws=20)


def test_the_end_is_said_once(capsys):
    with NutsProgress(SETTINGS) as shown:
        for chain, iteration in ((1, 5), (2, 30), (1, 30), (1, 30), (2, 30), (1, 99)):
            shown.show(chain, iteration)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("iteration 60/60 of 2 chains  2 past warmup  ")


def test_lines_come_now_and_then(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.0)
    with NutsProgress(SETTINGS) as shown:
        shown.show(1, 11)
        shown.show(2, 3)
        shown.show(2, 2)  # late news
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" of")[0] for line in lines] == ["iteration 11/60", "iteration 14/60"]
    assert "1 past warmup" in lines[1]


@pytest.mark.parametrize("ends_well", [True, False])
def test_on_a_terminal_there_is_a_bar(capsys, monkeypatch, ends_well):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with NutsProgress(SETTINGS) as shown:
        shown.show(1, 30)
        if ends_well:
            shown.show(2, 30)
    out, err = capsys.readouterr()
    assert out == ""
    assert ("60/60" if ends_well else "30/60") in err
    assert "NUTS" in err
