"""Examples, their halves, and the order in which they are seen.

Everything here is numpy on the host and a pure function of integers: which rows step `t` of seed `s`
sees follows from (s, t) alone, so a run resumes exactly with no iterator state.
"""
import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator

import numpy as np

from w2s_jax.errors import DataError

Inputs = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Examples:
    """Rows of a task.

    inputs: what a model sees, each `[N, ...]`.  truth: `[N]` int32 in [0, K).  group: `[N]` int64, rows
    of a group never straddle a split.  given: `[N, K]` float32, weak labels that come with the data, or
    None.  extras: public facts that only evaluation and reports use, each `[N, ...]`.
    """
    inputs: Inputs
    truth: np.ndarray
    group: np.ndarray
    given: np.ndarray | None = None
    extras: Inputs = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.truth)

    def take(self, index: np.ndarray) -> 'Examples':
        """The rows at `index`, in that order."""
        return Examples(take(self.inputs, index), self.truth[index], self.group[index],
                        None if self.given is None else self.given[index], take(self.extras, index))


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A task, loaded: the pool that the two training halves are cut from, and the test set.

    notes: counts for results.json.  render: (one row's inputs, who -> class) to an HTML snippet, or None.
    """
    name: str
    num_classes: int
    pool: Examples
    test: Examples
    notes: dict = dataclasses.field(default_factory=dict)
    render: Callable[[Inputs, dict[str, int]], str] | None = None


def take(inputs: Inputs, index: np.ndarray) -> Inputs:
    """The rows at `index` of every array."""
    return {k: v[index] for k, v in inputs.items()}


def split_groups(group: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts rows in two at about `fraction`, whole groups at a time.

    Args:
      group: `[N]` group ids.  fraction: the share of rows in the first part, in (0, 1).
    Returns: two sorted index arrays that cover `[0, N)`. Raises DataError where a part would be empty.
    """
    _, ids = np.unique(group, return_inverse=True)
    sizes = np.bincount(ids)
    order = np.random.default_rng(seed).permutation(len(sizes))
    before = np.cumsum(sizes[order]) - sizes[order] / 2  # a group goes where its middle falls
    first = np.zeros(len(sizes), bool)
    first[order[before < fraction * len(ids)]] = True
    a, b = np.flatnonzero(first[ids]), np.flatnonzero(~first[ids])
    if not len(a) or not len(b):
        raise DataError(f'task: {len(ids)} examples in {len(sizes)} groups cannot be split at '
                        f'{fraction:g}, expected groups on both sides')
    return a, b


@functools.lru_cache(maxsize=64)
def _permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(n)


def batch_rows(seed: int, step: int, n: int, batch_size: int) -> np.ndarray:
    """The `[batch_size]` rows of `[0, n)` that training step `step` sees: a new order every epoch.

    Only whole batches: the rows that do not fill the last one are left out of that epoch, so that a loss
    which looks at the whole batch never sees padding.
    """
    per_epoch = n // batch_size
    epoch, i = divmod(step, per_epoch)
    return _permutation(seed, epoch, n)[i * batch_size:(i + 1) * batch_size]


def eval_batches(inputs: Inputs, batch_size: int) -> Iterator[tuple[Inputs, int]]:
    """Fixed-shape batches in order; the last is filled up with its own last row. Yields (batch, real rows)."""
    n = len(next(iter(inputs.values())))
    for start in range(0, n, batch_size):
        index = np.minimum(np.arange(start, start + batch_size), n - 1)
        yield take(inputs, index), min(batch_size, n - start)


def fingerprint(*arrays: np.ndarray | None) -> str:
    """A SHA-256 over dtypes, shapes and bytes: the identity of data in a phase's id."""
    digest = hashlib.sha256()
    for a in arrays:
        if a is None:
            digest.update(b'none')
            continue
        digest.update(f'{a.dtype.str}{a.shape}'.encode())
        digest.update(np.ascontiguousarray(a).data)
    return digest.hexdigest()
