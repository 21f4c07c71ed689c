"""STRUCTURES: name -> which rows simulated labels are wrong on: `fn(columns, truth, rng) -> score`.

columns: `length` `[n]`, characters of each row's texts, of those registered with needs='text'; `ceiling` `[n, K]`, what
a model trained on the truth of other rows answers, of those with needs='ceiling'.  truth: `[n]`.  score: `[n]`, the
higher the sooner a row is wrong; -inf: never. The experiment of Burns et al. 2023, arXiv 2312.09390, appendix E.2: do
errors that are equally many, but others, teach the same? They are made from truth, so that whoever learns them is an
oracle.
"""
from collections.abc import Mapping

import numpy as np

from w2s_jax.errors import DataError
from w2s_jax.registry import Registry

STRUCTURES = Registry('error structure', options=('needs',))
Columns = Mapping[str, np.ndarray]


@STRUCTURES.register('random')
def random(columns: Columns, truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Any rows: noise, which nothing in the inputs tells."""
    return rng.random(len(truth))


@STRUCTURES.register('longest', needs='text')
def longest(columns: Columns, truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The longest texts."""
    return columns['length'].astype(np.float64)


@STRUCTURES.register('shortest', needs='text')
def shortest(columns: Columns, truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The shortest texts."""
    return -columns['length'].astype(np.float64)


@STRUCTURES.register('ceiling_unsure', needs='ceiling')
def ceiling_unsure(columns: Columns, truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a strong model on truth is least sure of."""
    return -columns['ceiling'].max(-1).astype(np.float64)


@STRUCTURES.register('ceiling_sure', needs='ceiling')
def ceiling_sure(columns: Columns, truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a strong model on truth is right about and surest of."""
    p = columns['ceiling']
    return np.where(p.argmax(-1) == truth, p.max(-1).astype(np.float64), -np.inf)


def simulated(name: str, truth: np.ndarray, errors: int, classes: int, columns: Columns,
              rng: np.random.Generator) -> np.ndarray:
    """Labels that are wrong on exactly so many rows.

    Args:
      name: of a structure.  truth: `[n]` in [0, classes).  errors: how many rows get another class, each as likely.
      columns: what the structure needs.
    Returns: classes `[n]` int32. Raises DataError if the structure has not so many rows.
    """
    score, ties = STRUCTURES[name].fn(columns, truth, rng), rng.random(len(truth))
    order = np.lexsort((ties, -score))
    there = int(np.isfinite(score).sum())
    if errors > there:
        raise DataError(f'method.errors: {name!r} has {there} of {len(truth)} rows to be wrong on, but the weak labels '
                        f'are wrong on {errors}, expected at most as many: a better teacher, or another structure')
    wrong = order[:errors]
    labels = np.array(truth, np.int32)
    labels[wrong] = (labels[wrong] + rng.integers(1, classes, errors)) % classes
    return labels
