"""Several processes of this machine as hosts: the same numbers as one, and a clear end where one of them is gone."""
import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import tiny

from w2s_jax.store.artifacts import Artifact

ROOT = pathlib.Path(__file__).parents[2]
SMALL = ('--config=configs/salient_concept.py:long', '--config.seeds=(0,)', '--config.task.train_size=640',
         '--config.task.test_size=100', '--config.train.batch_size=16', '--config.train.epochs=2',
         '--config.train.checkpoint_every=20', '--config.report.html=False')
LONG = (*SMALL, '--config.train.epochs=10')


def start(folder, devices, args, hosts=(), command='run') -> subprocess.Popen:
    env = os.environ | {'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': str(devices)}
    return subprocess.Popen([sys.executable, '-m', f'experiments.{command}', f'--workdir={folder}', *args, *hosts],
                            cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def meeting(number: int) -> list[list[str]]:
    """The flags of each of so many hosts."""
    with contextlib.closing(socket.socket()) as s:
        s.bind(('localhost', 0))
        port = s.getsockname()[1]
    return [['--distributed', f'--coordinator=localhost:{port}', f'--processes={number}', f'--process={i}']
            for i in range(number)]


def together(folder, number, devices, *args, command='run', own=lambda i: ()) -> list[subprocess.Popen]:
    return [start(folder, devices, (*args, *own(i)), hosts, command) for i, hosts in enumerate(meeting(number))]


def finish(*processes) -> list[tuple[int, str]]:
    """(status, what it said on stderr less what libraries log) of each."""
    said = [p.communicate(timeout=240)[1] for p in processes]
    return [(p.returncode, text.strip().rpartition('\n')[2]) for p, text in zip(processes, said, strict=True)]


def arrays(folder: pathlib.Path) -> dict[str, dict[str, np.ndarray]]:
    return {p.parent.name: Artifact(p.parent).arrays for p in folder.glob('store/*/predictions.npz')}


def results(folder: pathlib.Path) -> dict:
    found = json.loads((folder / 'results.json').read_text())
    return {k: v for k, v in found.items() if k not in ('timing', 'versions')}


def check_same(one: pathlib.Path, other: pathlib.Path, apart: float) -> None:
    mine, theirs = arrays(one), arrays(other)
    assert mine.keys() == theirs.keys() and any(k.startswith('fit-') for k in mine)
    for name in mine:
        for key, x in mine[name].items():
            np.testing.assert_allclose(x, theirs[name][key], atol=apart, rtol=0, err_msg=f'{name} {key}')
    assert results(one)['students'][0]['accuracy'] == results(other)['students'][0]['accuracy']
    if not apart:
        assert results(one) == results(other)


def wait_for(folder: pathlib.Path, step: int, *processes) -> None:
    """Until a checkpoint of that step is there."""
    while not list(folder.glob(f'store/pending/*/*/checkpoint/{step}')):
        assert all(p.poll() is None for p in processes), [p.communicate()[1] for p in processes if p.poll() is not None]
        time.sleep(.05)


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
    """A folder with the results of one process on four devices: (SMALL, LONG)."""
    folders = tmp_path_factory.mktemp('small'), tmp_path_factory.mktemp('long')
    ended = finish(*(start(folder, 4, args) for folder, args in zip(folders, (SMALL, LONG), strict=True)))
    assert [status for status, _ in ended] == [0, 0], ended
    return folders


@pytest.mark.parametrize('hosts, devices, mesh', [
    (2, 2, 'data=-1'), pytest.param(4, 1, 'data=-1', marks=pytest.mark.slow),
    pytest.param(2, 2, 'fsdp=4', marks=pytest.mark.slow)])
def test_hosts_compute_what_one_process_does(hosts, devices, mesh, alone, tmp_path):
    processes = together(tmp_path, hosts, devices, *SMALL, f'--config.mesh.{mesh}')
    assert [status for status, _ in finish(*processes)] == [0] * hosts
    check_same(alone[0], tmp_path, 1e-5)
    assert not list(tmp_path.rglob('.hosts-*')) and not list((tmp_path / 'store' / 'pending').iterdir())


@pytest.mark.parametrize('victim', [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_host_that_dies_ends_the_others_and_any_number_goes_on(victim, alone, tmp_path):
    processes = together(tmp_path, 2, 2, *LONG)
    wait_for(tmp_path, 20, *processes)
    processes[victim].kill()
    began = time.monotonic()
    (status, said), = finish(processes[1 - victim])
    assert status == 75 and time.monotonic() - began < 60
    assert said.startswith('stopped: ') and said.endswith('run the same command on every host to resume')
    assert victim == 0 or 'host 1 gave no sign of life' in said
    finish(processes[victim])
    assert finish(start(tmp_path, 2, LONG))[0][0] == 0  # one process, and half the devices
    check_same(alone[1], tmp_path, 1e-5)


@pytest.mark.parametrize('victim', [pytest.param(0, marks=pytest.mark.slow), 1])
def test_sigterm_to_one_host_stops_all_of_them_at_a_step_and_loses_nothing(victim, tmp_path):
    whole, stopped = tmp_path / 'whole', tmp_path / 'stopped'
    processes = together(stopped, 2, 2, *LONG)
    wait_for(stopped, 20, *processes)
    processes[victim].send_signal(signal.SIGTERM)
    ended = finish(*processes)
    assert [status for status, _ in ended] == [75, 75]
    steps = {said.partition('after step ')[2].partition(' ')[0] for _, said in ended}
    assert len(steps) == 1 and list(stopped.glob(f'store/pending/*/*/checkpoint/{steps.pop()}'))
    both = [*together(stopped, 2, 2, *LONG), *together(whole, 2, 2, *LONG)]
    assert [status for status, _ in finish(*both)] == [0] * 4
    check_same(whole, stopped, 0)


@pytest.mark.slow
def test_hosts_run_a_grid_of_probes_on_features(tmp_path):
    tiny.folder(tmp_path / 'model')
    rng = np.random.default_rng(0)
    lines = [f'{"good" if i % 2 else "bad"} {"".join(rng.choice(list("xyz"), 3 + i % 7))},{i % 2}' for i in range(240)]
    (tmp_path / 'rows.csv').write_text('\n'.join(['text,label', *lines]))
    args = ('--config=tests/helpers/probe_grid.py', f'--config.task.path={tmp_path / "rows.csv"}',
            f'--config.teacher.model={tmp_path / "model"}', f'--config.student.model={tmp_path / "model"}')
    one, two = start(tmp_path / 'one', 2, args, command='grid'), together(tmp_path / 'two', 2, 1, *args, command='grid')
    assert [status for status, _ in finish(one, *two)] == [0] * 3
    mine, theirs = ((tmp_path / x / 'results.csv').read_text() for x in ('one', 'two'))
    assert mine == theirs and 'confidence' in mine


def test_other_commands_other_folders_and_lonely_hosts_end_in_one_line(tmp_path):
    other = together(tmp_path / 'a', 2, 1, *SMALL, own=lambda i: [f'--config.train.epochs={2 + i}'])
    folders = together(tmp_path / 'b', 2, 1, *SMALL, own=lambda i: [f'--workdir={tmp_path / str(i)}'])
    lonely = start(tmp_path / 'c', 1, (*SMALL, '--join_seconds=5'), meeting(2)[0])
    unheard = start(tmp_path / 'g', 1, (*SMALL, '--join_seconds=5'), meeting(2)[1])
    malformed = start(tmp_path / 'h', 1, SMALL, ['--distributed', '--coordinator=nobody', '--processes=2',
                                                 '--process=1'])
    many = start(tmp_path / 'i', 1, SMALL, [*meeting(2)[0][:2], '--processes=2', '--process=2'])
    nowhere = start(tmp_path / 'd', 1, SMALL, ['--distributed'])
    half = start(tmp_path / 'e', 1, SMALL, ['--distributed', '--process=1'])
    flagless = start(tmp_path / 'f', 1, SMALL, ['--process=1'])
    found = [finish(*group) for group in (other, folders, [lonely], [nowhere], [half], [flagless],
                                              [unheard], [malformed], [many])]
    for ended, status, words in zip(found, (2, 2, 75, 2, 2, 2, 2, 2, 2), (
            'config: train.epochs is', 'work directory: folder', 'cannot reach the others',
            'no cluster found', 'expected all three of them', 'only with --distributed',
            ': the processes did not meet there within 5 s', '--coordinator=nobody: expected host:port',
            '--process=2: expected 0 to 1'), strict=True):
        assert all(s == status and words in said for s, said in ended), ended
    assert not (tmp_path / 'a' / 'config.json').exists()
