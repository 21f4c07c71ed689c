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
TOY = (SHORT, str(SILENCE), 'tests.helpers.toy_graph', '{folder}', '.05')
GRID = (SHORT, str(SILENCE), 'experiments.grid', '--config=tests/helpers/small_grid.py', '--workdir={folder}')


def check(command, tmp_path, takeovers: int, outcome) -> None:
    """Of two processes one is suspended until the other has had time to take over, again and again."""
    whole, folder = tmp_path / 'whole', tmp_path / 'suspended'
    total, rng, codes = finish(command, whole), np.random.default_rng(takeovers), []
    pair = [start(command, folder) for _ in range(2)]
    for number in range(takeovers):
        until, watch = watch_for(rng.integers(1, max(2, total // 2)), folder)
        victim = pair[number % 2]
        while victim.poll() is None and watch.events() < until:
            time.sleep(.005)
        os.kill(victim.pid, signal.SIGSTOP)
        time.sleep(2.5 * SILENCE)
        os.kill(victim.pid, signal.SIGCONT)
        for i, process in enumerate(pair):
            if process.poll() is not None:
                codes.append((process.returncode, process.stderr.read()))
                pair[i] = start(command, folder)
    for process in pair:
        err = process.communicate(timeout=600)[1]
        codes.append((process.returncode, err))
    assert {code for code, _ in codes} <= {0, 75}, [err[-500:] for code, err in codes if code not in (0, 75)]
    assert all('Traceback' not in err and 'error' not in err for _, err in codes)
    print(f'{takeovers} suspensions: {sum(code == 75 for code, _ in codes)} processes lost their work and said so')
    finish(command, folder)
    assert outcome(folder) == outcome(whole)
    assert not list(folder.rglob('.part-*')) and not list(folder.rglob('pending/*'))


def watch_for(events: int, folder):
    watch = Events(folder)
    return watch.events() + events, watch


def test_suspended_processes_of_a_graph(tmp_path):
    check(TOY, tmp_path, 4, toy_outcome)


def test_suspended_processes_of_a_grid(tmp_path):
    check(GRID, tmp_path, 3, grid_outcome)


@pytest.mark.slow
def test_twenty_suspensions_change_no_number(tmp_path):
    check(GRID, tmp_path, 20, grid_outcome)
