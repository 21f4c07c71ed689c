"""Losses for noisy and unsure labels: formulas once more in numpy, golden numbers, limits, marks, and training."""
import functools
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from w2s_jax import config as configs
from w2s_jax import losses
from w2s_jax.engine import experiment, grid, sweep
from w2s_jax.errors import ConfigError
from w2s_jax.registry import Settings
from w2s_jax.store.artifacts import Artifact
from w2s_jax.train import exact

# Loss -> settings beside its defaults under which it is tested.
CASES = {
    'window': [{}, {'radius': .02}, {'radius': .4}], 'window_midweak': [{}], 'kl': [{}],
    'reverse_kl': [{}, {'log_zero': -2.}], 'reverse_xent': [{}, {'log_zero': -30.}],
    'entropy': [{}, {'alpha': .9}, {'alpha': 1., 'alpha_warmup': 0.}], 'adaptive_confidence': [{}],
    'smoothing': [{}, {'eps': .5}, {'eps': 1.}], 'generalized_xent': [{}, {'q': .01}, {'q': 1.}, {'q': 0.}],
    'symmetric_xent': [{}, {'alpha': .1, 'beta': 1., 'log_zero': -6.}],
    'temperature': [{'log_temperature': .7}, {'log_temperature': -1.}], 'confident_pairs': [{}],
}
EACH = [(name, case) for name, cases in CASES.items() for case in cases]
ALL, ANY_CLASSES = sorted(losses.LOSSES), sorted(set(losses.LOSSES) - {'confidence_openai'})
GOLDEN_LOGITS = np.array([[2, -1], [.5, .2], [-1, 1.5], [.1, 0]])
GOLDEN_TARGETS = np.array([[.9, .1], [.3, .7], [.2, .8], [.6, .4]])


def settings_of(name, **more):
    return {k: float(s.default) for k, s in losses.LOSSES[name].settings.items()} | more


@functools.partial(jax.jit, static_argnames='name')
def computed(name, logits, targets, settings, progress):
    return losses.LOSSES[name].fn(logits, targets, progress=progress, settings=Settings(settings), state=())[:2]


def apply(name, logits, targets, progress=.1, **settings):
    """[B] of a loss with its defaults, but for what is given."""
    return computed(name, logits, targets, settings_of(name, **settings), progress)[0]


def slope(name, logits, targets, **settings):
    """[B, K], the gradient of the sum by the logits."""
    return jax.grad(lambda z: apply(name, z, targets, **settings).sum())(jnp.asarray(logits, jnp.result_type(float)))


def batch(seed, size, classes, hard=False, scale=2.):
    rng = np.random.default_rng(seed)
    targets = rng.dirichlet(np.ones(classes), size=size)
    return scale * rng.normal(size=(size, classes)), np.eye(classes)[targets.argmax(1)] if hard else targets


def logs(z):
    return z - np.logaddexp.reduce(z)


def plogp(p, log_q):
    """sum p log q of one row, 0 log q being 0."""
    return sum(a * b for a, b in zip(p, log_q, strict=True) if a > 0)


def reference(name, logits, targets, progress, s):
    """[B] in numpy: one row after the other, from the definitions."""
    radius = s.get('radius', np.median(targets.max(1) - 1 / targets.shape[1]))
    return np.array([row(name, z, y, progress, s, radius) for z, y in zip(logits, targets, strict=True)])


def row(name, z, y, progress, s, radius):
    log_p, k = logs(z), len(z)
    p, xent = np.exp(log_p), -plogp(y, log_p)
    clipped = [max(np.log(v), s['log_zero']) if v > 0 else s['log_zero'] for v in y] if 'log_zero' in s else None
    if name.startswith('window'):
        return xent if p.max() < 1 / k + radius else 0.
    if name == 'kl':
        return xent + sum(v * np.log(v) for v in y if v > 0)
    if name in ('reverse_kl', 'reverse_xent', 'symmetric_xent'):
        reverse = -plogp(p, clipped)
        return {'reverse_kl': plogp(p, log_p) + reverse, 'reverse_xent': reverse,
                'symmetric_xent': s.get('alpha', 0) * xent + s.get('beta', 0) * reverse}[name]
    if name == 'confident_pairs':
        return -(k * y.max() - 1) / (k - 1) * log_p[y.argmax()]
    if name == 'entropy':
        a = s['alpha'] * (min(1, progress / s['alpha_warmup']) if s['alpha_warmup'] else 1)
        return (1 - a) * xent - a * plogp(p, log_p)
    if name == 'adaptive_confidence':
        a = adaptive_alpha(z, y)
        return (1 - a) * xent - a * log_p[z.argmax()]
    if name == 'smoothing':
        return -sum(((1 - s['eps']) * v + s['eps'] / k) * w for v, w in zip(y, log_p, strict=True))
    if name == 'generalized_xent':
        return sum(v * (1 - w ** s['q']) / s['q'] for v, w in zip(y, p, strict=True)) if s['q'] else xent
    assert name == 'temperature'
    return -plogp(y, logs(z / np.exp(s['log_temperature'])))


def adaptive_alpha(z, y):
    own, given = -logs(z)[z.argmax()], -logs(z)[y.argmax()]
    return np.exp(-np.logaddexp(0, given - own))


def test_every_new_loss_has_its_formula_here():
    assert {*CASES} == {*ALL} - {'xent', 'product', 'confidence', 'confidence_half', 'confidence_openai'}


@pytest.mark.parametrize('hard', [False, True])
@pytest.mark.parametrize('classes', [2, 3, 7])
@pytest.mark.parametrize('name,case', EACH)
def test_equals_numpy(name, case, classes, hard):
    for seed in range(4):
        logits, targets = batch(seed, 9 + seed, classes, hard)
        for progress in (.1, .7):
            expected = reference(name, logits, targets, progress, settings_of(name, **case))
            with jax.enable_x64(True):
                np.testing.assert_allclose(apply(name, logits, targets, progress, **case), expected, rtol=1e-11,
                                           atol=1e-13)
            value = apply(name, np.float32(logits), np.float32(targets), progress, **case)
            assert value.dtype == jnp.float32
            np.testing.assert_allclose(value, expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize('name,expected', [
    ('kl', .0667169061), ('reverse_kl', .0628446476), ('reverse_xent', .5211749941),
    ('adaptive_confidence', .4667154797), ('temperature', .5940572476020974),
])
def test_golden(name, expected):
    with jax.enable_x64(True):
        assert float(apply(name, GOLDEN_LOGITS, GOLDEN_TARGETS).mean()) == pytest.approx(expected, abs=1e-9)
    assert float(apply(name, GOLDEN_LOGITS, GOLDEN_TARGETS).mean()) == pytest.approx(expected, abs=1e-6)


def test_golden_alphas():
    with jax.enable_x64(True):
        alphas = [float(computed('adaptive_confidence', z[None], y[None], {}, 1.)[1]['alpha'])
                  for z, y in zip(GOLDEN_LOGITS, GOLDEN_TARGETS, strict=True)]
    np.testing.assert_allclose(alphas, [.5, .42555748, .5, .5], atol=1e-8)


@pytest.mark.parametrize('classes', [2, 5])
@pytest.mark.parametrize('name,case', [e for e in EACH if e[0] != 'adaptive_confidence'])
def test_gradients_by_finite_differences(name, case, classes):
    logits, targets = batch(1, 8, classes)
    with jax.enable_x64(True):
        # A radius moves which rows count, which has no derivative; log y is clipped or not, and q = 0 is an end.
        settings = {k: v for k, v in settings_of(name, **case).items() if k not in ('radius', 'log_zero', 'q')}
        rest = {k: v for k, v in settings_of(name, **case).items() if k not in settings}
        check_grads(lambda z, s: computed(name, z, targets, s | rest, .1)[0], (logits, settings), order=1,
                    modes=['rev'])


@pytest.mark.parametrize('classes', [2, 5])
def test_adaptive_confidence_takes_its_weights_as_given(classes):
    logits, targets = batch(1, 8, classes)
    alpha = np.array([adaptive_alpha(z, y) for z, y in zip(logits, targets, strict=True)])[:, None]
    assert (alpha <= .5).all() and (alpha < .45).any()
    p = np.exp([logs(z) for z in logits])
    with jax.enable_x64(True):
        expected = p - (1 - alpha) * targets - alpha * np.eye(classes)[logits.argmax(1)]
        np.testing.assert_allclose(slope('adaptive_confidence', logits, targets), expected, atol=1e-12)


@pytest.mark.parametrize('hard', [False, True])
@pytest.mark.parametrize('name,case', EACH)
def test_extreme_logits_have_the_right_value_and_finite_gradients(name, case, hard):
    logits = np.array([[1e4, -1e4], [-1e4, 1e4], [1e4, 1e4], [0, 0], [-1e4, 0], [88, -88], [0, 200]])
    targets = np.array([[0, 1], [0, 1], [1, 0], [.5, .5], [1, 0], [1e-30, 1], [.3, .7]])
    targets = np.eye(2)[targets.argmax(1)] if hard else targets
    settings = settings_of(name, **case)
    value, gradients = jax.value_and_grad(lambda *a: computed(name, a[0], targets, a[1], a[2])[0].sum(), (0, 1, 2))(
        np.float32(logits), settings, .1)
    assert np.isfinite(value) and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients)), gradients
    np.testing.assert_allclose(computed(name, np.float32(logits), targets, settings, .1)[0],
                               reference(name, logits, targets, .1, settings), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('name,settings', [
    ('window', {'radius': 1.}), ('entropy', {'alpha': 0.}), ('smoothing', {'eps': 0.}), ('generalized_xent', {'q': 0.}),
    ('symmetric_xent', {'alpha': 1., 'beta': 0.}), ('temperature', {'log_temperature': 0.}),
])
@pytest.mark.parametrize('hard', [False, True])
@pytest.mark.parametrize('classes', [2, 6])
def test_limits_are_xent_exactly(name, settings, classes, hard):
    logits, targets = batch(2, 32, classes, hard, scale=8.)
    np.testing.assert_array_equal(apply(name, logits, targets, **settings), apply('xent', logits, targets))
    np.testing.assert_array_equal(slope(name, logits, targets, **settings), slope('xent', logits, targets))


def test_entropy_starts_as_xent():
    logits, targets = batch(2, 32, 3)
    np.testing.assert_array_equal(apply('entropy', logits, targets, 0.), apply('xent', logits, targets))


@pytest.mark.parametrize('classes', [2, 6])
def test_limits_that_are_only_approached(classes):
    logits, targets = batch(3, 32, classes)
    with jax.enable_x64(True):
        xent, reverse = (apply(name, logits, targets) for name in ('xent', 'reverse_xent'))
        for q in (1e-3, 1e-6, 1e-12):
            np.testing.assert_allclose(apply('generalized_xent', logits, targets, q=q), xent, rtol=20 * q)
        np.testing.assert_allclose(apply('symmetric_xent', logits, targets, alpha=0., beta=1.), reverse, rtol=1e-12)
        p = np.exp([logs(z) for z in logits])
        np.testing.assert_allclose(apply('generalized_xent', logits, targets, q=1.), 1 - (p * targets).sum(1))
        np.testing.assert_allclose(slope('kl', logits, targets), slope('xent', logits, targets), atol=1e-12)


@pytest.mark.parametrize('classes', [2, 6])
def test_a_divergence_is_zero_where_the_student_says_what_the_label_says(classes):
    _, targets = batch(4, 32, classes)
    with jax.enable_x64(True):
        for name in ('kl', 'reverse_kl'):
            settings = {'log_zero': -100.} if name == 'reverse_kl' else {}
            np.testing.assert_allclose(apply(name, np.log(targets), targets, **settings), 0, atol=1e-12)
            np.testing.assert_allclose(slope(name, np.log(targets), targets, **settings), 0, atol=1e-12)


@pytest.mark.parametrize('smoothed', [0, .3, .6, .8])
def test_the_free_minimum_of_reverse_xent_is_the_top_class_and_that_of_xent_the_label(smoothed):
    """methods.md C3: what the teacher is unsure of moves the one and not the other."""
    label = (1 - smoothed) * np.eye(3)[[1]] + smoothed / 3
    found = {name: descend(name, label) for name in ('xent', 'reverse_xent')}
    assert found['reverse_xent'][0, 1] > .98
    np.testing.assert_allclose(found['xent'], label, atol=.01)


def descend(name, label):
    """The prediction after steps of gradient descent on the logits alone."""
    step = jax.jit(lambda _, z: z - jax.grad(lambda z: apply(name, z, label).sum())(z))
    return np.asarray(jax.nn.softmax(jax.lax.fori_loop(0, 3000, step, jnp.zeros(label.shape))))


def test_the_entropy_has_a_gradient_of_its_own():
    """With the gradient stopped it would be (1 - a)(p - y): cross-entropy with a smaller step."""
    logits, targets = batch(5, 16, 2)
    p = np.exp([logs(z) for z in logits])
    real = slope('entropy', logits, targets, alpha_warmup=0.)
    pull = -p * (np.log(p) - (p * np.log(p)).sum(1, keepdims=True))
    np.testing.assert_allclose(real, .5 * (p - targets) + .5 * pull, atol=1e-6)
    assert np.abs(real - .5 * (p - targets)).max() > .05


def test_the_window_drops_who_is_sure_and_divides_by_all():
    probabilities = np.array([[.5, .5], [.64, .36], [.66, .34], [.1, .9]])
    targets = np.full((4, 2), .5)
    value, aux = computed('window', np.log(probabilities), targets, settings_of('window'), 1.)
    np.testing.assert_array_equal(np.asarray(value) > 0, [True, True, False, False])
    assert float(aux['kept']) == .5
    mean = losses.weighted_mean(value, jnp.ones(4))
    assert float(mean) == pytest.approx(float(value[:2].sum()) / 4)
    assert not np.asarray(slope('window', np.log(probabilities), targets))[2:].any()
    assert not np.asarray(apply('window', np.zeros((4, 2)), targets, radius=0.)).any()  # max p is not below 1/K + 0


@pytest.mark.parametrize('classes', [2, 4])
def test_the_radius_is_the_median_confidence_of_the_labels(classes):
    for size in (1, 5, 8):
        logits, targets = batch(size, size, classes)
        value, aux = computed('window_midweak', logits, targets, {}, 1.)
        radius = np.median(targets.max(1) - 1 / classes)
        assert float(aux['radius']) == pytest.approx(radius, abs=1e-6)
        np.testing.assert_array_equal(value, apply('window', logits, targets, radius=float(aux['radius'])))
    if classes == 2:
        assert float(aux['radius']) == pytest.approx(np.median(np.abs(targets[:, 1] - .5)), abs=1e-6)


@pytest.mark.parametrize('classes', [2, 5])
@pytest.mark.parametrize('name', ALL)
def test_mark_per_example_says_whether_a_row_depends_on_itself_alone(name, classes):
    if (name, classes) == ('confidence_openai', 5):
        return
    alone = True
    for seed in range(20):
        logits, targets = batch(seed, 8, classes, scale=1.)
        other, labels = batch(seed + 100, 8, classes, scale=1.)
        other[0], labels[0] = logits[0], targets[0]
        for found in (apply, slope):
            alone &= np.allclose(found(name, logits, targets)[0], found(name, other, labels)[0], rtol=1e-6, atol=1e-7)
    hardens_by_batch = name.startswith('confidence') and classes == 2
    assert alone == (not hardens_by_batch and name != 'window_midweak')
    if classes == 2:
        assert alone == losses.LOSSES[name].options.get('per_example', False)


@pytest.mark.parametrize('name', ALL)
def test_mark_convex_says_whether_a_minimum_can_be_solved_for(name):
    """Convex in the logits under all settings, and what is differentiated is the value: else L-BFGS stops anywhere."""
    with jax.enable_x64(True):
        convex = all(is_convex(name, case) for case in CASES.get(name, [{}]))
    assert convex == losses.LOSSES[name].options.get('convex', False)


def is_convex(name, case) -> bool:
    """By the middle of 3000 pairs of small batches, and by the gradient along their difference."""
    rng, shape = np.random.default_rng(0), (3000, 3, 2)
    a, step = 3 * rng.normal(size=shape), rng.normal(size=shape) * rng.uniform(0, 3, size=(3000, 1, 1))
    targets = rng.dirichlet([1, 1], size=shape[:2])
    total = lambda z, y: apply(name, z, y, 1., **case).sum()
    many = jax.jit(jax.vmap(total))
    middle, ends = many(a, targets), (many(a + step, targets) + many(a - step, targets)) / 2
    along = (jax.jit(jax.vmap(jax.grad(total)))(a, targets) * step).sum((1, 2))
    numeric = (many(a + 1e-6 * step, targets) - many(a - 1e-6 * step, targets)) / 2e-6
    return bool((middle <= ends + 1e-9).all() and (abs(along - numeric) < 1e-5).all())


@pytest.mark.parametrize('name', [n for n in ALL if losses.LOSSES[n].options.get('per_example')])
def test_filling_rows_of_weight_zero_change_nothing(name):
    logits, targets = (np.float32(x) for x in batch(6, 8, 2))
    filled = [np.concatenate([x, np.zeros((3, 2), np.float32)]) for x in (logits, targets)]
    mean = lambda z, y, w: losses.weighted_mean(apply(name, z, y), w)
    with_them = jax.value_and_grad(mean)(filled[0], filled[1], jnp.float32([1] * 8 + [0] * 3))
    without = jax.value_and_grad(mean)(logits, targets, jnp.ones(8))
    np.testing.assert_allclose(with_them[0], without[0], rtol=1e-6)
    np.testing.assert_allclose(with_them[1][:8], without[1], rtol=1e-5, atol=1e-7)
    assert not with_them[1][8:].any()


def test_kl_and_xent_have_one_minimum():
    """By L-BFGS on a linear model, which is what the mark `convex` allows."""
    x, (_, targets) = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32), batch(7, 64, 2)
    found = []
    for name in ('xent', 'kl'):
        value = lambda w: apply(name, jnp.dot(x, w), targets).mean() + .01 * jnp.sum(w * w)  # noqa: B023
        found.append(exact.minimum(value, jnp.zeros((3, 2))))
    np.testing.assert_allclose(*found, atol=1e-4)


SWEPT = {
    'window': {'radius': [.05, .3]}, 'reverse_kl': {'log_zero': [-1., -12.]}, 'reverse_xent': {'log_zero': [-1., -8.]},
    'entropy': {'alpha': [.2, .6]}, 'smoothing': {'eps': [.05, .6]}, 'generalized_xent': {'q': [0., .7]},
    'symmetric_xent': {'alpha': [.2, 2.]}, 'temperature': {'log_temperature': [-.5, 1.]},
}


def base():
    c = configs.default_config()
    c.task.name, c.labels.source, c.student.model = 'salient_concept', 'column', 'mlp-32'
    c.task.train_size, c.task.test_size, c.train.epochs, c.seeds = 400, 200, 2, (0, 1)
    c.method.baselines, c.optimizer.learning_rate, c.report.html = (), 5e-3, False
    return c


def cells_of(name):
    return sweep.product([{'student.loss.name': name}],
                         *(sweep.values(f'student.loss.{k}', v) for k, v in SWEPT[name].items()))


def curves(folder, identities):
    """The students' losses at every step, one row a seed."""
    return np.stack([Artifact(folder / 'store' / f'fit-{i}').arrays['loss'] for i in identities])


def test_all_that_is_traced_is_swept_here():
    traced = {n for n in CASES if any(s.traced for s in losses.LOSSES[n].settings.values())}
    assert traced == {*SWEPT}
    assert all(s.traced for n in CASES for s in losses.LOSSES[n].settings.values())


@pytest.mark.long
@pytest.mark.parametrize('name', SWEPT)
def test_a_grid_over_what_is_traced_trains_in_one_program_as_the_runs_alone(name, tmp_path):
    cells = cells_of(name)
    found = grid.run(base(), cells, tmp_path / 'grid', io.StringIO())
    students = [p for p in found['phases'] if p['kind'] == 'student']
    assert {p['runs'] for p in students} == {4} and {p['programs'] for p in students} == {1}
    together = []
    for i, cell in enumerate(cells):
        alone = experiment.run(sweep.apply(base(), cell), tmp_path / str(i), io.StringIO())
        identities = alone['students'][0]['ids']
        together.append(curves(tmp_path / 'grid', identities))
        np.testing.assert_allclose(together[-1], curves(tmp_path / str(i), identities), rtol=1e-4, atol=1e-6)
    assert np.abs(together[0] - together[1]).max() > 1e-3  # the setting is not ignored


@pytest.mark.parametrize('name', ['window_midweak', 'kl', 'adaptive_confidence'])
def test_losses_without_settings_train(name, tmp_path):
    config = base()
    config.student.loss.name, config.seeds, config.train.epochs = name, (0,), 6
    found = experiment.run(config, tmp_path, io.StringIO())
    losses_of = curves(tmp_path, found['students'][0]['ids'])[0]
    assert np.isfinite(losses_of).all() and losses_of[-6:].mean() < losses_of[:6].mean()
    assert found['students'][0]['accuracy']['mean'] > .6 or name == 'adaptive_confidence'  # see the test below


@pytest.mark.parametrize('certainty', [.6, .8, 1.])
def test_adaptive_confidence_turns_no_answer_of_two_by_its_label(certainty):
    """Where it answers otherwise, p of the label goes to q / (1 + q), q being the label's probability: 1/2 at most."""
    label, z = np.array([[1 - certainty, certainty]]), jnp.array([[.5, 0.]])
    step = jax.jit(lambda _, z: z - .1 * jax.grad(lambda z: apply('adaptive_confidence', z, label).sum())(z))
    p = np.asarray(jax.nn.softmax(jax.lax.fori_loop(0, 2000, step, z)))
    np.testing.assert_allclose(p[0, 1], certainty / (1 + certainty), atol=2e-3)


@pytest.mark.parametrize('field,value', [
    ('window.radius', 1.1), ('reverse_xent.log_zero', .5), ('generalized_xent.q', 1.5), ('smoothing.eps', -.1),
    ('symmetric_xent.beta', -1.), ('temperature.log_temperature', 11.), ('entropy.alpha', 2.),
])
def test_settings_out_of_range_are_one_line(field, value, tmp_path):
    name, setting = field.split('.')
    cells = sweep.product([{'student.loss.name': name}], sweep.values(f'student.loss.{setting}', [value]))
    with pytest.raises(ConfigError, match=rf'student\.loss\.{setting}: .*expected a number in'):
        grid.run(base(), cells, tmp_path, io.StringIO())


def test_pairs_are_weighed_by_the_difference_of_their_rewards():
    """CW-PO, arXiv 2603.04968: 2 (sigmoid(|s+ - s-|) - 1/2)."""
    rng = np.random.default_rng(0)
    logits, rewards = rng.normal(size=(8, 2)), 3 * rng.normal(size=(8, 2))
    labels, best = np.exp(rewards) / np.exp(rewards).sum(1, keepdims=True), rewards.argmax(1)
    weight = 2 * (1 / (1 + np.exp(-np.abs(rewards[:, 0] - rewards[:, 1]))) - .5)
    plain = apply('xent', logits, np.eye(2)[best])
    np.testing.assert_allclose(apply('confident_pairs', logits, labels), weight * plain, rtol=1e-5)
    np.testing.assert_allclose(apply('confident_pairs', logits, np.eye(2)[best]), plain, rtol=1e-5)
    np.testing.assert_allclose(apply('confident_pairs', logits, np.full((8, 2), .5)), 0, atol=1e-6)
