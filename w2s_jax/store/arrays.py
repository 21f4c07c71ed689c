"""Arrays and texts in files: what is larger than memory should hold is mapped, and read when it is looked at.

Text columns of an artifact are pyarrow strings in a Parquet file. Nothing is ever pickled, nor unpickled.
"""
import array
import contextlib
import functools
import json
import pathlib
import struct
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from w2s_jax.errors import StoreError

LARGE = 1 << 20  # bytes from which an array of a file, or a column of texts, is mapped
_BLOCK = 1 << 22
_ROWS = 2000


class Growing:
    """An array that is written row by row into a file without a name, which is gone with the last use of it, also of a
    process that is killed. folder: on whose disk it is; None: where temporary files are."""

    def __init__(self, dtype, folder: pathlib.Path | None = None):
        self.dtype = np.dtype(dtype)
        self.folder = folder or pathlib.Path(tempfile.gettempdir())
        self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115

    def append(self, block: np.ndarray) -> None:
        """Writes more rows. Raises OSError, with the folder's name, if the disk is full."""
        self.write(np.ascontiguousarray(block, self.dtype).data)

    def write(self, raw) -> None:
        """Writes the bytes of more rows. Raises OSError, with the folder's name, if the disk is full."""
        with self._named():
            self.file.write(raw)

    @contextlib.contextmanager
    def _named(self):
        try:
            yield
        except OSError as e:  # a file without a name has none to tell
            raise OSError(e.errno, e.strerror, str(self.folder)) from None

    def array(self, *shape: int) -> np.ndarray:
        """All that was written, mapped, not to be written to: `shape`, of which one may be -1."""
        with self._named():
            self.file.flush()
        if not self.file.tell():
            return np.empty(0, self.dtype).reshape([0 if n == -1 else n for n in shape])
        return np.memmap(self.file, self.dtype, 'r').view(np.ndarray).reshape(shape)


class Texts:
    """Texts `[N, S]`, or `[N]`, in a file without a name, as UTF-8. To whoever asks for rows it is an array of str, new
    ones each time; memory holds 8 bytes a text. Raises OSError if the disk is full.

    rows: S texts each, or one.  folder: as for `Growing`.
    """
    dtype = np.dtype(object)
    shape: tuple[int, ...]

    def __init__(self, rows: Iterable[Sequence[str]] | Iterable[str], folder: pathlib.Path | None = None):
        written, lengths, count = Growing(np.uint8, folder), array.array('q'), 0
        shape: tuple[int, ...] = (1,)
        for row in rows:
            raw = [text.encode() for text in ([row] if isinstance(row, str) else row)]
            found = () if isinstance(row, str) else (len(raw),)
            if count and found != shape:
                raise ValueError(f'row {count} has shape {found}, the rows before {shape}')
            written.write(b''.join(raw))
            lengths.extend(map(len, raw))
            count, shape = count + 1, found
        self.shape = (count, *shape)
        self.content = written.array(-1), np.cumsum(np.asarray(lengths))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index) -> np.ndarray:
        """A row `[S]`, or rows by a slice or an array of their numbers `[..., S]`; or (rows, number of a column)."""
        if isinstance(index, tuple):
            return np.take(self[index[0]], index[1], axis=-1)
        rows = np.arange(*index.indices(len(self))) if isinstance(index, slice) else np.asarray(index)
        width = int(np.prod(self.shape[1:]))
        at = rows[..., None] * width + np.arange(width)
        out = np.empty(at.size, object)
        out[:] = [self._text(i) for i in at.ravel().tolist()]
        return out.reshape(rows.shape + self.shape[1:])[()]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self[:]

    def _text(self, i: int) -> str:
        raw, ends = self.content
        return raw[ends[i - 1] if i else 0:ends[i]].tobytes().decode()


class StoredTexts(Texts):
    """A column of a file of texts (`write_texts`), unpacked when it is first looked at. Raises StoreError then if it is
    damaged."""

    def __init__(self, path: pathlib.Path, name: str, shape: tuple[int, ...]):
        self.path, self.name, self.shape = path, name, shape

    @functools.cached_property
    def content(self) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[override]
        """The UTF-8 of all texts, and where each ends."""
        import pyarrow as pa
        from pyarrow import parquet
        written, ends, total = Growing(np.uint8, self.path.parent.parent), [np.empty(0, np.int64)], 0
        try:
            with parquet.ParquetFile(self.path, page_checksum_verification=True) as file:
                for batch in file.iter_batches(_ROWS, columns=[self.name]):
                    texts = batch.column(0).flatten()
                    offsets = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset:][:len(texts) + 1]
                    if len(texts):
                        written.write(memoryview(texts.buffers()[2] or b'')[offsets[0]:offsets[-1]])
                        ends.append(total + offsets[1:] - offsets[0])
                        total = int(ends[-1][-1])
        except (pa.ArrowException, OSError) as e:
            raise StoreError(f'{self.path}: unreadable ({type(e).__name__}); delete {self.path.parent} to compute it '
                             'again') from None
        return written.array(-1), np.concatenate(ends)


def column(name: str, values) -> np.ndarray | Texts:
    """An array as artifacts hold it: numbers as they are, texts as objects that are str. Raises StoreError if it holds
    objects of another kind, which NumPy would pickle.

    values: an array, a list, `Texts`, or an Arrow array of strings or of lists of as many strings each.
    """
    if isinstance(values, Texts):
        return values
    if type(values).__module__.partition('.')[0] == 'pyarrow':
        try:
            return Texts(value.as_py() for value in values)
        except (AttributeError, TypeError, ValueError):
            raise StoreError(f'array {name!r}: {values.type}, expected strings, or lists of as many strings each, and '
                             'no nulls') from None
    found = np.asarray(values)
    if (isinstance(values, list) and found.dtype.kind == 'U') or found.dtype.kind == 'T':
        found = found.astype(object)
    texts = found.dtype == object and found.ndim in (1, 2) and all(map(_is_text, found.flat))
    if found.dtype.hasobject and not texts:
        raise StoreError(f'array {name!r}: holds objects, expected numbers, or texts [N] or [N, S] that are str')
    return found


def _is_text(value) -> bool:
    return isinstance(value, str) and value.encode(errors='replace') == value.encode(errors='surrogatepass')


def write_texts(path: pathlib.Path, columns: dict[str, np.ndarray | Texts]) -> None:
    """Writes texts, some rows at a time; columns need not be equally long: the rest of a shorter one is null."""
    import pyarrow as pa
    from pyarrow import parquet
    kind, shapes = pa.list_(pa.string()), {name: list(texts.shape) for name, texts in columns.items()}
    schema = pa.schema([(name, kind) for name in columns], {'shapes': json.dumps(shapes)})
    with parquet.ParquetWriter(path, schema, compression='zstd', write_page_checksum=True) as file:
        length = max(map(len, columns.values()))
        for start in range(0, length, _ROWS):
            rows = range(start, min(start + _ROWS, length))
            found = [texts[start:rows.stop] for texts in columns.values()]
            lists = [(f if f.ndim == 2 else f[:, None]).tolist() + [None] * (len(rows) - len(f)) for f in found]
            file.write_batch(pa.record_batch([pa.array(column, kind) for column in lists], schema=schema))


def read_texts(path: pathlib.Path) -> dict[str, np.ndarray | Texts]:
    """The columns of a file of texts: LARGE ones are `Texts`, others are arrays of str."""
    from pyarrow import parquet
    with parquet.ParquetFile(path) as file:
        shapes = json.loads(file.schema_arrow.metadata[b'shapes'])
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        sizes = {name: sum(g.column(i).total_uncompressed_size for g in groups) for i, name in enumerate(shapes)}
    found = {name: StoredTexts(path, name, tuple(shape)) for name, shape in shapes.items()}
    return {name: texts if sizes[name] >= LARGE else texts[:] for name, texts in found.items()}


def chunks(rows: np.ndarray | Texts, size: int = _ROWS) -> Iterator[np.ndarray]:
    """The rows of `[N, ...]`, so many at a time."""
    return (rows[start:start + size] for start in range(0, len(rows), size))


def read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file; LARGE ones that are not compressed are mapped, read-only, after a check of their
    CRC-32. Nothing is unpickled. Raises what zipfile and NumPy do if the file is damaged."""
    with np.load(path, allow_pickle=False) as found:
        infos = {name: found.zip.getinfo(f'{name}.npy') for name in found.files}
        return {name: found[name] if _small(info) else _mapped(path, found.zip, info) for name, info in infos.items()}


def _small(info: zipfile.ZipInfo) -> bool:
    return info.file_size < LARGE or info.compress_type != zipfile.ZIP_STORED


def _mapped(path: pathlib.Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        if version != (1, 0):
            raise ValueError(f'{info.filename} has version {version} of the format, expected (1, 0)')
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(member)
        begin = member.tell()
        while member.read(_BLOCK):  # at its end its CRC-32 is compared
            pass
    if dtype.hasobject:
        raise ValueError(f'{info.filename} holds objects')
    with open(path, 'rb') as file:
        file.seek(info.header_offset + 26)  # of the local header, whose name and extra field lie before the content
        name, extra = struct.unpack('<HH', file.read(4))
    begin += info.header_offset + 30 + name + extra
    return np.memmap(path, dtype, 'r', begin, shape, 'F' if fortran else 'C').view(np.ndarray)
