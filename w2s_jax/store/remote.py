"""A store at a URL (`gs://`, `s3://`, `file://` ...), with a folder here as its cache.

Artifacts are uploaded file by file, DONE last, and count from then on. They are found by DONE; what is small comes
with it, arrays and parameters when they are first asked for. Leases and the pending work of killed phases stay in the
cache: processes of one machine divide the work and resume it. Machines that share a URL know nothing of each other
until an artifact is whole, so two of them may do the same phase, and the first one to publish it counts; to divide work
among machines is Ray's (`--executor=ray`), or needs a folder that all of them mount.
"""
import contextlib
import json
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator

import fsspec
from fsspec.implementations.dirfs import DirFileSystem

from w2s_jax.errors import StoreError
from w2s_jax.store import lease
from w2s_jax.store.artifacts import Artifact, Store, sha256
from w2s_jax.text import digest

LATER = ('predictions.npz', 'texts.parquet', 'params/')  # files that are downloaded when they are asked for
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
    """The files below a URL: `fs` takes names that are relative to it."""

    def __init__(self, url: str):
        self.url = url.rstrip('/')
        with errors(url, 'opened'):
            fs, root = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
            self.fs = DirFileSystem(root, fs)

    def path(self, name: str) -> str:
        """How messages name a file."""
        return f'{self.url}/{name}'

    def put(self, source: pathlib.Path, name: str) -> None:
        """Uploads a file, and makes the folders above it if the file system has folders."""
        self.fs.makedirs(name.rpartition('/')[0], exist_ok=True)
        self.fs.put_file(str(source), name)


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
    """The artifacts at a URL; `folder` is the cache, which has the leases too."""

    def __init__(self, url: str, cache: pathlib.Path):
        super().__init__(cache)
        self.files = Files(url)
        self.listed: tuple[float, frozenset[str]] = (-LISTED, frozenset())

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

    def name(self, workdir, ids) -> None:
        super().name(workdir, ids)
        name = f'named/{digest(str(workdir))}.json'
        with errors(self.files.path(name), 'written'):
            self.files.put(self.folder / name, name)

    def save(self, config, metrics, arrays=None, params=None) -> Artifact:
        return RemoteArtifact(super().save(config, metrics, arrays, params).path, self._fetch)

    def _list(self) -> frozenset[str]:
        """The names of the artifacts that are there, at most LISTED seconds ago."""
        if time.monotonic() - self.listed[0] > LISTED:
            with errors(self.files.url, 'listed'):
                paths = self.files.fs.find('') if self.files.fs.exists('') else []
            self.listed = time.monotonic(), frozenset(p.split('/')[-2] for p in paths if p.endswith('/DONE'))
        return self.listed[1]

    def _publish(self, part: pathlib.Path, name: str) -> None:
        """Uploads; if another was faster, what is there is what counts, and ours becomes a copy of it.

        Two that upload at the same time overwrite each other's files. Whoever then sees DONE before writing its own
        uploads all again, so that what stays is of one of them; what still slips through, the checksums notice.
        """
        with errors(self.files.path(name), 'written'):
            if self.files.fs.exists(f'{name}/DONE'):
                shutil.rmtree(part)
                self._fetch_small(name)
                part.mkdir()
                return
            files = [str(f.relative_to(part)) for f in part.rglob('*') if f.is_file() and f.name != 'DONE']
            files.sort(key=lambda f: (not f.startswith(LATER), f))  # long uploads first: little time is left to differ
            for file in files:
                self.files.put(part / file, f'{name}/{file}')
            for file in [*(files if self.files.fs.exists(f'{name}/DONE') else []), 'DONE']:
                self.files.put(part / file, f'{name}/{file}')

    def _fetch_small(self, name: str) -> None:
        """Brings an artifact into the cache, without its large files."""
        part, path = self.folder / f'.part-{name}-{lease.process()}', self.folder / name
        with errors(self.files.path(name), 'read'):
            sums = json.loads(self.files.fs.cat_file(f'{name}/DONE'))
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            for file in sums:
                if not file.startswith(LATER):
                    self._download(f'{name}/{file}', part / file, sums[file])
            (part / 'DONE').write_text(json.dumps(sums, indent=1) + '\n')
            with contextlib.suppress(OSError):  # another process was faster
                part.rename(path)
            shutil.rmtree(part, ignore_errors=True)

    def _fetch(self, name: str, file: str) -> None:
        """Brings one more file of an artifact into the cache; nothing if it has no such file."""
        sums = json.loads((self.folder / name / 'DONE').read_text())
        if file in sums:
            with errors(self.files.path(f'{name}/{file}'), 'read'):
                self._download(f'{name}/{file}', self.folder / name / file, sums[file])

    def _download(self, name: str, path: pathlib.Path, expected: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f'.part-{path.name}-{lease.process()}')
        self.files.fs.get_file(name, str(part))
        with open(part, 'rb') as stream:
            found = sha256(stream)
        if found != expected:
            os.unlink(part)
            raise StoreError(f'{self.files.path(name)}: damaged (its SHA-256 is not the one in DONE); '
                             f'delete {self.files.path(name.partition("/")[0])} to compute it again')
        part.rename(path)
