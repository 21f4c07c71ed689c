"""Parameters on disk: one safetensors file, nested names joined by dots. Never a pickle."""
import hashlib
import pathlib

import flax.traverse_util
import jax
import ml_dtypes  # noqa: F401  (lets numpy name bfloat16)
import numpy as np
import safetensors
import safetensors.numpy

from w2s_jax.errors import WeightsError


def save(path: pathlib.Path, params, dtype: str | None = None, metadata: dict[str, str] | None = None) -> None:
    """Writes a tree of arrays, cast to `dtype` if one is given."""
    flat = flax.traverse_util.flatten_dict(jax.device_get(params), sep='.')
    arrays = {k: np.ascontiguousarray(v, dtype or v.dtype) for k, v in flat.items()}
    safetensors.numpy.save_file(arrays, str(path), metadata=metadata)


def load(path: pathlib.Path, dtype: str = 'float32') -> dict:
    """Reads a tree of arrays as `dtype`. Raises WeightsError if the file is missing or damaged."""
    try:
        flat = safetensors.numpy.load_file(str(path))
    except FileNotFoundError:
        raise WeightsError(f'{path}: no such weight file') from None
    except (safetensors.SafetensorError, OSError, ValueError) as e:
        raise WeightsError(f'{path}: not a readable safetensors file ({str(e).splitlines()[0]})') from None
    return flax.traverse_util.unflatten_dict({k: v.astype(dtype) for k, v in flat.items()}, sep='.')


def metadata(path: pathlib.Path) -> dict[str, str]:
    """The words that a file of parameters has beside its arrays. Raises WeightsError if it cannot be read."""
    try:
        with safetensors.safe_open(str(path), 'np') as file:
            return file.metadata() or {}
    except (safetensors.SafetensorError, OSError) as e:
        raise WeightsError(f'{path}: not a readable safetensors file ({str(e).splitlines()[0]})') from None


def check(path: pathlib.Path, params: dict, expected) -> None:
    """Raises WeightsError unless `params` has exactly the names and shapes of `expected`, and finite numbers."""
    have = flax.traverse_util.flatten_dict(params, sep='.')
    want = flax.traverse_util.flatten_dict(expected, sep='.')
    for name in sorted(have.keys() ^ want.keys()):
        raise WeightsError(f'{path}: {"unexpected" if name in have else "missing"} tensor {name!r}')
    for name, array in have.items():
        if array.shape != want[name].shape:
            raise WeightsError(f'{path}: tensor {name!r} has shape {array.shape}, expected {want[name].shape}')
        if not np.isfinite(array).all():
            raise WeightsError(f'{path}: tensor {name!r} holds numbers that are not finite')


def file_fingerprint(path: pathlib.Path) -> str:
    """SHA-256 of a file: the identity of weights in a phase's id. Raises WeightsError if it cannot be read."""
    try:
        with open(path, 'rb') as f:
            return hashlib.file_digest(f, 'sha256').hexdigest()
    except OSError as e:
        raise WeightsError(f'{path}: {e.strerror.lower() if e.strerror else e}') from None
