"""Stopped at random moments, by whatever signal and in whatever it is doing, a command ends with the same files."""
import json
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tiny
from kill_test import ROOT
from words import sentences

pytestmark = pytest.mark.long

SMALL = ('--config.seeds=(0, 1)', '--config.report.resamples=100', '--config.report.html=False')
RUNS = {
    'quickstart': ('experiments.run', '--config=configs/quickstart.py', *SMALL, '--config.task.train_size=160',
                   '--config.task.test_size=80', '--config.student.model=chess-s', '--config.train.checkpoint_every=2'),
    'grid': ('experiments.grid', '--config=tests/helpers/small_grid.py'),
    'bootstrap': ('experiments.run', '--config=configs/bootstrap.py', *SMALL, '--config.task.train_size=640',
                  '--config.task.test_size=100', '--config.student.model=mlp-128', '--config.method.chain=("mlp-4",)',
                  '--config.train.epochs=4', '--config.train.checkpoint_every=4'),
    'features': ('experiments.run', '--config=configs/own_data.py:probe', *SMALL, '--config.task.path={parent}/rows',
                 '--config.task.text=text', '--config.task.label=label', '--config.teacher.model={parent}/tiny',
                 '--config.student.model={parent}/tiny', '--config.student.layers=1', '--config.train.epochs=20',
                 '--config.train.batch_size=32', '--config.train.eval_batch_size=8'),
}
ENDS = {signal.SIGKILL: (-9, 0), signal.SIGTERM: (75, -15, 0)}  # -15: before it has begun to listen; 0: it was over


def start(name: str, folder: pathlib.Path) -> subprocess.Popen:
    parent = folder.parents[1]
    if name == 'features' and not (parent / 'tiny').exists():
        tiny.folder(parent / 'tiny')
        (parent / 'rows').mkdir()
        (parent / 'rows' / 'train.jsonl').write_text('\n'.join(map(json.dumps, sentences(400))))
    words = (w.format(parent=parent) for w in RUNS[name])
    return subprocess.Popen([sys.executable, '-m', *words, f'--workdir={folder}'], cwd=ROOT, text=True,
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(name: str, folder: pathlib.Path) -> float:
    """Runs to the end. Returns the seconds that took."""
    began, process = time.monotonic(), start(name, folder)
    err = process.communicate(timeout=600)[1]
    assert process.returncode == 0, err
    return time.monotonic() - began


def check(name: str, tmp_path: pathlib.Path, stops: int, how: signal.Signals) -> None:
    """After each stop the same command goes on; once it is over, another is begun."""
    seconds, rng, codes, works = finish(name, tmp_path / 'whole' / 'w'), np.random.default_rng(stops), [], 0
    for _ in range(stops):
        folder = tmp_path / str(works) / 'w'
        process = start(name, folder)
        try:
            process.wait(rng.uniform(.3, 1) * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(how)
        err = process.communicate(timeout=60)[1]
        codes.append(process.returncode)
        assert process.returncode in ENDS[how] and 'Traceback' not in err, err
        works += process.returncode == 0
    print(f'{name}: {stops} times {how.name}, {codes.count(0)} of them too late')
    for number in range(works + 1):
        folder = tmp_path / str(number) / 'w'
        finish(name, folder)
        for file in ('results.csv', 'runs.csv'):
            assert (folder / file).read_bytes() == (tmp_path / 'whole' / 'w' / file).read_bytes()
        assert not list(folder.rglob('.part-*')) and not list(folder.rglob('pending/*'))


def test_features_are_killed(tmp_path):
    check('features', tmp_path, 2, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize('how', ENDS, ids=lambda s: s.name)
@pytest.mark.parametrize('name', RUNS)
def test_twenty_five_stops(name, how, tmp_path):
    check(name, tmp_path, 25, how)
