"""Labels from features: EM over a confusion matrix, and a search for labels that predict each other."""
import numpy as np
import pytest
from filters_test import applied, clusters, right

from w2s_jax.labels import unsupervised
from w2s_jax.registry import Settings


def biased(seed, n=600):
    """Clusters whose weak labels call 40 % of class 1 class 0, and no row of class 0 anything else; hard."""
    _, features, truth = clusters(seed, n)
    missed = np.random.default_rng((seed, 1)).random(n) < .4
    return np.eye(2, dtype=np.float32)[np.where(missed, 0, truth)], features, truth


@pytest.mark.parametrize('seed', range(3))
def test_the_channel_finds_wrong_labels_where_features_know(seed):
    labels, features, truth = clusters(seed)
    found, keep = applied('noisy_channel', labels, features)
    assert keep.all() and right(found, truth) > right(labels, truth) + .15
    nothing = np.random.default_rng(seed + 100).normal(size=features.shape).astype(np.float32)
    assert right(applied('noisy_channel', labels, nothing)[0], truth) < right(labels, truth) + .02
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    np.testing.assert_array_equal(found, applied('noisy_channel', labels, features)[0])


def test_the_channel_knows_which_class_is_confused():
    """A weak label of the class that is never said wrongly is not doubted."""
    for seed in range(3):
        labels, features, truth = biased(seed)
        found, _ = applied('noisy_channel', labels, features)
        assert right(found, truth) > right(labels, truth) + .05
        said = labels[:, 1] == 1
        assert right(found[said], truth[said]) > .99


def test_one_step_of_the_channel_as_in_numpy(monkeypatch):
    prior = np.random.default_rng(0).dirichlet([1, 1, 1], 40)
    labels = np.random.default_rng(1).dirichlet([1, 1, 1], 40).astype(np.float32)
    monkeypatch.setattr(unsupervised, 'out_of_fold', lambda *given: prior)
    found, _ = applied('noisy_channel', labels, np.zeros((40, 1)), steps=1)
    counts = np.ones((3, 3))
    for q, p in zip(prior, labels, strict=True):
        counts += np.outer(q, p)
    counts /= counts.sum(1, keepdims=True)
    want = np.array([[q[y] * np.prod(counts[y] ** p) for y in range(3)] for q, p in zip(prior, labels, strict=True)])
    np.testing.assert_allclose(found, want / want.sum(1, keepdims=True), rtol=1e-4)


def test_labels_without_a_teacher_where_two_clusters_are_there():
    labels, features, truth = clusters()
    found, keep = applied('elicited', labels, features, steps=5)
    assert keep.all() and found.dtype == np.float32 and set(np.unique(found)) == {0, 1}
    assert right(found, truth) > .97
    np.testing.assert_array_equal(found, applied('elicited', labels, features, steps=5)[0])
    swapped = applied('elicited', labels[:, ::-1], features, steps=5)[0]
    np.testing.assert_array_equal(swapped, found[:, ::-1])  # weak labels name the classes, and say nothing else
    only_names = np.where(np.arange(len(labels))[:, None] < 60, labels, .5).astype(np.float32)
    np.testing.assert_array_equal(applied('elicited', only_names, features, steps=5)[0], found)


def test_the_search_finds_labels_that_predict_each_other_better_and_keeps_both_classes():
    labels, features, _ = clusters(n=200)
    settings, scores = Settings(folds=5, l2=.1), []
    for steps in (0, 40):
        found, _ = applied('elicited', labels, features, start='random', steps=steps)
        scores.append(unsupervised.predictable(found, features, settings, 0)[1])
        assert .2 < found.mean(0)[0] < .8
    assert scores[1] > scores[0] + .2


@pytest.mark.parametrize(('worse', 'taken'), [(100., False), (0., True), (-100., True)])
def test_a_proposal_that_scores_worse_by_far_is_not_taken(monkeypatch, worse, taken):
    labels, features, _ = clusters(n=100)
    start = applied('elicited', labels, features, start='random', steps=0)[0]
    scores = iter([0., -worse])
    sure = np.tile([.4, .6], (100, 1)) + np.linspace(-.3, .3, 100)[:, None] * [1, -1]
    monkeypatch.setattr(unsupervised, 'predictable', lambda *given: (sure, next(scores)))
    found = applied('elicited', labels, features, start='random', steps=1, share=1.)[0]
    assert np.array_equal(found, start) != taken
