import signal
import threading

import pytest

from stanflow.flow.config import FlowConfig
from stanflow.training.interruption import Interruption

from .targets import trained


def test_the_first_ctrl_c_asks_and_the_second_interrupts():
    with pytest.raises(KeyboardInterrupt), Interruption() as interruption:
        signal.raise_signal(signal.SIGINT)
        assert interruption.requested
        signal.raise_signal(signal.SIGINT)
    with Interruption() as interruption:
        pass
    assert not interruption.requested
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.fixture
def terminations():
    """SIGTERMs that get through, instead of ending the tests."""
    came = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    yield came
    signal.signal(signal.SIGTERM, before)


def test_sigterm_waits_for_the_end_of_the_block(terminations):
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGTERM)
        assert interruption.terminated
        assert not terminations
    assert terminations == [signal.SIGTERM]


def test_a_second_sigterm_does_not_wait(terminations):
    with Interruption():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert terminations == [signal.SIGTERM]


def test_an_error_says_more_than_sigterm(terminations):
    with pytest.raises(OSError, match="full"), Interruption():
        signal.raise_signal(signal.SIGTERM)
        raise OSError("full")
    assert not terminations


def test_training_works_outside_the_main_thread():
    """Where Python allows no signal handlers."""
    stopped = []
    thread = threading.Thread(
        target=lambda: stopped.append(trained(FlowConfig(layers=1), max_steps=3)[1].stopped)
    )
    thread.start()
    thread.join()
    assert stopped == ["max_steps"]
