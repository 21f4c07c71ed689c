"""Artifacts on disk: content-addressed folders, written aside, renamed when whole, never changed after."""
import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import json
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
    `params/`."""
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
        if 'texts.parquet' in self._read('DONE', lambda p: json.loads(p.read_text())):
            found |= self._read('texts.parquet', disk.read_texts)
        return found

    def params(self) -> dict:
        """The trained parameters, a tree. Raises WeightsError if none were kept."""
        return trees.load(self.file('params/model.safetensors'))

    def _read(self, name, read):
        try:
            return read(self.file(name))
        except StoreError:
            raise
        except Exception as e:  # whatever a damaged file makes a reader raise
            raise StoreError(f'{self.path / name}: unreadable ({type(e).__name__}); '
                             f'delete {self.path} to compute it again') from None


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

    def failure(self, artifact: Artifact) -> str | None:
        """Why the run behind an artifact diverged; None if it did not."""
        return str(artifact.metrics['failed']) if (artifact.path / 'FAILED').exists() else None

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

    def save(self, kind: str, identity: str, config: dict, metrics: dict,
             arrays: dict[str, Any] | None = None, params=None) -> Artifact:
        """Writes an artifact aside and renames it; one that is there already is left as it is. Raises StoreError.

        metrics: with the reason under 'failed' if the run diverged.  arrays: numbers, or texts as in `disk.column`.
        """
        if arrays is not None:
            arrays = {name: disk.column(name, array) for name, array in arrays.items()}
        path, part = self.path(kind, identity), self.folder / f'.part-{kind}-{identity}-{lease.process()}'
        try:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            _write(part, config, metrics, arrays, params)
            self._publish(part, path.name)
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


def _put(part: pathlib.Path, path: pathlib.Path) -> None:
    if path.exists() and not (path / 'DONE').exists():
        shutil.rmtree(path)
    try:
        part.rename(path)
    except OSError:
        if not (path / 'DONE').exists():
            raise
        shutil.rmtree(part)
