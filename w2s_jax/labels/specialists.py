"""Which of several teachers labels a row, and which rows are learned, by what a student thinks of them (co-supervised
learning: Liu and Alahi 2024, arXiv 2402.15505). Pure functions of arrays, and the tables that phases call them by.

labels: the teachers', `[T, n, K]`.  student: what it answers on the same rows, `[n, K]`. Rows sum to 1.
"""
from collections.abc import Mapping

import numpy as np

from w2s_jax.labels.ensembles import LEAST, MIXED, prepared
from w2s_jax.labels.filters import largest
from w2s_jax.labels.texts import TABLES
from w2s_jax.registry import Setting, Settings


def nearest(labels: np.ndarray, student: np.ndarray) -> np.ndarray:
    """`[n]`: the teacher t of the least KL(p || P_t), p being the student's answer; of equal ones the first."""
    p, teachers = student.astype(np.float64), np.log(np.maximum(labels.astype(np.float64), LEAST))
    return (-(p * teachers).sum(-1)).argmin(0)


def consistent(labels: np.ndarray, student: np.ndarray, top: int) -> np.ndarray:
    """`[n]` bool: the rows that are kept, those whose label `[n, K]` the student finds likeliest, as many as there are
    rows whose label is among the `top` likeliest classes of the student; at least one."""
    answers = labels.argmax(-1)
    own = np.take_along_axis(student, answers[:, None], axis=-1)
    share = ((student > own).sum(-1) < top).mean()
    return largest(own[:, 0], share, None)


@TABLES.register('assigned', **MIXED, hard=Setting(False, doc='whether labels become the most probable class'))
def assigned(columns: Mapping[str, np.ndarray], settings: Settings, rng) -> dict:
    """Of every row the label of the teacher that is nearest to the student, and which one that is."""
    labels = prepared(columns, 'pool', settings)
    who = nearest(labels, columns['student/labels'])
    found = labels[who, np.arange(len(who))].astype(np.float32)
    return {'labels': found.argmax(-1).astype(np.int32) if settings.hard else found, 'teacher': who}


@TABLES.register('consistent', top=Setting(1, doc='of the likeliest classes of the student'))
def weights(columns: Mapping[str, np.ndarray], settings: Settings, rng) -> dict:
    """The weights of rows, 1 if they are learned and else 0."""
    labels, student = columns['labels/labels'], columns['student/labels']
    labels = labels if labels.ndim == 2 else np.eye(student.shape[1])[labels]
    return {'labels': consistent(labels, student, settings.top).astype(np.float32)}
