"""STOPPING: name -> a rule that scores a model during training, without truth; the parameters of the best are kept.

A rule is `fn(probabilities, labels, settings) -> score`: numpy, `[M, K]` both, of rows that are held out of training
and have weak labels like those that are trained on. The higher score is the better one; of equal ones the first is
kept.
"""
from collections.abc import Callable

import numpy as np
from scipy import special

from w2s_jax import data
from w2s_jax.registry import Registry, Setting, Settings

STOPPING = Registry('stopping rule')
TEMPERATURES = np.geomspace(.2, 200, 31)
HOLDOUT = Setting(.1, 0, 1, '()', doc="share of the rows, whole groups, held out of training for the rule")


@STOPPING.register('agreement')
def agreement(probabilities: np.ndarray, labels: np.ndarray, settings: Settings) -> float:
    """How often the model answers as its weak labels do (Burns et al. 2023, arXiv 2312.09390, figure 13)."""
    return float((probabilities.argmax(-1) == labels.argmax(-1)).mean())


@STOPPING.register('likelihood')
def likelihood(probabilities: np.ndarray, labels: np.ndarray, settings: Settings) -> float:
    """The mean log-likelihood of the weak labels, the negative of the cross-entropy."""
    return float((labels * np.log(np.maximum(probabilities, 1e-30))).sum(-1).mean())


@STOPPING.register('calibrated')
def calibrated(probabilities: np.ndarray, labels: np.ndarray, settings: Settings) -> float:
    """The mean log-likelihood of the weak labels by p^(1/T), T being that of TEMPERATURES which makes them likeliest.

    So a model that tells classes apart is not held back by being too sure (Guo et al. 2017, arXiv 1706.04599, section
    4).
    """
    logits = np.log(np.maximum(probabilities, 1e-30)) / TEMPERATURES[:, None, None]
    logs = logits - special.logsumexp(logits, axis=-1, keepdims=True)
    return float((labels * logs).sum(-1).mean(-1).max())


def scores(rule: Callable, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """`[R]` float32: the rule's score of each run. probabilities `[R, M, K]`; targets the same, or classes `[R, M]`."""
    targets = data.distributions(targets, probabilities.shape[-1])
    return np.array([rule(p, t) for p, t in zip(probabilities, targets, strict=True)], np.float32)
