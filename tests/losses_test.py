"""Properties of all losses; cross-entropy, product and confidence against numpy in float64 and golden numbers.

The other losses' formulas are in losses_formulas_test.py.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from w2s_jax import losses
from w2s_jax.errors import ConfigError
from w2s_jax.registry import Settings

ALL = sorted(losses.LOSSES)
CONFIDENT = ['confidence', 'confidence_half', 'confidence_openai']
MIXED = ['xent', 'product', *CONFIDENT]  # a cross-entropy with a fixed target
ANY_CLASSES = [name for name in MIXED if name != 'confidence_openai']

GOLDEN_LOGITS = np.array([[2, -1], [.5, .2], [-1, 1.5], [.1, 0]])
GOLDEN_TARGETS = np.array([[.9, .1], [.3, .7], [.2, .8], [.6, .4]])
# Here the median and the weak labels' mean put the threshold at different places.
GOLDEN_SKEWED = np.array([[.9, .1], [.8, .2], [.2, .8], [.9, .1]])


def hyper_of(alpha=.5, alpha_warmup=.2):
    return {'alpha': alpha, 'alpha_warmup': alpha_warmup}


HYPER = hyper_of()


@functools.partial(jax.jit, static_argnames='name')
def apply(name, logits, targets, progress=1., hyper=None):
    """A loss with its defaults, but HYPER or `hyper`."""
    defaults = {k: s.default for k, s in losses.LOSSES[name].settings.items()}
    settings = Settings(defaults | (HYPER if hyper is None else hyper))
    return losses.LOSSES[name].fn(logits, targets, progress=progress, settings=settings, state=())


def batch(seed, size, classes, scale=2.):
    rng = np.random.default_rng(seed)
    return scale * rng.normal(size=(size, classes)), rng.dirichlet(np.ones(classes), size=size)


def reference_targets(name, logits, targets, progress, alpha, warmup):
    """What the cross-entropy is taken with, in numpy: the definitions once more, by loops and np.quantile."""
    p = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    if name == 'xent':
        return targets
    if name == 'product':
        return p * targets / (p * targets).sum(axis=1, keepdims=True)
    level = .5 if name == 'confidence_half' else targets[:, 1].mean()
    threshold = np.quantile(p[:, 0], level)
    hard = np.zeros_like(p)
    for row, probabilities in enumerate(p):
        binary = 0 if probabilities[0] >= threshold else 1
        hard[row, binary if p.shape[1] == 2 else probabilities.argmax()] = 1
    if name == 'confidence_openai':
        share = 1 if progress > warmup else progress
    else:
        share = 1 if warmup == 0 else min(1, progress / warmup)
    return (1 - alpha * share) * targets + alpha * share * hard


def reference(name, logits, targets, *rest):
    log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    return -(reference_targets(name, logits, targets, *rest) * log_p).sum(axis=1)


@pytest.mark.parametrize('progress,alpha,warmup', [
    (0., .5, .2), (.1, .75, .2), (.2, .5, .2), (.9, .5, .2), (.3, .6, 0.),
])
@pytest.mark.parametrize('size', [4, 7, 32])
@pytest.mark.parametrize('name', MIXED)
def test_equals_numpy_for_two_classes(name, size, progress, alpha, warmup):
    logits, targets = batch(size, size, 2)
    value, _, state = apply(name, logits, targets, progress, hyper_of(alpha, warmup))
    assert value.shape == (size,) and value.dtype == jnp.float32 and state == ()
    np.testing.assert_allclose(value, reference(name, logits, targets, progress, alpha, warmup), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('name', ANY_CLASSES)
def test_equals_numpy_for_many_classes(name):
    logits, targets = batch(5, 16, 6)
    value, aux, _ = apply(name, logits, targets, .1)
    np.testing.assert_allclose(value, reference(name, logits, targets, .1, .5, .2), rtol=1e-6, atol=1e-6)
    assert 'threshold' not in aux


@pytest.mark.parametrize('name,alpha,targets,expected', [
    ('xent', 0, GOLDEN_TARGETS, .5940572476020974),
    ('confidence', .25, GOLDEN_TARGETS, .5346822476),
    ('confidence', .5, GOLDEN_TARGETS, .4753072476),
    ('confidence', .75, GOLDEN_TARGETS, .4159322476),
    ('confidence_openai', .25, GOLDEN_TARGETS, .5346822476),
    ('confidence_openai', .75, GOLDEN_TARGETS, .4159322476),
    ('product', 0, GOLDEN_TARGETS, .4051707812),
    ('xent', 0, GOLDEN_SKEWED, .5490572476),
    ('confidence', .5, GOLDEN_SKEWED, .4403072476),
    ('confidence_openai', .5, GOLDEN_SKEWED, .4403072476),
    ('confidence_half', .5, GOLDEN_SKEWED, .4528072476),
])
def test_golden(name, alpha, targets, expected):
    with jax.enable_x64(True):
        value = apply(name, GOLDEN_LOGITS, targets, 1., hyper_of(alpha, .2))[0]
        assert float(value.mean()) == pytest.approx(expected, abs=1e-9)
    value = apply(name, GOLDEN_LOGITS, targets, 1., hyper_of(alpha, .2))[0]
    assert float(value.mean()) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize('name,targets,threshold,positive', [
    ('confidence', GOLDEN_TARGETS, .5497108521, .5),
    ('confidence_openai', GOLDEN_TARGETS, .5497108521, .5),
    ('confidence', GOLDEN_SKEWED, .48006709, .25),
    ('confidence_half', GOLDEN_SKEWED, .54971085, .5),
])
def test_golden_threshold(name, targets, threshold, positive):
    aux = apply(name, GOLDEN_LOGITS, targets)[1]
    assert float(aux['threshold']) == pytest.approx(threshold, abs=1e-6)
    assert float(aux['hardened_positive']) == positive


@pytest.mark.parametrize('name', MIXED)
def test_gradient_is_that_of_a_fixed_target(name):
    """d H(q, p) / d logits = p - q where q is constant; gradient through q would add to it."""
    logits, targets = batch(3, 16, 2)
    gradient = jax.grad(lambda z: apply(name, z, targets, .1)[0].sum())(jnp.asarray(logits, jnp.float32))
    p = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    expected = p - reference_targets(name, logits, targets, .1, .5, .2)
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


@pytest.mark.parametrize('name', [n for n in MIXED if n != 'product'])  # of product only a part is its gradient
def test_gradients_by_finite_differences(name):
    logits, targets = batch(1, 8, 2)
    with jax.enable_x64(True):
        check_grads(lambda z, a: apply(name, z, targets, .1, hyper_of(a, .3))[0], (logits, .5), order=1, modes=['rev'])


def test_product_gradient_by_finite_differences():
    logits, targets = batch(1, 8, 2)
    with jax.enable_x64(True):
        believed = jnp.asarray(reference_targets('product', logits, targets, 1, 0, 0))
        by_hand = lambda z: -(believed * jax.nn.log_softmax(z)).sum()
        check_grads(by_hand, (logits,), order=1, modes=['rev'])
        gradient = jax.grad(lambda z: apply('product', z, targets)[0].sum())(logits)
        np.testing.assert_allclose(gradient, jax.grad(by_hand)(logits), rtol=1e-12)


@pytest.mark.parametrize('classes', [2, 5])
def test_product_with_certain_labels_is_xent(classes):
    logits, _ = batch(2, 16, classes, scale=20.)
    targets = np.eye(classes)[np.arange(16) % classes]
    np.testing.assert_array_equal(apply('product', logits, targets)[0], apply('xent', logits, targets)[0])


@pytest.mark.parametrize('hyper,progress', [(hyper_of(0., .2), .7), (hyper_of(.5, .2), 0.), (hyper_of(0., 0.), 0.)])
@pytest.mark.parametrize('name', CONFIDENT)
def test_without_alpha_is_xent_exactly(name, hyper, progress):
    logits, targets = batch(4, 32, 2)
    np.testing.assert_array_equal(apply(name, logits, targets, progress, hyper)[0], apply('xent', logits, targets)[0])
    gradient = lambda name: jax.grad(lambda z: apply(name, z, targets, progress, hyper)[0].sum())(logits)
    np.testing.assert_array_equal(gradient(name), gradient('xent'))


@pytest.mark.parametrize('name', ALL)
def test_vmapped_and_jitted_equal_looped(name):
    logits, targets = (np.stack(array) for array in zip(*[batch(seed, 8, 2) for seed in range(4)], strict=True))
    alpha, warmup, progress = np.float32([0, .5, .75, 1]), np.float32([0, .2, .5, 0]), np.float32([.1, .1, .1, .9])
    run = lambda z, y, s, a, w: apply(name, z, y, s, hyper_of(a, w))[:2]
    stacked, aux = jax.jit(jax.vmap(run))(logits, targets, progress, alpha, warmup)
    for i in range(4):
        value, one_aux = run(logits[i], targets[i], progress[i], alpha[i], warmup[i])
        np.testing.assert_allclose(stacked[i], value, rtol=1e-6, atol=1e-7)
        assert aux.keys() == one_aux.keys()
        for key in aux:
            np.testing.assert_allclose(aux[key][i], one_aux[key], rtol=1e-6)


def test_warm_up_is_linear_and_then_stays():
    alpha = lambda name, progress, hyper: float(apply(name, *batch(0, 4, 2), progress, hyper)[1]['alpha'])
    for name in ('confidence', 'confidence_half'):
        found = [alpha(name, progress, hyper_of(.6, .2)) for progress in (0, .05, .1, .15, .2, .5, 1)]
        np.testing.assert_allclose(found, [0, .15, .3, .45, .6, .6, .6], rtol=1e-6)
        assert alpha(name, 0., hyper_of(.6, 0.)) == pytest.approx(.6)


def test_published_warm_up_jumps():
    found = [float(apply('confidence_openai', *batch(0, 4, 2), progress, hyper_of(.5, .1))[1]['alpha'])
             for progress in (0, .05, .1, .1001, 1)]
    np.testing.assert_allclose(found, [0, .025, .05, .5, .5], rtol=1e-6)


@pytest.mark.parametrize('hyper,progress', [
    (hyper_of(.5, .2), 0.), (hyper_of(.5, .2), .1), (hyper_of(.5, 0.), 0.), (hyper_of(0., 0.), 1.),
])
@pytest.mark.parametrize('name', ALL)
def test_finite_for_extreme_logits(name, hyper, progress):
    logits = np.float32([[1e4, -1e4], [-1e4, 1e4], [1e4, 1e4], [0, 0], [-1e4, 0], [88, -88]])
    targets = np.float32([[0, 1], [0, 1], [1, 0], [.5, .5], [1, 0], [1e-30, 1]])
    total = lambda z, s, h: apply(name, z, targets, s, h)[0].sum()
    hyper = jax.tree.map(jnp.float32, hyper)
    values = jax.value_and_grad(total, argnums=(0, 1, 2))(logits, jnp.float32(progress), hyper)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(values)), values


@pytest.mark.parametrize('name', ALL)
def test_filling_rows_stay_finite(name):
    targets = np.float32([[.3, .7], [0, 0]])
    value, gradient = jax.value_and_grad(lambda z: apply(name, z, targets)[0].sum())(np.float32([[1, 2], [3, 4]]))
    assert np.isfinite(value) and np.isfinite(gradient).all()


@pytest.mark.parametrize('name', ['confidence', 'confidence_half'])
def test_many_classes_are_hardened_by_argmax(name):
    logits = np.float32([[3, 1, 0], [0, 2, 1], [0, 1, 5], [9, 8, 7]])
    value = apply(name, logits, np.full((4, 3), 1 / 3), 1., hyper_of(1., 0.))[0]
    expected = np.logaddexp.reduce(logits.astype(np.float64), axis=1) - logits.max(axis=1)
    np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('size', [2, 5, 8, 32])
def test_as_many_are_hardened_as_the_labels_say(size):
    logits, _ = batch(size, size, 2)
    for positives in range(size):
        targets = np.eye(2)[(np.arange(size) < positives).astype(int)]
        for name in ('confidence', 'confidence_openai'):
            assert float(apply(name, logits, targets)[1]['hardened_positive']) == pytest.approx(positives / size)


@pytest.mark.parametrize('size', [2, 6, 32])
def test_half_is_hardened_to_each_class_whatever_the_labels(size):
    logits, _ = batch(size, size, 2)
    logits[:, 0] += 5
    targets = np.tile([.9, .1], (size, 1))
    assert float(apply('confidence_half', logits, targets)[1]['hardened_positive']) == .5


def test_ties_go_to_class_zero():
    """As in the published code; jnp.quantile would now and then put the threshold above all of them."""
    rng = np.random.default_rng(0)
    logits = np.tile(rng.normal(size=(5000, 1, 2)), (1, 8, 1))
    targets = np.tile(rng.dirichlet([1, 1], size=(5000, 1)), (1, 8, 1))
    assert not jax.vmap(lambda z, y: apply('confidence', z, y)[1]['hardened_positive'])(logits, targets).any()


def test_quantile_equals_numpy():
    rng = np.random.default_rng(0)
    levels = np.float32([0, .1, .5, .77, .99, 1])
    for size in (1, 2, 5, 32):
        values = rng.uniform(size=size).astype(np.float32)
        found = jax.jit(jax.vmap(losses._quantile, (None, 0)))(values, levels)
        np.testing.assert_allclose(found, np.quantile(values, levels), rtol=1e-6)


def test_many_classes_are_refused_by_the_published_loss():
    with pytest.raises(ConfigError, match='2 classes, this task has 3') as error:
        jax.eval_shape(lambda z, y: apply('confidence_openai', z, y)[0], *batch(0, 4, 3))
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('name', ALL)
def test_low_precision_is_computed_in_float32(name):
    logits, targets = batch(6, 16, 2)
    low = jnp.asarray(logits, jnp.bfloat16)
    value = apply(name, low, jnp.asarray(targets, jnp.float32))[0]
    assert value.dtype == jnp.float32
    np.testing.assert_array_equal(value, apply(name, low.astype(jnp.float32), jnp.asarray(targets, jnp.float32))[0])


@pytest.mark.parametrize('name', ALL)
def test_the_order_of_a_batch_does_not_matter(name):
    logits, targets = batch(7, 16, 2)
    order = np.random.default_rng(0).permutation(16)
    expected = apply(name, logits, targets)[0][order]
    np.testing.assert_allclose(apply(name, logits[order], targets[order])[0], expected, rtol=1e-6)


def test_shapes_are_checked():
    with pytest.raises(AssertionError):
        apply('xent', np.zeros((4, 2)), np.zeros((4, 3)))
    with pytest.raises(AssertionError):
        apply('xent', np.zeros(2), np.zeros(2))


def test_every_loss_has_its_defaults():
    assert {k: {n: s.default for n, s in e.settings.items()} for k, e in losses.LOSSES.items()} == {
        'xent': {}, 'product': {}, 'kl': {}, 'confident_pairs': {}, 'adaptive_confidence': {}, 'window_midweak': {},
        'confidence': HYPER, 'confidence_half': HYPER, 'entropy': HYPER,
        'confidence_openai': {'alpha': .5, 'alpha_warmup': .1}, 'window': {'radius': .15}, 'smoothing': {'eps': .1},
        'reverse_kl': {'log_zero': -9.2}, 'reverse_xent': {'log_zero': -4.}, 'generalized_xent': {'q': .7},
        'symmetric_xent': {'log_zero': -4., 'alpha': 1., 'beta': .1}, 'temperature': {'log_temperature': 0.}}


@pytest.mark.parametrize('name,hint', [
    ('xnet', "; did you mean 'xent'?"), ('confidense', "; did you mean 'confidence'?"), ('zzz', ''), (None, ''),
])
def test_unknown_names_are_explained(name, hint):
    with pytest.raises(ConfigError) as error:
        losses.LOSSES.get_entry(name, 'teacher.loss.name')
    assert str(error.value) == f"teacher.loss.name: unknown {name!r}, expected one of {', '.join(ALL)}{hint}"


def test_a_setting_that_was_not_declared_is_an_error_and_not_zero():
    with pytest.raises(ConfigError, match='alpha'):
        losses.confidence(np.zeros((4, 2)), np.full((4, 2), .5), progress=1., settings=Settings({}), state=())


def test_weighted_mean():
    values = jnp.array([1., 2., 30.])
    assert float(losses.weighted_mean(values, jnp.array([1., 3., 0.]))) == pytest.approx(7 / 4)
    value, gradient = jax.value_and_grad(losses.weighted_mean)(values, jnp.zeros(3))
    assert value == 0 and not gradient.any()
    assert np.isfinite(jax.grad(losses.weighted_mean, argnums=1)(values, jnp.zeros(3))).all()
