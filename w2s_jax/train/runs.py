"""What trains in one program, and what that reports: runs, their batches, their history."""
import dataclasses
import functools
from typing import Any

import numpy as np

from w2s_jax import data
from w2s_jax.errors import ConfigError
from w2s_jax.runtime import multihost


@dataclasses.dataclass(frozen=True, eq=False)
class Runs:
    """R runs that train in one program.

    inputs: the pool, each `[N, ...]`.  rows: `[R, n]` the pool rows of each run.  targets: `[R, n, K]`
    float32 or `[R, n]` int32 in [0, num_classes).  seeds: `[R]`.  hyper: a `train.Hyper`, leaves `[R]`.
    watch: inputs, each `[M, ...]`, to predict at every evaluation.  evaluations: how many, evenly spread, the last
    after the last step.  window: how many batches of texts are dealt out by length together (`data.epoch_batches`).
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

    def batch(self, step: int, batch_size: int, numbers: bool = False) -> tuple[data.Inputs, dict]:
        """Inputs `[U, B, ...]`, and targets `[R, B, K]` with weights `[R, B]`, of a step.

        numbers: give as inputs the `rows` `[U, B]` of the pool instead (see `train.taking`).
        """
        runs, n = self.rows.shape
        epoch, i = divmod(step, n // batch_size)
        at = self._epoch(epoch, batch_size)[:, i]
        block = runs // self.streams
        rows = np.take_along_axis(self.rows[::block], at, axis=1)
        inputs = {'rows': rows.astype(np.int32)} if numbers else data.take(self.inputs, rows)
        at = np.repeat(at, block, axis=0)
        targets = self.targets[np.arange(runs)[:, None], at]
        if targets.ndim == 2:  # as a distribution, so that truth and weak labels train in one program
            targets = (targets[..., None] == np.arange(self.num_classes)).astype(np.float32)
        return inputs, {'targets': targets, 'weight': np.ones(at.shape, np.float32)}


@dataclasses.dataclass(frozen=True)
class History:
    """What a training run reports, filled in as it goes.

    loss: `[T, R]` float32.  watched: `[E, R, M]` int32 classes, predicted after each of `steps` `[E]`.
    """
    loss: np.ndarray
    watched: np.ndarray
    steps: np.ndarray

    @classmethod
    def empty(cls, steps: int, runs: Runs) -> 'History':
        points = np.unique(np.linspace(0, steps, runs.evaluations + 1).round().astype(np.int32)[1:])
        watched = len(next(iter(runs.watch.values())))
        return cls(np.full((steps, len(runs.seeds)), np.nan, np.float32),
                   np.zeros((len(points), len(runs.seeds), watched), np.int32), points)

    def arrays(self) -> dict[str, np.ndarray]:
        """What a checkpoint keeps of it."""
        return {'loss': self.loss, 'watched': self.watched}

    def record(self, pending: list[tuple[int, dict]]) -> None:
        """Writes the losses of finished steps into it."""
        for step, metrics in pending:
            self.loss[step] = multihost.fetch(metrics['loss'])

    def broken(self, run: int) -> str | None:
        """Where the loss of a run that is over stopped being a number; None where it did not."""
        bad = np.flatnonzero(~np.isfinite(self.loss[:, run]))
        if not len(bad):
            return None
        return (f'loss is {self.loss[bad[0], run]} at step {bad[0]}, expected a finite number '
                '(a smaller learning rate may help)')


def num_steps(examples: int, batch_size: int, epochs: int) -> int:
    """Optimiser steps in `epochs` passes. Raises ConfigError where a batch is larger than the data."""
    if examples < batch_size:
        raise ConfigError(f'train.batch_size: {batch_size}, '
                          f'expected at most the {examples} training examples of a half')
    return examples // batch_size * epochs
