"""Killed at any moment and started again, a run ends with the same numbers as one that nothing stopped."""
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from w2s_jax.models.zoo import ASSETS
from w2s_jax.store.artifacts import Artifact

pytestmark = pytest.mark.long

ROOT = pathlib.Path(__file__).parents[2]
SALIENT = ('--config=configs/salient_concept.py:long', '--config.seeds=(0, 1)', '--config.task.train_size=640',
           '--config.task.test_size=100', '--config.train.batch_size=16', '--config.train.epochs=10',
           '--config.train.checkpoint_every=20', '--config.report.html=False')
QUICKSTART = ('--config=configs/quickstart.py', '--config.train.checkpoint_every=10', '--config.report.html=False')
WEIGHTS = [ASSETS / 'chess' / f'{name}.safetensors' for name in ('chess-xs', 'chess-s')]
MISSING = [str(path) for path in WEIGHTS if not path.exists()]


class Watch:
    """Counts what a run has done by what appears in its folder: lines of metrics, and files of every kind."""

    def __init__(self, folder: pathlib.Path):
        self.folder, self.seen = folder, set()
        self.look()
        self.before = len(self.seen)

    def look(self) -> None:
        self.seen |= {os.path.join(top, name) for top, _, names in os.walk(self.folder) for name in names}
        log = self.folder / 'metrics.jsonl'
        self.seen |= set(range(log.read_text().count('\n') if log.exists() else 0))

    def events(self) -> int:
        self.look()
        return len(self.seen) - self.before


def start(args, folder: pathlib.Path) -> subprocess.Popen:
    env = os.environ | {'JAX_PLATFORMS': 'cpu'}
    return subprocess.Popen([sys.executable, '-m', 'experiments.run', *args, f'--workdir={folder}'], cwd=ROOT, env=env,
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(args, folder: pathlib.Path) -> int:
    """Runs to the end. Returns how many events that took."""
    process, watch = start(args, folder), Watch(folder)
    while process.poll() is None:
        watch.look()
        time.sleep(.005)
    assert process.returncode == 0, process.stderr.read()
    return watch.events()


def stop_after(events: int, how: signal.Signals, args, folder: pathlib.Path) -> None:
    """Runs, and ends the process after so many events."""
    watch = Watch(folder)
    process = start(args, folder)
    while process.poll() is None and watch.events() < events:
        time.sleep(.002)
    process.send_signal(how)
    err = process.communicate(timeout=300)[1]
    ends = {signal.SIGKILL: [-9], signal.SIGINT: [130], signal.SIGTERM: [75, -15]}  # -15: before it has begun
    assert process.returncode in ends[how], err
    assert 'Traceback' not in err


def outcome(folder: pathlib.Path) -> dict:
    """All that a run found, without how long it took."""
    results = json.loads((folder / 'results.json').read_text())
    return {k: v for k, v in results.items() if k not in ('timing', 'versions')} | {
        'evaluation': json.loads((folder / 'evaluation.json').read_text())}


def artifacts(folder: pathlib.Path) -> dict[str, dict[str, bytes]]:
    """Every number that a run stored: artifact -> array or weight file -> bytes."""
    out = {}
    for done in folder.glob('store/[!.]*/DONE'):
        path = done.parent
        files = {p.name: p.read_bytes() for p in path.glob('params/*')}
        arrays = Artifact(path).arrays if (path / 'predictions.npz').exists() else {}
        out[path.name] = files | {k: v.tobytes() for k, v in arrays.items()}
    return out


def check_stops(args, tmp_path: pathlib.Path, stops: list[signal.Signals]) -> None:
    whole, killed = tmp_path / 'whole', tmp_path / 'killed'
    total = finish(args, whole)
    rng = np.random.default_rng(len(stops))
    for how in stops:
        stop_after(int(rng.integers(1, max(2, total // (len(stops) + 1)))), how, args, killed)
    finish(args, killed)
    assert outcome(killed) == outcome(whole)
    assert artifacts(killed) == artifacts(whole)
    assert list((killed / 'store' / 'pending').iterdir()) == []
    assert list(killed.rglob('.part-*')) == []


def test_kills_and_a_preemption_change_no_number(tmp_path):
    check_stops(SALIENT, tmp_path, [signal.SIGKILL, signal.SIGTERM, signal.SIGKILL])


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f'not there: {", ".join(MISSING)}')
def test_ten_kills_of_the_quickstart_change_no_number(tmp_path):
    check_stops(QUICKSTART, tmp_path, [signal.SIGKILL] * 10)


@pytest.mark.slow
def test_kills_and_interruptions_in_turn_change_no_number(tmp_path):
    check_stops(SALIENT, tmp_path, [signal.SIGKILL, signal.SIGINT, signal.SIGTERM] * 8)
