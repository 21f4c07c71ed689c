"""The teacher's doubt: golden numbers (methods.md, section 8), and what it must be."""
import numpy as np
import pytest

from w2s_jax.errors import DataError
from w2s_jax.labels import doubt

Q1 = np.array([[.9, .1], [.3, .7], [.2, .8], [.6, .4]])


def test_golden_numbers():
    np.testing.assert_allclose(doubt.entropy(Q1), [.32508297, .6108643, .50040242, .67301167], atol=1e-8)
    assert np.median(doubt.entropy(Q1)) == pytest.approx(.5556333628, abs=1e-10)
    np.testing.assert_allclose(doubt.doubts(Q1), [.36911201, .52367383, .47384987, .54776738], atol=1e-8)


def test_half_of_the_rows_are_doubted_more_than_half():
    found = doubt.doubts(np.random.default_rng(0).dirichlet(np.ones(5), 101))
    assert (found > .5).sum() == 50 and (found < 1).all() and (found >= 0).all()


def test_a_sure_row_is_not_doubted_and_hard_labels_are_refused():
    assert doubt.doubts(np.array([[1., 0], [.5, .5], [.4, .6]]))[0] < 1e-6
    with pytest.raises(DataError, match=r'median entropy of 3 labels is .*, expected one above 0, of soft labels'):
        doubt.doubts(np.eye(3))
