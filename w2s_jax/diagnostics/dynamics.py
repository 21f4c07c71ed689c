"""How a student learned: overfitting to its weak labels (arXiv 2312.09390, section 4.3 and figures 7 and 13).

Of the looks during training t = 1 ... T, on the watched rows: a_t is the share of right answers, g_t that of answers
which are the supervisor's. The best look is chosen on one half of these rows and what is said of it is measured on the
other half, then the other way round, and both are averaged: the highest of many noisy numbers is too high, and a fall
from it would be found in every training.
"""
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from w2s_jax.diagnostics.registry import DIAGNOSTICS, Predictions, Series, classes
from w2s_jax.registry import Setting, Settings

FEWEST = 3  # looks that a slope is made of
ROUNDING = 1e-6  # of epochs: an end of one is in it


class Looks(NamedTuple):
    """A model during training. right: `[T, W]` bool.  same: `[T, W]` bool, answers that are the supervisor's.
    weak_right: `[W]` bool.  epochs: `[T]`."""
    right: np.ndarray
    same: np.ndarray
    weak_right: np.ndarray
    epochs: np.ndarray


def looks(model: Predictions, weak: Predictions, truth: np.ndarray) -> Looks | None:
    """Of a model that was looked at during training; None of another."""
    if 'watched' not in model or not len(model['watched']):
        return None
    answers = model['watched']
    rows = answers.shape[1]
    truth, said = truth[:rows], classes(weak)[:rows]
    return Looks(answers == truth, answers == said, said == truth, model['watched_epochs'])


def across_halves(found: Looks, measure: Callable[[Looks, int], float | None]) -> float | None:
    """The mean of measure(the looks at one half of the rows, the best look on the other half); None if a half has none.
    """
    cut = found.right.shape[1] // 2
    halves = slice(None, cut), slice(cut, None)
    values = []
    for choose, rows in (halves, halves[::-1]):
        if not (chosen := found.right[:, choose]).size:
            return None
        mine = found._replace(right=found.right[:, rows], same=found.same[:, rows], weak_right=found.weak_right[rows])
        values.append(measure(mine, int(chosen.mean(1).argmax())))
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if len(known) == 2 else None


def lost(found: Looks, best: int) -> float:
    """a_best - a_T."""
    return float(found.right[best].mean() - found.right[-1].mean())


def slope(found: Looks, best: int) -> float | None:
    """Of the least squares line through a_t against epochs, from the best look on; None of fewer than FEWEST looks."""
    x, y = found.epochs[best:], found.right[best:].mean(1)
    return float(np.polyfit(x, y, 1)[0]) if len(x) >= FEWEST else None


def above(found: Looks, best: int) -> float:
    """a_best less the supervisor's accuracy."""
    return float(found.right[best].mean() - found.weak_right.mean())


def errors_learned(found: Looks, best: int) -> float | None:
    """g_T - g_best on the rows that the supervisor gets wrong; None if there are none."""
    wrong = ~found.weak_right
    return float(found.same[-1, wrong].mean() - found.same[best, wrong].mean()) if wrong.any() else None


def overfitting(found: Looks) -> float | None:
    """`lost` of the whole training."""
    return across_halves(found, lost)


def overfitting_first_epoch(found: Looks) -> float | None:
    """`lost` within the first epoch, up to its last look; None if it has but one."""
    return overfitting(_until(found, end)) if (end := _first_epoch(found)) > 1 else None


def agreement_later(found: Looks) -> float | None:
    """g_T less g at the last look of the first epoch: what is learned of the labels by seeing them again; None if
    there is no look in the first epoch, or none after it."""
    end = _first_epoch(found)
    return float(found.same[-1].mean() - found.same[end - 1].mean()) if 0 < end < len(found.epochs) else None


def _first_epoch(found: Looks) -> int:
    """How many looks are in the first epoch."""
    return int((found.epochs <= 1 + ROUNDING).sum())


def _until(found: Looks, end: int) -> Looks:
    return found._replace(right=found.right[:end], same=found.same[:end], epochs=found.epochs[:end])


MEASURED: dict[str, tuple[Callable[[Looks], float | None], str]] = {
    'overfitting': (overfitting, 'lost since the best look, points'),
    'overfitting_first_epoch': (overfitting_first_epoch, 'lost within the first epoch, points'),
    'slope_after_best': (lambda found: across_halves(found, slope), 'slope after the best look, points an epoch'),
    'best_above_weak': (lambda found: across_halves(found, above), 'best look above the supervisor, points'),
    'errors_learned': (lambda found: across_halves(found, errors_learned),
                       'errors of the supervisor repeated, last less best look, points'),
    'agreement_later': (agreement_later, 'agreement gained after the first epoch, points')}
ALL = tuple(MEASURED)
CONTROLLED = ('overfitting', 'overfitting_first_epoch', 'slope_after_best')  # also of the ceiling


@DIAGNOSTICS.register('dynamics', of=Setting(ALL, choices=ALL, doc='what is measured of the looks during training'))
def dynamics(student: Predictions, weak: Predictions, ceiling: Predictions, truth: np.ndarray,
             settings: Settings) -> dict:
    """Overfitting to weak labels: what is lost after the best look, and how agreement with the supervisor moves."""
    mine, control = looks(student, weak, truth), looks(ceiling, weak, truth)
    if mine is None:
        return {}
    found: dict = {}
    for name in settings.of:
        measure, title = MEASURED[name]
        found[name] = (measure(mine), title, 100, 1)
        if name in CONTROLLED and control is not None:
            found[f'{name}_ceiling'] = (measure(control), f'{title}: ceiling', 100, 1)
    return found | during(mine)


def during(found: Looks) -> dict[str, Series | None]:
    """Agreement with the supervisor at every look: on all rows, where it is right, where it is wrong."""
    rows = {'': ('all examples', np.ones_like(found.weak_right)), '_weak_right': ('weak is right', found.weak_right),
            '_weak_wrong': ('weak is wrong', ~found.weak_right)}
    return {f'agreement_during{end}': Series(found.epochs, 100 * found.same[:, part].mean(1), line,
                                             'Agreement with the supervisor during training',
                                             ('epochs', '% of such test examples')) if part.any() else None
            for end, (line, part) in rows.items()}
