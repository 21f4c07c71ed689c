"""Halves, order and identity of data."""
import numpy as np
import pytest

from w2s_jax import data
from w2s_jax.errors import DataError

CASES = [(1000, 1000), (1000, 90), (57, 13), (300, 7), (2, 2)]  # rows, at most so many groups


def groups(rows: int, number: int) -> np.ndarray:
    """Uneven groups with ids that are neither dense nor sorted, at least two."""
    rng = np.random.default_rng(rows + number)
    ids = rng.choice(10**9, number, replace=False)
    return rng.permutation(np.concatenate([ids, ids[rng.integers(0, number, rows - number)]]))


@pytest.mark.parametrize('fraction', [.2, .5, .75])
@pytest.mark.parametrize(('rows', 'number'), CASES[:-1])
def test_split_covers_all_rows_in_whole_groups_near_the_fraction(rows, number, fraction):
    group = groups(rows, number)
    a, b = data.split_groups(group, fraction, 3)
    assert sorted([*a, *b]) == list(range(rows))
    assert (np.diff(a) > 0).all() and (np.diff(b) > 0).all()
    assert not set(group[a]) & set(group[b])
    largest = np.unique(group, return_counts=True)[1].max()
    assert abs(len(a) - fraction * rows) <= largest / 2


@pytest.mark.parametrize(('rows', 'number'), CASES)
def test_split_is_a_function_of_its_arguments(rows, number):
    group = groups(rows, number)
    first, again = data.split_groups(group, .5, 3), data.split_groups(group.copy(), .5, 3)
    for x, y in zip(first, again, strict=True):
        np.testing.assert_array_equal(x, y)


def test_split_differs_by_seed():
    group = groups(1000, 500)
    halves = {tuple(data.split_groups(group, .5, seed)[0]) for seed in range(5)}
    assert len(halves) == 5


def test_split_does_not_depend_on_what_groups_are_called():
    group = groups(300, 40)
    renamed = np.unique(group, return_inverse=True)[1] * 7 - 3
    np.testing.assert_array_equal(data.split_groups(group, .5, 0)[0], data.split_groups(renamed, .5, 0)[0])


@pytest.mark.parametrize(('group', 'fraction'), [([], .5), ([5], .5), ([5, 5, 5], .5), ([1, 2], .01), ([1, 2], .99)])
def test_a_split_with_an_empty_side_is_an_error(group, fraction):
    with pytest.raises(DataError, match=f'{len(group)} examples in {len(set(group))} groups'):
        data.split_groups(np.array(group, np.int64), fraction, 0)


@pytest.mark.parametrize(('n', 'batch_size'), [(96, 32), (100, 32), (7, 7), (5, 1)])
def test_every_epoch_is_a_new_order_of_whole_batches(n, batch_size):
    per_epoch = n // batch_size
    epochs = []
    for epoch in range(4):
        rows = np.concatenate([data.batch_rows(1, epoch * per_epoch + i, n, batch_size) for i in range(per_epoch)])
        assert len(set(rows)) == len(rows) == per_epoch * batch_size  # no row twice
        assert rows.min() >= 0 and rows.max() < n
        epochs.append(tuple(rows))
    assert len(set(epochs)) == 4


def test_over_epochs_every_row_is_seen():
    seen = np.concatenate([data.batch_rows(0, step, 100, 32) for step in range(3 * 20)])
    counts = np.bincount(seen, minlength=100)
    assert counts.min() > 0 and counts.max() <= 20


def test_the_rows_of_a_step_depend_on_seed_and_step_alone():
    forwards = [data.batch_rows(s, t, 50, 8) for s in (0, 1) for t in range(20)]
    data._permutation.cache_clear()
    backwards = [data.batch_rows(s, t, 50, 8) for s in (1, 0) for t in reversed(range(20))][::-1]
    np.testing.assert_array_equal(forwards, backwards)
    assert not np.array_equal(forwards[:20], forwards[20:])


@pytest.mark.parametrize(('n', 'batch_size'), [(10, 4), (8, 4), (3, 5), (1, 1)])
def test_eval_batches_have_one_shape_and_say_how_many_rows_are_real(n, batch_size):
    inputs = {'a': np.arange(2 * n).reshape(n, 2), 'b': np.arange(n) * 1.5}
    batches = list(data.eval_batches(inputs, batch_size))
    assert all(b['a'].shape == (batch_size, 2) and b['b'].shape == (batch_size,) for b, _ in batches)
    assert sum(real for _, real in batches) == n
    for name, values in inputs.items():
        np.testing.assert_array_equal(np.concatenate([b[name][:real] for b, real in batches]), values)
        last, real = batches[-1]
        assert (last[name][real:] == values[-1]).all()


def test_take_keeps_the_order_and_every_field():
    rows = data.Examples({'x': np.arange(12).reshape(6, 2)}, np.arange(6), np.arange(6) + 10,
                         np.arange(12.).reshape(6, 2), {'allowed': np.arange(6) * 3})
    some = rows.take(np.array([4, 0, 4]))
    assert len(some) == 3
    assert some.truth.tolist() == [4, 0, 4] and some.group.tolist() == [14, 10, 14]
    assert some.inputs['x'].tolist() == [[8, 9], [0, 1], [8, 9]] == some.given.astype(int).tolist()
    assert some.extras['allowed'].tolist() == [12, 0, 12]
    assert data.Examples(rows.inputs, rows.truth, rows.group).take(np.array([1])).given is None


DIFFERENT = [  # no two of these are the same data
    (np.arange(6, dtype=np.int32),),
    (np.arange(6, dtype=np.int64),),
    (np.arange(6, dtype=np.uint32),),
    (np.arange(6, dtype=np.int32).reshape(2, 3),),
    (np.arange(6, dtype=np.int32).reshape(3, 2),),
    (np.arange(6, dtype=np.int32)[::-1],),
    (np.arange(6, dtype='>i4'),),
    (np.array([0, 1, 2, 3, 4, 6], np.int32),),
    (np.arange(6, dtype=np.int32), None),
    (None, np.arange(6, dtype=np.int32)),
    (np.arange(3, dtype=np.int32), np.arange(3, 6, dtype=np.int32)),
    (np.arange(3, 6, dtype=np.int32), np.arange(3, dtype=np.int32)),
    (np.zeros((0, 3), np.float32),),
    (np.zeros((0, 4), np.float32),),
    (np.float32(0)[None],),
    (-np.float32(0)[None],),
    (),
    (None,),
]


def test_fingerprints_tell_types_shapes_bytes_and_order_apart():
    prints = [data.fingerprint(*arrays) for arrays in DIFFERENT]
    assert len(set(prints)) == len(DIFFERENT)
    assert prints == [data.fingerprint(*arrays) for arrays in DIFFERENT]


def test_a_fingerprint_does_not_depend_on_the_layout_in_memory():
    a = np.arange(12).reshape(3, 4)
    assert data.fingerprint(a) == data.fingerprint(np.asfortranarray(a)) == data.fingerprint(np.repeat(a, 2, 1)[:, ::2])
