"""Processes that were suspended for long lose their work to others, and neither harm them nor call it an error."""
import os
import signal
import time

import numpy as np
import pytest
from grid_kill_test import Events, finish, grid_outcome, start, toy_outcome
from kill_test import ROOT

pytestmark = pytest.mark.long

SILENCE = 1.0  # seconds after which a lease is free
SHORT = str(ROOT / 'tests' / 'helpers' / 'short_lease.py')
TOY = (SHORT, str(SILENCE), 'tests.helpers.toy_graph', '{folder}', '.1')
GRID = (SHORT, str(SILENCE), 'experiments.grid', '--config=tests/helpers/small_grid.py', '--workdir={folder}')


def suspend(command, folder, events: int) -> list[tuple[int, str]]:
    """Of two processes on a folder one is suspended after so many events, until the other has had time to take over.
    Returns their exit statuses and what they said."""
    pair, watch = [start(command, folder) for _ in range(2)], Events(folder)
    while pair[0].poll() is None and watch.events() < events:
        time.sleep(.005)
    if pair[0].poll() is None:
        os.kill(pair[0].pid, signal.SIGSTOP)
        time.sleep(3 * SILENCE)
        os.kill(pair[0].pid, signal.SIGCONT)
    said = [process.communicate(timeout=600)[1] for process in pair]
    return [(process.returncode, err) for process, err in zip(pair, said, strict=True)]


def check(command, tmp_path, rounds: int, outcome) -> None:
    """Whenever it is suspended: what a process held is taken over, it says so or ends well, and no number changes."""
    whole, lost = tmp_path / 'whole', 0
    total, rng = finish(command, whole), np.random.default_rng(rounds)
    for number in range(rounds):
        folder = tmp_path / str(number)
        ends = suspend(command, folder, int(rng.integers(1, total)))
        lost += sum(code == 75 for code, _ in ends)
        for code, err in ends:
            assert code in (0, 75) and 'Traceback' not in err and 'error' not in err, err
        finish(command, folder)
        assert outcome(folder) == outcome(whole)
        assert not list(folder.rglob('.part-*'))
        assert not list(folder.rglob('pending/*/members.json'))  # a rest without them goes after an hour
    print(f'{rounds} suspensions: {lost} processes lost their work')


def test_suspended_processes_of_a_graph(tmp_path):
    check(TOY, tmp_path, 3, toy_outcome)


@pytest.mark.slow
def test_twenty_suspensions_change_no_number(tmp_path):
    check(GRID, tmp_path, 20, grid_outcome)
