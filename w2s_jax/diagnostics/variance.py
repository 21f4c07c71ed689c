"""Bias and variance over seeds, of squared errors (arXiv 2505.24313, 2502.05075).

f_1 ... f_S: the probabilities of a model in S seeds, which draw halves, orders and heads. With their mean m and the
unbiased variance V = sum_s |f_s - m|^2 / (S - 1), the mean error is E |f - y|^2 = B + V, where B = |m - y|^2 - V / S is
what the mean of many seeds would be wrong by; means over test rows, y one-hot.
"""
from collections.abc import Sequence

import numpy as np

from w2s_jax.diagnostics.registry import DIAGNOSTICS, Note, Predictions, probabilities
from w2s_jax.registry import Settings


def bias_variance(answers: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """(B, V) of answers `[S, N, K]`, S at least 2, and one-hot truth `[N, K]`; their sum is the mean error exactly."""
    mean, count = answers.mean(0), len(answers)
    variance = float(((answers - mean) ** 2).sum() / (count - 1) / len(truth))
    return float(((mean - truth) ** 2).sum(-1).mean()) - variance / count, variance


@DIAGNOSTICS.register('variance', over_seeds=True)
def variance(student: Sequence[Predictions], weak: Sequence[Predictions], ceiling: Sequence[Predictions],
             truth: np.ndarray, settings: Settings) -> dict:
    """Squared bias and variance over seeds of the student, the weak model and the ceiling."""
    del settings
    if len(student) < 2:
        return {'variance': Note('bias and variance over seeds need two seeds')}
    found: dict = {}
    for who, models in (('', student), ('_weak', weak), ('_ceiling', ceiling)):
        each = [probabilities(model) for model in models]
        if any(p is None for p in each):
            return {'variance': Note('bias and variance need all probabilities, and of more than five classes not all '
                                     'are stored')}
        p, said = np.stack([x for x in each if x is not None]), {'': 'student', '_weak': 'weak model'}.get(who, who[1:])
        bias, spread = bias_variance(p, np.eye(p.shape[-1])[truth])
        found |= {f'bias{who}': (bias, f'squared bias over seeds: {said}', 1, 4),
                  f'variance{who}': (spread, f'variance over seeds: {said}', 1, 4)}
    return found
