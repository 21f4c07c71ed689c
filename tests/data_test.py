"""Halves, order and identity of data."""
import itertools

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


@pytest.mark.parametrize('share', [.3, .5])
@pytest.mark.parametrize(('rows', 'number'), [(100, 100), (1000, 90), (300, 60)])
def test_halves_share_no_row_and_no_group_and_have_the_same_sizes_for_every_seed(rows, number, share):
    group = groups(rows, number)
    largest = np.unique(group, return_counts=True)[1].max()
    sizes = set()
    for seed in range(6):
        a, b = data.halves(group, share, seed)
        assert (np.diff(a) > 0).all() and (np.diff(b) > 0).all()
        assert not set(group[a]) & set(group[b])
        assert rows - len(a) - len(b) <= largest + 1
        assert abs(len(a) - share * rows) <= largest / 2 + 1
        sizes.add((len(a), len(b)))
    assert len(sizes) == 1
    np.testing.assert_array_equal(a, data.halves(group, share, 5)[0])


@pytest.mark.parametrize(('n', 'batch_size'), [(96, 32), (100, 32), (7, 7), (5, 1)])
def test_every_epoch_is_a_new_order_of_whole_batches(n, batch_size):
    per_epoch = n // batch_size
    epochs = []
    for epoch in range(4):
        batches = data.epoch_batches(1, epoch, n, batch_size)
        assert batches.shape == (per_epoch, batch_size)
        rows = batches.ravel()
        assert len(set(rows)) == len(rows) == per_epoch * batch_size  # no row twice
        assert rows.min() >= 0 and rows.max() < n
        epochs.append(tuple(rows))
    assert len(set(epochs)) == 4


def test_over_epochs_every_row_is_seen():
    seen = np.concatenate([data.epoch_batches(0, epoch, 100, 32).ravel() for epoch in range(20)])
    counts = np.bincount(seen, minlength=100)
    assert counts.min() > 0 and counts.max() <= 20


def test_the_order_of_an_epoch_depends_on_seed_and_epoch_alone():
    forwards = [data.epoch_batches(s, t, 50, 8) for s in (0, 1) for t in range(5)]
    backwards = [data.epoch_batches(s, t, 50, 8) for s in (1, 0) for t in reversed(range(5))][::-1]
    np.testing.assert_array_equal(forwards, backwards)
    assert not np.array_equal(forwards[:5], forwards[5:])


def lengths_of_texts(n=1000):
    return np.clip(np.random.default_rng(0).lognormal(3.5, .6, n), 1, 500).astype(int)


@pytest.mark.parametrize('window', [2, 8, 1000])
def test_batches_dealt_out_by_length_hold_the_same_rows_with_less_padding(window):
    lengths = lengths_of_texts()
    plain, dealt = (data.epoch_batches(3, 1, 1000, 32, lengths, w) for w in (1, window))
    np.testing.assert_array_equal(plain, data.epoch_batches(3, 1, 1000, 32))
    assert sorted(plain.ravel()) == sorted(dealt.ravel())  # the same rows are left out of the epoch
    assert lengths[dealt].max(1).sum() < .8 * lengths[plain].max(1).sum()
    in_window = [set(plain[i:i + window].ravel()) for i in range(0, len(plain), window)]
    assert all(any(set(b) <= w for w in in_window) for b in dealt)


def test_stacked_runs_meet_long_batches_at_the_same_steps():
    lengths = lengths_of_texts()
    longest = [lengths[data.epoch_batches(seed, 0, 1000, 20, lengths, 50)].max(1) for seed in (0, 1)]
    assert np.corrcoef(*longest)[0, 1] > .9
    assert (np.diff(longest[0]) < 0).any()  # and yet not in order of length


@pytest.mark.parametrize('number', [1, 2, 4, 7])
def test_shapes_hold_every_text_and_pad_least(number):
    lengths = np.clip(lengths_of_texts(), 1, 60)

    def padding(shapes):
        return sum(min(s for s in shapes if s >= n) - n for n in lengths)
    shapes = data.choose_shapes(lengths, number)
    assert len(shapes) <= number and list(shapes) == sorted(shapes) and shapes[-1] >= lengths.max()
    assert all(s % 8 == 0 for s in shapes)
    top = -(-lengths.max() // 8) * 8
    others = itertools.combinations(range(8, top, 8), min(number, top // 8) - 1)
    assert padding(shapes) == min(padding((*o, top)) for o in others)


def test_shapes_of_odd_texts():
    assert data.choose_shapes(np.array([1]), 4) == (8,)
    assert data.choose_shapes(np.array([512] * 5), 4) == (512,)
    assert len(data.choose_shapes(np.arange(1, 5000), 4)) == 4


def test_a_shape_that_saves_too_little_is_left_out():
    lengths, saved = np.array([8] * 100 + [16] * 10), 800
    assert data.choose_shapes(lengths, 4, worth=saved) == (8, 16)
    assert data.choose_shapes(lengths, 4, worth=saved + 1) == (16,)


def test_trim_cuts_padding_alone():
    tokens = np.arange(1, 61).reshape(2, 1, 30)
    length = np.array([[5], [9]])
    got = data.trim({'tokens': tokens, 'length': length}, (8, 16, 40))
    np.testing.assert_array_equal(got['tokens'], tokens[..., :16])
    wide = data.trim({'tokens': tokens, 'length': length + 20}, (8, 16, 40))['tokens']
    assert wide.shape == (2, 1, 40) and (wide[..., 30:] == 0).all() and (wide[..., :30] == tokens).all()
    assert data.trim({'tokens': tokens}, ()) == {'tokens': tokens}


@pytest.mark.parametrize(('n', 'batch_size'), [(10, 4), (8, 4), (3, 5), (1, 1)])
def test_eval_batches_have_one_shape_and_say_how_many_rows_are_real(n, batch_size):
    batches = list(data.eval_batches(n, batch_size))
    assert all(at.shape == (batch_size,) for at, _ in batches)
    np.testing.assert_array_equal(np.concatenate([at[:real] for at, real in batches]), np.arange(n))
    at, real = batches[-1]
    assert (at[real:] == n - 1).all()


def test_texts_have_an_identity_by_content():
    texts = np.array([['a', 'bc'], ['ab', 'c']], object)
    assert data.fingerprint(texts) == data.fingerprint(texts.copy())
    assert len({data.fingerprint(x) for x in (texts, texts[::-1], texts.T, texts.ravel(),
                                               np.array([['a', 'bc'], ['a', 'bc']], object))}) == 5


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


SIZES = {'singles': [1] * 101, 'fours': [4] * 50, 'few': [300, 400, 500], 'one giant': [1] * 300 + [200],
         'mixed': [1, 2, 3, 5, 8, 13, 21, 34, 55, 2, 2, 2], 'odd ones out': [4] * 1200 + [3, 3]}


@pytest.mark.parametrize('sizes', SIZES.values(), ids=SIZES)
@pytest.mark.parametrize('share', [.5, .3])
def test_halves_use_every_row_and_have_the_same_sizes_for_every_seed(sizes, share):
    group = np.repeat(np.arange(len(sizes)), sizes)
    seen = set()
    for seed in range(12):
        a, b = data.halves(group, share, seed)
        assert not np.isin(group[a], group[b]).any()
        np.testing.assert_array_equal(np.sort(np.concatenate([a, b])), np.arange(len(group)))
        seen.add(len(a))
    assert len(seen) == 1
    possible = {0}
    for size in sizes:
        possible |= {s + size for s in possible}
    nearest = min(abs(s - share * len(group)) for s in possible - {0, len(group)})
    assert abs(seen.pop() - share * len(group)) == pytest.approx(nearest)


def test_a_group_is_in_either_half_as_often():
    group = np.repeat(np.arange(40), [1] * 20 + [9] * 20)
    first = np.mean([np.isin(np.arange(40), group[data.halves(group, .5, seed)[0]]) for seed in range(400)], axis=0)
    assert abs(first[:20].mean() - .5) < .06 and abs(first[20:].mean() - .5) < .06
    assert len({tuple(data.halves(group, .5, seed)[0]) for seed in range(20)}) == 20


def test_halves_of_one_group_are_an_error_that_says_how_large_it_is():
    with pytest.raises(DataError, match='the largest group has 7 rows'):
        data.halves(np.zeros(7, int), .5, 0)


@pytest.mark.parametrize('sizes', [[1] * 100, [4] * 50, [1, 2, 3, 5, 8, 13, 21, 34, 55]])
def test_rows_that_are_held_out_share_no_group_with_those_that_are_learned(sizes):
    group = np.repeat(np.arange(len(sizes)), sizes)
    for seed in range(5):
        learned, held = data.hold_out(group, .2, seed)
        assert not np.isin(group[learned], group[held]).any()
        assert (len(learned), len(held)) == (len(group) - int(.2 * len(group)), int(.2 * len(group)))


def test_a_share_that_holds_no_group_is_an_error_that_says_what_to_set():
    with pytest.raises(DataError, match=r'stopping.holdout: 0.1 of 100 rows is 10, but the smallest group has 25'):
        data.hold_out(np.repeat(np.arange(4), 25), .1, 0)
