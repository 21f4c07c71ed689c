"""What trains in one program, and what that reports: runs, their batches, their history."""
import dataclasses
import functools
from typing import Any

import numpy as np

from w2s_jax import data
from w2s_jax.errors import ConfigError
from w2s_jax.runtime import multihost
from w2s_jax.train.stopping import Held

LOGGED = 64  # numbers at most that an objective logs under one name


@dataclasses.dataclass(frozen=True, eq=False)
class Runs:
    """R runs that train in one program.

    inputs: the pool, each `[N, ...]`.  rows: `[R, n]` the pool rows of each run.  targets: `[R, n, K]`
    float32 or `[R, n]` int32 in [0, num_classes).  seeds: `[R]`.  hyper: a `train.Hyper`, leaves `[R]`.
    columns: further `[R, n, ...]` float32 that the objective reads.  start: parameters to go on from, stacked, or None.
    held: what a stopping rule looks at, or None.  watch: inputs, each `[M, ...]`, to predict at every evaluation.
    evaluations: how many, the last after the last step; evenly spread, with `held` at steps that grow by a factor; 0:
    4, with `held` 20.  window: how many batches of texts are
    dealt out by length together (`data.epoch_batches`).
    """
    inputs: data.Inputs
    rows: np.ndarray
    targets: np.ndarray
    seeds: np.ndarray
    hyper: Any
    watch: data.Inputs
    evaluations: int
    num_classes: int
    window: int = 1
    columns: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    start: Any = None
    held: Held | None = None

    @functools.cached_property
    def streams(self) -> int:
        """U: the runs are so many equal blocks of neighbours that see the same rows in the same order."""
        same = (self.seeds[1:] == self.seeds[:-1]) & (self.rows[1:] == self.rows[:-1]).all(-1)
        blocks = np.split(np.arange(len(self.seeds)), np.flatnonzero(~same) + 1)
        return len(blocks) if len({len(b) for b in blocks}) == 1 else len(self.seeds)

    @functools.lru_cache(maxsize=4)  # noqa: B019  (a few epochs' orders, gone with the process)
    def _epoch(self, epoch: int, batch_size: int) -> np.ndarray:
        lengths = data.longest(self.inputs)
        firsts = range(0, len(self.seeds), len(self.seeds) // self.streams)
        return np.stack([data.epoch_batches(int(self.seeds[r]), epoch, self.rows.shape[1], batch_size,
                                            None if lengths is None else lengths[self.rows[r]], self.window)
                         for r in firsts])

    def batch(self, step: int, batch_size: int, numbers: bool = False, row: bool = False) -> tuple[data.Inputs, dict]:
        """Inputs `[U, B, ...]`, and columns `[R, B, ...]` of a step: targets `[R, B, K]`, weight, and `self.columns`.

        numbers: give as inputs the `rows` `[U, B]` of the pool instead (see `program.taking`).  row: give the column
        `row`, too: places among a run's rows.
        """
        runs, n = self.rows.shape
        epoch, i = divmod(step, n // batch_size)
        at = self._epoch(epoch, batch_size)[:, i]
        block = runs // self.streams
        rows = np.take_along_axis(self.rows[::block], at, axis=1)
        inputs = {'rows': rows.astype(np.int32)} if numbers else data.take(self.inputs, rows)
        at = np.repeat(at, block, axis=0)
        every = np.arange(runs)[:, None]
        targets = data.distributions(self.targets[every, at], self.num_classes)
        columns = {'targets': targets, 'weight': np.ones(at.shape, np.float32)}
        columns |= {k: v[every, at] for k, v in self.columns.items()}
        return inputs, columns | ({'row': at.astype(np.int32)} if row else {})


@dataclasses.dataclass(frozen=True)
class History:
    """What a training run reports, filled in as it goes.

    loss: `[T, R]` float32.  watched: `[E, R, M]` int32 classes, predicted after each of `steps` `[E]`.  scores:
    `[E, R]` float32 of a stopping rule.  answers: `[E, R, M]` int32, what was answered on the rows that it looks at, if
    it asks for that.  aux: name -> what the objective logged last, a list over runs.  final: name ->
    `[R, ...]`, what it remembers after the last step.
    """
    loss: np.ndarray
    watched: np.ndarray
    steps: np.ndarray
    scores: np.ndarray
    answers: np.ndarray
    aux: dict[str, list] = dataclasses.field(default_factory=dict)
    final: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @classmethod
    def empty(cls, steps: int, runs: Runs) -> 'History':
        held, seeds, watched = runs.held, len(runs.seeds), len(next(iter(runs.watch.values())))
        points = evaluated(steps, runs.evaluations, held is not None and not held.evenly)
        asked = held.rows.shape[1] if held is not None and held.past else 0
        return cls(np.full((steps, seeds), np.nan, np.float32), np.zeros((len(points), seeds, watched), np.int32),
                   points, np.full((len(points), seeds), np.nan, np.float32),
                   np.zeros((len(points), seeds, asked), np.int32))

    def arrays(self) -> dict[str, np.ndarray]:
        """What a checkpoint keeps of it."""
        found = {'loss': self.loss, 'watched': self.watched, 'scores': self.scores, 'answers': self.answers}
        return {k: v for k, v in found.items() if v.size}

    def record(self, pending: list[tuple[int, dict]]) -> None:
        """Writes the losses of finished steps into it, and what the objective logged at the last of them."""
        for step, metrics in pending:
            self.loss[step] = multihost.fetch(metrics['loss'])
        last = multihost.fetch({k: v for k, v in pending[-1][1].items() if k not in ('loss', 'grad_norm')})
        self.aux.update({k: v.tolist() for k, v in last.items() if v.size <= LOGGED * len(v)})

    def logged(self, metrics: dict) -> dict[str, np.ndarray]:
        """The metrics of a step, each `[R]`; a vector under a name for each of its numbers."""
        found = {}
        for name, value in multihost.fetch(metrics).items():
            if value.ndim == 1:
                found[name] = value
            elif value.ndim == 2 and value.shape[1] <= LOGGED:
                found |= {f'{name}.{i}': value[:, i] for i in range(value.shape[1])}
        return found

    def broken(self, run: int) -> str | None:
        """Where the loss of a run that is over stopped being a number; None where it did not."""
        bad = np.flatnonzero(~np.isfinite(self.loss[:, run]))
        if not len(bad):
            return None
        why = 'a smaller learning rate may help' if bad[0] else 'before any update: inputs or weights are not finite'
        return f'loss is {self.loss[bad[0], run]} at step {bad[0]}, expected a finite number ({why})'


def evaluated(steps: int, number: int, stops: bool) -> np.ndarray:
    """`[E]` int32: the steps after which models are looked at, the last one included. stops: for a stopping rule, which
    must also see the first steps: from a fiftieth of training on, each step that is looked at is later by one
    factor."""
    number = number or (20 if stops else 4)
    spread = np.linspace(0, steps, number + 1)[1:]
    found = np.geomspace(max(steps / 50, 1), steps, number) if stops and number > 1 else spread
    return np.unique(np.maximum(found.round(), 1).astype(np.int32))


def num_steps(examples: int, batch_size: int, epochs: int) -> int:
    """Optimiser steps in `epochs` passes. Raises ConfigError where a batch is larger than the data."""
    if examples < batch_size:
        raise ConfigError(f'train.batch_size: {batch_size}, '
                          f'expected at most the {examples} training examples of a half')
    return examples // batch_size * epochs
