"""A pool and a test set out of one file's rows, whole groups on one side, and choices of rows."""
import numpy as np

from w2s_jax import data
from w2s_jax.data import Examples
from w2s_jax.errors import DataError

TEST_SHARE = 0.2


def cut(rows: Examples, task) -> tuple[Examples, Examples]:
    """(pool, test): at least `task.test_size` rows of test, or a fifth, in whole groups. Raises DataError for sizes
    that the rows cannot give."""
    n = len(rows)
    if task.train_size + task.test_size > n:
        raise DataError(f'task.train_size + task.test_size: {task.train_size} + {task.test_size}, '
                        f'expected at most the {n} usable rows')
    if task.test_size == n:
        raise DataError(f'task.test_size: {n}, expected fewer than the {n} usable rows: none is left to train on')
    largest = np.unique(rows.group, return_counts=True)[1].max()
    # split_groups places a group by its middle, so half a group more makes sure of the size.
    enough = min((max(task.test_size, 1) + largest / 2) / n, 1.0)
    share = enough if task.test_size else max(enough, TEST_SHARE)
    test, pool = data.split_groups(rows.group, share, task.seed)
    return rows.take(pool), rows.take(test)


def sample(rows: Examples, size: int, field: str, seed: int, whole: str = 'groups') -> Examples:
    """`size` rows (0: all), in their order. Raises DataError where there are fewer. whole: what was kept together."""
    if size > len(rows):
        raise DataError(f'task.{field}: {size}, expected at most {len(rows)}, the rows that whole {whole} leave for it')
    if not size:
        return rows
    return rows.take(np.sort(np.random.default_rng((seed, 1)).choice(len(rows), size, replace=False)))
