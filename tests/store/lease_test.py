"""One holder at a time, whoever dies, sleeps or comes late; and nobody waits for the dead."""
import contextlib
import errno
import json
import multiprocessing
import os
import pathlib
import signal
import subprocess
import time

import pytest

from w2s_jax.errors import StoreError
from w2s_jax.store import lease
from w2s_jax.store.lease import Slot, hold

PROCESSES = multiprocessing.get_context('forkserver')
PROCESSES.set_forkserver_preload(['pytest', 'w2s_jax.store.artifacts'])
SHORT = 1.0  # seconds after which a silent holder counts as gone, in these tests


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    return tmp_path / 'leases' / 'group'


def start(function, *args):
    process = PROCESSES.Process(target=function, args=args, daemon=True)
    process.start()
    return process


def wait_for(condition, seconds=20.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, 'waited in vain'
        time.sleep(.01)


def obtained(folder, seconds=SHORT, within=20.0) -> float:
    """Tries until the lease is held. Returns the seconds that took."""
    began = time.monotonic()
    while time.monotonic() - began < within:
        with hold(folder, seconds) as held:
            if held:
                return time.monotonic() - began
        time.sleep(.02)
    raise AssertionError('not obtained')


def state(number: int) -> str:
    """What the kernel says of a process: T is stopped, Z is dead."""
    return pathlib.Path(f'/proc/{number}/stat').read_text().rpartition(')')[2].split()[0]


def is_free(folder, seconds=SHORT) -> bool:
    with hold(folder, seconds) as held:
        return held is not None


def pretend(machine: str) -> None:
    lease._machine = lambda: machine


def keep(folder, machine=None, seconds=SHORT):
    """Holds until it is killed; on a machine of that name."""
    if machine:
        pretend(machine)
    with hold(folder, seconds) as held:
        assert held
        (folder.parent / 'held').touch()
        time.sleep(600)


def holder(folder, machine=None, seconds=SHORT):
    process = start(keep, folder, machine, seconds)
    wait_for((folder.parent / 'held').exists)
    return process


def test_held_then_free_then_held(folder):
    for _ in range(3):
        with hold(folder) as held:
            assert held and not held.lost()
            assert not is_free(folder)
    assert len(list(folder.iterdir())) == 1  # what is over does not pile up


def test_an_error_in_the_block_gives_it_back(folder):
    with contextlib.suppress(KeyboardInterrupt), hold(folder):
        raise KeyboardInterrupt
    assert is_free(folder)


def test_leases_of_other_names_are_other_leases(folder):
    with hold(folder), hold(folder.with_name('other')) as other:
        assert other


def compete(folder, inside, machine, rounds, log):
    """Takes the lease `rounds` times."""
    pretend(machine)
    done = 0
    while done < rounds:
        with hold(folder, 20) as held:
            if held:
                os.close(os.open(inside, os.O_CREAT | os.O_EXCL))  # fails where somebody else is inside
                os.unlink(inside)
                with open(log, 'a') as file:
                    file.write(f'{held.number}\n')
                done += 1
        if not held:
            time.sleep(.001)


def test_of_processes_that_race_exactly_one_holds(folder, tmp_path):
    racers = [start(compete, folder, tmp_path / 'inside', lease._machine(), 100, tmp_path / 'log') for _ in range(4)]
    for racer in racers:
        racer.join(120)
    assert [r.exitcode for r in racers] == [0] * 4
    numbers = list(map(int, (tmp_path / 'log').read_text().split()))
    assert len(numbers) == 400 and numbers == sorted(set(numbers))


def rob(folder, inside, taken):
    """Takes a lease once, and holds it while others look."""
    while not taken.exists():
        with hold(folder, 20) as held:
            if held and not taken.exists():  # it may have been taken and given back since the look above
                os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
                time.sleep(.2)
                taken.touch()
        time.sleep(.001)


@pytest.mark.parametrize('round_', range(5))
def test_of_processes_that_find_the_holder_dead_exactly_one_takes_over(folder, tmp_path, round_):
    dead = holder(folder)
    robbers = [start(rob, folder, tmp_path / 'inside', tmp_path / 'taken') for _ in range(4)]
    dead.kill()
    for robber in robbers:
        robber.join(60)
    assert [r.exitcode for r in robbers] == [0] * 4 and (tmp_path / 'taken').exists()


def test_a_holder_that_was_killed_is_succeeded_at_once(folder):
    process = holder(folder, seconds=1000)
    assert not is_free(folder, seconds=1000)
    process.kill()
    process.join()
    assert obtained(folder, seconds=1000) < 1


def written(folder, process: str) -> None:
    """A lease of that process."""
    folder.mkdir(parents=True)
    (folder / '1').write_text(json.dumps({'token': 'theirs', 'process': process}))


def test_a_holder_that_was_killed_and_not_yet_buried_is_succeeded_at_once(folder):
    child = subprocess.Popen(['sleep', '600'])
    written(folder, f'{lease._machine()}.{child.pid}.{lease._started(child.pid)}')
    assert not is_free(folder, 1000)
    os.kill(child.pid, signal.SIGKILL)  # a zombie until somebody waits for it
    wait_for(lambda: state(child.pid) == 'Z')
    assert is_free(folder, 1000)
    child.wait()


def test_a_process_of_the_same_number_is_not_the_holder(folder):
    written(folder, f'{lease._machine()}.{os.getppid()}.1')
    assert is_free(folder, 1000)


def test_a_silent_holder_elsewhere_is_succeeded_after_the_time(folder):
    process = holder(folder, 'elsewhere')
    process.kill()
    process.join()
    assert SHORT <= obtained(folder) < 3 * SHORT


def test_a_live_holder_is_never_succeeded(folder):
    holders = {name: holder(folder / name, name) for name in (lease._machine(), 'elsewhere')
               if not (folder / 'held').unlink(missing_ok=True)}
    until = time.monotonic() + 3 * SHORT
    while time.monotonic() < until:
        assert not any(is_free(folder / name) for name in holders)
        time.sleep(.05)
    for process in holders.values():
        process.kill()


def notice(folder, result):
    """Holds, is stopped and continued from outside, and says what it then knows."""
    with hold(folder, SHORT) as held:
        assert held and not held.lost()
        os.kill(os.getpid(), signal.SIGSTOP)
        result.write_text(f'{held.lost()}')
        time.sleep(2 * SHORT)  # its beats must not disturb the heir either


def test_a_holder_that_was_paused_for_long_notices_its_loss(folder, tmp_path):
    process = start(notice, folder, tmp_path / 'result')
    wait_for(lambda: state(process.pid) == 'T')
    took = 0.0
    while True:
        with hold(folder, SHORT) as held:
            if held:
                os.kill(process.pid, signal.SIGCONT)
                process.join(20)
                assert not held.lost()
                break
        time.sleep(.02)
        took += .02
    assert took > SHORT / 4 and process.exitcode == 0
    assert (tmp_path / 'result').read_text() == 'True'


def test_a_holder_that_was_paused_for_a_moment_still_holds(folder, tmp_path):
    process = start(notice, folder, tmp_path / 'result')
    wait_for(lambda: state(process.pid) == 'T')
    os.kill(process.pid, signal.SIGCONT)
    wait_for((tmp_path / 'result').exists)
    assert not is_free(folder)
    process.join(20)
    assert (tmp_path / 'result').read_text() == 'False'
    assert is_free(folder)


def test_who_was_late_to_see_a_lease_free_does_not_take_it_from_the_next_but_one(folder, monkeypatch):
    """A sees it free and sleeps; B takes and returns it, C takes it; now A goes on with its number."""
    assert is_free(folder)  # number 1 is over
    create = Slot.create
    with contextlib.ExitStack() as others:
        def slow(self, number, text):
            monkeypatch.undo()
            assert number == 2 and is_free(folder)
            assert others.enter_context(hold(folder)).number == 3
            assert create(self, number, text)  # 2 was removed by then: a gap that can be filled
            return True
        monkeypatch.setattr(Slot, 'create', slow)
        assert not is_free(folder)
        assert [p.name for p in folder.iterdir()] == ['3']


def test_a_file_that_is_just_being_written_is_not_free_until_the_time(folder):
    folder.mkdir(parents=True)
    (folder / '1').touch()
    assert not is_free(folder)
    assert SHORT / 2 <= obtained(folder) < 3 * SHORT


def test_what_this_process_left_behind_is_free(folder, monkeypatch):
    """As in a notebook, where a full disk kept a lease from being given back."""
    with monkeypatch.context() as patch:
        def full(self, number):
            raise OSError(errno.ENOSPC, 'No space left on device')
        patch.setattr(Slot, 'end', full)
        assert is_free(folder, 1000)
    assert Slot(folder).look(1)[0] != lease.OVER
    assert is_free(folder, 1000)


def test_a_lease_that_cannot_be_made_is_an_error_in_one_line(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(StoreError) as e, hold(tmp_path / 'file' / 'lease'):
        pass
    assert str(e.value) == f'{tmp_path}/file/lease: cannot be written (Not a directory)'


def test_no_trace_of_a_lease_that_found_no_space(folder, monkeypatch):
    def full(path, mode):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        raise OSError(errno.ENOSPC, 'No space left on device')
    with monkeypatch.context() as patch:
        patch.setattr(lease, 'open', full, raising=False)
        with pytest.raises(StoreError, match=r'cannot be written \(No space left on device\)'), hold(folder):
            pass
    assert list(folder.iterdir()) == [] and is_free(folder)


@pytest.mark.parametrize(('name', 'expected'), [
    (lease.process(), True), ('elsewhere.1.2', True), ('1234', False), ('', False), ('a.b', True),
    (f'{lease._machine()}.1.0', False), (f'{lease._machine()}.99999999.5', False), (f'{lease._machine()}.x.5', True)],
    ids=range(8))
def test_who_may_live(name, expected):
    assert lease.may_live(name) == expected
