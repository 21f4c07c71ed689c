"""Whether a student makes its supervisor's errors, beside a control that has never seen the supervisor.

Two models agree more often than chance because both are right, or because some examples are hard for both. So each
number stands beside that of the ceiling, the student's model trained on truth: what a student has above it, it has from
its supervisor's labels (`NAME_imitation`).
"""
from typing import NamedTuple

import numpy as np

from w2s_jax.diagnostics.registry import DIAGNOSTICS, Predictions, classes, probabilities
from w2s_jax.registry import Setting, Settings

EVEN = 1e-12  # what is left to chance below it is nothing


class Pair(NamedTuple):
    """A model against its supervisor. right, weak_right: `[N]` bool.  same: `[N]` bool, one answer.  sure: `[N]`, the
    probability of the supervisor's answer."""
    right: np.ndarray
    weak_right: np.ndarray
    same: np.ndarray
    sure: np.ndarray


def pair(model: Predictions, weak: Predictions, truth: np.ndarray) -> Pair:
    """Of the first answers of both."""
    mine, theirs = classes(model), classes(weak)
    return Pair(mine == truth, theirs == truth, mine == theirs, weak['top_probability'][:, 0])


def share(event: np.ndarray, given: np.ndarray) -> float | None:
    """P[event | given] of bool `[N]`; None where nothing is given."""
    return float(event[given].mean()) if given.any() else None


def inheritance(p: Pair) -> float | None:
    """P[wrong in the supervisor's way | it is wrong], `agreement.weak_wrong` of results (arXiv 2312.09390, fig. 8)."""
    return share(p.same, ~p.weak_right)


def correction(p: Pair) -> float | None:
    """P[right | the supervisor is wrong]."""
    return share(p.right, ~p.weak_right)


def unsure_half(p: Pair) -> np.ndarray | None:
    """`[N]` bool: of the supervisor's errors those that it is at most as sure of as of the median one; None if it is
    equally sure of all."""
    wrong = ~p.weak_right
    if not wrong.any() or np.ptp(p.sure[wrong]) == 0:
        return None
    middle = np.median(p.sure[wrong])
    # Where the median is also the highest, "at most" would leave nothing for the other half.
    return wrong & (p.sure <= middle if (p.sure[wrong] > middle).any() else p.sure < middle)


def correction_unsure(p: Pair) -> float | None:
    """`correction` of the errors that the supervisor is less sure of."""
    half = unsure_half(p)
    return None if half is None else share(p.right, half)


def correction_sure(p: Pair) -> float | None:
    """`correction` of the errors that the supervisor is surer of."""
    half = unsure_half(p)
    return None if half is None else share(p.right, ~p.weak_right & ~half)


def new_errors(p: Pair) -> float | None:
    """P[wrong | the supervisor is right]."""
    return share(~p.right, p.weak_right)


def phi(p: Pair) -> float | None:
    """The correlation of being right, in [-1, 1]; None if either is always right or always wrong."""
    if len(np.unique(p.right)) < 2 or len(np.unique(p.weak_right)) < 2:
        return None
    return float(np.corrcoef(p.right, p.weak_right)[0, 1])


def kappa(p: Pair) -> float | None:
    """Cohen's kappa of being right: error consistency (Geirhos et al. 2020, arXiv 2006.16736, eqs. 1 and 3)."""
    a, b = p.right.mean(), p.weak_right.mean()
    return beyond_chance(float((p.right == p.weak_right).mean()), a * b + (1 - a) * (1 - b))


def capa(model: Predictions, weak: Predictions, truth: np.ndarray) -> float | None:
    """Chance adjusted probabilistic agreement (arXiv 2502.04313), of probabilities p, q `[N, K]` with means P, Q on the
    true class: observed mean_i sum_k p_ik q_ik, expected P Q + (1 - P) (1 - Q) / (K - 1).

    The formula is that of the authors' code (model-similarity/lm-similarity), for one K. None of more than five
    classes.
    """
    p, q = probabilities(model), probabilities(weak)
    if p is None or q is None or p.shape != q.shape:
        return None
    rows, count = np.arange(len(truth)), p.shape[1]
    a, b = p[rows, truth].mean(), q[rows, truth].mean()
    return beyond_chance(float((p * q).sum(1).mean()), a * b + (1 - a) * (1 - b) / (count - 1))


def beyond_chance(observed: float, expected: float) -> float | None:
    """(observed - expected) / (1 - expected); None where chance leaves nothing."""
    return float((observed - expected) / (1 - expected)) if 1 - expected > EVEN else None


COUNTED = {'inheritance': (inheritance, 'errors of the supervisor repeated %', 100, 1),
           'correction': (correction, 'errors of the supervisor corrected %', 100, 1),
           'correction_unsure': (correction_unsure, 'corrected, where the supervisor is less sure %', 100, 1),
           'correction_sure': (correction_sure, 'corrected, where the supervisor is surer %', 100, 1),
           'new_errors': (new_errors, 'wrong where the supervisor is right %', 100, 1),
           'phi': (phi, 'correlation of being right (phi)', 1, 3),
           'kappa': (kappa, 'error consistency (kappa)', 1, 3)}
ALL = (*COUNTED, 'capa')


@DIAGNOSTICS.register('error_structure', supervisors=True, of=Setting(
    ALL, choices=ALL, doc='what is measured; each of the student, of the ceiling, and the difference'))
def error_structure(student: Predictions, weak: Predictions, ceiling: Predictions, truth: np.ndarray,
                    settings: Settings) -> dict:
    """Whose errors a student makes: inherited, corrected and new ones, and how much it agrees beyond chance."""
    pairs = pair(student, weak, truth), pair(ceiling, weak, truth)
    found: dict[str, tuple] = {}
    for name in settings.of:
        if name == 'capa':
            mine, control = (capa(model, weak, truth) for model in (student, ceiling))
            title, factor, digits = 'agreement beyond chance (CAPA)', 1, 3
        else:
            measure, title, factor, digits = COUNTED[name]
            mine, control = (measure(p) for p in pairs)
        less = None if mine is None or control is None else mine - control
        found |= {name: (mine, title, factor, digits),
                  f'{name}_ceiling': (control, f'{title}: ceiling', factor, digits),
                  f'{name}_imitation': (less, f'{title}: student less ceiling', factor, digits)}
    return found
