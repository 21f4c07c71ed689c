"""DIAGNOSTICS: name -> what else is measured on stored predictions: `fn(student, weak, ceiling, truth, settings)`.

student, weak, ceiling: of one seed and test set, as `Predictions`.  truth: `[N]`.  Pure numpy.
Returns: {measure: number}, or {measure: (number, title, factor, digits)}; None for what these predictions do not
define, which is left out unless every seed has it. A mean over seeds and its standard error are made of them, and they
describe themselves in results.json, so that a report needs no plug-in.
"""
from collections.abc import Mapping

import numpy as np

from w2s_jax.registry import Registry

Predictions = Mapping[str, np.ndarray]  # `top` `[N, k]`: the k = min(K, 5) best classes, best first; `top_probability`
DIAGNOSTICS = Registry('diagnostic')


def classes(predictions: Predictions) -> np.ndarray:
    """The first answers `[N]`."""
    return predictions['top'][:, 0]


def probabilities(predictions: Predictions) -> np.ndarray | None:
    """`[N, K]` float64 in the order of the classes; None of more than five classes, of which not all are stored."""
    top, found = predictions['top'], np.zeros(predictions['top'].shape)
    if top.max() >= top.shape[1]:
        return None
    np.put_along_axis(found, top, predictions['top_probability'].astype(np.float64), -1)
    return found
