"""What can go wrong with one of several hosts: all of them end within a minute, and some line names the cause."""
import os
import pathlib
import signal
import time

import pytest
from hosts_test import SMALL, meeting, start, wait_for

pytestmark = pytest.mark.slow

LONG = (*SMALL, '--config.train.epochs=40')
FLAWED = tuple(w.removesuffix(':long') for w in SMALL)
MOST = 60  # seconds from a fault to the end of every host
PLUGIN = '''
import os, time
import optax
from w2s_jax.losses import LOSSES

@LOSSES.register('flawed')
def flawed(logits, targets, *, progress, settings, state):
    """Does on one host what the variable W2S_FLAW says."""
    how = os.environ.get('W2S_FLAW', '')
    if how == 'raises':
        raise ValueError('of this host alone')
    if how == 'exits':
        os._exit(1)
    return optax.softmax_cross_entropy(logits, targets), {}, state
'''


def spawn(folder, number, *args, odd=(), env=None, replace=()) -> list:
    """All hosts; the last one with further arguments, another environment, or other flags of where to meet."""
    hosts, more = meeting(number), env or {}
    hosts[-1] = [next((r for r in replace if r.partition('=')[0] == flag.partition('=')[0]), flag)
                 for flag in hosts[-1]]
    started = [start(folder, 1, args, h) for h in hosts[:-1]]
    before = {k: os.environ.get(k) for k in more}
    os.environ.update(more)
    try:
        return [*started, start(folder, 1, (*args, *odd), hosts[-1])]
    finally:
        for k, v in before.items():
            os.environ.pop(k) if v is None else os.environ.update({k: v})


def ends(processes, since: float) -> list[tuple[int, str]]:
    """(status, last line) of each; fails where one of them takes more than MOST seconds since then."""
    found = []
    for p in processes:
        err = p.communicate(timeout=max(1, MOST - (time.monotonic() - since)))[1]
        found.append((p.returncode, err.strip().rpartition('\n')[2]))
    assert all(status in (-9, 1) or said.startswith(('stopped', 'error: ')) for status, said in found), found
    return found


@pytest.fixture(params=[2, 4])
def number(request):
    return request.param


@pytest.mark.parametrize('victim', [0, -1])
@pytest.mark.parametrize('how', [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM])
def test_a_host_that_is_gone_silent_or_told_to_stop(number, victim, how, tmp_path):
    processes = spawn(tmp_path, number, *LONG)
    wait_for(tmp_path, 20, *processes)
    chosen, others = processes[victim], [p for p in processes if p is not processes[victim]]
    if how == signal.SIGSTOP:  # the command is a child of the process that started it
        found = pathlib.Path(f'/proc/{chosen.pid}/task/{chosen.pid}/children')
        children = [int(p) for p in found.read_text().split()]
        for pid in children:
            os.kill(pid, how)
    else:
        chosen.send_signal(how)
    found = ends(others, time.monotonic())
    assert all(status == 75 for status, _ in found), found
    reason = {signal.SIGTERM: 'SIGTERM'}.get(how, 'cannot reach the others' if victim == 0 else
                                             f'host {number - 1} gave no sign of life')
    gone = ('host 0 is gone', 'host 0 gave no sign of life') if victim == 0 else ()
    assert all(any(words in said for words in (reason, *gone)) for _, said in found), found
    if how == signal.SIGSTOP:
        for pid in children:
            os.kill(pid, signal.SIGCONT)
    (status, said), = ends([chosen], time.monotonic())
    assert status == (-9 if how == signal.SIGKILL else 75), (status, said)


@pytest.mark.parametrize('how, says', [('raises', 'of this host alone'), ('exits', 'no sign of life')])
def test_a_plug_in_that_fails_on_one_host(number, how, says, tmp_path, monkeypatch):
    (tmp_path / 'my_flawed.py').write_text(PLUGIN)
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    processes = spawn(tmp_path / 'w', number, *FLAWED, '--config.method.baselines=()',
                      "--config.plugins=('my_flawed',)", '--config.student.loss.name=flawed', env={'W2S_FLAW': how})
    wait_for(tmp_path / 'w', 20, *processes)  # of the teacher or the ceiling
    processes[-1].wait(timeout=240)  # until a student is trained
    found = ends(processes, time.monotonic())
    assert all(says in said for _, said in found[:-1]), found
    assert all(status in ({2} if how == 'raises' else {75}) for status, _ in found[:-1]), found


def test_a_second_host_of_the_same_number(number, tmp_path):
    hosts = meeting(number)
    hosts[-1] = [*hosts[-1][:-1], hosts[0][-1]] if number == 2 else [*hosts[-1][:-1], hosts[-2][-1]]
    began = time.monotonic()
    found = ends([start(tmp_path, 1, (*SMALL, '--join_seconds=20'), h) for h in hosts], began)
    assert all(status in (2, 75) for status, _ in found), found


def test_hosts_with_other_flags(number, tmp_path):
    began = time.monotonic()
    other = spawn(tmp_path / 'n', number, *SMALL, '--join_seconds=20', replace=[f'--processes={number + 1}'])
    found = ends(other, began)
    assert all(status == 2 and '--processes is' in said for status, said in found), found
    began = time.monotonic()
    found = ends(spawn(tmp_path / 'c', number, *SMALL, odd=['--config.task.seed=7']), began)
    assert all(status == 2 and 'task.seed' in said for status, said in found), found


def test_a_host_that_never_comes(number, tmp_path):
    began = time.monotonic()
    hosts = meeting(number)[:-1]
    found = ends([start(tmp_path, 1, (*SMALL, '--join_seconds=20'), h) for h in hosts], began)
    assert all(status in (2, 75) and ('did not meet there within 20 s' in said or 'of which one is missing' in said)
               for status, said in found), found
