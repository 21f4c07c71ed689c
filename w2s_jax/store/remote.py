"""A store at a URL (`gs://`, `s3://`, `file://` ...), with a folder here as its cache.

Artifacts are uploaded file by file, DONE last, and count from then on. They are found by DONE; what is small comes
with it, arrays and parameters when they are first asked for. The pending work of killed phases stays in the cache:
on the same machine it is gone on with; another machine begins such a phase again.
"""
import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import fsspec
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.local import LocalFileSystem

from w2s_jax.errors import StoreError
from w2s_jax.store import lease
from w2s_jax.store.artifacts import Artifact, Store
from w2s_jax.text import digest

LATER = ('predictions.npz', 'params/')  # files that are downloaded when they are asked for
LISTED = 2.0  # seconds for which a list of what is there may be used again
CACHE = '~/.cache/w2s_jax'


def open_store(where: str | pathlib.Path, cache: pathlib.Path | None = None) -> Store:
    """The store in a folder or, with '://' in its name, at a URL. Raises StoreError."""
    if '://' not in str(where):
        return Store(pathlib.Path(where).expanduser().absolute())
    url = str(where).rstrip('/')
    return RemoteStore(url, cache or pathlib.Path(CACHE).expanduser() / digest(url))


@contextlib.contextmanager
def errors(url: str, what: str) -> Iterator[None]:
    """Whatever a file system raises, as a StoreError in one line."""
    try:
        yield
    except StoreError:
        raise
    except Exception as e:  # each library has exceptions of its own
        reason = ' '.join(str(e).split()) or type(e).__name__
        raise StoreError(f'{url}: cannot be {what} ({reason})') from None


class Files:
    """The files below a URL."""

    def __init__(self, url: str):
        self.url = url.rstrip('/')
        with errors(url, 'opened'):
            self.fs, self.root = fsspec.core.url_to_fs(self.url, use_listings_cache=False)

    def path(self, name: str) -> str:
        return f'{self.root}/{name}' if name else self.root

    def create(self, name: str, data: bytes) -> bool:
        """Makes a file; False where it exists."""
        try:
            if isinstance(self.fs, LocalFileSystem):
                with self.fs.open(self.path(name), 'xb') as file:
                    file.write(data)
            else:
                self.fs.pipe_file(self.path(name), data, mode='create')
        except FileExistsError:
            return False
        except Exception as e:  # object stores have no common word for it
            if exists_already(e):
                return False
            raise
        return True

    def parents(self, name: str) -> None:
        """Makes the folders above a file, where the file system has folders."""
        self.fs.makedirs(self.path(name).rpartition('/')[0], exist_ok=True)


def exists_already(error: BaseException) -> bool:
    """Whether an object store says that the file, which was to be new, is there (HTTP 412 and 409)."""
    text = f'{error} {error.__cause__}'
    return any(word in text for word in ('PreconditionFailed', 'pre-conditions', 'conditionNotMet', 'ConditionNotMet',
                                         'ConditionalRequestConflict', 'BlobAlreadyExists', '412'))


class RemoteSlot:
    """The numbered files of one lease at a URL; see `lease.Slot`."""

    def __init__(self, files: Files, folder: str):
        self.files, self.folder, self.name = files, folder, f'{files.url}/{folder}'
        self.beats = 0

    def _path(self, number: int) -> str:
        return self.files.path(f'{self.folder}/{number}')

    def numbers(self) -> list[int]:
        try:
            found = self.files.fs.ls(self.files.path(self.folder), detail=False)
        except FileNotFoundError:
            return []
        names = (path.rstrip('/').rpartition('/')[2] for path in found)
        return sorted(int(name) for name in names if name.isdecimal())

    def create(self, number: int, text: str) -> bool:
        name = f'{self.folder}/{number}'
        self.files.parents(name)
        return self.files.create(name, text.encode())

    def look(self, number: int) -> tuple[str, Any] | None:
        try:
            text = self.files.fs.cat_file(self._path(number)).decode(errors='replace')
        except FileNotFoundError:
            return None
        holder, _, beats = text.partition('\n')
        return holder, beats

    def beat(self, number: int, text: str) -> None:
        """A sign of life: the holder alone writes his file, so nothing is lost by writing it again."""
        self.beats += 1
        self.files.fs.pipe_file(self._path(number), f'{text}\n{self.beats}'.encode())

    def end(self, number: int) -> None:
        self.files.fs.pipe_file(self._path(number), lease.OVER.encode())

    def remove(self, number: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.files.fs.rm_file(self._path(number))


class RemoteArtifact(Artifact):
    """An artifact whose files come when they are asked for."""

    def __init__(self, path: pathlib.Path, fetch: Callable[[str, str], None]):
        super().__init__(path)
        object.__setattr__(self, 'fetch', fetch)

    def file(self, name: str) -> pathlib.Path:
        if not (self.path / name).exists():
            self.fetch(self.path.name, name)  # type: ignore[attr-defined]
        return self.path / name


class RemoteStore(Store):
    """The artifacts at a URL; `folder` is the cache. Raises StoreError where two machines could not share it."""

    def __init__(self, url: str, cache: pathlib.Path):
        super().__init__(cache)
        self.files = Files(url)
        self.listed: tuple[float, frozenset[str]] = (-LISTED, frozenset())
        check_exclusive(self.files)

    @property
    def place(self) -> str:
        return self.files.url

    def find(self, kind: str, identity: str) -> Artifact | None:
        path = self.path(kind, identity)
        if not (path / 'DONE').exists():
            if path.name not in self._list():
                return None
            self._fetch_small(path.name)
        return RemoteArtifact(path, self._fetch)

    def lease(self, name: str):
        return lease.hold(RemoteSlot(self.files, f'leases/{name}'))  # type: ignore[arg-type]

    def name(self, workdir, ids) -> None:
        super().name(workdir, ids)
        name = f'named/{digest(str(workdir))}.json'
        with errors(f'{self.files.url}/{name}', 'written'):
            self.files.parents(name)
            self.files.fs.pipe_file(self.files.path(name), (self.folder / name).read_bytes())

    def save(self, kind, identity, config, metrics, arrays=None, params=None) -> Artifact:
        return RemoteArtifact(super().save(kind, identity, config, metrics, arrays, params).path, self._fetch)

    def _list(self) -> frozenset[str]:
        """The names of the artifacts that are there, at most LISTED seconds ago."""
        if time.monotonic() - self.listed[0] > LISTED:
            with errors(self.files.url, 'listed'):
                paths = self.files.fs.find(self.files.root) if self.files.fs.exists(self.files.root) else []
            names = (path.split('/')[-2] for path in paths if path.endswith('/DONE'))
            self.listed = time.monotonic(), frozenset(names)
        return self.listed[1]

    def _publish(self, part: pathlib.Path, name: str) -> None:
        """Uploads; where another was faster, what is there is what counts, and ours becomes a copy of it."""
        fs = self.files.fs
        with errors(f'{self.files.url}/{name}', 'written'):
            if fs.exists(self.files.path(f'{name}/DONE')):
                shutil.rmtree(part)
                self._fetch_small(name)
                part.mkdir()
                return
            names = sorted((str(f.relative_to(part)) for f in part.rglob('*') if f.is_file()), key='DONE'.__eq__)
            for file in names:
                self.files.parents(f'{name}/{file}')
                fs.put_file(str(part / file), self.files.path(f'{name}/{file}'))

    def _fetch_small(self, name: str) -> None:
        """Brings an artifact into the cache, without its large files."""
        part, path = self.folder / f'.part-{name}-{lease.process()}', self.folder / name
        with errors(f'{self.files.url}/{name}', 'read'):
            sums = json.loads(self.files.fs.cat_file(self.files.path(f'{name}/DONE')))
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            for file in sums:
                if not file.startswith(LATER):
                    self._download(name, file, part / file, sums[file])
            (part / 'DONE').write_text(json.dumps(sums, indent=1) + '\n')
            with contextlib.suppress(OSError):  # another process was faster
                part.rename(path)
            shutil.rmtree(part, ignore_errors=True)

    def _fetch(self, name: str, file: str) -> None:
        """Brings one more file of an artifact into the cache; nothing where it has no such file."""
        path = self.folder / name / file
        sums = json.loads((self.folder / name / 'DONE').read_text())
        if file in sums:
            with errors(f'{self.files.url}/{name}/{file}', 'read'):
                self._download(name, file, path, sums[file])

    def _download(self, name: str, file: str, path: pathlib.Path, expected: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f'.part-{path.name}-{lease.process()}')
        self.files.fs.get_file(self.files.path(f'{name}/{file}'), str(part))
        with open(part, 'rb') as stream:
            found = hashlib.file_digest(stream, 'sha256').hexdigest()
        if found != expected:
            os.unlink(part)
            raise StoreError(f'{self.files.url}/{name}/{file}: damaged (its SHA-256 is not the one in DONE); '
                             f'delete {self.files.url}/{name} to compute it again')
        part.rename(path)


def check_exclusive(files: Files) -> None:
    """Raises StoreError where a file system would let two processes create the same file."""
    name = f'leases/.probe-{uuid.uuid4().hex}'
    with errors(files.url, 'written'):
        files.parents(name)
        made = [files.create(name, b''), files.create(name, b'')] if has_exclusive(files.fs) else []
        with contextlib.suppress(FileNotFoundError):
            files.fs.rm_file(files.path(name))
    if made != [True, False]:
        raise StoreError(f'{files.url}: this file system cannot create a file exclusively, expected one that can '
                         '(file, gs, s3, abfs), so that two processes do not do the same work')


def has_exclusive(fs) -> bool:
    """Whether a file system has a `create` of its own: fsspec's looks first and writes then, which is a race."""
    if isinstance(fs, LocalFileSystem):
        return True
    method, base = ('_pipe_file', AsyncFileSystem) if fs.async_impl else ('pipe_file', fsspec.AbstractFileSystem)
    return getattr(type(fs), method) is not getattr(base, method)
