"""Handwritten digits of 8 x 8 pixels, which come with scikit-learn (methods.md T3): 1797 rows, ten classes."""
import numpy as np
from sklearn.datasets import load_digits

from w2s_jax.data import Dataset, Examples
from w2s_jax.errors import ConfigError

ROWS, BRIGHTEST = 1797, 16


def load(task, log=print) -> Dataset:
    """The task at `task.train_size` (0: all that are left) and `task.test_size` (0: 597) rows, drawn by its seed."""
    m = task.test_size or 597
    n = task.train_size or ROWS - m
    if n + m > ROWS or n < 4:
        raise ConfigError(f'task.train_size: {task.train_size} and task.test_size: {task.test_size}, expected at least '
                          f'4 rows to learn and at most {ROWS} together')
    found = load_digits()
    order = np.random.default_rng((task.seed, 8)).permutation(ROWS)[:n + m]
    rows = Examples({'features': (found.data[order] / BRIGHTEST).astype(np.float32)},
                    found.target[order].astype(np.int32), order)
    return Dataset('digits', 10, rows.take(np.arange(n)), rows.take(np.arange(n, n + m)),
                   notes={'rows': n + m, 'skipped': 0, 'source': 'scikit-learn'})
