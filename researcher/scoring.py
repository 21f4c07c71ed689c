"""From parameters that an untrusted process has left to numbers, in the process that has the truth."""
import base64
import os
import pathlib
import stat

import numpy as np
import safetensors
import safetensors.numpy

from researcher.tracks import Material
from w2s_jax.api import Forward, WeightsError, pgr

MOST_BYTES = 256 << 20
HALVES = ('public', 'private')


def parameters(path: pathlib.Path, most: int = MOST_BYTES) -> dict[str, np.ndarray]:
    """Arrays of a safetensors file. Raises WeightsError unless it is a plain file with one name: a link could lead to
    other parameters than those that were trained here, and a pipe keeps its reader waiting."""
    name = path.name
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise WeightsError(f'parameters: no {name}, expected one file a seed') from None
    except OSError as e:
        raise WeightsError(f'parameters: {name} is no plain file ({e.strerror})') from None
    found = os.fstat(number)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or found.st_size > most:
        os.close(number)
        raise WeightsError(f'parameters: {name} is no plain file of at most {most >> 20} MB with one name')
    with open(number, 'rb') as file:
        raw = file.read(most)
    try:
        return safetensors.numpy.load(raw)
    except Exception as e:  # a file that was not made by us may break its reader in any way
        raise WeightsError(f'parameters: {name} is no safetensors file ({type(e).__name__})') from None


def right(forward: Forward, params: list[dict], material: Material) -> dict[str, np.ndarray]:
    """Half -> `[S, N]` bool, whether each of S models answers a row right. Raises WeightsError for answers that are no
    numbers."""
    out = {}
    for half in HALVES:
        rows = getattr(material, half)
        probabilities = forward.probabilities(params, rows.inputs)
        if not np.isfinite(probabilities).all():
            raise WeightsError('answers on the test rows are not finite')
        out[half] = probabilities.argmax(-1) == rows.truth
    return out


def weak(material: Material) -> dict[str, np.ndarray]:
    """Half -> `[1, N]` bool, or `[S, N]` of a teacher a seed, whether the weak label that comes with a row is right."""
    out = {}
    for half in HALVES:
        rows = getattr(material, half)
        given = rows.given if rows.given.ndim == 3 else rows.given[:, None]
        out[half] = rows.truth == given.argmax(-1).T
    return out


def packed(rows: dict[str, np.ndarray]) -> dict:
    """Half -> bits as text and their shape; JSON."""
    return {half: {'shape': list(bits.shape), 'bits': base64.b64encode(np.packbits(bits).tobytes()).decode()}
            for half, bits in rows.items()}


def unpacked(value: dict) -> dict[str, np.ndarray]:
    """What `packed` was given."""
    out = {}
    for half, found in value.items():
        shape = tuple(found['shape'])
        bits = np.frombuffer(base64.b64decode(found['bits']), np.uint8)
        out[half] = np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape).astype(bool)
    return out


def recovered(weak: np.ndarray, students: np.ndarray, ceilings: np.ndarray) -> list[float]:
    """The PGR of each seed, of `[1, N]` or `[S, N]`, `[S, N]`, `[S, N]` bool. Raises WeightsError where a seed has no
    gap."""
    lows = np.broadcast_to(weak.mean(1), len(students))
    found = [pgr(float(w), float(a), float(c))
             for w, a, c in zip(lows, students.mean(1), ceilings.mean(1), strict=True)]
    if None in found:
        raise WeightsError('the ceiling is as good as the weak labels on this track: no PGR, expected a gap')
    return found
