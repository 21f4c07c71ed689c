"""Arrays that stay in files: what is larger than memory should hold is mapped, and read where it is looked at."""
import array
import pathlib
import struct
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

LARGE = 1 << 20  # bytes from which an array of a file is mapped
_BLOCK = 1 << 22


class Growing:
    """An array that is written row by row into a file without a name, which is gone with the last use of it, also of a
    process that is killed. folder: on whose disk it is; None: where temporary files are."""

    def __init__(self, dtype, folder: pathlib.Path | None = None):
        self.dtype = np.dtype(dtype)
        self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115

    def append(self, block: np.ndarray) -> None:
        """Writes more rows. Raises OSError where the disk is full."""
        self.file.write(np.ascontiguousarray(block, self.dtype).data)

    def array(self, *shape: int) -> np.ndarray:
        """All that was written, mapped, not to be written to: `shape`, of which one may be -1."""
        self.file.flush()
        if not self.file.tell():
            return np.empty(0, self.dtype).reshape([0 if n == -1 else n for n in shape])
        return np.memmap(self.file, self.dtype, 'r').view(np.ndarray).reshape(shape)


class Texts:
    """Texts `[N, S]` in a file without a name, as UTF-8. To whoever asks for rows it is an array of str, new ones each
    time; memory holds 8 bytes a text. Raises OSError where the disk is full.

    rows: S texts each.  folder: as for `Growing`.
    """
    dtype = np.dtype(object)

    def __init__(self, rows: Iterable[Sequence[str]], folder: pathlib.Path | None = None):
        written, lengths, width = Growing(np.uint8, folder), array.array('q'), 1
        for row in rows:
            raw = [text.encode() for text in row]
            written.file.write(b''.join(raw))
            lengths.extend(map(len, raw))
            width = len(raw)
        self.shape, self.bytes = (len(lengths) // width, width), written.array(-1)
        self.ends = np.cumsum(np.frombuffer(lengths, np.int64)) if lengths else np.empty(0, np.int64)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index) -> np.ndarray:
        """A row `[S]`, or rows by a slice or an array of their numbers `[..., S]`; or (rows, number of a column)."""
        if isinstance(index, tuple):
            return np.take(self[index[0]], index[1], axis=-1)
        rows = np.arange(*index.indices(len(self))) if isinstance(index, slice) else np.asarray(index)
        at = rows[..., None] * self.shape[1] + np.arange(self.shape[1])
        out = np.empty(at.size, object)
        out[:] = [self._text(i) for i in at.ravel().tolist()]
        return out.reshape(at.shape)

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self[:]

    def _text(self, i: int) -> str:
        return self.bytes[self.ends[i - 1] if i else 0:self.ends[i]].tobytes().decode()


def chunks(rows: np.ndarray | Texts, size: int = 2000) -> Iterator[np.ndarray]:
    """The rows of `[N, ...]`, so many at a time."""
    return (rows[start:start + size] for start in range(0, len(rows), size))


def read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file; LARGE ones that are not compressed are mapped, read-only, after a check of their
    CRC-32. Nothing is unpickled. Raises what zipfile and NumPy do where the file is damaged."""
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
