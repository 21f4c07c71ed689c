"""Tensors in the safetensors files of a model folder: where each lies, and its numbers in parts. Never a pickle."""
import dataclasses
import json
import math
import pathlib

import ml_dtypes
import numpy as np
import safetensors

from w2s_jax import paths
from w2s_jax.errors import WeightsError

DTYPES = {'F64': np.float64, 'F32': np.float32, 'F16': np.float16, 'BF16': ml_dtypes.bfloat16}
LARGEST = float(ml_dtypes.finfo(ml_dtypes.bfloat16).max)
_CHUNK = 1 << 22  # bytes read at a time from tensors that are kept as they are


@dataclasses.dataclass(frozen=True)
class Tensor:
    """Where a tensor lies: `offset` bytes into file `path`, under the name `key`. dtype: None where not a float."""
    path: pathlib.Path
    key: str
    dtype: np.dtype | None
    shape: tuple[int, ...]
    offset: int


def read_json(path: pathlib.Path) -> dict:
    paths.check_file(path, WeightsError)
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        raise WeightsError(f'{path}: no such file') from None
    except (OSError, ValueError, RecursionError) as e:
        raise WeightsError(f'{path}: not readable as JSON ({str(e).splitlines()[0]})') from None
    if not isinstance(content, dict):
        raise WeightsError(f'{path}: expected a JSON object')
    return content


def weight_files(folder: pathlib.Path) -> tuple[list[pathlib.Path], dict[str, str] | None]:
    """The safetensors files of a folder, and the map from tensor to file of a sharded checkpoint, else None."""
    single, index = folder / 'model.safetensors', folder / 'model.safetensors.index.json'
    if single.exists():
        return [single], None
    if not index.exists():
        if any(folder.glob('*.bin')) or any(folder.glob('*.pt')) or any(folder.glob('*.pth')):
            raise WeightsError(f'{folder}: only pickled weights, and a pickle can run code when it is read; if you '
                               'trust it: transformers.AutoModel.from_pretrained(folder).save_pretrained(new)')
        raise WeightsError(f'{folder}: no model.safetensors, nor a model.safetensors.index.json')
    where = read_json(index).get('weight_map')
    if not isinstance(where, dict) or not where or not all(isinstance(v, str) for v in where.values()):
        raise WeightsError(f'{index}: no weight_map from tensors to files')
    for name in set(where.values()):
        if pathlib.PurePath(name).name != name:
            raise WeightsError(f'{index}: {name!r} is not the name of a file in this folder')
    return [folder / name for name in sorted(set(where.values()))], where


def list_tensors(folder: pathlib.Path) -> list[Tensor]:
    files, where = weight_files(folder)
    tensors = [tensor for path in files for tensor in _list(path)]
    if where is not None:
        found = {t.key: t.path.name for t in tensors}
        for key in sorted(where.keys() | found.keys()):
            if where.get(key) != found.get(key):
                raise WeightsError(f'{folder}: tensor {key!r} is in {found.get(key)}, in the index {where.get(key)}')
    return tensors


def _list(path: pathlib.Path) -> list[Tensor]:
    paths.check_file(path, WeightsError)
    try:
        with safetensors.safe_open(str(path), 'numpy'):
            pass  # the library checks lengths, types and overlaps
        with open(path, 'rb') as f:
            size = int.from_bytes(f.read(8), 'little')
            entries = json.loads(f.read(size))
    except FileNotFoundError:
        raise WeightsError(f'{path}: no such weight file') from None
    except (safetensors.SafetensorError, OSError, ValueError) as e:
        raise WeightsError(f'{path}: not a readable safetensors file ({str(e).splitlines()[0]})') from None
    entries.pop('__metadata__', None)
    return [Tensor(path, key, np.dtype(DTYPES[e['dtype']]) if e['dtype'] in DTYPES else None, tuple(e['shape']),
                   8 + size + e['data_offsets'][0]) for key, e in entries.items()]


def read_rows(tensor: Tensor, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Rows of a tensor, by plain reads: pages of a mapped file would count as this process's memory."""
    shape = tensor.shape[1:] if tensor.shape else ()
    stop = tensor.shape[0] if stop is None and tensor.shape else stop
    assert tensor.dtype is not None and stop is not None
    width = math.prod(shape) * tensor.dtype.itemsize
    data = np.fromfile(tensor.path, np.uint8, (stop - start) * width, offset=tensor.offset + start * width)
    rows = data.view(tensor.dtype).reshape(stop - start, *shape)
    if not _usable(rows):
        raise WeightsError(f'{tensor.path}: tensor {tensor.key!r} holds numbers that are not finite, or too large for '
                           'float32 or bfloat16')
    return rows


def _usable(rows: np.ndarray) -> bool:
    """Whether all numbers are finite, and still are when they are cast to float32 or bfloat16."""
    if rows.dtype.itemsize <= 2 or not rows.size:
        return bool(np.isfinite(rows).all())
    return bool(rows.min() >= -LARGEST and rows.max() <= LARGEST)  # false for NaN, too


def fill(out: np.ndarray, tensor: Tensor, start: int, columns: tuple[slice, ...] = ()) -> None:
    """Reads rows `start:` of a tensor into `out`, a little at a time."""
    step = max(1, _CHUNK // max(1, math.prod(tensor.shape[1:]) * 4))
    for row in range(0, len(out), step):
        part = out[row:row + step]
        part[...] = read_rows(tensor, start + row, start + row + len(part))[(slice(None), *columns)]
