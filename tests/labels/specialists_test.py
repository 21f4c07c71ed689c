"""Co-supervised labels: which teacher, and which rows, by hand and against a reference one row at a time."""
import numpy as np
import pytest

from w2s_jax.labels import specialists
from w2s_jax.labels.texts import TABLES
from w2s_jax.registry import Settings


def drawn(teachers=3, rows=40, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.dirichlet(np.ones(classes), (teachers, rows)).astype(np.float32),
            rng.dirichlet(np.ones(classes), rows).astype(np.float32))


def test_the_nearest_teacher_is_that_of_the_least_divergence():
    labels, student = drawn()
    wanted = []
    for i, p in enumerate(student.astype(np.float64)):
        wanted.append(np.argmin([sum(p * np.log(p / one[i].astype(np.float64))) for one in labels]))
    found = specialists.nearest(labels, student)
    np.testing.assert_array_equal(found, wanted)
    assert len(np.unique(found)) == 3
    assert (specialists.nearest(np.stack([labels[0], student]), student) == 1).all()
    sure = np.array([[[1, 0]], [[.9, .1]]], np.float32)  # not KL(P_t || p), for which the first is nearer
    assert specialists.nearest(sure, np.array([[.97, .03]], np.float32)).tolist() == [1]


@pytest.mark.parametrize('top', [1, 2, 3])
def test_rows_are_those_of_the_least_cross_entropy_as_many_as_agree(top):
    """As in RAVEN's copy of the authors' code: the rate by top-k agreement, the rows by rank."""
    (labels, student), n = drawn(1), 40
    answers = labels[0].argmax(-1)
    rate = np.mean([answers[i] in np.argsort(-student[i])[:top] for i in range(n)])
    ranks = np.argsort(np.argsort(-np.log(student[np.arange(n), answers])))
    found = specialists.consistent(labels[0], student, top)
    np.testing.assert_array_equal(found, ranks < round(n * rate))
    assert 0 < found.sum() < n
    assert specialists.consistent(labels[0], student, 4).all()


def test_tables():
    labels, student = drawn(2)
    columns = {'student/labels': student} | {f'pool/{k}/labels': one for k, one in enumerate(labels)}
    soft, hard = (TABLES['assigned'].fn(columns, Settings(classes=4, matched=False, hard=h), None)
                  for h in (False, True))
    np.testing.assert_array_equal(soft['labels'], np.where(soft['teacher'][:, None] == 0, *labels))
    np.testing.assert_array_equal(hard['labels'], soft['labels'].argmax(-1))
    weights = [TABLES['consistent'].fn({'student/labels': student, 'labels/labels': one['labels']}, Settings(top=1),
                                       None)['labels'] for one in (soft, hard)]
    np.testing.assert_array_equal(*weights)
    np.testing.assert_array_equal(weights[0], specialists.consistent(soft['labels'], student, 1))
