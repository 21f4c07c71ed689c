"""Divergences in closed form, and students at the least of them."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, special

from w2s_jax.theory import bregman as b


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


RNG = np.random.default_rng(0)
P, Q = RNG.dirichlet(np.ones(4), size=(2, 9))


@pytest.mark.parametrize(('phi', 'closed'), [
    (b.SQUARED, lambda p, q: ((p - q) ** 2).sum(-1)), (b.NEGATIVE_ENTROPY, lambda p, q: special.rel_entr(p, q).sum(-1)),
    (b.BURG, lambda p, q: (p / q - np.log(p / q) - 1).sum(-1))])
def test_divergences_are_those_of_their_closed_forms(phi, closed):
    np.testing.assert_allclose(b.bregman(phi)(P, Q), closed(P, Q), rtol=1e-6)
    assert abs(b.bregman(phi)(Q, P) - closed(P, Q)).max() > 1e-6 or phi is b.SQUARED


def test_kl_is_the_divergence_of_negative_entropy():
    np.testing.assert_allclose(b.kl(P, Q), b.bregman(b.NEGATIVE_ENTROPY)(P, Q), rtol=1e-10)


def models(count=3, rows=20):
    return RNG.dirichlet(np.ones(3), size=(count, rows))


@pytest.mark.parametrize('reverse', [True, False])
def test_a_mixture_is_that_of_another_solver(reverse):
    each, weak = models(), RNG.dirichlet(np.ones(3) * 3, size=20)
    divergence = (lambda f, w, kl: kl(f, w)) if reverse else (lambda f, w, kl: kl(w, f))
    weights = b.in_hull(jnp.asarray(each), lambda f: jnp.mean(divergence(f, weak, b.kl)))
    kl = lambda p, q: special.rel_entr(p, q).sum(-1)
    least = optimize.minimize(lambda w: divergence(np.einsum('m,mnk->nk', w, each), weak, kl).mean(), np.ones(3) / 3,
                              method='SLSQP', bounds=[(1e-9, 1)] * 3, options={'ftol': 1e-13},
                              constraints={'type': 'eq', 'fun': lambda w: w.sum() - 1})
    np.testing.assert_allclose(weights, least.x, atol=1e-4)


def test_a_mixture_at_the_border_gives_nothing_to_a_model_that_does_not_help():
    each = models()
    weights = b.in_hull(jnp.asarray(each), lambda f: jnp.mean(b.kl(f, each[0])))
    np.testing.assert_allclose(weights, [1, 0, 0], atol=1e-4)


def test_each_identity_is_of_its_own_student():
    """The student is shifted along the features: at the least of cross-entropy its error is orthogonal to these."""
    x = RNG.normal(size=(80, 2))
    truth, weak = (special.softmax(z, axis=1) for z in (x @ RNG.normal(size=(2, 3)), RNG.normal(size=(80, 3))))
    student = b.log_linear(jnp.asarray(x), jnp.asarray(weak))
    np.testing.assert_allclose(x.T @ (np.asarray(student) - weak), 0, atol=1e-9)
    assert abs(b.dual(truth, weak, student)) < 1e-9
    assert abs(b.primal(truth, weak, student)) > .01


def test_of_squares_both_identities_are_one():
    square = b.bregman(b.SQUARED)
    x, weak = RNG.normal(size=(50, 3)), RNG.normal(size=(50, 2))
    truth, student = x @ RNG.normal(size=(3, 2)), x @ np.linalg.lstsq(x, weak, rcond=None)[0]
    assert abs(b.primal(truth, weak, student, square)) < 1e-9 and abs(b.dual(truth, weak, student, square)) < 1e-9


def test_greedy_mixtures_take_the_best_model_first_and_come_nearer():
    each, near = models(8), lambda f, weak: float(b.kl(f, weak).mean())
    weak = each.mean(0)
    found = b.greedy(jnp.asarray(each), jnp.asarray(weak), (1, 4, 16))
    assert any(np.allclose(found[0], model) for model in each)
    apart = [near(f, weak) for f in found]
    assert apart[0] > 2 * apart[1] > 4 * apart[2]
