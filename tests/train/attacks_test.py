"""Attacks stay in their ball, do what they are for, and more of them never help the model; the objectives on them."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from w2s_jax.errors import ConfigError
from w2s_jax.objectives import OBJECTIVES
from w2s_jax.registry import Settings
from w2s_jax.train import adversarial, attacks

EPS = .3
LINEAR = jnp.array(np.random.default_rng(0).normal(size=(6, 3)), jnp.float32)


def logits(x):
    """A network with a bend, so that attempts end in different places."""
    return jnp.tanh(x @ LINEAR) @ jnp.array([[2., -1, 0], [0, 2, -1], [-1, 0, 2]]) + jnp.sin(3 * x[:, :3])


def drawn(n=64, seed=1):
    x = jnp.array(np.random.default_rng(seed).normal(size=(n, 6)), jnp.float32)
    return x, logits(x).argmax(-1)


def under_attack(steps=10, restarts=1, eps=EPS, rows=None, x=None, truth=None):
    found, right = drawn()
    x, truth = found if x is None else x, right if truth is None else truth
    return attack(restarts, x, truth, jnp.arange(len(x)) if rows is None else rows, eps, steps)


@functools.partial(jax.jit, static_argnums=0)
def attack(restarts, x, truth, rows, eps, steps):
    return attacks.strongest(logits, x, truth, rows, jax.random.key(0), eps=eps, step=.1 * eps, steps=steps,
                             restarts=restarts)


def margins(x):
    return np.array(attacks.margin(logits(x), drawn()[1]))


def test_steps_stay_in_the_ball_and_reach_its_corner_for_a_linear_loss():
    x, _ = drawn()
    slope = jnp.array([1., -2, 3, -4, 5, -6])
    found = attacks.pgd(lambda at: at @ slope, x, x + 5, eps=EPS, step=EPS / 4, steps=20)
    np.testing.assert_allclose(found, np.array(x) + EPS * np.sign(slope), atol=1e-6)
    assert np.abs(under_attack(50, 3) - x).max() <= EPS + 1e-6


def test_ascent_raises_and_descent_lowers_the_loss():
    x, truth = drawn()
    losses = [np.array(attacks.wrongness(logits(at), truth)) for at in (x, *(attacks.pgd(
        lambda at, sign=sign: sign * attacks.wrongness(logits(at), truth), x, x, eps=EPS, step=EPS / 10, steps=20)
        for sign in (1, -1)))]
    assert (losses[1] > losses[0]).all() and (losses[2] < losses[0]).mean() >= .99


def test_margin_is_above_zero_exactly_where_the_answer_is_wrong():
    x, _ = drawn()
    truth = jnp.zeros(len(x), int)
    assert ((attacks.margin(logits(x), truth) > 0) == (logits(x).argmax(-1) != truth)).all()


def test_more_steps_and_restarts_never_raise_accuracy_nor_lower_a_margin():
    before = margins(drawn()[0])
    assert (before <= 0).all()
    tries = [margins(under_attack(*how)) for how in ((1, 1), (10, 1), (50, 1), (50, 3))]
    for found in tries:
        assert (found >= before - 1e-6).all()
        before = found
    assert (tries[0] > 0).mean() < (tries[1] > 0).mean() and tries[-1].mean() > tries[2].mean() + 1e-4


def test_an_attack_finds_what_a_search_of_the_ball_finds():
    """No gradient is masked: random points of the ball are no worse for the model than the attack's."""
    x, _ = drawn()
    points = np.array(x) + np.random.default_rng(2).uniform(-EPS, EPS, (400, *x.shape)).astype(np.float32)
    truth = drawn()[1]
    blind = np.array(jax.jit(jax.vmap(lambda p: attacks.margin(logits(p), truth)))(points)).max(0)
    assert (margins(under_attack(50, 3)) >= blind - 1e-4).mean() > .97


def test_rows_have_draws_of_their_own():
    found = attacks.draws(jax.random.key(0), jnp.array([4, 7, 4]), lambda k: jax.random.normal(k, (3,)))
    assert (found[0] == found[2]).all() and (found[0] != found[1]).all()


def test_eps_zero_leaves_rows_as_they_are():
    assert (under_attack(eps=0., restarts=3) == drawn()[0]).all()


def test_an_attack_follows_the_number_of_a_row_not_its_place():
    x, truth = drawn()
    order = np.random.default_rng(3).permutation(len(x))
    there = under_attack(5, 3, rows=jnp.array(order), x=x[order], truth=truth[order])
    np.testing.assert_allclose(there, under_attack(5, 3)[order], atol=1e-5)


def objective(name, inputs=None, progress=1., row=None, doubt=None, **settings):
    """(losses, aux) of a batch of four at parameters that are the network's input scale."""
    x, _ = drawn(4)
    rng = np.random.default_rng(4)
    targets, other = (jnp.array(rng.dirichlet(np.ones(3), 4), jnp.float32) for _ in range(2))
    batch = {'inputs': inputs or {'features': x}, 'targets': targets, 'inverse': other,
             'doubt': jnp.array([.1, .3, .5, .9]) if doubt is None else doubt, 'weight': jnp.ones(4),
             'row': jnp.arange(4) if row is None else row}
    entry = OBJECTIVES[name]
    chosen = Settings({k: s.default for k, s in entry.settings.items()} | settings)
    traced = {k: jnp.float32(chosen[k]) for k, s in entry.settings.items() if s.traced}
    return batch, losses_of(name, tuple((k, v) for k, v in chosen.items() if k not in traced), traced, batch,
                            jnp.float32(progress))


@functools.partial(jax.jit, static_argnums=(0, 1))
def losses_of(name, static, traced, batch, progress):
    def forward(scale, inputs):
        return logits(scale * inputs['features'])
    return OBJECTIVES[name].fn().losses(forward, jnp.float32(1.), batch, (), Settings(dict(static) | traced), progress,
                                        jax.random.key(5))


def test_noise_moves_every_feature_to_a_corner():
    seen = []

    def forward(params, inputs):
        seen.append(inputs['features'])
        return logits(inputs['features'])
    batch, _ = objective('noise')
    OBJECTIVES['noise'].fn().losses(forward, None, batch, (), Settings(eps=EPS), 0., jax.random.key(0))
    np.testing.assert_allclose(np.abs(seen[0] - batch['inputs']['features']), EPS, atol=1e-6)
    assert len(np.unique(np.sign(seen[0] - batch['inputs']['features']))) == 2


@jax.jit
def searched(x, targets, row):
    return adversarial.adversaries(logits, x, targets, row, jax.random.key(5), Settings(eps=EPS, step=.25, steps=10))


def expected(batch, eur, iar, alpha):
    """The loss by its formula, on the adversaries that the objective is given."""
    x = batch['inputs']['features']
    at = searched(x, batch['targets'], batch['row'])
    log = np.array(jax.nn.log_softmax(logits(at)), np.float64)
    own, taught = np.eye(3)[np.array(logits(x)).argmax(-1)], np.array(batch['inverse' if iar else 'targets'])
    w = np.array(batch['doubt']) if eur else alpha
    return -(1 - w) * (taught * log).sum(-1) - w * (own * log).sum(-1)


@pytest.mark.parametrize(('eur', 'iar'), [(True, True), (True, False), (False, True), (False, False)])
def test_the_loss_is_its_formula(eur, iar):
    batch, (found, aux) = objective('adv_w2s', eps=EPS, eur=eur, iar=iar, alpha=.3, alpha_warmup=0.)
    np.testing.assert_allclose(found, expected(batch, eur, iar, .3), atol=1e-5)
    assert aux['own_share'] == pytest.approx(.45 if eur else .3)


def test_the_own_answer_counts_more_and_more_during_warm_up():
    how = {'eur': False, 'iar': False, 'alpha': .4, 'alpha_warmup': .5}
    shares = [float(objective('adv_w2s', progress=p, **how)[1][1]['own_share']) for p in (0, .25, .5, 1)]
    np.testing.assert_allclose(shares, [0, .2, .4, .4], atol=1e-6)


def test_adversaries_are_worse_than_rows_and_no_gradient_goes_through_them():
    batch, (found, _) = objective('adv_w2s', eps=EPS, eur=False, iar=False, alpha=0.)
    clean = optax.losses.softmax_cross_entropy(logits(batch['inputs']['features']), batch['targets'])
    assert (found > clean).all()
    settings = Settings(eps=EPS, step=.25, steps=10)
    slope = jax.jit(jax.grad(lambda s: adversarial.adversaries(
        lambda at: logits(s * at), batch['inputs']['features'], batch['targets'], batch['row'], jax.random.key(0),
        settings).sum()))(1.)
    assert slope == 0


def test_without_perturbation_and_own_answer_it_is_cross_entropy():
    batch, (found, _) = objective('adv_w2s', eps=0., eur=False, iar=False, alpha=0.)
    np.testing.assert_allclose(found, optax.losses.softmax_cross_entropy(
        logits(batch['inputs']['features']), batch['targets']), atol=1e-6)


@pytest.mark.parametrize('name', ['noise', 'adv_w2s'])
def test_inputs_that_are_no_features_are_refused(name):
    with pytest.raises(ConfigError, match=f"objective '{name}': perturbs features, but inputs are tokens"):
        objective(name, inputs={'tokens': jnp.zeros((4, 2), int)})


@pytest.mark.parametrize('name', ['noise', 'adv_w2s'])
def test_an_example_does_not_see_its_batch(name):
    """As `per_example` says, so that microbatches, meshes and pmap add up to the same sum."""
    assert OBJECTIVES[name].fn().per_example
    batch, (whole, _) = objective(name)
    chosen = {k: s.default for k, s in OBJECTIVES[name].settings.items()}
    part = {k: jax.tree.map(lambda v: v[jnp.array([3, 1])], v) for k, v in batch.items()}
    traced = {k: jnp.float32(v) for k, v in chosen.items() if OBJECTIVES[name].settings[k].traced}
    static = tuple((k, v) for k, v in chosen.items() if k not in traced)
    found, _ = losses_of(name, static, traced, part, jnp.float32(1.))
    np.testing.assert_allclose(found, whole[jnp.array([3, 1])], atol=1e-5)
