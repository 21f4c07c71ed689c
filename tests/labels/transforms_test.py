"""What is done to weak labels: temperature, noise, hard labels and the registered transforms, by hand."""
import numpy as np
import pytest

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


@pytest.mark.parametrize(('share', 'kept'), [
    (.5, [1, 0, 1, 0]), (.75, [1, 1, 1, 0]), (1., [1, 1, 1, 1]), (.01, [1, 0, 0, 0])])
def test_the_surest_are_kept(share, kept):
    labels, found = transformed('confident', share=share)
    assert labels is SOFT and found.tolist() == [bool(k) for k in kept]
