"""COMBINERS: name -> how several teachers' labels become one: `fn(labels, votes) -> labels`.

labels: `[T, n, K]`, rows sum to 1.  votes: `[T]`, how much each teacher counts, of combiners that boost.  The result is
`[n, K]`. Pure functions of arrays, and the tables (texts.py) that phases call them by.
"""
from collections.abc import Mapping
from typing import Any

import numpy as np

from w2s_jax.labels.texts import TABLES
from w2s_jax.labels.transforms import tempered
from w2s_jax.metrics import best
from w2s_jax.registry import Registry, Setting, Settings

COMBINERS = Registry('combiner', options=('boosts',))  # boosts: teachers are trained one after the other (`boosted`)
LEAST = 1e-8  # probabilities and entropies count as at least that
STARTS = ('uniform', 'random', 'entropy', 'kl')  # of learned weights
PERFECT = 1e-6  # error rate below which a boosted teacher counts no more


@COMBINERS.register('uniform')
def uniform(labels: np.ndarray, votes: np.ndarray) -> np.ndarray:
    """The mean of the teachers' probabilities."""
    return weighted(labels, np.ones(labels.shape[:2]))


@COMBINERS.register('vote')
def vote(labels: np.ndarray, votes: np.ndarray) -> np.ndarray:
    """The share of the teachers that answer each class."""
    return weighted(answers(labels), np.ones(labels.shape[:2]))


@COMBINERS.register('entropy')
def entropy_weighted(labels: np.ndarray, votes: np.ndarray) -> np.ndarray:
    """Weighted, row by row, by one over the entropy of each teacher's label (RAVEN's code, arXiv 2510.21332)."""
    return weighted(labels, 1 / (entropy(labels) + LEAST))


@COMBINERS.register('confidence')
def confidence_weighted(labels: np.ndarray, votes: np.ndarray) -> np.ndarray:
    """Weighted, row by row, by the probability of each teacher's answer."""
    return weighted(labels, labels.max(-1))


@COMBINERS.register('adaboost', boosts=True)
def adaboost(labels: np.ndarray, votes: np.ndarray) -> np.ndarray:
    """Weighted by alpha of teachers that learn, one after the other, what those before got wrong (SAMME: Zhu et al.
    2009, Statistics and Its Interface 2, algorithm 2)."""
    return weighted(labels, np.broadcast_to(votes[:, None], labels.shape[:2]))


def weighted(labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`[n, K]` float32: the mean of labels `[T, n, K]` by weights `[T, n]`; even weights where all are 0."""
    total = weights.sum(0)
    shares = np.where(total > 0, weights, 1) / np.where(total > 0, total, len(weights))
    found = (labels.astype(np.float64) * shares[..., None]).sum(0)
    return (found / found.sum(-1, keepdims=True)).astype(np.float32)


def answers(labels: np.ndarray) -> np.ndarray:
    """Each label as its most probable class, one-hot."""
    return np.eye(labels.shape[-1], dtype=np.float32)[labels.argmax(-1)]


def entropy(labels: np.ndarray) -> np.ndarray:
    """Of labels `[..., K]`, in nats."""
    p = np.maximum(labels.astype(np.float64), LEAST)
    return -(p * np.log(p)).sum(-1)


def temperatures(labels: np.ndarray) -> np.ndarray:
    """`[T]`: by which each teacher's labels `[T, n, K]`, as p^(1/t), have the mean entropy of all teachers' labels.

    1 for a teacher whose entropy no temperature changes, as that of one-hot labels.
    """
    from scipy import optimize  # a fifth of a second to import, and few runs need it
    wanted = entropy(labels).mean()

    def excess(log_t: float, one: np.ndarray) -> float:
        return float(entropy(tempered(one, np.exp(log_t), LEAST)).mean() - wanted)
    found = []
    for one in labels.astype(np.float64):
        ends = [excess(x, one) for x in (-5, 5)]
        found.append(np.exp(optimize.brentq(excess, -5, 5, (one,), xtol=1e-10)) if ends[0] * ends[1] < 0 else 1.)
    return np.array(found)


def starts(labels: np.ndarray, start: str, rows: bool, rng: np.random.Generator) -> np.ndarray:
    """`[n, T]` float32: weights of teachers that training begins with, of labels `[T, n, K]`. rows: each row's own, or
    the same for all. As in RAVEN's code (arXiv 2510.21332): even, drawn, one over the mean entropy, one over the mean
    divergence KL(P_j || P_t) from the other teachers j; that of each row's own divergence is ours."""
    number, n = labels.shape[:2]
    if start == 'random':
        raw = rng.random((n if rows else 1, number))
    elif start == 'uniform':
        raw = np.ones((1, number))
    else:
        each = {'entropy': entropy, 'kl': divergence}[start](labels).T
        raw = 1 / ((each if rows else each.mean(0, keepdims=True)) + LEAST)
    return np.broadcast_to(raw / raw.sum(-1, keepdims=True), (n, number)).astype(np.float32)


def divergence(labels: np.ndarray) -> np.ndarray:
    """`[T, n]`: the mean of KL(P_j || P_t) over the other teachers j of labels `[T, n, K]`; 0 of one alone."""
    p = np.maximum(labels.astype(np.float64), LEAST)
    total = -entropy(labels).sum(0) - (p.sum(0) * np.log(p)).sum(-1)
    return np.maximum(total, 0) / max(len(labels) - 1, 1)


def samme(wrong: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights `[n]` of rows for the next teacher, of mean 1, and alpha `[T]` of those so far, which were trained one
    after the other (SAMME: Zhu et al. 2009, algorithm 2; AdaBoost for two classes).

    Args:
      wrong: `[T, n]` bool, whether each teacher errs.
    A teacher that is no better than chance has alpha 0 and changes no weights.
    """
    weights, alphas = np.ones(wrong.shape[1]), []
    for missed in wrong:
        error = np.clip((weights * missed).sum() / weights.sum(), PERFECT, 1)
        alphas.append(max(np.log((1 - error) / max(error, PERFECT)) + np.log(classes - 1), 0.) if error < 1 else 0.)
        weights = weights * np.exp(alphas[-1] * missed)
        weights /= weights.mean()
    return weights, np.array(alphas)


def teachers(columns: Mapping[str, np.ndarray], name: str, classes: int) -> np.ndarray:
    """`[T, n, K]` of the columns NAME/0/labels, NAME/1/labels ..., of labels that are data NAME/0/values ..., or of the
    only column; classes as one-hot rows."""
    found: list[np.ndarray] = []
    while (one := _column(columns, f'{name}/{len(found)}')) is not None:
        found.append(one)
    found = found or [next(iter(columns.values()))]
    return np.stack([one if one.ndim == 2 else np.eye(classes, dtype=np.float32)[one] for one in found])


def _column(columns: Mapping[str, np.ndarray], need: str) -> np.ndarray | None:
    return columns.get(f'{need}/labels', columns.get(f'{need}/values'))


MIXED: dict[str, Any] = {
    'classes': Setting(2, doc='K'),
    'matched': Setting(False, doc='whether temperatures make them equally sure')}
COMBINED: dict[str, Any] = MIXED | {'combine': Setting('uniform', doc='of `w2s list combiners`'),
                    'code': Setting('', doc='its version')}


def prepared(columns: Mapping[str, np.ndarray], name: str, settings: Settings) -> np.ndarray:
    """The teachers' labels NAME, with the temperatures of those of the pool."""
    labels = teachers(columns, name, settings.classes)
    if not settings.matched:
        return labels
    found = temperatures(teachers(columns, 'pool', settings.classes))
    return tempered(labels.astype(np.float64), found[:, None, None], LEAST)


@TABLES.register('stacked', **MIXED)
def stacked(columns: Mapping[str, np.ndarray], settings: Settings, rng) -> dict:
    """Several teachers' labels beside each other, `[n, T, K]`."""
    return {'labels': prepared(columns, 'pool', settings).swapaxes(0, 1).astype(np.float32)}


@TABLES.register('started', **MIXED, start=Setting('uniform', choices=STARTS, doc='of the weights'),
                 rows=Setting(False, doc='whether each row has its own'))
def started(columns: Mapping[str, np.ndarray], settings: Settings, rng) -> dict:
    """Weights of several teachers that training begins with, `[n, T]`."""
    return {'labels': starts(prepared(columns, 'pool', settings), settings.start, settings.rows, rng)}


@TABLES.register('combined', **COMBINED, hard=Setting(False, doc='whether labels become the most probable class'))
def combined(columns: Mapping[str, np.ndarray], settings: Settings, rng) -> dict:
    """One label of several teachers'."""
    labels = mixed(columns, 'pool', settings)
    return {'labels': labels.argmax(-1).astype(np.int32) if settings.hard else labels}


@TABLES.register('combined_answers', **COMBINED, tests=Setting((), doc='names of test sets'))
def combined_answers(columns: Mapping[str, np.ndarray], settings: Settings, rng) -> dict:
    """What several teachers together answer on the test sets."""
    return {f'{test}.{k}': v for test in settings.tests
            for k, v in best(mixed(columns, test, settings)).items()}


def mixed(columns: Mapping[str, np.ndarray], name: str, settings: Settings) -> np.ndarray:
    """`[n, K]`: the teachers' labels NAME as one."""
    labels = prepared(columns, name, settings)
    return COMBINERS[settings.combine].fn(labels, columns.get('boosts/votes', np.ones(len(labels))))


@TABLES.register('boosted', classes=MIXED['classes'])
def boosted(columns: Mapping[str, np.ndarray], settings: Settings, rng) -> dict:
    """Weights of a teacher's rows by the errors of those before it on their truth, and the votes of these."""
    wrong = teachers(columns, 'pool', settings.classes).argmax(-1) != columns['truth/values']
    weights, votes = samme(wrong, settings.classes)
    return {'labels': weights.astype(np.float32), 'votes': votes}
