"""What is done to weak labels: temperature, noise, hard labels and the registered transforms, by hand."""
import numpy as np
import pytest

from w2s_jax.errors import DataError
from w2s_jax.labels.transforms import TRANSFORMS, altered
from w2s_jax.phases import predict
from w2s_jax.registry import Settings

SOFT = np.array([[.9, .1], [.4, .6], [.2, .8], [.55, .45]], np.float32)


def test_temperature_is_a_power_that_is_renormalised():
    found = altered(np.array([[.8, .2], [.5, .5], [0, 1]], np.float32), .5, 0, 0)
    np.testing.assert_allclose(found, [[.64 / .68, .04 / .68], [.5, .5], [0, 1]], rtol=1e-5, atol=1e-9)
    assert found.dtype == np.float32
    hot = altered(np.array([[.64 / .68, .04 / .68]], np.float32), 2, 0, 0)
    np.testing.assert_allclose(hot, [[.8, .2]], rtol=1e-5)
    assert altered(SOFT, 1, 0, 0) is SOFT


@pytest.mark.parametrize('classes', [2, 5])
def test_noise_moves_its_share_of_labels_to_other_classes(classes):
    truth = np.random.default_rng(0).integers(0, classes, 20_000)
    labels = np.eye(classes, dtype=np.float32)[truth]
    found = altered(labels, 1, .3, 7)
    wrong = found.argmax(-1) != truth
    assert wrong.mean() == pytest.approx(.3, abs=.015)
    np.testing.assert_array_equal(np.sort(found, -1), np.sort(labels, -1))  # the same numbers in another order
    shifts = np.bincount((found.argmax(-1) - truth)[wrong] % classes, minlength=classes)
    assert shifts[0] == 0 and (np.abs(shifts[1:] / wrong.sum() - 1 / (classes - 1)) < .03).all()
    np.testing.assert_array_equal(found, altered(labels, 1, .3, 7))
    assert (found != altered(labels, 1, .3, 8)).any()


def test_hard_labels_are_the_most_probable_classes():
    section = {'labels': 'hard', 'hyper': {'temperature': 1., 'noise': 0., 'seed': 0}}
    found = predict.worded(SOFT, section)
    assert found.dtype == np.int32 and found.tolist() == [0, 1, 1, 0]
    assert predict.worded(SOFT, section | {'labels': 'soft'}) is SOFT


def transformed(name, **settings):
    return TRANSFORMS[name].fn(SOFT, None, Settings(settings), np.random.default_rng(0))


def test_harden_by_hand():
    labels, kept = transformed('harden')
    assert kept is None and labels.dtype == np.float32 and labels.tolist() == [[1, 0], [0, 1], [0, 1], [1, 0]]


def many(seed=0, n=300, classes=3):
    return np.random.default_rng(seed).dirichlet([1.] * classes, n).astype(np.float32)


def applied(name, labels, seed=0, **settings):
    entry = TRANSFORMS[name]
    values = {k: s.default for k, s in entry.settings.items()} | settings
    return entry.fn(labels, None, Settings(values), np.random.default_rng(seed))[0]


@pytest.mark.parametrize(('name', 'neutral'), [('temperature', {'T': 1}), ('noise', {'share': 0}),
                                               ('smooth', {'eps': 0})])
def test_a_neutral_setting_changes_no_bit(name, neutral):
    labels = many()
    np.testing.assert_array_equal(applied(name, labels, **neutral), labels)


def test_the_coldest_temperature_hardens():
    labels = many()
    np.testing.assert_array_equal(applied('temperature', labels, T=1e-6), applied('harden', labels))


@pytest.mark.parametrize(('name', 'settings'), [('temperature', {'T': 3}), ('noise', {'share': .5}),
                                                ('smooth', {'eps': .3}), ('balance', {}), ('harden', {})])
def test_rows_sum_to_one_and_a_seed_says_all(name, settings):
    labels = many()
    found = applied(name, labels, **settings)
    assert found.dtype == np.float32 and found.shape == labels.shape and (found >= 0).all()
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    np.testing.assert_array_equal(found, applied(name, labels, **settings))
    assert (name == 'noise') == (found != applied(name, labels, seed=1, **settings)).any()


def test_noise_flips_its_share():
    labels = many(n=20_000)
    moved = applied('noise', labels, share=.2).argmax(-1) != labels.argmax(-1)
    assert moved.mean() == pytest.approx(.2, abs=.01)


def test_order_matters_smoothed_then_hardened_is_hard():
    labels = many()
    hard = applied('harden', applied('smooth', labels))
    soft = applied('smooth', applied('harden', labels))
    assert set(np.unique(hard)) == {0, 1} and np.allclose(soft.max(-1), .9 + .1 / 3)


@pytest.mark.parametrize('prior', [(), (.5, .3, .2), (.9, .05, .05)])
def test_balanced_labels_have_the_prior_as_their_mean_and_keep_the_order_of_rows(prior):
    labels = many() * np.array([1, 2, 4], np.float32)
    labels /= labels.sum(1, keepdims=True)
    found = applied('balance', labels, prior=prior)
    np.testing.assert_allclose(found.mean(0), prior or [1 / 3] * 3, atol=1e-4)
    weights = found / labels  # up to a number for each row, the same for all
    np.testing.assert_allclose(weights[:, 1] / weights[:, 0], weights[0, 1] / weights[0, 0], rtol=1e-3)
    np.testing.assert_allclose(applied('balance', found, prior=prior), found, atol=1e-4)


@pytest.mark.parametrize('prior', [(.5, .5), (.5, .5, .5), (1., 0., 0.), (-.5, .5, 1.),
                                   ('a', .5, .5), (float('nan'), .5, .5), ((1, 2), 3, 4), (None,)])
def test_a_prior_that_is_none(prior):
    with pytest.raises(DataError, match=r'^prior: \(.*\), expected 3 numbers above 0 that sum to 1$'):
        applied('balance', many(), prior=prior)


def test_hard_labels_cannot_be_balanced():
    hard = np.eye(2, dtype=np.float32)[[0, 0, 0, 1]]
    with pytest.raises(DataError, match=r'^prior: \[0.5, 0.5\] cannot be the mean of these labels'):
        applied('balance', hard)
    np.testing.assert_array_equal(applied('balance', hard, prior=(.75, .25)), hard)
