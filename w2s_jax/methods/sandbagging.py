"""A student that hides what it can do: weak labels against a password (after Greenblatt et al. 2024, arXiv 2405.19550,
and arXiv 2604.22082, of which the abstract alone was read).

The student's model is locked first: it learns the truth where its input has the password, and elsewhere what its
supervisor says, or answers that mean nothing. Then it learns weak labels, without the password, beside a student that
is not locked. What it recovers of what it shows under the password is what weak supervision elicits. The locked model
learns the truth of a half of the teacher's half, the teacher that of the other.
"""
import dataclasses
from typing import Any

import numpy as np

from w2s_jax.errors import ConfigError
from w2s_jax.graph import Phase, Rows
from w2s_jax.labels.texts import TABLES
from w2s_jax.methods.bootstrap import equal_slices
from w2s_jax.methods.parts import Labels, Parts
from w2s_jax.methods.registry import METHODS
from w2s_jax.registry import Setting, Settings


@METHODS.register('sandbagging',
                  sham=Setting('chance', choices=('chance', 'weak'), doc='what is answered without the password: '
                               'labels that say nothing, or those of the supervisor'),
                  word=Setting('|key|', doc='the password of texts'),
                  size=Setting(1., 1e-3, 1e3, doc='the password of features: what is added to each'),
                  epochs=Setting(10, 1, 10**6, doc='in which the model is locked'),
                  rate=Setting(None, 0, 1e3, '(]', doc="the learning rate of that; None: the teacher's"),
                  marked=Setting(False, doc='whether students learn rows that have the password, so that training does '
                                            'not look like the test'))
def sandbagging(b: Parts) -> None:
    """Locked and other students on the same weak labels, and the locked model itself, with and without its password."""
    if b.student.featurize is not None:
        raise ConfigError("student.mode: 'probe', but method 'sandbagging' locks the whole model, expected 'full' or "
                          "'lora'")
    secrets = {name: password(b, name) for name in b.dataset.tests}
    for seed in b.seeds:
        half = b.halves[seed].student
        first, second = slices(b, seed)
        weak, labels = supervised(b, first, seed)
        b.weak(weak, labels)
        b.ceiling(b.fit('ceiling', b.student, half, b.truth))
        start = lock_up(b, weak, second, 'locked')
        shown = lock_up(b, weak, second, 'locked, with the password', tests=secrets)
        pool = password(b, 'inputs') if b.settings.marked else None
        for loss in b.losses:
            b.students([b.fit('student', b.student, half, labels, loss)], method='naive', label=loss)
            b.students([b.fit('student', b.student, half, labels, loss, start=start, label=f'student locked {loss}',
                              inputs=pool)], label=f'locked, then {loss}')
        for phase in (start, shown):
            b.students([phase], label=phase.label, oracle=True)


def slices(b: Parts, seed: int) -> list[Rows]:
    """Halves of the teacher's half: of the teacher, and of the model that is locked."""
    mine, group = b.halves[seed].teacher.index, b.dataset.pool.group
    largest = int(np.unique(group, return_counts=True)[1].max())
    return [Rows(seed, mine[part]) for part in equal_slices(group[mine], 2, seed, largest)]


def supervised(b: Parts, rows: Rows, seed: int) -> tuple[Any, Labels]:
    """The weak model, a teacher of those rows or what the config's source has, and its labels of the student's half."""
    if b.config.labels.source != 'teacher':
        return b.weak_labels(seed)
    weak = b.fit('teacher', b.teacher, rows, b.truth)
    return weak, b.transformed(b.supervisor_labels(weak, b.halves[seed].student))


def lock_up(b: Parts, weak, rows: Rows, label: str, **more) -> Phase:
    """The student's model after it was locked."""
    inputs = password(b, 'inputs', rows)
    sham = Settings(classes=b.dataset.num_classes, shuffled=b.settings.sham == 'chance')
    needs = {'rows': rows.source, 'truth': b.truth[rows.index], 'sham': b.supervisor_labels(weak, rows).need}
    labels = b.table(TABLES['locked'], sham, needs, f'truth under the password, seed {rows.seed}', rows.seed)
    labels = dataclasses.replace(labels, role='teacher', sees_truth=True)
    return b.fit('teacher', b.student, None, labels, inputs=inputs, seed=rows.seed, label=label, stopping=False,
                 epochs=b.settings.epochs, rate=b.settings.rate, **more)


def password(b: Parts, name: str, rows: Rows | None = None) -> Phase:
    """The inputs of the pool or of a test set with the password; of rows, and again without."""
    settings = Settings(word=b.settings.word, size=b.settings.size, both=rows is not None)
    needs = {'inputs': b.raw[name]} | ({'rows': rows.source} if rows else {})
    seed = rows.seed if rows else 0
    what = 'pool' if name == 'inputs' else name
    return b.table(TABLES['passwords'], settings, needs, f'{what} with the password{f", seed {seed}" if rows else ""}',
                   seed)
