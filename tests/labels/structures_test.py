"""Simulated errors: as many as asked for, on the rows that the structure names, and nothing else."""
import numpy as np
import pytest

from w2s_jax.errors import DataError
from w2s_jax.labels import errors

N, ERRORS = 200, 60


def setting(classes=2, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, N)
    return truth, {'length': rng.integers(1, 12, N), 'ceiling': rng.dirichlet(np.ones(classes), N)}


def labels_of(name, classes=2, seed=0, count=ERRORS):
    truth, columns = setting(classes)
    return errors.simulated(name, truth, count, classes, columns, np.random.default_rng(seed))


@pytest.mark.parametrize('classes', [2, 4])
@pytest.mark.parametrize('name', errors.STRUCTURES)
def test_exactly_as_many_errors_and_the_same_ones_again(name, classes):
    truth, _ = setting(classes)
    count = ERRORS if name != 'ceiling_sure' else 30
    labels = labels_of(name, classes, count=count)
    assert (labels != truth).sum() == count and labels.dtype == np.int32
    assert labels.min() >= 0 and labels.max() < classes
    np.testing.assert_array_equal(labels, labels_of(name, classes, count=count))
    assert (labels_of(name, classes, count=0) == truth).all()


def test_errors_stand_where_the_structure_says():
    truth, columns = setting()
    wrong = {name: labels_of(name) != truth for name in errors.STRUCTURES}
    length, sure = columns['length'], columns['ceiling'].max(1)
    assert length[wrong['longest']].min() >= length[~wrong['longest']].max()
    assert length[wrong['shortest']].max() <= length[~wrong['shortest']].min()
    assert sure[wrong['ceiling_unsure']].max() < sure[~wrong['ceiling_unsure']].min()
    right = columns['ceiling'].argmax(1) == truth
    assert right[wrong['ceiling_sure']].all()
    assert sure[wrong['ceiling_sure']].min() > sure[right & ~wrong['ceiling_sure']].max()


def test_random_errors_know_nothing_and_ties_are_drawn():
    truth, columns = setting()
    rates = np.mean([labels_of('random', seed=s) != truth for s in range(300)], 0)
    assert abs(rates - ERRORS / N).max() < .12 and abs(np.corrcoef(rates, columns['length'])[0, 1]) < .25
    assert (labels_of('random', seed=1) != labels_of('random', seed=2)).any()
    edge = np.sort(columns['length'])[-ERRORS]  # a length of which some rows are wrong and some are not
    tied = columns['length'] == edge
    drawn = np.mean([(labels_of('longest', seed=s) != truth)[tied] for s in range(300)], 0)
    assert np.ptp(drawn) < .25 and drawn.min() > 0 and drawn.max() < 1


def test_wrong_classes_are_each_as_likely():
    truth, _ = setting(4)
    moved = np.concatenate([(labels_of('random', 4, s) - truth)[labels_of('random', 4, s) != truth] % 4
                            for s in range(50)])
    assert set(moved) == {1, 2, 3} and abs(np.bincount(moved)[1:] / len(moved) - 1 / 3).max() < .03


def test_more_errors_than_rows_to_be_wrong_on():
    truth, columns = setting()
    with pytest.raises(DataError, match=r"method.errors: 'ceiling_sure' has \d+ of 200 rows to be wrong on, but the "
                                        r'weak labels are wrong on 150, expected at most as many'):
        errors.simulated('ceiling_sure', truth, 150, 2, columns, np.random.default_rng(0))
