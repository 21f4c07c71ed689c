"""Artifacts on disk: content-addressed folders, written aside, renamed when whole, never changed after."""
import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterable
from typing import Any

import numpy as np
import safetensors

from w2s_jax.errors import StoreError
from w2s_jax.store import arrays as disk
from w2s_jax.store import files, lease, trees
from w2s_jax.text import digest


def sha256(stream: Any) -> str:
    """The checksum of an open binary file."""
    return hashlib.file_digest(stream, 'sha256').hexdigest()


@functools.lru_cache(maxsize=100_000)
def _sum(path: pathlib.Path, changed: int, size: int, number: int) -> str:
    with open(path, 'rb') as stream:
        return sha256(stream)


def named(config: dict) -> str:
    """The name of an artifact's folder, which follows from its config."""
    return f'{config["kind"]}-{digest(config)}'


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes JSON so that a reader sees the old file or the new one, never a part. Raises StoreError."""
    text = json.dumps(value, indent=1, allow_nan=False) + '\n'
    try:
        files.write(path, text)
    except OSError as e:
        raise StoreError(f'{path}: cannot be written ({e.strerror or e})') from None


@contextlib.contextmanager
def alone(folder: pathlib.Path):
    """Keeps other processes out of a folder until the block or the process ends. Raises StoreError if one is in."""
    with open(folder / '.lock', 'w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f'{folder}: another process is at work in it, expected none; '
                             'wait for it, or choose another --workdir') from None
        except OSError:
            pass  # a file system that has no locks
        yield


@dataclasses.dataclass(frozen=True)
class Artifact:
    """A finished phase: `config.json`, `metrics.json`, `predictions.npz`, and if there are some, `texts.parquet` and
    `params/`. Each file is compared with its SHA-256 in `DONE` when it is first read, and the folder's name with the
    hash of its config: StoreError says what to delete."""
    path: pathlib.Path

    def file(self, name: str) -> pathlib.Path:
        """Where a file of the artifact is."""
        return self.path / name

    @functools.cached_property
    def metrics(self) -> dict:
        """What the phase measured."""
        return self._read('metrics.json', lambda p: json.loads(p.read_text()))

    @functools.cached_property
    def arrays(self) -> dict[str, Any]:
        """What the phase predicted; large arrays stay in the file and are mapped (`disk.read_npz`, `disk.Texts`)."""
        found = self._read('predictions.npz', disk.read_npz)
        if 'texts.parquet' in self.sums:
            found |= self._read('texts.parquet', disk.read_texts)
        return found

    def params(self) -> dict:
        """The trained parameters, a tree. Raises WeightsError if none were kept."""
        name = 'params/model.safetensors'
        return trees.load(self.file(name)) if name not in self.sums else self._read(name, trees.load)

    @functools.cached_property
    def failed(self) -> str | None:
        """Why the run behind it diverged; None if it did not."""
        if 'FAILED' in self.sums:
            return str(self.metrics['failed'])
        if (self.path / 'FAILED').exists():
            raise self._damage('FAILED', 'should not be there')
        return None

    @functools.cached_property
    def sums(self) -> dict[str, str]:
        """The SHA-256 of every file, once the folder's name is known to be the hash of its config."""
        try:
            sums = json.loads((self.path / 'DONE').read_text())
            config = json.loads(self.checked('config.json', sums['config.json']).read_text())
            name, found = named(config), self.path.name
        except StoreError:
            raise
        except Exception as e:  # whatever a damaged file makes a reader raise
            raise self._damage('DONE', f'unreadable ({type(e).__name__})') from None
        if name != found:
            raise self._damage('config.json', f'is that of {name}')
        return sums

    def checked(self, name: str, expected: str) -> pathlib.Path:
        """Where a file is, once it is known to be as it was written."""
        path = self.file(name)
        seen = path.stat()
        if _sum(path, seen.st_mtime_ns, seen.st_size, seen.st_ino) != expected:
            raise self._damage(name, 'has changed since it was written')
        return path

    def _damage(self, name: str, what: str) -> StoreError:
        return StoreError(f'{self.path / name}: {what}; delete {self.path} to compute it again')

    def _read(self, name, read):
        try:
            return read(self.checked(name, self.sums[name]))
        except StoreError:
            raise
        except (KeyError, FileNotFoundError):
            raise self._damage(name, 'is missing') from None
        except Exception as e:  # whatever a damaged file makes a reader raise
            raise self._damage(name, f'unreadable ({type(e).__name__})') from None


class Store:
    """The artifacts of a work directory, and the pending work of killed phases."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        try:
            (folder / 'pending').mkdir(parents=True, exist_ok=True)
            probe = folder / '.writable'
            probe.write_text('')
            probe.unlink(missing_ok=True)  # another process may have been as far
        except OSError as e:
            raise StoreError(f'{folder}: cannot be written to ({(e.strerror or str(e)).lower()})') from None

    @property
    def place(self) -> str:
        """What `remote.open_store` opens it by, from any machine that can reach it."""
        return str(self.folder)

    def begun(self) -> bool:
        """Whether it holds an artifact or a checkpoint."""
        return any(self.folder.glob('*/DONE')) or any(self.folder.glob('pending/*/*/'))

    def path(self, kind: str, identity: str) -> pathlib.Path:
        return self.folder / f'{kind}-{identity}'

    def find(self, kind: str, identity: str) -> Artifact | None:
        """The artifact, if it is whole."""
        path = self.path(kind, identity)
        return Artifact(path) if (path / 'DONE').exists() else None

    def lease(self, name: str):
        """A block during which no other process has the lease of that name; yields None if one has."""
        return lease.hold(self.folder / 'leases' / name)

    def name(self, workdir: pathlib.Path | str, ids: Iterable[str]) -> None:
        """Writes down what a run or a grid needs, before it begins: `w2s store gc` removes what nothing names."""
        path = self.folder / 'named' / f'{digest(str(workdir))}.json'
        try:
            path.parent.mkdir(exist_ok=True)
        except OSError as e:
            raise StoreError(f'{path}: cannot be written ({e.strerror or e})') from None
        named = {'workdir': str(workdir), 'ids': sorted(set(ids))}
        with contextlib.suppress(OSError, ValueError):
            if json.loads(path.read_text()) == named:
                return
        write_json(path, named)

    def save(self, config: dict, metrics: dict, arrays: dict[str, Any] | None = None, params=None) -> Artifact:
        """Writes an artifact aside and renames it; one that is there already is left as it is. Raises StoreError.

        config: with its kind; its hash is the artifact's id.  metrics: with the reason under 'failed' if the run
        diverged.  arrays: numbers, or texts as in `disk.column`.
        """
        if arrays is not None:
            arrays = {name: disk.column(name, array) for name, array in arrays.items()}
        name = named(config)
        path, part = self.folder / name, self.folder / f'.part-{name}-{lease.process()}'
        try:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            _write(part, config, metrics, arrays, params)
            self._publish(part, name)
            _put(part, path)
        except (OSError, safetensors.SafetensorError) as e:  # a full disk, for one
            raise StoreError(f'{path}: cannot be written ({e})') from None
        return Artifact(path)

    def _publish(self, part: pathlib.Path, name: str) -> None:
        """What is to happen to a whole artifact before it counts."""

    def clear_parts(self) -> None:
        """Removes what killed processes left half written."""
        for part in self.folder.glob('.part-*'):
            if not lease.may_live(part.name.rpartition('-')[2]):
                shutil.rmtree(part, ignore_errors=True)


def _write(part: pathlib.Path, config: dict, metrics: dict, arrays, params) -> None:
    write_json(part / 'config.json', config)
    write_json(part / 'metrics.json', metrics)
    if 'failed' in metrics:
        (part / 'FAILED').touch()
    if arrays is not None:
        texts = {name: array for name, array in arrays.items() if array.dtype == object}
        np.savez(part / 'predictions.npz', **{name: array for name, array in arrays.items() if name not in texts})
        if texts:
            disk.write_texts(part / 'texts.parquet', texts)
    if params is not None:
        (part / 'params').mkdir()
        trees.save(part / 'params' / 'model.safetensors', params)
    sums = {}
    for file in sorted(f for f in part.rglob('*') if f.is_file()):
        with open(file, 'rb') as stream:
            sums[str(file.relative_to(part))] = sha256(stream)
    write_json(part / 'DONE', sums)
    for place in [*part.rglob('*'), part]:  # a machine that goes down must not leave a DONE beside half a file
        _flush(place)


def _flush(path: pathlib.Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _put(part: pathlib.Path, path: pathlib.Path) -> None:
    if path.exists() and not (path / 'DONE').exists():
        shutil.rmtree(path)
    try:
        part.rename(path)
        _flush(path.parent)
    except OSError:
        if not (path / 'DONE').exists():
            raise
        shutil.rmtree(part)
