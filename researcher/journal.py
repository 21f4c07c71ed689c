"""Append-only files of JSON lines that several processes share and that survive being killed at any moment."""
import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from w2s_jax.api import DataError, StoreError


@contextlib.contextmanager
def locked(path: str | Path, wait: bool = True) -> Iterator[Path]:
    """Holds the lock of a journal (PATH.lock); the kernel frees it when its process ends, however it ends. Local file
    systems only. Raises StoreError if its folder cannot be written to, or, without `wait`, if another holds it."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path.with_name(path.name + '.lock'), 'a')  # noqa: SIM115  (closed below; opening may fail alone)
    except OSError as e:
        raise StoreError(f'{path}: {e.strerror}, expected a folder that can be written to') from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise StoreError(f'{path}: another process is at it, expected one') from None
        yield path


def read(path: str | Path) -> list[dict]:
    """The records of a journal in their order, none if there is no file. A last line that was not finished, as a kill
    leaves it, is no record. Raises DataError for any other line that is no JSON object."""
    try:
        whole = Path(path).read_bytes().split(b'\n')[:-1]
    except FileNotFoundError:
        return []
    return [_record(path, number, line) for number, line in enumerate(whole, 1)]


def append(path: Path, record: dict) -> None:
    """Adds a record and waits for the disk; to be called under `locked`. Cuts off what a killed process left
    unfinished. Raises DataError for what is no JSON (NaN too)."""
    try:
        line = json.dumps(record, allow_nan=False, sort_keys=True).encode() + b'\n'
    except (TypeError, ValueError) as e:
        raise DataError(f'{path}: {e}, expected a record of finite numbers, texts, lists and dicts') from None
    with open(path, 'a+b') as file:
        size = _finished(file)
        os.ftruncate(file.fileno(), size)
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
    if not size:
        _sync_folder(path.parent)


def _finished(file) -> int:
    """The size in bytes of the whole lines of a file."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - 65536)
        file.seek(start)
        at = file.read(end - start).rfind(b'\n')
        if at >= 0:
            return start + at + 1
        end = start
    return 0


def _sync_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _record(path: str | Path, number: int, line: bytes) -> dict:
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise DataError(f'{path}, line {number}: {line[:60].decode(errors="replace")!r}, expected a JSON object')
    return record
