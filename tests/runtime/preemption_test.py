"""SIGTERM: training stops after a step with all saved, other work at once."""
import os
import signal
import sys
import time

import pytest

from w2s_jax.errors import Preempted
from w2s_jax.runtime import preemption


@pytest.fixture(autouse=True)
def heeding(monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(sys, 'unraisablehook', sys.unraisablehook)
    monkeypatch.setattr(preemption, '_asked', False)
    preemption.heed()
    yield
    signal.signal(signal.SIGTERM, before)


def test_between_steps_it_stops_at_once():
    with pytest.raises(Preempted):
        os.kill(os.getpid(), signal.SIGTERM)


def test_in_a_loop_of_steps_it_waits_until_the_loop_asks():
    steps = []

    @preemption.at_steps()
    def loop():
        while not preemption.due():
            steps.append(len(steps))
            if len(steps) == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            steps[-1] *= 10
    loop()
    assert steps == [0, 10, 20]


def test_who_asks_twice_is_in_a_hurry():
    with preemption.at_steps(), pytest.raises(Preempted):
        os.kill(os.getpid(), signal.SIGTERM)
        assert preemption.due()
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_in_a_destructor_is_not_lost(capsys):
    """There an exception goes nowhere, and without a word; the next look says it."""
    class Late:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(.01)
    preemption.check()
    late = Late()
    del late
    with pytest.raises(Preempted):
        preemption.check()
    assert capsys.readouterr().err == ''


def test_who_takes_any_exception_for_a_damaged_file_does_not_take_this_one():
    with pytest.raises(Preempted):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Exception:
            pytest.fail('taken for something else')
