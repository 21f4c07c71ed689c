"""TESTBEDS: name -> a simulation in which a theorem can be exactly checked: `fn(seeds, settings) -> [Row]`.

seeds: how many independent draws each cell of it has; `register(..., seeds=N)` says how many its thresholds are made
for. A testbed runs all of its students in few compiled programs (vmap over seeds), under `in_float64` where an identity
is to hold to rounding. Its draws depend on nothing but the number of the seed.
"""
import functools
import zlib
from collections.abc import Callable
from typing import NamedTuple

import jax

from w2s_jax.registry import Registry

TESTBEDS = Registry('testbed', options=('seeds',))


class Row(NamedTuple):
    """A cell of a testbed.

    cell: the regime.  predicted, measured: the number that the theory is about.  error: how far apart they are, in the
    sense of `how`.  limit: the most that the error may be, of a control what it must exceed; None: only reported.
    students: how many were simulated for it, 0 where it looks at those of another row.
    """
    cell: str
    predicted: float
    measured: float
    error: float
    how: str
    limit: float | None
    students: int
    control: bool = False

    @property
    def holds(self) -> bool | None:
        """Whether it came out as it must; an error that is not a number never does. None where nothing was set."""
        if self.limit is None:
            return None
        return bool(self.error > self.limit if self.control else self.error <= self.limit)


def in_float64(fn: Callable) -> Callable:
    """The function with JAX's arrays in float64 as long as it runs, and nowhere else."""
    @functools.wraps(fn)
    def run(*args, **kwargs):
        with jax.enable_x64(True):
            return fn(*args, **kwargs)
    return run


def keys(seeds: int, name: str) -> jax.Array:
    """A key for each seed, other ones for each name: `[seeds]`."""
    first = jax.random.fold_in(jax.random.key(0), zlib.crc32(name.encode()))
    return jax.vmap(lambda seed: jax.random.fold_in(first, seed))(jax.numpy.arange(seeds))
