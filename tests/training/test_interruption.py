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


def test_training_works_outside_the_main_thread():
    """Where Python allows no signal handlers."""
    stopped = []
    thread = threading.Thread(
        target=lambda: stopped.append(trained(FlowConfig(layers=1), max_steps=3)[1].stopped)
    )
    thread.start()
    thread.join()
    assert stopped == ["max_steps"]
