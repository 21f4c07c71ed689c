"""What the student's frozen features say of weak labels: neighbours, and logistic regressions that are cross-fitted.

Features come as `[n, ...]`, are flattened, and each is standardised over all rows.
"""
import hashlib
from typing import Any

import numpy as np
import threadpoolctl

from w2s_jax.errors import DataError
from w2s_jax.registry import Setting, Settings

SMALL = 2**22  # numbers of a fit below which more threads only wait for each other
LEAST = 1e-3  # probabilities below it are not worth a row of a probe's fit
FIT: dict[str, Any] = {
    'folds': Setting(5, 2, 1000, traced=True, doc='the probe answers rows of one after learning the others'),
    'l2': Setting(1e-3, 0, 1e6, '(]', traced=True, doc='of the probe: mean loss + l2 / 2 |weights|^2')}


def standardised(features: np.ndarray) -> np.ndarray:
    """`[n, ...]` as `[n, D]` float32, each column of mean 0 and deviation 1; constant ones 0."""
    x = np.asarray(features, np.float32).reshape(len(features), -1)
    return (x - x.mean(0, dtype=np.float64).astype(np.float32)) / np.maximum(x.std(0), np.float32(1e-6))


def neighbours(features: np.ndarray, k: int):
    """The graph of k nearest neighbours by cosine, without the row itself: `[n, n]`, sparse, 1 from a row to each."""
    from sklearn.neighbors import NearestNeighbors  # half a second to import, and few runs need it
    x = standardised(features)
    if k >= len(x):
        raise DataError(f'k: {k} neighbours, but there are {len(x)} rows, expected fewer')
    return NearestNeighbors(n_neighbors=int(k), algorithm='brute', metric='cosine').fit(x).kneighbors_graph()


def assigned(features: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """`[n]`: the fold of each row. Rows of equal features are in one, wherever they stand; other rows that belong
    together, as the options of a question, are not known here and may be in several."""
    seen = [hashlib.blake2b(np.ascontiguousarray(row).tobytes(), digest_size=16).digest() for row in features]
    different, which = np.unique(np.array(seen, 'S16'), return_inverse=True)
    if len(different) < folds:
        raise DataError(f'folds: {folds}, but there are {len(different)} different rows, expected fewer')
    return (rng.permutation(len(different)) % folds)[which]


def out_of_fold(labels: np.ndarray, features: np.ndarray, settings: Settings, rng: np.random.Generator) -> np.ndarray:
    """Cross-fitted probabilities `[n, K]` float64: of each row by a logistic regression on the rows of other folds.

    Args:
      labels: `[n, K]`, soft or hard: what it learns.  settings: folds, l2 (`FIT`).
    """
    x, fold = standardised(features), assigned(features, settings.folds, rng)
    found = np.zeros(labels.shape)
    for one in range(settings.folds):
        held = fold == one
        found[held] = predicted(x[~held], labels[~held], x[held], settings.l2)
    return found


def predicted(x: np.ndarray, labels: np.ndarray, rows: np.ndarray, l2: float) -> np.ndarray:
    """The probabilities `[m, K]` that a logistic regression on `x` `[n, D]` and soft labels `[n, K]` gives to `rows`
    `[m, D]`; a soft label is a row for each of its classes, weighted."""
    from sklearn.linear_model import LogisticRegression
    at, classes = np.nonzero(labels > LEAST)
    if len(np.unique(classes)) < 2:
        raise DataError('folds: the rows of all but one have labels of one class, expected two or more: more rows, or '
                        'weak labels that differ')
    model = LogisticRegression(C=1 / (l2 * len(x)), max_iter=1000)
    with threadpoolctl.threadpool_limits(1 if x.size < SMALL else None):
        model.fit(x[at], classes, sample_weight=labels[at, classes])
    found = np.zeros((len(rows), labels.shape[1]))
    found[:, model.classes_] = model.predict_proba(rows)
    return found
