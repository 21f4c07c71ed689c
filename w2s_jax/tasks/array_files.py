"""Named arrays out of .npz, .npy and .parquet files of anyone's: nothing is unpickled, sizes are known before reading.
"""
import math
import pathlib
import zipfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from w2s_jax import paths
from w2s_jax.errors import DataError
from w2s_jax.text import one_line

MOST = 1 << 34  # bytes of an array, so that a small file cannot ask for all memory
BROKEN = (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, OverflowError, MemoryError,
          zipfile.BadZipFile, zlib.error, pa.ArrowException)


def read(path: str, names: dict[str, str]) -> dict[str, np.ndarray]:
    """Arrays by field. Raises DataError, one line, for what is not there, is damaged, or holds Python objects.

    Args:
      path: a .npz file, a .parquet file (columns of numbers, texts, or lists of one length), or a folder of NAME.npy.
      names: field of `task` -> name of the array.
    """
    try:
        place = pathlib.Path(path).expanduser()
    except RuntimeError as e:
        raise DataError(f'{path}: {paths.reason(e)}') from None
    if not paths.exists(place, 'task.path'):
        raise DataError(f'{path}: no such file or folder')
    kind = 'folder' if place.is_dir() else place.suffix.lower()
    if kind not in _READERS:
        raise DataError(f'{path}: unknown kind of file, expected .npz, .parquet, or a folder of .npy files')
    paths.check_file(place)
    try:
        return _READERS[kind](place, names)
    except DataError:
        raise
    except BROKEN as e:
        raise DataError(f'{path}: not readable, damaged or not of this kind ({one_line(e)[:160]})') from None


def _folder(place: pathlib.Path, names: dict[str, str]) -> dict[str, np.ndarray]:
    found = {}
    for field, name in names.items():
        file = place / f'{name}.npy'
        if pathlib.PurePath(name).name != name or not paths.exists(file):
            there = ', '.join(sorted(f.stem for f in place.glob('*.npy'))[:20])
            raise DataError(f'{place}: task.{field}: no file {name}.npy, it has {there or "none"}')
        paths.check_file(file)
        try:
            with open(file, 'rb') as stream:
                _check_header(stream, file.stat().st_size)
            found[field] = np.load(file, mmap_mode='r', allow_pickle=False)
        except BROKEN as e:
            raise DataError(f'{file}: not a readable .npy file ({one_line(e)[:160]})') from None
    return found


def _npz(place: pathlib.Path, names: dict[str, str]) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(place) as archive:
        there = {i.filename.removesuffix('.npy'): i for i in archive.infolist() if i.filename.endswith('.npy')}
        _check_names(place, names, list(there))
        for field, name in names.items():
            with archive.open(there[name]) as stream:
                try:
                    _check_header(stream, there[name].file_size)
                except ValueError as e:
                    raise DataError(f'{place}: task.{field}: array {name!r}: {one_line(e)[:160]}') from None
    with np.load(place, allow_pickle=False) as file:
        return {field: file[name] for field, name in names.items()}


def _check_header(stream, size: int) -> None:
    """Raises ValueError unless an array in NumPy's format holds no objects, is not too large, and has the bytes that it
    says. size: of the file in bytes."""
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"NumPy's format {version[0]}.{version[1]}, expected 1.0 or 2.0")
    shape, _, dtype = (np.lib.format.read_array_header_1_0 if version == (1, 0)
                       else np.lib.format.read_array_header_2_0)(stream)
    if dtype.hasobject:
        raise ValueError('holds Python objects, which are not unpickled, expected numbers')
    wanted = math.prod(shape) * dtype.itemsize
    if wanted > MOST:
        raise ValueError(f'{wanted} bytes, expected at most {MOST}')
    if wanted != size - stream.tell():
        raise ValueError(f'{size - stream.tell()} bytes of numbers, expected the {wanted} that its header says')


def _check_names(place, names: dict[str, str], there: list[str]) -> None:
    for field, name in names.items():
        if name not in there:
            raise DataError(f'{place}: task.{field}: no array {name!r}, it has {", ".join(map(repr, there))[:300]}')


def _parquet(place: pathlib.Path, names: dict[str, str]) -> dict[str, np.ndarray]:
    with pq.ParquetFile(place) as file:
        _check_names(place, names, file.schema_arrow.names)
        meta = file.metadata
        chunks = [meta.row_group(g).column(c) for g in range(meta.num_row_groups) for c in range(meta.num_columns)
                  if meta.schema.column(c).path.split('.')[0] in names.values()]
        size = sum(max(c.total_uncompressed_size, 8 * c.num_values) for c in chunks)  # a repeated value takes no room
        if size > MOST:
            raise DataError(f'{place}: {size} bytes, expected at most {MOST}')
        table = file.read(columns=list(names.values()))
    table.validate(full=True)  # or text that is not UTF-8 comes up later
    return {field: _column(f'{place}: task.{field}', table.column(name)) for field, name in names.items()}


def _column(where: str, column: pa.ChunkedArray) -> np.ndarray:
    """`[N]`, or of lists `[N, D]`. Raises DataError for gaps and for lists of different lengths."""
    if column.null_count:
        gap = int(np.argmax(column.is_null().to_numpy()))
        raise DataError(f'{where}: row {gap + 1} is missing, expected none to be')
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        return np.array(column.to_pylist(), str) if text else column.to_numpy()
    lengths = pc.list_value_length(column).to_numpy()
    if (lengths != lengths[:1]).any():
        row = int(np.argmax(lengths != lengths[0]))
        raise DataError(f'{where}: row {row + 1} has {lengths[row]} numbers and row 1 {lengths[0]}, expected as many')
    flat = pc.list_flatten(column)
    if flat.null_count:
        raise DataError(f'{where}: a list has a gap, expected numbers')
    return flat.to_numpy().reshape(len(column), -1) if len(column) else np.zeros((0, 1))


_READERS = {'folder': _folder, '.npz': _npz, '.parquet': _parquet}
