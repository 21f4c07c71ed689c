"""Tracks: what ideas are scored on. A track makes its data from a secret: whoever has the code has not the data.

T2, the salient concept (w2s_jax/tasks/synthetic.py), takes seconds. Which of its 64 features is the concept and which
makes the supervisor err is part of the secret, as are all rows. Probes on cached features: probes.py.
"""
import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from researcher import probes
from w2s_jax.api import LOSSES, OBJECTIVES, STOPPING, ConfigError, Dataset, Examples, apply, default_config, draw

BLIND = 7  # of the placeholders in place of truth


@dataclasses.dataclass(frozen=True, eq=False)
class Material:
    """pool: inputs, group, given weak labels (`[N, K]`, or `[N, S, K]` of a teacher a seed), and truth for the ceiling.
    public, private: test rows with truth and given labels.  num_classes: K."""
    name: str
    num_classes: int
    pool: Examples
    public: Examples
    private: Examples

    def dataset(self) -> Dataset:
        """With truth: for ceilings, in the process that judges."""
        return Dataset(self.name, self.num_classes, self.pool, {'test': self.public})


# What drivers choose. A field that a loss, a rule or the transforms do not have is dropped from the idea (`fields`).
SPACE: dict[str, Any] = {
    'student.loss.name': ['xent', 'confidence', 'confidence_half', 'adaptive_confidence', 'entropy', 'window',
                          'generalized_xent', 'symmetric_xent', 'smoothing', 'product'],
    'student.loss.alpha': {'low': 0., 'high': 1.},
    'student.loss.alpha_warmup': {'low': 0., 'high': 1.},
    'student.loss.radius': {'low': 0., 'high': .5},
    'student.loss.q': {'low': 0., 'high': 1.},
    'student.loss.eps': {'low': 0., 'high': .5},
    'student.stopping.name': ['', 'agreement', 'likelihood', 'label_wave'],
    'labels.transforms': [[], ['harden'], ['confident'], ['small_loss'], ['smooth']],
    'labels.confident.share': {'low': .3, 'high': 1.},
    'labels.small_loss.share': {'low': .3, 'high': 1.},
    'optimizer.weight_decay': {'low': 1e-4, 'high': 1., 'log': True}}


@dataclasses.dataclass(frozen=True, eq=False)
class Track:
    """config: () -> the config that ideas start from.  make: (secret, final, small, seeds) -> Material; `final` is the
    third data set, of which agents hear nothing; `small` one of the same shapes for a first check of an idea.  epochs,
    rates: ranges of what drivers choose.  sealed: () -> places that no idea may read, wherever they are."""
    name: str
    doc: str
    config: Callable[[], Any]
    make: Callable[[int, bool, bool, tuple[int, ...]], Material]
    epochs: tuple[int, int]
    rates: tuple[float, float]
    seeds: int = 10
    sealed: Callable[[], tuple[str, ...]] = tuple

    def space(self, levels: bool = False) -> dict[str, Any]:
        """What drivers choose (space.py). levels: with a third and all of the epochs as levels, for halving."""
        low, high = self.epochs
        epochs = {'levels': [high // 9, high // 3, high]} if levels else {'low': low, 'high': high, 'integer': True}
        rates = {'low': self.rates[0], 'high': self.rates[1], 'log': True}
        return SPACE | {'optimizer.learning_rate': rates, 'train.epochs': epochs}


def fields(point: dict[str, Any]) -> dict[str, Any]:
    """An idea's fields from a point of a space: those of what it names, so that two points of one idea are one."""
    loss, rule = point.get('student.loss.name', ''), point.get('student.stopping.name', '')
    entry = LOSSES[loss] if loss in LOSSES else OBJECTIVES.get(loss)
    has = {'student.loss': {'name', *(entry.settings if entry else ())},
           'student.stopping': {'name', *(STOPPING[rule].settings if rule in STOPPING else ())}}
    has |= {f'labels.{name}': {'share'} for name in point.get('labels.transforms', ())}

    def holds(field: str) -> bool:
        part, _, name = field.rpartition('.')
        return name in has.get(part, ()) or not part.startswith(('student.loss', 'student.stopping', 'labels.'))
    return {field: value for field, value in point.items() if holds(field)}


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


def salient_material(secret: int, final: bool, small: bool, seeds: tuple[int, ...] = ()) -> Material:
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


def probed(path: str = '') -> Track:
    """The track of probes, on digits, or on the user's arrays."""
    name = f'probes:{path}' if path else 'probes'
    return Track(name, 'linear probes on cached features, taught by a weak model (a file: --track=probes:FILE.npz)',
                 probes.config, lambda *told: Material(**probes.material(path, *told)), (3, 90), (1e-3, 1e-1),
                 sealed=tuple if path else probes.library)


TRACKS = {'t2': Track('t2', 'the salient concept: 64 features, one supervisor that errs where another feature is large',
                      salient_config, salient_material, (1, 36), (1e-4, 1e-2)), 'probes': probed()}


def get(name: str) -> Track:
    """The track of that name. Raises ConfigError."""
    if name.startswith('probes:'):
        return probed(str(pathlib.Path(name.removeprefix('probes:')).absolute()))
    if name not in TRACKS:
        raise ConfigError(f'--track: {name!r}, expected one of {", ".join(TRACKS)}, probes:FILE.npz')
    return TRACKS[name]
