"""Generative fine-tuning (arXiv 2312.09390, section 5.2.2): the task's own texts first, then the labels.

A model is trained to predict the texts of the task, and goes on from there as a student, with a new head. The ceiling
gets the same start, so that PGR compares like with like (figure 10 there); the teacher may (figure 18).
"""
from typing import Any

import numpy as np

from w2s_jax.errors import ConfigError
from w2s_jax.graph import Rows
from w2s_jax.methods.parts import Labels, Parts
from w2s_jax.methods.registry import METHODS
from w2s_jax.models.modes import Model
from w2s_jax.registry import Setting


@METHODS.register('generative',
                  epochs=Setting(1, 1, 10**6, doc='over the texts'),
                  rate=Setting(None, 0, 1e3, '(]', doc="the learning rate on texts; None: the model's own"),
                  texts=Setting('student', choices=('student', 'pool'), doc="whose rows: the student's half, or all"),
                  pack=Setting(0, 0, 10**6, doc='tokens of rows that texts are put together to; 0: a text is a row'),
                  tuned=Setting(('student', 'ceiling'), choices=('teacher', 'student', 'ceiling'),
                                doc='who starts from the texts'))
def generative(b: Parts) -> None:
    """Students that were trained on the task's texts first, beside students that were not."""
    for seed in b.seeds:
        half, who = b.halves[seed].student, b.settings.tuned
        begun = begin(b, b.student, seed)
        weak, labels = supervisor(b, seed)
        b.weak(weak, labels)
        b.ceiling(b.fit('ceiling', b.student, half, b.truth, **(begun if 'ceiling' in who else {})))
        for loss in b.losses:
            b.students([b.fit('student', b.student, half, labels, loss)], method='naive', label=loss)
        if 'student' in who:
            for loss in b.losses:
                label = f'generative {loss}'
                b.students([b.fit('student', b.student, half, labels, loss, label=f'student {label}', **begun)],
                           label=label)


def begin(b: Parts, model: Model, seed: int) -> dict:
    """What `fit` goes on from: the model after the texts of a seed."""
    halves, how = b.halves[seed], b.settings
    rows = halves.student if how.texts == 'student' else Rows(seed, sorted_rows(halves))
    phase = b.tune(model, rows, epochs=how.epochs, rate=how.rate, pack=how.pack)
    if model is b.student:
        b.perplexity(seed, phase)
    return {'backbone': phase} if model.featurize else {'start': phase, 'head': 'new'}


def sorted_rows(halves):
    """Both halves' rows of the pool, in its order."""
    return np.sort(np.concatenate([halves.teacher.index, halves.student.index]))


def supervisor(b: Parts, seed: int) -> tuple[Any, Labels]:
    """The weak model and its labels, as `b.weak_labels`, of a teacher that may have learned the texts, too."""
    if 'teacher' not in b.settings.tuned:
        return b.weak_labels(seed)
    if b.config.labels.source != 'teacher':
        raise ConfigError(f"method.tuned: names the teacher, but labels.source is {b.config.labels.source!r}, expected "
                          "'teacher'")
    weak = b.fit('teacher', b.teacher, b.halves[seed].teacher, b.truth, **begin(b, b.teacher, seed))
    return weak, b.transformed(b.supervisor_labels(weak, b.halves[seed].student))
