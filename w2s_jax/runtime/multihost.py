"""Several processes that compute as one: they start together, agree, follow process 0, and notice when one is gone.

Every host runs the same command. Inside a phase all of them run the same programs, each on its share of the batches.
Between phases process 0 coordinates: it alone reads and writes what is done, and tells the others what comes next
(`tell`, `hear`). What they say to each other goes through the key-value store of JAX's coordination service.
"""
import contextlib
import ctypes
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import jax
import numpy as np
from jax._src import distributed  # the only way to the key-value store
from jax.experimental import multihost_utils

from w2s_jax.errors import ConfigError, HostsError
from w2s_jax.runtime.process import check_devices

STOPPED = 75  # exit status (EX_TEMPFAIL): nothing is lost, run the same command again
PERIOD, SILENCE = 2.0, 30.0  # seconds between signs of life, and without one until a host counts as gone
CHILD, PR_SET_PDEATHSIG = 'W2S_JAX_SUPERVISED', 1
_orders = itertools.count()
_watch: 'Watch | None' = None


def supervise(coordinator: str | None = None, process: int | None = None, seconds: int = 300) -> int:
    """Runs this command again as a child process and returns its exit status. JAX's runtimes abort a process that
    cannot reach the others, from whichever thread; it takes another one to say that in a line. Arguments as of `start`.
    """
    heard, says = os.pipe()  # the child says when it has joined
    child = subprocess.Popen([sys.executable, *sys.orig_argv[1:]], env=os.environ | {CHILD: str(says)}, pass_fds=[says],
                             preexec_fn=_die_with_parent if sys.platform == 'linux' else None)
    os.close(says)
    signal.signal(signal.SIGTERM, lambda number, frame: child.send_signal(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal gives it to both
    status = child.wait()
    if status in (-signal.SIGABRT, -signal.SIGSEGV) and coordinator and process and not _said(heard):
        print(f'error: {_nobody(coordinator, seconds)}', file=sys.stderr)
        return 2
    if status in (-signal.SIGABRT, -signal.SIGSEGV):
        print('stopped: this host cannot reach the others, of which one is missing or gone; run the same command on '
              'every host to resume', file=sys.stderr)
        return STOPPED
    return 128 - status if status < 0 else status


def _said(pipe: int) -> bool:
    os.set_blocking(pipe, False)
    try:
        return bool(os.read(pipe, 1))
    except BlockingIOError:
        return False


def _nobody(coordinator: str, seconds: int) -> str:
    return (f'--coordinator={coordinator}: the processes did not meet there within {seconds} s (--join_seconds), '
            'expected process 0 there, and the same command on every host')


def check_coordinator(address: str) -> None:
    """Raises ConfigError unless that is a host and a port."""
    host, _, port = address.rpartition(':')
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16 or '//' in address:
        raise ConfigError(f'--coordinator={address}: expected host:port, as 10.0.0.1:1234')


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def supervised() -> bool:
    """Whether this is a child of `supervise`."""
    return CHILD in os.environ


def start(coordinator: str | None = None, processes: int | None = None, process: int | None = None,
          seconds: int = 300) -> None:
    """Joins the other hosts; before anything else of JAX.

    Args:
      coordinator: host:port of process 0, with processes (how many) and process (which of them this is); None each
        if TPU, SLURM, GKE or MPI say so.  seconds: to wait for the others.
    Raises ConfigError if there is nothing to join, HostsError if that fails.
    """
    global _watch
    given = [x is not None for x in (coordinator, processes, process)]
    if any(given) and not all(given):
        raise ConfigError('--coordinator, --processes, --process: expected all three of them, or none if TPU, '
                          'SLURM, GKE or MPI tell')
    if coordinator is not None and processes is not None and process is not None:
        check_coordinator(coordinator)
        if process >= processes:
            raise ConfigError(f'--process={process}: expected 0 to {processes - 1}, with --processes={processes}')
    jax.config.update('jax_enable_recoverability', True)  # else JAX aborts the process when another one is gone
    try:
        jax.distributed.initialize(coordinator, processes, process, initialization_timeout=seconds)
    except ValueError as e:
        raise ConfigError(f'--distributed: no cluster found that tells how many hosts there are ({_line(e)}); expected '
                          'TPU, SLURM, GKE or MPI, or --coordinator, --processes and --process') from None
    except RuntimeError as e:
        if coordinator and process:
            raise ConfigError(_nobody(coordinator, seconds)) from None
        raise HostsError(f'this host cannot join the others ({_line(e)})') from None
    if os.environ.get(CHILD, '').isdecimal():
        with contextlib.suppress(OSError):
            os.write(int(os.environ[CHILD]), b'1')
    check_devices()
    _watch = Watch(_client(), jax.process_index(), jax.process_count())
    agree('flags', {'--processes': processes})


def count() -> int:
    """How many hosts compute together."""
    return jax.process_count() if _watch else 1


def is_coordinator() -> bool:
    """Whether this is process 0, the one that writes."""
    return count() == 1 or jax.process_index() == 0


def finish() -> None:
    """Leaves in good order, after all others came as far."""
    global _watch
    if _watch is not None:
        _client().wait_at_barrier('w2s/finish', 600_000)
        _watch.close()
        if is_coordinator():  # the service ends last: a host that still speaks to it would abort
            _wait_until_alone()
        _watch = None
        jax.distributed.shutdown()


def _wait_until_alone() -> None:
    everyone, until = list(range(jax.process_count())), time.monotonic() + SILENCE
    while len(_client().get_live_nodes(everyone)) > 1 and time.monotonic() < until:
        time.sleep(.1)


def leave(message: str, status: int) -> None:
    """Tells the others why this host stops before the end."""
    if _watch is not None:
        with contextlib.suppress(RuntimeError):
            _client().key_value_set(f'w2s/left/{jax.process_index()}', json.dumps([message, status]))
            if is_coordinator():  # the others read it from here
                time.sleep(2 * PERIOD)


def blame(error: Exception) -> None:
    """Waits until the watch has found out who broke a collective, and ended this process. Raises HostsError else."""
    time.sleep(SILENCE + 5 * PERIOD)
    raise HostsError(f'a computation with the other hosts failed ({_line(error)})') from None


def agree(what: str, mine: dict[str, Any]) -> None:
    """Makes sure that all hosts have the same. Raises ConfigError that names the first thing that differs.

    Args:
      mine: JSON values by name.
    """
    if count() == 1:
        return
    index, key = jax.process_index(), f'w2s/agree/{next(_orders)}'
    _client().key_value_set(f'{key}/{index}', json.dumps(mine))
    for i in range(count()):
        theirs = json.loads(_wait_for(f'{key}/{i}'))
        for name in sorted(mine.keys() | theirs.keys()):
            if mine.get(name) != theirs.get(name):
                raise ConfigError(f'{what}: {name} is {theirs.get(name)!r} on host {i} and {mine.get(name)!r} on host '
                                  f'{index}, expected the same command on every host')


def same(value):
    """Process 0's `value` (JSON) on all hosts; all of them call it equally often."""
    if count() == 1:
        return value
    key = f'w2s/same/{next(_orders)}'
    if is_coordinator():
        _client().key_value_set(key, json.dumps(value))
    return json.loads(_wait_for(key))


def share(folder: pathlib.Path) -> None:
    """Makes sure that all hosts mean the same folder. Raises ConfigError if one of them does not see it."""
    if count() == 1:
        return
    mark = folder / same(f'.hosts-{os.getpid()}-{time.time_ns()}')
    if is_coordinator():
        mark.touch()
    _client().wait_at_barrier(f'w2s/{mark.name}', 600_000)
    sees = _appears(mark)
    agree('work directory', {'folder': True if is_coordinator() else sees})
    if is_coordinator():
        mark.unlink()


def _appears(path: pathlib.Path) -> bool:
    """Whether a file is there, or comes to be within half a minute, as on network file systems."""
    for _ in range(30):
        if path.exists():
            return True
        time.sleep(1)
    return False


def fetch(tree):
    """NumPy copies of arrays, whole on every host; all hosts call it."""
    def whole(x):
        if not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated:
            return np.asarray(x)
        return multihost_utils.process_allgather(x, tiled=True)
    return jax.tree.map(whole, tree)


def tell(order) -> None:
    """Says (JSON) to the others what comes next: what they `hear`."""
    if count() > 1:
        _client().key_value_set(f'w2s/order/{next(_orders)}', json.dumps(order))


def hear() -> Any:
    """What process 0 tells, however long that takes."""
    return json.loads(_wait_for(f'w2s/order/{next(_orders)}'))


def _client():
    return distributed.global_state.client


def _wait_for(key: str) -> str:
    while True:  # a host that is gone ends this process (Watch)
        try:
            return _client().blocking_key_value_get(key, 10_000)
        except RuntimeError as e:
            if 'DEADLINE_EXCEEDED' not in str(e):
                raise


def _line(error: Exception) -> str:
    return ' '.join(str(error).split())


class Watch:
    """A thread that gives signs of life and ends the process when another host gives none: collectives would wait for
    it without end. A second one sees to it that host 0, through which they speak, answers at all: to a host that is
    suspended a call waits without end, too."""

    def __init__(self, client, index: int, number: int):
        self.client, self.index, self.number = client, index, number
        self.over, self.answered = threading.Event(), time.monotonic()
        self.threads = [threading.Thread(target=f, daemon=True) for f in (self._run, self._wait)]
        for thread in self.threads:
            thread.start()

    def close(self) -> None:
        """Ends the threads."""
        self.over.set()
        for thread in self.threads:
            thread.join()

    def _wait(self) -> None:
        while not self.over.wait(PERIOD):
            if time.monotonic() - self.answered > SILENCE + PERIOD:
                self._end(f'host 0 gave no sign of life for {SILENCE:.0f} s', STOPPED)

    def _run(self) -> None:
        heard = {i: ('', time.monotonic()) for i in range(self.number)}
        for beat in itertools.count():
            try:
                self.client.key_value_set(f'w2s/beat/{self.index}', str(beat), allow_overwrite=True)
                found = dict(self.client.key_value_dir_get('w2s/beat/'))
                left = dict(self.client.key_value_dir_get('w2s/left/'))
            except RuntimeError:
                if not self.over.is_set():
                    self._end('host 0 is gone', STOPPED)
                return
            for key, text in left.items():
                if key != f'w2s/left/{self.index}':
                    message, status = json.loads(text)
                    self._end(f'host {key.rpartition("/")[2]} has stopped: {message}', status)
            self._check(heard, found)
            self.answered = time.monotonic()
            if self.over.wait(PERIOD):
                return

    def _check(self, heard: dict, found: dict) -> None:
        now = time.monotonic()
        for i in range(self.number):
            beat = found.get(f'w2s/beat/{i}', '')
            if beat != heard[i][0]:
                heard[i] = beat, now
            elif now - heard[i][1] > SILENCE:
                self._end(f'host {i} gave no sign of life for {SILENCE:.0f} s', STOPPED)

    def _end(self, reason: str, status: int) -> None:
        if self.index == 0:  # with host 0 goes what the others could learn the reason from
            leave(reason, status)
        print(f'stopped: {reason} (this is host {self.index} of {self.number}); run the same command on every host to '
              'resume', file=sys.stderr, flush=True)
        os._exit(status)
