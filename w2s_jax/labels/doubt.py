"""How much a teacher doubts its labels, beside others of its own (Dong et al., NeurIPS 2025, rOR5IZcwJx: EUR)."""
from collections.abc import Mapping

import numpy as np

from w2s_jax.errors import DataError
from w2s_jax.labels.ensembles import entropy
from w2s_jax.labels.texts import TABLES
from w2s_jax.registry import Settings

NAME = 'doubt'
SURE = 1e-4  # nats: an entropy below is that of hard labels


def doubts(labels: np.ndarray) -> np.ndarray:
    """`[n]` in [0, 1): w = H / (H + kappa), kappa being the median of H, in nats, over all rows of `[n, K]`. Raises
    DataError where that is 0, as of hard labels."""
    found = entropy(labels)
    kappa = np.median(found)
    if not kappa > SURE:
        raise DataError(f'doubt: the median entropy of {len(labels)} labels is {kappa:g}, expected one above 0, of '
                        'soft labels')
    return found / (found + kappa)


@TABLES.register(NAME)
def doubt(columns: Mapping[str, np.ndarray], settings: Settings, rng) -> dict:
    """The weight `[n]` of a student's own answer by its teacher's entropy: H / (H + median H)."""
    return {'labels': doubts(columns['labels']).astype(np.float32)}
