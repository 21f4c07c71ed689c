"""From parameters that an untrusted process has left to numbers, in the process that has the truth."""
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
    with open(number, 'rb') as file:
        found = os.fstat(number)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or found.st_size > most:
            raise WeightsError(f'parameters: {name} is no plain file of at most {most >> 20} MB with one name')
        raw = file.read(most)
    try:
        return safetensors.numpy.load(raw)
    except Exception as e:  # a file that was not made by us may break its reader in any way
        raise WeightsError(f'parameters: {name} is no safetensors file ({type(e).__name__})') from None


def accuracies(forward: Forward, params: list[dict], material: Material) -> dict[str, list[float]]:
    """Half -> the share of its rows that each of S models answers right."""
    out = {}
    for half in HALVES:
        rows = getattr(material, half)
        out[half] = right(forward.probabilities(params, rows.inputs), rows.truth)
    return out


def right(probabilities: np.ndarray, truth: np.ndarray) -> list[float]:
    """`[S, N, K]` and `[N]` -> the accuracy of each. Raises WeightsError for answers that are no numbers."""
    if not np.isfinite(probabilities).all():
        raise WeightsError('answers on the test rows are not finite')
    return [float(a) for a in (probabilities.argmax(-1) == truth).mean(1)]


def weak(material: Material) -> dict[str, float]:
    """Half -> the accuracy of the weak labels that come with it."""
    return {half: float((getattr(material, half).given.argmax(-1) == getattr(material, half).truth).mean())
            for half in HALVES}


def recovered(weak: float, students: list[float], ceilings: list[float]) -> list[float]:
    """The PGR of each seed. Raises WeightsError where a seed has no gap."""
    found = [pgr(weak, a, c) for a, c in zip(students, ceilings, strict=True)]
    if None in found:
        raise WeightsError('the ceiling is as good as the weak labels on this track: no PGR, expected a gap')
    return found
