"""Filters and relabelling: by hand, against plain numpy, and by what they do to labels of which a fifth is wrong."""
import types

import numpy as np
import pytest

from w2s_jax.errors import DataError
from w2s_jax.graph import Phase
from w2s_jax.labels import probes
from w2s_jax.labels.transforms import TRANSFORMS
from w2s_jax.phases import tables
from w2s_jax.registry import Settings

SOFT = np.array([[.9, .1], [.4, .6], [.2, .8], [.55, .45]], np.float32)
SAID: list[str] = []
ASKING = ('knn', 'probe', 'small_loss', 'components')
OFF = [('confident', {'share': 1.}), ('confident', {'share': 1., 'per_class': True}),
       ('confident', {'threshold': 1e-6}), ('small_loss', {'share': 1.}), ('knn', {'agree': 0.})]


def clusters(seed=0, n=600, flipped=.2):
    """(labels `[n, 2]`, features `[n, 16]`, truth): two clusters, four of the features know which; a fifth of the
    answers is wrong, and surer by chance alone."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, n)
    features = rng.normal(size=(n, 16)).astype(np.float32)
    features[:, :4] += 1.5 * (2 * truth[:, None] - 1)
    answer, sure = np.where(rng.random(n) < flipped, 1 - truth, truth), rng.uniform(.6, .95, n)
    labels = np.where(np.arange(2) == answer[:, None], sure[:, None], 1 - sure[:, None])
    return labels.astype(np.float32), features, truth


def applied(name, labels, features=None, seed=0, **settings):
    entry = TRANSFORMS[name]
    values = {k: s.default for k, s in entry.settings.items()} | settings
    found, keep = entry.fn(labels, features, Settings(values), np.random.default_rng(seed))
    return found, np.ones(len(labels), bool) if keep is None else keep


def right(labels, truth):
    return (labels.argmax(-1) == truth).mean()


@pytest.mark.parametrize(('share', 'kept'), [
    (.5, [1, 0, 1, 0]), (.75, [1, 1, 1, 0]), (1., [1, 1, 1, 1]), (.01, [1, 0, 0, 0])])
def test_the_surest_are_kept(share, kept):
    labels, found = applied('confident', SOFT, share=share)
    assert labels is SOFT and found.tolist() == [bool(k) for k in kept]


def test_the_surest_from_a_threshold_and_of_each_class():
    assert applied('confident', SOFT, threshold=.6)[1].tolist() == [True, True, True, False]
    labels = np.array([[.9, .1], [.8, .2], [.7, .3], [.6, .4], [.45, .55], [.48, .52]], np.float32)
    assert applied('confident', labels)[1].tolist() == [True, True, True, False, False, False]
    assert applied('confident', labels, per_class=True)[1].tolist() == [True, True, False, False, True, False]


def test_confident_as_in_numpy():
    labels = np.random.default_rng(0).dirichlet([1] * 3, 200).astype(np.float32)
    want = np.zeros(200, bool)
    for one in range(3):
        rows = [i for i in range(200) if labels[i].argmax() == one]
        want[sorted(rows, key=lambda i: -labels[i].max())[:round(.3 * len(rows))]] = True
    np.testing.assert_array_equal(applied('confident', labels, share=.3, per_class=True)[1], want)


@pytest.mark.parametrize(('name', 'settings'), OFF)
def test_what_keeps_all_changes_no_bit(name, settings):
    labels, features, _ = clusters()
    found, keep = applied(name, labels, features, **settings)
    np.testing.assert_array_equal(found, labels)
    assert keep.all()


@pytest.mark.parametrize('action', ['drop', 'relabel'])
def test_knn_as_in_numpy(action):
    labels, features, _ = clusters(n=150)
    nearest = near(features, 7)
    found, keep = applied('knn', labels, features, k=7, agree=.6, action=action)
    if action == 'relabel':
        np.testing.assert_allclose(found, labels[nearest].mean(1), atol=1e-5)
    else:
        answers = labels.argmax(-1)
        np.testing.assert_array_equal(keep, (answers[nearest] == answers[:, None]).mean(1) >= .6)


def test_out_of_fold_is_the_probe_of_the_other_folds():
    from sklearn.linear_model import LogisticRegression
    labels, features, _ = clusters(n=120)
    settings = Settings(folds=3, l2=.01)
    found = probes.out_of_fold(labels, features, settings, np.random.default_rng(0))
    fold = probes.assigned(features, 3, np.random.default_rng(0))
    x = (features - features.mean(0)) / features.std(0)
    for one in range(3):
        mine = fold != one
        model = LogisticRegression(C=1 / (.01 * mine.sum()), max_iter=1000)
        model.fit(np.repeat(x[mine], 2, 0), np.tile([0, 1], mine.sum()), sample_weight=labels[mine].ravel())
        np.testing.assert_allclose(found[~mine], model.predict_proba(x[~mine]), atol=2e-3)
    assert np.bincount(fold).tolist() == [40, 40, 40]


def test_no_row_answers_for_itself():
    """Features that name each row: a probe that had seen a row's own label would repeat it."""
    labels = np.eye(2, dtype=np.float32)[np.random.default_rng(0).integers(0, 2, 200)]
    found = probes.out_of_fold(labels, np.eye(200, dtype=np.float32), Settings(folds=5, l2=1e-6),
                               np.random.default_rng(0))
    assert (found.argmax(-1) == labels.argmax(-1)).mean() < .6


def test_rows_of_equal_features_are_in_one_fold():
    _, features, _ = clusters(n=100)
    fold = probes.assigned(np.concatenate([features, features[::-1]]), 5, np.random.default_rng(0))
    np.testing.assert_array_equal(fold[:100], fold[100:][::-1])
    with pytest.raises(DataError, match=r'^folds: 5, but there are 4 different rows, expected fewer'):
        probes.assigned(np.repeat(features[:4], 9, 0), 5, np.random.default_rng(0))


def near(features, k):
    """`[n, k]`: the nearest by cosine of standardised features, in plain numpy."""
    x = (features - features.mean(0)) / features.std(0)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    return np.array([[j for j in np.argsort(-x @ x[i]) if j != i][:k] for i in range(len(x))])


@pytest.mark.parametrize('edges', ['mutual', 'either'])
@pytest.mark.parametrize('k', [2, 4])
def test_components_as_in_numpy(edges, k):
    """Every row takes the smallest number among its neighbours of its class until nothing changes."""
    labels, features, _ = clusters(n=150)
    answers, link = labels.argmax(-1), np.zeros((150, 150), bool)
    link[np.arange(150)[:, None], near(features, k)] = True
    link = (link & link.T if edges == 'mutual' else link | link.T) & (answers[:, None] == answers)
    part = np.arange(150)
    for _ in range(150):
        part = np.minimum(part, np.where(link, part, 150).min(1))
    want = np.zeros(150, bool)
    for one in (0, 1):
        want |= part == np.bincount(part[answers == one]).argmax()
    np.testing.assert_array_equal(applied('components', labels, features, k=k, edges=edges)[1], want)
    assert 0 < want.sum() < 150


@pytest.mark.parametrize(('name', 'settings', 'gain'), [
    ('confident', {}, None), ('knn', {}, .15), ('knn', {'action': 'relabel'}, .15), ('probe', {}, .15),
    ('probe', {'action': 'relabel'}, .15), ('small_loss', {}, .15), ('small_loss', {'per_class': True}, .15),
    ('components', {}, .13)])
def test_filters_find_wrong_labels_where_features_know(name, settings, gain):
    """Means over six sets; with features that know nothing, no filter finds them, and relabelling is no better than
    chance."""
    gains, blind = [], []
    for seed in range(6):
        labels, features, truth = clusters(seed)
        nothing = np.random.default_rng(seed + 100).normal(size=features.shape).astype(np.float32)
        for out, x in ((gains, features), (blind, nothing)):
            found, keep = applied(name, labels, x, **settings)
            np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
            out.append(right(found[keep], truth[keep]) - right(labels, truth))
    assert np.mean(blind) < .02
    assert gain is None or np.min(gains) > gain


@pytest.mark.parametrize('name', ['confident', *ASKING])
def test_the_order_of_rows_says_nothing(name):
    labels, features, _ = clusters()
    order = np.random.default_rng(3).permutation(len(labels))
    found, keep = applied(name, labels, features)
    other, kept = applied(name, labels[order], features[order])
    assert (keep[order] != kept).mean() < .005  # ties, and the last digits of a fit
    np.testing.assert_array_equal(found[order], other)


@pytest.mark.parametrize('name', ['probe', 'small_loss'])
def test_a_seed_draws_the_folds(name):
    labels, features, _ = clusters()
    first, again, other = (applied(name, labels, features, seed=s)[1] for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def phase(name, classes=2, **settings):
    entry = TRANSFORMS[name]
    values = {k: s.default for k, s in entry.settings.items()} | settings
    return Phase('transform', {'transform': entry.identity(values), 'num_classes': classes,
                               'hyper': {'seed': 0, **entry.traced(values)}}, {}, 'labels')


def transformed(name, labels, features=None, **settings):
    needs = {'labels': labels, 'rows': np.arange(len(labels))}
    needs |= {} if features is None else {'features': {'features': features}}
    context = types.SimpleNamespace(say=SAID.append)
    return tables.transform([phase(name, labels.shape[1], **settings)], [needs], context, None)[0]


def test_a_phase_says_the_shares_of_classes():
    metrics, arrays, _ = transformed('confident', SOFT)
    assert metrics['rows'] == 4 and metrics['dropped'] == 2
    assert metrics['shares'] == {'before': [.5, .5], 'after': [.5, .5]}
    assert arrays['rows'].tolist() == [0, 2] and arrays['labels'].dtype == np.float32
    assert SAID[-1] == 'labels: seed 0: 2 of 4 rows kept; classes per cent 50.0 -> 50.0, 50.0 -> 50.0'
    many = np.eye(21, dtype=np.float32)
    assert 'shares' not in transformed('harden', many)[0] and SAID[-1] == 'labels: seed 0: 21 of 21 rows kept'


def test_a_filter_that_leaves_nothing_names_itself_and_its_settings():
    with pytest.raises(DataError, match=r"^transform 'confident': keeps none of 4 rows, expected some "
                                        r'\(labels.confident: per_class=False, share=0.5, threshold=0.95\)$'):
        transformed('confident', SOFT, threshold=.95)
    with pytest.raises(DataError, match=r"^transform 'confident': of the 2 rows of class 1 none is left, expected some "
                                        r'\(labels.confident: .*threshold=0.85\)$'):
        transformed('confident', SOFT, threshold=.85)
    rare = np.concatenate([np.tile(SOFT[:1], (50, 1)), SOFT[1:2]])
    assert transformed('confident', rare, threshold=.85)[0]['dropped'] == 1  # a rare class may vanish


def test_bad_settings_are_one_line_that_names_them():
    labels, features, _ = clusters(n=40)
    for name in ('knn', 'components'):
        with pytest.raises(DataError, match=rf'^labels\.{name}\.k: 40 neighbours, but there are 40 rows, expected few'):
            transformed(name, labels, features, k=40)
    with pytest.raises(DataError, match=r'^labels\.probe\.folds: 41, but there are 40 different rows, expected fewer$'):
        transformed('probe', labels, features, folds=41)
    with pytest.raises(DataError, match=r'^labels\.probe\.folds: the rows of all but one have labels of one class'):
        transformed('probe', np.tile(np.eye(2, dtype=np.float32)[:1], (40, 1)), features)
    with pytest.raises(DataError, match=r'^labels\.balance\.prior: '):
        transformed('balance', labels, prior=(1.,))
