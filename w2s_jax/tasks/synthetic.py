"""Tasks whose answers are known, for testing the pipeline in seconds.

T2, the salient concept:

64 visible numbers; the truth is the sign of one of them (the concept, separated by 2.2). The weak labels
come with the data, as if from a flawed supervisor: right, except where another visible number is large
(a systematic error that a student can learn to imitate) and in a share of random slips. A student that
follows the concept beats its labels; one that trains too long copies the errors.

Linear features (arXiv 2312.09390, appendix E.1, there features of SciQ): the truth is the sign of a sum of normal
features, each of as much weight; a model that sees the first k of d of them can be right on 1 - arccos(sqrt(k / d)) /
pi of the rows, and whoever sees more can be exactly that model.
"""
import numpy as np

from w2s_jax.data import Dataset, Examples
from w2s_jax.errors import ConfigError

WIDTH = 64
SEPARATION = 2.2
TRIGGER = 0.85  # the feature above which the supervisor errs
SLIPS = 0.08
CONFIDENCE = 0.8
MOST = 4 * 10**6  # rows: 2 GB of float64 while they are drawn


def load(task, log=print) -> Dataset:
    """The task at `task.train_size` (0: 8000, two halves of 4000) and `task.test_size` (0: 8000) examples; with
    `task.shift` a second test set `shifted`, whose trigger is so much larger."""
    n, m = sizes(task, MOST)
    rows = draw(n + m, task.seed, turn=task.turn)
    tests = {'test': rows.take(np.arange(n, n + m))}
    if task.shift:
        tests['shifted'] = draw(m, (task.seed, 1), task.shift, task.turn)
    return Dataset('salient_concept', 2, rows.take(np.arange(n)), tests,
                   notes={'rows': n + m, 'skipped': 0, 'source': 'synthetic'})


def sizes(task, most: int, usual: tuple[int, int] = (8000, 8000)) -> tuple[int, int]:
    """The rows of pool and test set. Raises ConfigError for too few, or more than `most`, which memory is to hold."""
    n, m = task.train_size or usual[0], task.test_size or usual[1]
    if n < 4 or m < 1:
        raise ConfigError(f'task.train_size: {n} and task.test_size: {m}, expected at least 4 and 1')
    if n + m > most:
        raise ConfigError(f'task.train_size: {n} and task.test_size: {m}, expected at most {most} together, which are '
                          'made in memory')
    return n, m


def linear(task, log=print) -> Dataset:
    """`task.width` normal features at `task.train_size` (0: 8000) and `task.test_size` (0: 8000) examples; the truth is
    the sign of their sum, each with a sign of its own that the seed draws."""
    n, m = sizes(task, MOST * WIDTH // task.width)
    rng = np.random.default_rng((task.seed, 5))
    signs = rng.choice([-1, 1], task.width).astype(np.float32)
    features = rng.normal(size=(n + m, task.width)).astype(np.float32)
    rows = Examples({'features': features}, (features @ signs > 0).astype(np.int32), np.arange(n + m))
    return Dataset('linear_features', 2, rows.take(np.arange(n)), rows.take(np.arange(n, n + m)),
                   notes={'rows': n + m, 'skipped': 0, 'source': 'synthetic'})


def draw(n: int, seed: int | tuple[int, ...], shift: float = 0.0, turn: int = 0) -> Examples:
    """`n` rows: features `[n, 64]` float32, truth, and given labels of .8 on the supervisor's answer. turn: how many
    features the concept is spread over, by one rotation for all seeds."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, WIDTH)).astype(np.float32)
    truth = rng.integers(0, 2, n)
    features[:, 0] += SEPARATION * (2 * truth - 1)
    features[:, 1] += np.float32(shift)
    wrong = (features[:, 1] > TRIGGER) ^ (rng.random(n) < SLIPS)
    answer = np.where(wrong, 1 - truth, truth)
    if turn:
        spread = [0, *range(2, turn + 1)]  # not the feature that the supervisor stumbles over
        rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(turn, turn)))[0]
        features[:, spread] = features[:, spread] @ rotation.astype(np.float32)
    given = np.where(np.arange(2) == answer[:, None], CONFIDENCE, 1 - CONFIDENCE).astype(np.float32)
    return Examples({'features': features}, truth.astype(np.int32), np.arange(n), given)
