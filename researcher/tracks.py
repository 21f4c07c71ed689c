"""Tracks: what ideas are scored on. A track makes its data from a secret: whoever has the code has not the data.

T2, the salient concept (w2s_jax/tasks/synthetic.py), takes seconds. Which of its 64 features is the concept and which
makes the supervisor err is part of the secret, as are all rows.
"""
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from w2s_jax.api import ConfigError, Dataset, Examples, apply, default_config, draw

BLIND = 7  # of the placeholders in place of truth


@dataclasses.dataclass(frozen=True, eq=False)
class Material:
    """pool: inputs, group, given weak labels, and truth for the ceiling.  public, private: test rows with truth and
    given labels.  num_classes: K."""
    name: str
    num_classes: int
    pool: Examples
    public: Examples
    private: Examples

    def dataset(self) -> Dataset:
        """With truth: for ceilings, in the process that judges."""
        return Dataset(self.name, self.num_classes, self.pool, {'test': self.public})


@dataclasses.dataclass(frozen=True, eq=False)
class Track:
    """config: () -> the config that ideas start from.  make: (secret, final, small) -> Material; `final` is the
    third data set, of which agents hear nothing; `small` one of the same shapes for a first check of an idea."""
    name: str
    doc: str
    config: Callable[[], Any]
    make: Callable[[int, bool, bool], Material]
    seeds: int = 10


def blind(num_classes: int, inputs: dict, group: np.ndarray, given: np.ndarray) -> Dataset:
    """A data set of a pool's inputs and weak labels alone: in place of truth there are random classes, in place of the
    test set some rows of the pool."""
    truth = np.random.default_rng(BLIND).integers(0, num_classes, len(group)).astype(np.int32)
    pool = Examples(inputs, truth, group, given)
    return Dataset('pool', num_classes, pool, {'test': pool.take(np.arange(min(256, len(group))))})


def salient_config():
    """20 epochs of a perceptron: long enough that the naive student learns its supervisor's errors (methods.md B1)."""
    c = default_config()
    c = apply(c, {'task.name': 'salient_concept', 'labels.source': 'column', 'student.model': 'mlp-128',
                  'optimizer.learning_rate': 5e-4, 'optimizer.warmup': 0., 'optimizer.schedule': 'constant',
                  'optimizer.clip': 0., 'train.epochs': 20, 'train.batch_size': 64, 'method.baselines': ()})
    c.train.eval_batch_size, c.train.checkpoint_every = 1000, 0
    return c


def salient_material(secret: int, final: bool, small: bool) -> Material:
    """A pool of 8000 rows and two halves of 4000 test rows, all of a secret of 128 bits; the features in an order and
    with signs of its own. final: the concept is spread over six features."""
    n, m = (1200, 400) if small else (8000, 4000)
    word = [secret >> 32 * i & 0xFFFFFFFF for i in range(4)]
    turn, rng = 6 if final else 0, np.random.default_rng((*word, final, 9))
    order, signs = rng.permutation(64), rng.choice([-1, 1], 64).astype(np.float32)

    def part(rows: int, which: int) -> Examples:
        found = draw(rows, (*word, final, which), turn=turn)
        return dataclasses.replace(found, inputs={'features': found.inputs['features'][:, order] * signs})
    return Material('salient_concept', 2, part(n, 0), part(m, 1), part(m, 2))


TRACKS = {'t2': Track('t2', 'the salient concept: 64 features, one supervisor that errs where another feature is large',
                      salient_config, salient_material)}


def get(name: str) -> Track:
    """The track of that name. Raises ConfigError."""
    if name not in TRACKS:
        raise ConfigError(f'--track: {name!r}, expected one of {", ".join(TRACKS)}')
    return TRACKS[name]
