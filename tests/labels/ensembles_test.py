"""Several teachers' labels as one: by hand, against scikit-learn, and what must hold whatever the labels are."""
import numpy as np
import pytest
from sklearn.ensemble import AdaBoostClassifier
from sklearn.tree import DecisionTreeClassifier

from w2s_jax.labels import ensembles
from w2s_jax.labels.ensembles import COMBINERS
from w2s_jax.labels.texts import TABLES
from w2s_jax.labels.transforms import tempered
from w2s_jax.registry import Settings

TWO = np.array([[[.9, .1], [.3, .7], [.5, .5]], [[.4, .6], [.2, .8], [.8, .2]]], np.float32)  # [T, n, K]


def drawn(teachers=4, rows=50, classes=3, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(classes), (teachers, rows)).astype(np.float32)


def combine(name, labels, votes=None):
    return COMBINERS[name].fn(labels, np.ones(len(labels)) if votes is None else np.asarray(votes))


def test_by_hand():
    np.testing.assert_allclose(combine('uniform', TWO), [[.65, .35], [.25, .75], [.65, .35]], atol=1e-6)
    np.testing.assert_allclose(combine('vote', TWO), [[.5, .5], [0, 1], [1, 0]], atol=1e-6)  # ties go to class 0
    np.testing.assert_allclose(combine('confidence', TWO)[0], [(.9 * .9 + .6 * .4) / 1.5, (.9 * .1 + .6 * .6) / 1.5],
                               atol=1e-6)
    np.testing.assert_allclose(combine('adaboost', TWO, [3, 1])[0], [.775, .225], atol=1e-6)
    h = -(TWO.astype(float) * np.log(TWO)).sum(-1)
    w = 1 / (h[:, 0] + 1e-8)
    np.testing.assert_allclose(combine('entropy', TWO)[0], (w[:, None] * TWO[:, 0]).sum(0) / w.sum(), atol=1e-6)


@pytest.mark.parametrize('name', COMBINERS)
def test_labels_are_distributions_and_the_order_of_teachers_does_not_count(name):
    labels, votes = drawn(), np.array([.5, 2., 1., 0.])
    found = combine(name, labels, votes)
    assert found.shape == (50, 3) and found.dtype == np.float32
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-6)
    order = [2, 0, 3, 1]
    np.testing.assert_allclose(combine(name, labels[order], votes[order]), found, atol=1e-6)
    one = combine(name, labels[:1], votes[:1])
    np.testing.assert_allclose(one, ensembles.answers(labels)[0] if name == 'vote' else labels[0], atol=1e-6)


def test_the_surer_teacher_counts_more():
    sure, unsure = np.array([[.99, .01]]), np.array([[.3, .7]])
    labels = np.stack([sure, unsure]).astype(np.float32)
    even = combine('uniform', labels)[0, 0]
    assert combine('confidence', labels)[0, 0] > even + .05 and combine('entropy', labels)[0, 0] > even + .2


def test_teachers_of_no_use_count_alike():
    np.testing.assert_allclose(combine('adaboost', TWO, [0, 0]), combine('uniform', TWO), atol=1e-7)


def test_independent_errors_average_out():
    """Of M teachers with independent errors of one size the mean has a variance M times smaller."""
    rng = np.random.default_rng(0)
    for m in (2, 5, 20):
        p = .5 + .1 * rng.uniform(-1, 1, (m, 40_000))
        found = combine('uniform', np.stack([p, 1 - p], -1))[:, 0]
        assert np.var(found) == pytest.approx(np.var(p) / m, rel=.05)


@pytest.mark.parametrize('classes', [2, 4])
def test_boosting_is_that_of_scikit_learn(classes):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 5))
    y = np.digitize(x[:, 0] + .5 * x[:, 1] ** 2 + .3 * rng.normal(size=400), np.linspace(-.5, 1.5, classes - 1))
    model = AdaBoostClassifier(DecisionTreeClassifier(max_depth=2), n_estimators=6, random_state=0).fit(x, y)
    wrong = np.stack([one.predict(x) != y for one in model.estimators_])
    weights, alphas = ensembles.samme(wrong, classes)
    np.testing.assert_allclose(alphas, model.estimator_weights_, atol=1e-6)
    assert weights.mean() == pytest.approx(1)
    by_hand = np.ones(400)
    for alpha, missed in zip(model.estimator_weights_, wrong, strict=True):
        by_hand *= np.exp(alpha * missed)
    np.testing.assert_allclose(weights, by_hand / by_hand.mean(), atol=1e-6)
    # After its weights a teacher is exactly as good as chance: that is what the weights are for (two classes).
    if classes == 2:
        assert (weights * wrong[-1]).sum() / weights.sum() == pytest.approx(.5)


def test_a_teacher_no_better_than_chance_has_no_vote():
    missed = np.array([[True, True, False, False], [True] * 4, [True, False, False, False]])
    weights, alphas = ensembles.samme(missed, 2)
    assert alphas[0] == alphas[1] == 0 and alphas[2] == pytest.approx(np.log(3))
    np.testing.assert_allclose(weights, np.array([3, 1, 1, 1]) / 1.5)
    assert np.isfinite(ensembles.samme(np.zeros((1, 4), bool), 2)[1]).all()
    worse = ensembles.samme(~missed[2:], 2)
    assert worse[1].tolist() == [0] and worse[0].tolist() == [1] * 4


def test_temperatures_make_teachers_equally_sure_and_change_no_answer():
    labels = np.stack([tempered(drawn(1)[0], t) for t in (.6, 1, 3)])
    found = tempered(labels, ensembles.temperatures(labels)[:, None, None])
    h = ensembles.entropy(found).mean(-1)
    np.testing.assert_allclose(h, ensembles.entropy(labels).mean(), atol=1e-6)
    np.testing.assert_array_equal(found.argmax(-1), labels.argmax(-1))
    ratio = ensembles.temperatures(labels)
    np.testing.assert_allclose(ratio * [.6, 1, 3], ratio[1], rtol=1e-4)  # they are one teacher's labels, at three
    assert ensembles.temperatures(np.eye(2, dtype=np.float32)[None]).tolist() == [1.]


def by(labels, t):
    raised = np.maximum(labels.astype(np.float64), 1e-8) ** (1 / t)
    return raised / raised.sum(-1, keepdims=True)


def columns(labels, name='pool'):
    return {f'{name}/{k}/labels': one for k, one in enumerate(labels)}


def test_tables_read_the_teachers_in_order_and_take_temperatures_from_the_pool():
    pool, test = drawn(3, 40), drawn(3, 20, seed=1)
    pool[0] = tempered(pool[0], .2)
    settings = Settings(classes=3, matched=True, combine='uniform', code='1', hard=False, tests=('test', 'more'))
    both = columns(pool) | columns(test, 'test') | columns(test[:, ::-1], 'more')
    stacked = TABLES['stacked'].fn(both, settings, None)['labels']
    assert stacked.shape == (40, 3, 3)
    t = ensembles.temperatures(pool)
    assert t[0] > 1.5
    for k in range(3):
        np.testing.assert_allclose(stacked[:, k], by(pool[k], t[k]), atol=1e-6)
    np.testing.assert_allclose(TABLES['combined'].fn(both, settings, None)['labels'], stacked.mean(1), atol=1e-6)
    found = TABLES['combined_answers'].fn(both, settings, None)
    wanted = np.mean([by(test[k], t[k]) for k in range(3)], axis=0)
    np.testing.assert_array_equal(found['test.top'], np.argsort(-wanted, -1))
    np.testing.assert_allclose(found['test.top_probability'], -np.sort(-wanted, -1), atol=1e-6)
    np.testing.assert_array_equal(found['more.top'], found['test.top'][::-1])
    hard = TABLES['combined'].fn(both, Settings(settings | {'hard': True}), None)['labels']
    np.testing.assert_array_equal(hard, stacked.mean(1).argmax(-1))
    classes = columns(pool.argmax(-1).astype(np.int32))
    plain = Settings(settings | {'matched': False})
    np.testing.assert_array_equal(TABLES['stacked'].fn(classes, plain, None)['labels'],
                                  ensembles.answers(pool).swapaxes(0, 1))


def test_starts_by_hand():
    """1 / entropy and 1 / divergence from the others, of all rows together or of each (RAVEN's code), in float64."""
    p = TWO.astype(np.float64)
    h = -(p * np.log(p)).sum(-1)
    apart = np.stack([(p[1] * np.log(p[1] / p[0])).sum(-1), (p[0] * np.log(p[0] / p[1])).sum(-1)])
    for name, each in (('entropy', h), ('kl', apart)):
        rows = ensembles.starts(TWO, name, True, None)
        np.testing.assert_allclose(rows, (1 / each / (1 / each).sum(0)).T, rtol=1e-5)
        one = 1 / each.mean(1)
        found = ensembles.starts(TWO, name, False, None)
        np.testing.assert_allclose(found, np.tile(one / one.sum(), (3, 1)), rtol=1e-5)


@pytest.mark.parametrize('rows', [False, True])
@pytest.mark.parametrize('name', ensembles.STARTS)
def test_starts_are_weights_and_those_of_one_teacher_are_one(name, rows):
    labels = drawn(4, 30)
    found = ensembles.starts(labels, name, rows, np.random.default_rng(0))
    assert found.shape == (30, 4) and (found > 0).all()
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-6)
    assert (len(np.unique(found, axis=0)) > 1) == (rows and name != 'uniform')
    assert (ensembles.starts(labels[:1], name, rows, np.random.default_rng(0)) == 1).all()
    same = ensembles.starts(np.repeat(labels[:1], 3, axis=0), name, rows, np.random.default_rng(0))
    assert name == 'random' or np.allclose(same, 1 / 3)


def test_a_random_start_is_drawn_by_the_seed():
    drawn_by = [ensembles.starts(drawn(), 'random', False, np.random.default_rng(seed))[0] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(drawn_by[0], drawn_by[1])
    assert np.abs(drawn_by[0] - drawn_by[2]).max() > .01 and np.ptp(drawn_by[0]) > .01


def test_the_outlier_starts_low():
    labels = np.stack([drawn(1)[0]] * 3 + [drawn(1, seed=1)[0]])
    labels[1:3] = tempered(labels[1:3], 1.1)
    found = ensembles.starts(labels, 'kl', False, None)[0]
    assert found[3] < .5 * found[:3].min()


def test_the_table_of_starts_is_of_matched_labels():
    labels = drawn(3, 40)
    labels[0] = tempered(labels[0], .3)
    for matched in (False, True):
        settings = Settings(classes=3, matched=matched, start='entropy', rows=False)
        found = TABLES['started'].fn(columns(labels), settings, np.random.default_rng(0))['labels']
        assert (np.ptp(found[0]) < 1e-4) == matched, found[0]  # the mean entropies are what is matched
