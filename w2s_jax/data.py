"""Examples, their halves, and the order in which they are seen.

Everything here is numpy on the host and a pure function of integers: which rows step `t` of seed `s`
sees follows from (s, t) alone, so a run resumes exactly with no iterator state.
"""
import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from w2s_jax.errors import DataError
from w2s_jax.store import arrays as disk

Inputs = dict[str, np.ndarray]
TAIL = 1024  # groups that are looked at to make up the size of a half exactly


@dataclasses.dataclass(frozen=True)
class Examples:
    """Rows of a task.

    inputs: what a model sees, each `[N, ...]`.  truth: `[N]` int32 in [0, K), None for who may not see it.  group:
    `[N]` int64, rows of a group never straddle a split.  given: `[N, K]` float32, weak labels that come with the data,
    `[N, T, K]` of several teachers, or None.  extras: public facts that only evaluation and reports use, each
    `[N, ...]`.  metadata: public facts of each row (difficulty, domain ...), each `[N]`, for methods, filters and
    diagnostics.
    """
    inputs: Inputs
    truth: np.ndarray | None
    group: np.ndarray
    given: np.ndarray | None = None
    extras: Inputs = dataclasses.field(default_factory=dict)
    metadata: Inputs = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.group)

    def take(self, index: np.ndarray) -> 'Examples':
        """The rows at `index`, in that order."""
        truth, given = (None if x is None else x[index] for x in (self.truth, self.given))
        return Examples(take(self.inputs, index), truth, self.group[index], given, take(self.extras, index),
                        take(self.metadata, index))


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A task, loaded: the pool that the two training halves are cut from, and the test sets.

    tests: name -> test set, 'test' the main one, further ones (a shifted domain, harder examples) beside it; Examples
    alone are the main one.

    A test set whose extras hold `question` `[N]` (whose option a row is; class 1: the right one) is measured by
    questions alone (`question_accuracy`), beside the main one.

    inputs of language tasks are `text` `[N, S]` (objects, str; or `disk.Texts`): S = 1, or 2 for a pair of completions.
    notes: counts for results.json.  render: (one row's inputs, who -> class) to an HTML snippet of what
      report/markup.py shows, or None.
    truncate: which end a text that is too long loses its tokens at, 'end' or 'start'.
    """
    name: str
    num_classes: int
    pool: Examples
    tests: Any  # dict[str, Examples] from the moment it is made
    notes: dict = dataclasses.field(default_factory=dict)
    render: Callable[[Inputs, dict[str, int]], str] | None = None
    truncate: str = 'end'

    def __post_init__(self):
        if isinstance(self.tests, Examples):
            object.__setattr__(self, 'tests', {'test': self.tests})
        if 'test' not in self.tests:
            raise DataError(f"task {self.name}: test sets {', '.join(self.tests) or 'none'}, expected one named 'test'")

    @property
    def test(self) -> Examples:
        """The main test set."""
        return self.tests['test']

    def without_truth(self) -> 'Dataset':
        """What methods, and all who may not see truth, get of it."""
        hide = functools.partial(dataclasses.replace, truth=None)
        return dataclasses.replace(self, pool=hide(self.pool), tests={k: hide(v) for k, v in self.tests.items()})


def take(inputs: Inputs, index: np.ndarray) -> Inputs:
    """The rows at `index` of every array."""
    return {k: v[index] for k, v in inputs.items()}


def distributions(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """`[R, n, K]` float32 of labels that are so, or classes `[R, n]`: truth and weak labels train in one program."""
    return labels if labels.ndim == 3 else (labels[..., None] == np.arange(num_classes)).astype(np.float32)


def put(whole: np.ndarray, part: np.ndarray, at: np.ndarray) -> None:
    """Writes `part` `[R, B, ...]` into `whole` `[R, N, ...]` at places `at`: `[R, B]`, or `[1, B]` for all R."""
    whole[np.arange(len(whole))[:, None], at] = part


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


def halves(group: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts rows in two at `share`, whole groups at a time, into parts of the same sizes for every seed, so that seeds
    stack in one program; all rows are used.

    The first part's size is the one nearest to `share` that whole groups can have. A seed puts groups there in an order
    that it draws, as long as what is left can still make up that size exactly.
    Args:
      group: `[N]` group ids.  share: in (0, 1).
    Returns: two sorted index arrays that cover `[0, N)`. Raises DataError where a part would be empty.
    """
    _, ids = np.unique(group, return_inverse=True)
    sizes = np.bincount(ids)
    if sizes.max() == 1:
        return split_groups(group, share, seed)
    wanted = nearest_sum(sizes, share * len(ids))
    if wanted in (0, len(ids)):
        raise DataError(f'task: {len(ids)} examples in {len(sizes)} groups cannot be split at {share:g}, expected '
                        f'groups on both sides; the largest group has {sizes.max()} rows')
    tail = TAIL
    while True:  # ends at the latest where the tail is everything
        rng = np.random.default_rng((seed, tail))
        order, turned = rng.permutation(len(sizes)), rng.random() < .5  # small groups fill up either part as often
        chosen = chosen_groups(sizes, order, len(ids) - wanted if turned else wanted, tail)
        if chosen is not None:
            first = chosen[ids] != turned
            return np.flatnonzero(first), np.flatnonzero(~first)
        tail *= 4


def nearest_sum(sizes: np.ndarray, wanted: float) -> int:
    """The sum of some of `sizes` `[G]` that is nearest to `wanted`, the lesser of two; neither none nor all, if
    possible.

    By the bits of an integer: bit s is set where some of them sum to s.
    """
    reached = 1
    for size, count in zip(*np.unique(sizes, return_counts=True), strict=True):
        times = 1
        while count > 0:  # in doubling portions, of which some make up any number
            times = min(times, int(count))
            reached |= reached << int(size) * times
            count, times = count - times, times * 2
    total = int(sizes.sum())
    for distance in range(total + 1):
        for value in (int(wanted) - distance, int(wanted) + 1 + distance):
            if 0 < value < total and reached >> value & 1:
                return value
    return 0


def chosen_groups(sizes: np.ndarray, order: np.ndarray, wanted: int, tail: int) -> np.ndarray | None:
    """`[G]` bool: groups whose sizes sum to `wanted`, the first ones of `order` as far as that can be; None where it
    cannot.

    Only the last `tail` groups, among them the largest ones, are chosen with a look at what can still be made up of
    those that are left; those before go where the middle of each falls.
    """
    last = np.zeros(len(sizes), bool)
    last[np.argsort(-sizes, kind='stable')[:tail // 2]] = True
    others = order[~last[order]]
    last[others[max(len(others) - tail + tail // 2, 0):]] = True
    early, late = order[~last[order]], order[last[order]].tolist()
    first = np.zeros(len(sizes), bool)
    middles = np.cumsum(sizes[early]) - sizes[early] / 2
    first[early[middles < wanted / sizes.sum() * sizes[early].sum()]] = True
    left = wanted - int(sizes[first].sum())
    reach = [1]  # of the groups from the end on: which sums they can make up
    for g in reversed(late):
        reach.append(reach[-1] | reach[-1] << int(sizes[g]))
    if left < 0 or not reach.pop() >> left & 1:
        return None
    for g in late:
        rest = reach.pop()
        if left >= sizes[g] and rest >> (left - int(sizes[g])) & 1:
            first[g], left = True, left - int(sizes[g])
    return first


def hold_out(group: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of rows to learn from, and of rows that are held out, whole groups at a time; their numbers depend on
    the number of rows alone.

    Groups that do not fit into the share any more are skipped; where those that do are fewer rows, some of them are
    there twice, and as many rows are left out. Raises DataError where no group fits.
    """
    n = len(group)
    number = max(int(n * share), 1)
    _, ids = np.unique(group, return_inverse=True)
    sizes, left = np.bincount(ids), number
    held = np.zeros(len(sizes), bool)
    rng = np.random.default_rng((seed, 2))
    for g in rng.permutation(len(sizes)):
        if sizes[g] <= left:
            held[g], left = True, left - sizes[g]
    if left == number or n <= number:
        raise DataError(f'stopping.holdout: {share:g} of {n} rows is {number}, but the smallest group has '
                        f"{sizes.min()}; expected a larger share, or stopping.name=''")
    learned = rng.permutation(np.flatnonzero(~held[ids]))[:n - number]
    return np.sort(learned), np.resize(np.flatnonzero(held[ids]), number)


def epoch_batches(seed: int, epoch: int, n: int, batch_size: int, lengths: np.ndarray | None = None,
                  window: int = 1) -> np.ndarray:
    """The rows of `[0, n)` that each batch of an epoch sees, `[n // batch_size, batch_size]`: a new order every epoch.

    Only whole batches: the rows that do not fill the last one are left out of that epoch, so that a loss
    which looks at the whole batch never sees padding. With `lengths` `[n]` the rows of `window` batches at a
    time are dealt out by length, so that a batch holds texts of like length and little padding; the order of the
    batches is then drawn from the epoch alone, so that stacked runs meet long batches at the same steps.
    """
    whole = n // batch_size * batch_size
    order = np.random.default_rng((seed, epoch)).permutation(n)[:whole]
    if lengths is None or window <= 1:
        return order.reshape(-1, batch_size)
    parts = [order[i:i + window * batch_size] for i in range(0, whole, window * batch_size)]
    batches = np.concatenate([part[np.argsort(lengths[part], kind='stable')] for part in parts])
    return batches.reshape(-1, batch_size)[np.random.default_rng(epoch).permutation(whole // batch_size)]


def eval_batches(n: int, batch_size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Positions in `[0, n)`, batch by batch, always `[batch_size]`, the last filled up with its own last one.

    Yields (positions, how many of them are real).
    """
    for start in range(0, n, batch_size):
        yield np.minimum(np.arange(start, start + batch_size), n - 1), min(batch_size, n - start)


def longest(inputs: Inputs) -> np.ndarray | None:
    """`[N]` tokens of each row's longest text; None where inputs have no `length`."""
    return inputs['length'].max(axis=-1) if 'length' in inputs else None


def choose_shapes(lengths: np.ndarray, number: int, step: int = 8, worth: float = 0) -> tuple[int, ...]:
    """At most `number` lengths to pad texts of `lengths` `[N]` to, multiples of `step`, so that the padding is least.

    A program is compiled for each, so their number bounds the compilations. By dynamic programming over
    the multiples of `step` (all texts up to 64 of them; longer ones on a coarser grid). worth: how many tokens of
    padding a further shape must save, over all texts once: what its compilation costs.
    """
    step = max(step, -(-int(lengths.max()) // (64 * step)) * step)
    size = -(-np.maximum(lengths, 1) // step)  # in steps
    count = np.cumsum(np.bincount(size))  # texts of at most so many steps
    top = len(count) - 1
    cost = np.where(np.arange(top + 1) > 0, count * np.arange(top + 1), 0).astype(float)  # one shape for all up to i
    choices = []
    for _ in range(min(number, top) - 1):
        table = cost[:, None] + (count[None, :] - count[:, None]) * np.arange(top + 1)[None, :]
        table[np.tril_indices(top + 1)] = np.inf
        table[0] = count * np.arange(top + 1)
        if (cost[top] - table[:, top].min()) * step < worth:
            break
        choices.append(table.argmin(0))
        cost = table.min(0)
    shapes, end = {top}, top
    for choice in reversed(choices):
        end = int(choice[end])
        shapes.add(end)
    return tuple(int(s * step) for s in sorted(shapes - {0}))


def trim(inputs: Inputs, shapes: tuple[int, ...]) -> Inputs:
    """Inputs whose `tokens` `[..., L]` are cut or padded to the least of `shapes` that holds every text in them."""
    if not shapes:
        return inputs
    need = int(inputs['length'].max())
    size = next(s for s in shapes if s >= need)
    tokens = inputs['tokens'][..., :size]
    width = [(0, 0)] * (tokens.ndim - 1) + [(0, size - tokens.shape[-1])]
    return inputs | {'tokens': np.pad(tokens, width) if tokens.shape[-1] < size else tokens}


def fingerprint(*arrays: np.ndarray | disk.Texts | None) -> str:
    """A SHA-256 over dtypes, shapes and bytes (of texts, their UTF-8): the identity of data in a phase's id."""
    digest = hashlib.sha256()
    for a in arrays:
        if a is None:
            digest.update(b'none')
            continue
        digest.update(f'{a.dtype.str}{a.shape}'.encode())
        if a.dtype == object:
            for text in (text.encode() for rows in disk.chunks(a) for text in rows.ravel()):
                digest.update(len(text).to_bytes(8))
                digest.update(text)
        else:
            digest.update(np.ascontiguousarray(a).data)
    return digest.hexdigest()
