"""Runs a script in a process that sees no truth, no network and nothing of this process, and that cannot outstay.

What holds is the kernel's (jail.py): Landlock, a seccomp filter, namespaces where they may be made, limits. An audit
hook (attempts.py) only writes down what was tried.
"""
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import sysconfig
import threading
import time

from researcher import jail
from w2s_jax.api import ConfigError

HERE = pathlib.Path(__file__).parent
SYSTEM = ('/lib', '/lib64', '/usr/lib', '/usr/lib64', '/etc/ld.so.cache', '/etc/localtime', '/dev/null', '/dev/zero',
          '/dev/urandom', '/dev/random', '/proc/cpuinfo', '/proc/meminfo', '/proc/sys/vm', '/sys/devices/system/cpu',
          '/sys/fs/cgroup', '/usr/share/zoneinfo')
PASSED = ('XLA_FLAGS', 'JAX_DISABLE_MOST_OPTIMIZATIONS')  # of the environment: how programs are compiled
KEPT, LINES = 16_384, 200  # bytes of output, and attempts, that are kept
FILES, PERIOD = 2_000, .1  # at most in the work folder; seconds between two looks at the process


@dataclasses.dataclass(frozen=True)
class Limits:
    """seconds: on the clock, and of each core.  memory: resident bytes.  file_bytes: of a file; folder_bytes: of all.
    mapped: address space beside `memory`, which libraries map and never touch."""
    seconds: float = 300
    memory: int = 4 << 30
    file_bytes: int = 256 << 20
    folder_bytes: int = 512 << 20
    mapped: int = 16 << 30


USUAL = Limits()


@dataclasses.dataclass(frozen=True)
class Cell:
    """A process to be run. script, arguments: what it runs.  folder: with `in`, which it may read, and `work`, its
    place, the only one that it may write to.  hidden: folders that are to be absent, or at least unreadable.  sealed:
    places inside of what it may otherwise read that it may not."""
    script: pathlib.Path
    arguments: tuple[str, ...]
    folder: pathlib.Path
    hidden: tuple[pathlib.Path, ...] = ()
    read: tuple[pathlib.Path, ...] = ()
    limits: Limits = USUAL
    sealed: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Outcome:
    """reason: why it broke off, one line; '' if it ended well.  output: the last of what it printed.  attempts: what
    it tried and may not.  guards: what the kernel was asked to hold."""
    reason: str
    output: str
    attempts: list[str]
    guards: list[str]


def missing() -> list[str]:
    """What this system lacks to shut a process in; nothing: it can be."""
    lacks = [] if jail.landlock_version() >= 3 else ['Landlock (Linux 6.2 or later)']
    return lacks if jail.has_filters() else [*lacks, 'seccomp filters on x86-64']


def check(trust: bool) -> None:
    """Raises ConfigError where processes cannot be shut in, unless the user trusts the ideas."""
    if not trust and (lacks := missing()):
        raise ConfigError(f'sandbox: this system has no {" and no ".join(lacks)}; run it where it has, or with --trust '
                          'if you wrote the ideas yourself')


def readable() -> list[str]:
    """What a child may read beside its folder: the interpreter, its libraries, and the two packages; no other file of
    the checkout."""
    places = {sysconfig.get_paths()[k] for k in ('stdlib', 'platstdlib', 'purelib', 'platlib')}
    places |= {os.path.realpath(sys.executable), os.path.dirname(sys.executable)}
    places.add(os.path.join(sys.prefix, 'pyvenv.cfg'))
    places |= {os.path.join(sys.base_prefix, name) for name in ('lib', 'bin')}
    return [*SYSTEM, *sorted(places), str(HERE), str(HERE.parent / 'w2s_jax')]


def without(places: list[str], sealed: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """(places, folders that may be listed alone): the same places in parts, of which none holds a sealed one: Landlock
    cannot take away below a folder what it has given."""
    if not sealed:
        return places, []
    kept: list[str] = []
    listed: list[str] = []
    todo = [os.path.realpath(p) for p in places]
    barred = [os.path.realpath(s) for s in sealed]
    while todo:
        place = todo.pop()
        if any(place == s or place.startswith(s + os.sep) for s in barred):
            continue
        if any(s.startswith(place + os.sep) for s in barred):
            listed.append(place)
            todo += [os.path.realpath(entry.path) for entry in os.scandir(place)]
        else:
            kept.append(place)
    return kept, listed


def linked(folder: pathlib.Path) -> None:
    """A folder with links to the two packages: who imports them need not list the checkout that they are in."""
    folder.mkdir(parents=True, exist_ok=True)
    for place in (HERE, HERE.parent / 'w2s_jax'):
        if not (folder / place.name).exists():
            (folder / place.name).symlink_to(place)


def environment(work: pathlib.Path) -> dict[str, str]:
    """Nothing of the parent's but what says where its tools are."""
    return {'PATH': '/usr/bin:/bin', 'LANG': 'C.UTF-8', 'HOME': str(work), 'TMPDIR': str(work), 'JAX_PLATFORMS': 'cpu',
            'HF_HUB_OFFLINE': '1', 'MPLCONFIGDIR': str(work), 'XDG_CACHE_HOME': str(work), 'TF_CPP_MIN_LOG_LEVEL': '3',
            'JAX_COMPILATION_CACHE_DIR': ''} | {k: os.environ[k] for k in PASSED if k in os.environ}


def run(cell: Cell, trust: bool = False) -> Outcome:
    """Runs a cell to its end, or to that of its limits; afterwards no process of it is left. Raises ConfigError where
    nothing can shut it in and the user does not trust it."""
    check(trust)
    confined, work = not missing(), cell.folder.absolute() / 'work'
    linked(packages := cell.folder.absolute() / 'in' / 'packages')
    told, tells = os.pipe()
    read, listed = without([*readable(), str(cell.folder.absolute() / 'in'), *map(str, cell.read)], cell.sealed)
    spec = {'read': read, 'list': listed, 'write': [str(work)], 'cwd': str(work),
            'hidden': [str(p.absolute()) for p in cell.hidden], 'confined': confined, 'script': str(cell.script),
            'arguments': list(cell.arguments), 'log': tells,
            'path': [str(packages)], **dataclasses.asdict(cell.limits)}
    command = [sys.executable, '-I', '-B', str(HERE / 'jail.py'), json.dumps(spec)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               env=environment(work), cwd=work, pass_fds=(tells,), start_new_session=True)
    os.close(tells)
    assert process.stdout is not None
    printed, log = Reader(process.stdout.fileno()), Reader(told)
    try:
        reason = watch(process, cell, printed)
    finally:
        end(process)
        printed.join(2)
        log.join(2)
        process.stdout.close()
        os.close(told)
    guards, attempts = said(log.first, log.number)
    if confined and not guards:
        reason = f'sandbox: could not be shut in ({last_line(printed.last)})'
    return Outcome(reason or ended(process.returncode, printed.last), printed.last, attempts, guards)


class Reader(threading.Thread):
    """Reads a pipe to its end and keeps the first and the last of it, so that a process that prints without end neither
    waits nor fills the memory."""

    def __init__(self, number: int):
        super().__init__(daemon=True)
        self.number, self.begun, self.ending, self.total = number, b'', b'', 0
        self.start()

    def run(self) -> None:
        try:
            while piece := os.read(self.number, 65536):
                self.total += len(piece)
                self.begun = (self.begun + piece)[:KEPT]
                self.ending = (self.ending + piece)[-KEPT:]
        except OSError:
            pass  # closed beneath us: all that will be read is read

    @property
    def first(self) -> str:
        """Of the text."""
        return self.begun.decode(errors='replace')

    @property
    def last(self) -> str:
        """Of the text."""
        return self.ending.decode(errors='replace')


def watch(process: subprocess.Popen, cell: Cell, printed: Reader) -> str:
    """Waits for a process; why it has to end before it does by itself, or ''."""
    began, most = time.monotonic(), cell.limits
    while process.poll() is None:
        if time.monotonic() - began > most.seconds:
            return f'ran longer than {most.seconds:g} s, expected an end'
        if resident(process.pid) > most.memory:
            return f'took more than {most.memory >> 20} MB of memory'
        size, files = measured(cell.folder / 'work')
        if size > most.folder_bytes or files > FILES:
            return f'wrote {size >> 20} MB in {files} files, expected at most {most.folder_bytes >> 20} MB in {FILES}'
        if printed.total > most.file_bytes:
            return f'printed {printed.total >> 20} MB, expected less'
        time.sleep(PERIOD)
    return ''


def end(process: subprocess.Popen) -> None:
    """Ends a process and all of its group."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()
    process.wait()


def resident(number: int) -> int:
    """Bytes of memory that a process holds; 0 if it is gone."""
    try:
        with open(f'/proc/{number}/statm') as file:
            return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')
    except (OSError, IndexError, ValueError):
        return 0


def measured(folder: pathlib.Path) -> tuple[int, int]:
    """Bytes and files below a folder, counted no further than needed; links are not followed."""
    size = files = 0
    todo = [str(folder)]
    while todo and files <= FILES:
        try:
            with os.scandir(todo.pop()) as entries:
                for entry in entries:
                    files += 1
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
                    else:
                        size += entry.stat(follow_symlinks=False).st_size
                    if files > FILES:
                        break
        except OSError:
            continue  # gone meanwhile
    return size, files


def said(text: str, number: int) -> tuple[list[str], list[str]]:
    """(guards, attempts) of a log; after its first line it is the child's word."""
    first, *rest = text.splitlines() or ['']
    try:
        guards = [str(g) for g in json.loads(first)['guards']]
    except (ValueError, TypeError, KeyError):
        guards = []
    tried = list(dict.fromkeys(line[:200] for line in rest if line.strip()))
    return guards, tried[:LINES]


def ended(status: int, printed: str) -> str:
    """Why a process ended, from its status and what it printed last; '' if well."""
    if status == 0:
        return ''
    if status == -signal.SIGXCPU or status == -signal.SIGKILL:
        return 'ran longer than its seconds of computation, expected an end'
    if status == -signal.SIGXFSZ:
        return 'wrote a larger file than it may'
    said = last_line(printed)
    return said if status > 0 and said else f'ended by {signal.Signals(-status).name if status < 0 else status}'


def last_line(text: str) -> str:
    """The last line that is not empty, cut."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return ''.join(c for c in lines[-1][:300] if c.isprintable()) if lines else ''
