"""The evidential loss: against scipy one class at a time, its divergence by quadrature, and what it predicts."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats

from w2s_jax.errors import ConfigError
from w2s_jax.objectives import OBJECTIVES, Columns
from w2s_jax.registry import Settings
from w2s_jax.train import evidential

EVIDENCE = {'softplus': lambda z: np.log1p(np.exp(z)), 'relu': lambda z: np.maximum(z, 0)}


def drawn(size=5, teachers=3, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(classes), (size, teachers)), 2 * rng.normal(size=(size, classes))


def losses(name, teachers, logits, progress, **settings):
    batch = {'inputs': jnp.array(logits, jnp.float32), 'teachers': jnp.array(teachers, jnp.float32),
             'weight': jnp.ones(len(logits))}
    return made(name).losses(lambda params, x: x, None, Columns(batch, 'evidential'), (), Settings(settings), progress,
                             None)


def made(evidence='softplus'):
    return OBJECTIVES['evidential'].fn(Settings(evidence=evidence))


def by_class(alpha, k):
    """(-log E p_k, KL of what is left without class k from the even Dirichlet), float64, as published."""
    y = np.eye(len(alpha))[k]
    a = y + (1 - y) * alpha
    kl = (special.gammaln(a.sum()) - special.gammaln(a).sum() - special.gammaln(len(a))
          + ((a - 1) * (special.psi(a) - special.psi(a.sum()))).sum())
    return np.log(alpha.sum()) - np.log(alpha[k]), kl


@pytest.mark.parametrize('name', EVIDENCE)
@pytest.mark.parametrize('progress', [0., .6])
def test_losses_are_those_of_scipy(name, progress):
    teachers, logits = drawn()
    found, aux = losses(name, teachers, logits, progress, gamma=.3, spread=.5)
    alpha, wanted = EVIDENCE[name](logits) + 1, []
    for a, z, p in zip(alpha, logits, teachers, strict=True):
        each = [nll + .5 * progress * kl for nll, kl in (by_class(a, k) for k in range(4))]
        wanted.append(.7 * np.mean([one @ each for one in p]) + .3 * each[z.argmax()])
    np.testing.assert_allclose(found, wanted, rtol=2e-5)
    assert float(aux['uncertainty']) == pytest.approx((4 / alpha.sum(-1)).mean(), rel=1e-5)


def test_the_divergence_is_that_of_a_beta_distribution_from_an_even_one():
    found = np.array(evidential.divergence(jnp.array([[3., 2.5], [1., 1.]])))
    for k, a in ((0, (1., 2.5)), (1, (3., 1.))):
        density = stats.beta(*a)
        wanted = integrate.quad(lambda x: density.pdf(x) * density.logpdf(x), 0, 1)[0]  # noqa: B023 used at once
        assert found[0, k] == pytest.approx(wanted, abs=1e-5)
    np.testing.assert_allclose(found[1], 0, atol=1e-6)


def test_it_predicts_the_mean_of_the_distribution_and_the_order_of_logits():
    _, logits = drawn()
    found = jax.nn.softmax(made().predict(lambda params, x: x, None, jnp.array(logits)), axis=-1)
    alpha = EVIDENCE['softplus'](logits) + 1
    np.testing.assert_allclose(found, alpha / alpha.sum(-1, keepdims=True), rtol=1e-5)
    np.testing.assert_array_equal(found.argmax(-1), logits.argmax(-1))


def test_teachers_that_disagree_leave_less_evidence():
    """The minimum over logits, found by descent: more certain where two teachers agree than where they do not."""
    teachers = np.array([[[1., 0], [1, 0]], [[1, 0], [0, 1]]])
    logits = jnp.zeros((2, 2))

    def total(x):
        return losses('softplus', teachers, x, 1., gamma=0., spread=1.)[0].sum()
    slope = jax.jit(jax.grad(total))
    for _ in range(200):
        logits = logits - .5 * slope(logits)
    alpha = EVIDENCE['softplus'](np.array(logits)) + 1
    assert alpha[0].sum() > 2 * alpha[1].sum() and alpha[0, 0] > 3 * alpha[0, 1]
    assert alpha[1, 0] == pytest.approx(alpha[1, 1], abs=1e-3)


def test_a_head_of_zeros_learns_by_softplus_alone():
    teachers = np.array([[[1., 0]]])
    slopes = {}
    for name in EVIDENCE:
        slope = jax.grad(lambda z, name=name: losses(name, teachers, z, 0., gamma=0., spread=0.)[0].sum())
        slopes[name] = float(jnp.abs(slope(jnp.zeros((1, 2)))).max())
    assert slopes['softplus'] > .1 and slopes['relu'] == 0


def test_without_teachers_it_says_what_is_missing():
    with pytest.raises(ConfigError, match="objective 'evidential': reads column 'teachers'"):
        batch = Columns({'inputs': jnp.zeros((2, 2))}, 'evidential')
        made().losses(lambda params, x: x, None, batch, (), Settings(gamma=0., spread=0.), 0., None)
