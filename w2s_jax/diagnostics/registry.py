"""DIAGNOSTICS: name -> what else is measured on stored predictions: `fn(student, weak, ceiling, truth, settings)`.

student, weak, ceiling: of one seed and test set, as `Predictions`.  truth: `[N]`.  Pure numpy.
Returns: by name of the measure a number, (number, title, factor, digits), a Series or a Note; None for what these
predictions do not define, which is left out unless every seed has it. A mean over seeds and its standard error are made
of them (seeds.py), and they describe themselves in results.json, so that a report needs no plug-in. One that is
registered with `supervisors=True` is also asked with a student's direct supervisor as `weak`, where that is another
student (NAME_direct). One with `rows=True` is also given what results.json says of the student, as `row`: label, loss,
mode ... One with `reference=True` gets `reference`, what the experiment's first student answers. One with
`over_seeds=True` is asked once, with a list over seeds of each.
"""
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from w2s_jax.registry import Registry

# `top` `[N, k]`: the k = min(K, 5) best classes, best first; `top_probability`. Of a model that was trained, on the
# main test set: `watched` `[T, W]`, its answers on the first W rows at each of T looks during training, the last one
# after the last step; `watched_epochs` `[T]`, how many passes over its rows it had made by then.
Predictions = Mapping[str, np.ndarray]
DIAGNOSTICS = Registry('diagnostic', options=('supervisors', 'reference', 'rows', 'over_seeds'))


class Series(NamedTuple):
    """A line of a figure, in place of a number.

    x, y: `[P]`, NaN where there is nothing; point by point the same in
    every seed, so that their mean means something.  line: what it is called; 'student', 'weak' and 'ceiling' have the
    colours of these.  figure: the title of the panel; lines of one title share it.  axes: what x and y are.  diagonal:
    whether y = x is drawn as well.
    """
    x: np.ndarray
    y: np.ndarray
    line: str
    figure: str
    axes: tuple[str, str]
    diagonal: bool = False


class Note(NamedTuple):
    """What is to be said in place of a number: that a condition is not met, and which. One line of plain text."""
    text: str


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
