"""Leases: of the processes, here and on machines that mount the same folder, that want the same work, one does it.

A lease is a row of numbered files, of which the highest counts. Whoever finds it free makes the next one, which of
several can only one; a number is never given twice, so that nobody takes over what was taken over already. It is
free when its holder gave it back, when the holder's process is dead (seen at once on its own machine), or when no
sign of life came from the holder for `seconds` (by the watcher's clock, so that clocks need not agree).
"""
import contextlib
import functools
import hashlib
import json
import os
import pathlib
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from w2s_jax.errors import StoreError, TakenOver

SECONDS = 60.0
DAY = 86400.0
OVER = 'over'
_mine: dict[str, 'Lease | None'] = {}  # token -> what this process holds, None while it is being taken
_watched: dict[tuple[pathlib.Path, int], tuple[Any, float]] = {}  # file -> (its look, since when by our clock)


class Slot:
    """The numbered files of one lease, in a folder."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder

    def numbers(self) -> list[int]:
        """The numbers there are; none if there is no folder."""
        try:
            return sorted(int(name) for name in os.listdir(self.folder) if name.isdecimal())
        except FileNotFoundError:
            return []

    def create(self, number: int, text: str) -> bool:
        """Makes a file; False if it exists. Exclusive on NFS too, and needs no hard links."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / str(number)
        try:
            with open(path, 'x') as file:
                file.write(text)
        except FileExistsError:
            return False
        except OSError:  # a full disk: not ours with nothing in it
            path.unlink(missing_ok=True)
            raise
        return True

    def look(self, number: int) -> tuple[str, int] | None:
        """What is in a file, and a stamp that changes with every sign of life; None if there is none."""
        try:
            with open(self.folder / str(number), errors='replace') as file:  # opening is what makes NFS look again
                return file.read(), os.fstat(file.fileno()).st_mtime_ns
        except FileNotFoundError:
            return None

    def beat(self, number: int) -> None:
        """A sign of life. It takes no space: a full disk costs nobody a lease."""
        os.utime(self.folder / str(number))

    def end(self, number: int) -> None:
        """Marks the lease as given back, in place."""
        with open(self.folder / str(number), 'r+') as file:
            file.write(OVER)
            file.truncate()

    def remove(self, number: int) -> None:
        (self.folder / str(number)).unlink(missing_ok=True)


class Lease:
    """A lease that is held, as long as it is not `lost`."""

    def __init__(self, slot: Slot, number: int):
        self.slot, self.number = slot, number

    def lost(self) -> bool:
        """Whether another process has taken it over, as it may after a long pause of this one."""
        return self.slot.numbers()[-1:] != [self.number]

    def keep(self, stop: threading.Event, every: float) -> None:
        """Shows every few seconds that the holder lives, until `stop`."""
        while not stop.wait(every):
            with contextlib.suppress(OSError):  # a network file system may be back at the next beat
                if self.lost():
                    return
                self.slot.beat(self.number)

    def give_back(self) -> None:
        """Lets others have it at once."""
        with contextlib.suppress(OSError):  # it ends by itself too, only later
            if not self.lost():
                self.slot.end(self.number)


@contextlib.contextmanager
def hold(folder: pathlib.Path, seconds: float = SECONDS) -> Iterator[Lease | None]:
    """Holds the lease of a folder during the block; None if another process has it. Raises StoreError if none can be
    made."""
    token = uuid.uuid4().hex
    try:
        lease = _obtain(Slot(folder), token, seconds)
    except OSError as e:
        _mine.pop(token, None)
        raise StoreError(f'{folder}: cannot be written ({e.strerror or e})') from None
    if lease is None:
        yield None
        return
    _mine[token] = lease
    stop = threading.Event()
    beat = threading.Thread(target=lease.keep, args=(stop, seconds / 4), daemon=True)
    try:
        beat.start()
        yield lease
    finally:
        stop.set()
        beat.join()
        lease.give_back()
        _mine.pop(token, None)


def check() -> None:
    """Raises TakenOver if another process has taken over what this one holds, as it may after a long pause."""
    for held in list(_mine.values()):
        if held is not None and held.lost():
            raise TakenOver(f'another process has taken over {held.slot.folder.name}')


def live(text: str, seconds: float) -> bool:
    """Whether a lease may be held by a process that lives. text: of its last file.  seconds: since that changed.

    A process of this machine is seen; one of another counts as dead after a day.
    """
    holder = _parse(text)
    if holder is None:  # given back, or just being written
        return text != OVER and seconds < SECONDS
    here = holder['process'].partition('.')[0] == _machine()
    return may_live(holder['process']) and (here or seconds < DAY)


def _obtain(slot: Slot, token: str, seconds: float) -> Lease | None:
    last = max(slot.numbers(), default=0)
    if last and not _free(slot, last, seconds):
        return None
    mine, text = last + 1, json.dumps({'token': token, 'process': process()})
    _mine[token] = None
    if not slot.create(mine, text):
        _mine.pop(token)
        return None
    numbers = slot.numbers()
    if numbers[-1:] != [mine]:  # it had been taken and given back since we looked, and ours fills a gap
        slot.remove(mine)
        _mine.pop(token)
        return None
    for number in numbers[:-1]:
        slot.remove(number)
        _watched.pop((slot.folder, number), None)
    return Lease(slot, mine)


def _free(slot: Slot, number: int, seconds: float) -> bool:
    """Whether the holder gave it back, is dead, or was not heard of for `seconds` while this process looked."""
    seen = slot.look(number)
    if seen is None or seen[0] == OVER:
        return True
    holder = _parse(seen[0])
    if holder is not None:
        ours = holder['process'] == process()
        if (ours and holder['token'] not in _mine) or not may_live(holder['process']):
            return True
    before, since = _watched.setdefault((slot.folder, number), (seen, time.monotonic()))
    if before != seen:
        _watched[slot.folder, number] = (seen, time.monotonic())
        return False
    return time.monotonic() - since > seconds


def _parse(text: str) -> dict | None:
    """Who holds a lease; None while that is just being written."""
    try:
        holder = json.loads(text)
        return {name: str(holder[name]) for name in ('token', 'process')}
    except (ValueError, TypeError, KeyError):
        return None


def process() -> str:
    """A name of this process that no other has, without dashes."""
    return f'{_machine()}.{os.getpid()}.{_started(os.getpid())}'


def may_live(name: str) -> bool:
    """Whether the process of that name (see `process`) is not known to be dead: it runs here, or elsewhere."""
    machine, number, started = [*name.split('.'), '', ''][:3]
    if machine != _machine() or not number.isdecimal():
        return bool(number)
    return not started or _started(int(number)) == started


@functools.cache
def _machine() -> str:
    """This machine, this start of it, and the process numbers that are valid in it, as 12 hex digits."""
    return hashlib.sha256(_describe_machine().encode()).hexdigest()[:12]


def _describe_machine() -> str:
    boot = pathlib.Path('/proc/sys/kernel/random/boot_id')
    try:
        return f'{socket.gethostname()} {boot.read_text().strip()} {os.readlink("/proc/self/ns/pid")}'
    except OSError:
        return f'{socket.gethostname()} {uuid.getnode()}'


def _started(number: int) -> str:
    """When a process began, in the kernel's words; '' if there is none, or no /proc."""
    try:
        text = pathlib.Path(f'/proc/{number}/stat').read_text()
    except OSError:
        return ''
    state, *fields = text.rpartition(')')[2].split()
    return '' if state == 'Z' else fields[18]
