"""Grids whose drivers are killed at any moment, two at a time, end as if nothing had been."""
import json
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import toy_graph
from kill_test import ROOT, Watch, artifacts

from w2s_jax.store.artifacts import Store

pytestmark = pytest.mark.long

TOY = (str(ROOT / 'tests' / 'helpers' / 'toy_graph.py'), '{folder}', '.02')
GRID = ('-m', 'experiments.grid', '--config=tests/helpers/small_grid.py', '--workdir={folder}')


def start(command, folder: pathlib.Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, *(word.format(folder=folder) for word in command)], cwd=ROOT,
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(command, folder: pathlib.Path) -> int:
    """Runs to the end. Returns how many events that took."""
    process, watch = start(command, folder), Events(folder)
    while process.poll() is None:
        watch.look()
        time.sleep(.005)
    assert process.returncode == 0, process.stderr.read()
    return watch.events()


class Events(Watch):
    """Counts the lines of the toy's own log too."""

    def look(self) -> None:
        super().look()
        log = self.folder / 'events'
        self.seen |= {('event', i) for i in range(log.read_text().count('\n') if log.exists() else 0)}


def kill_after(events: int, processes: list[subprocess.Popen], watch: Events) -> None:
    """Kills the first of some processes after so many events, unless it ends before."""
    while processes[0].poll() is None and watch.events() < events:
        time.sleep(.002)
    processes[0].kill()
    err = processes[0].communicate(timeout=300)[1]
    assert processes[0].returncode in (0, -signal.SIGKILL), err


def moments(total: int, kills: int) -> list[int]:
    """After how many events to kill, so that all of the work is likely to be hit."""
    return np.random.default_rng(kills).integers(1, max(2, 2 * total // (kills + 1)), kills).tolist()


def check_kills(command, tmp_path, kills: int, outcome) -> pathlib.Path:
    whole, killed = tmp_path / 'whole', tmp_path / 'killed'
    for events in moments(finish(command, whole), kills):
        watch = Events(killed)
        kill_after(events, [start(command, killed)], watch)
    finish(command, killed)
    assert outcome(killed) == outcome(whole)
    assert not list(killed.rglob('.part-*')) and not list(killed.rglob('pending/*'))
    return killed


def check_pairs(command, tmp_path, kills: int, outcome) -> pathlib.Path:
    """Two drivers at a time, of which one is killed while the other goes on."""
    whole, killed = tmp_path / 'whole', tmp_path / 'killed'
    survivors: list[subprocess.Popen] = []
    for events in moments(finish(command, whole), kills):
        watch = Events(killed)
        pair = [start(command, killed), *(survivors or [start(command, killed)])]
        kill_after(events, pair, watch)
        survivors = [p for p in pair[1:] if p.poll() is None]
        ended = [p for p in pair[1:] if p.poll() is not None]
        assert all(p.returncode == 0 for p in ended), ended[0].stderr.read()
    for survivor in survivors:
        assert survivor.wait(600) == 0, survivor.stderr.read()
    assert outcome(killed) == outcome(whole)
    finish(command, killed)
    assert outcome(killed) == outcome(whole)
    assert not list(killed.rglob('pending/*'))
    return killed


# A graph of phases that sleep


def toy_outcome(folder: pathlib.Path) -> dict:
    return toy_graph.outcome(Store(folder))


def check_toy(folder: pathlib.Path, kills: int) -> None:
    store = Store(folder)
    assert not toy_graph.twice(store)
    assert toy_graph.repeated(store) <= 8 * kills  # a kill loses one step of one unit at most


def test_three_kills_of_a_graph(tmp_path):
    check_toy(check_kills(TOY, tmp_path, 3, toy_outcome), 3)


def test_two_drivers_and_one_is_killed(tmp_path):
    check_toy(check_pairs(TOY, tmp_path, 2, toy_outcome), 2)


@pytest.mark.slow
def test_twenty_kills_of_a_graph(tmp_path):
    check_toy(check_kills(TOY, tmp_path, 20, toy_outcome), 20)


@pytest.mark.slow
def test_two_drivers_and_ten_kills(tmp_path):
    check_toy(check_pairs(TOY, tmp_path, 10, toy_outcome), 10)


# A grid of experiments


def grid_outcome(folder: pathlib.Path) -> dict:
    """All that a grid found, without how long it took; and every number in its store."""
    found = json.loads((folder / 'grid.json').read_text())
    out = {k: v for k, v in found.items() if k not in ('timing', 'versions', 'phases')}
    for path in sorted(folder.glob('cells/*/*.json')):
        results = json.loads(path.read_text())
        out[str(path.relative_to(folder))] = {k: v for k, v in results.items() if k not in ('timing', 'versions')}
    return out | artifacts(folder)


@pytest.mark.slow
def test_twenty_kills_of_a_grid_change_no_number(tmp_path):
    check_kills(GRID, tmp_path, 20, grid_outcome)


@pytest.mark.slow
def test_two_drivers_of_a_grid_and_five_kills_change_no_number(tmp_path):
    check_pairs(GRID, tmp_path, 5, grid_outcome)
