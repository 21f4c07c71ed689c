"""Labels from features: EM over a confusion matrix, and a search for labels that predict each other."""
import numpy as np
import pytest
from filters_test import applied, clusters, right

from w2s_jax.errors import DataError
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


def contrasts(seed=0, n=400, width=12, found=1.5):
    """Hard labels right on 70 %, and features `[n, 2, D]` of either answer: the text, the answer's word, and whether it
    is right, in a direction of its own, `found` deviations of the rest; truth `[n]`."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, n)
    about, word, right_one = rng.normal(size=(n, 1, width)), 5 * rng.normal(size=(1, 2, width)), rng.normal(size=width)
    right_one /= np.linalg.norm(right_one)
    fits = np.where(truth[:, None] == np.arange(2), 1, -1)[..., None]
    noise = .3 * rng.normal(size=(n, 2, width))
    features = (about - (about @ right_one)[..., None] * right_one + word + found * fits * right_one + noise)
    said = np.where(rng.random(n) < .3, 1 - truth, truth)
    return np.eye(2, dtype=np.float32)[said], features.astype(np.float32), truth


@pytest.mark.parametrize('seed', range(5))
def test_contrasts_that_do_not_contradict_themselves_are_the_truth(seed):
    labels, features, truth = contrasts(seed)
    found, keep = applied('ccs', labels, features)
    assert keep.all() and right(found, truth) > .95 and right(labels, truth) < .76
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    np.testing.assert_array_equal(found, applied('ccs', labels, features)[0])
    np.testing.assert_array_equal(applied('ccs', labels[:, ::-1], features)[0], found[:, ::-1])  # which only name


def test_contrasts_say_nothing_where_features_do_not_know():
    for seed in range(3):
        labels, features, truth = contrasts(seed, found=0.)
        assert right(applied('ccs', labels, features)[0], truth) < .62


def test_a_contradiction_and_its_gradient_by_hand():
    rng = np.random.default_rng(0)
    no, yes, weights = rng.normal(size=(5, 3)), rng.normal(size=(5, 3)), rng.normal(size=4)
    loss, slope = unsupervised.contradiction(weights, no, yes, .2)
    want = 0.
    for a, b in zip(no, yes, strict=True):
        p, q = (1 / (1 + np.exp(-sum(w * v for w, v in zip(weights, x, strict=False)) - weights[3])) for x in (b, a))
        want += ((p - (1 - q)) ** 2 + min(p, q) ** 2) / 5
    assert loss == pytest.approx(want + .1 * sum(w * w for w in weights[:3]), abs=1e-12)
    for i, step in enumerate(1e-6 * np.eye(4)):
        ends = [unsupervised.contradiction(weights + sign * step, no, yes, .2)[0] for sign in (1, -1)]
        assert slope[i] == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-8)


def test_two_classes_have_two_words():
    with pytest.raises(DataError, match=r"^words: \('no', 'yes'\) for 3 classes, expected two words for two classes"):
        applied('ccs', np.eye(3, dtype=np.float32), np.zeros((3, 2, 4), np.float32))
