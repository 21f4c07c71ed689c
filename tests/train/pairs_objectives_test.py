"""Objectives that tune a language model on pairs: golden numbers, numpy references, limits, gradients."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from w2s_jax import objectives
from w2s_jax.phases.score import begins
from w2s_jax.train import preference

RNG = np.random.default_rng(0)
B = 6
L = RNG.normal(-20, 4, (B, 2)).astype(np.float32)
INPUTS = {'reference': RNG.normal(-20, 4, (B, 2)).astype(np.float32), 'begins': np.full((B, 2), 3),
          'length': RNG.integers(5, 30, (B, 2))}
SOFT = special.softmax(RNG.normal(size=(B, 2)), axis=1).astype(np.float32)
HARD = np.eye(2, dtype=np.float32)[SOFT.argmax(1)]
M = L / (INPUTS['length'] - 3)
CHANGE = L - INPUTS['reference']
SIGMOID = special.expit


def value(name, y=SOFT, logits=L, inputs=INPUTS, traced=None, **static):
    bound = objectives.bind(name, static)
    settings = bound.settings({k: s.default for k, s in objectives.OBJECTIVES[name].settings.items() if s.traced}
                              | (traced or {}))
    batch = {'inputs': inputs, 'targets': jnp.asarray(y), 'weight': jnp.ones(len(y)), 'row': jnp.arange(len(y))}
    losses = bound.objective.losses(lambda params, inputs: params, jnp.asarray(logits), batch, (), settings, 0.5, None)
    return np.asarray(losses[0]), losses[1], np.asarray(bound.objective.predict(lambda p, i: p, logits, inputs))


def pairwise(z, y, margin=0.):
    """-sum_k y_k log sigmoid(z_k - z_other - margin)"""
    apart = z[:, 0] - z[:, 1]
    return -y[:, 0] * np.log(SIGMOID(apart - margin)) - y[:, 1] * np.log(SIGMOID(-apart - margin))


def test_dpo_has_the_golden_number():
    inputs = {'reference': np.array([[-13., -14.5]]), 'begins': np.ones((1, 2)), 'length': np.full((1, 2), 9)}
    found, aux, answer = value('dpo', np.array([[1., 0.]]), np.array([[-12., -15.]]), inputs, beta=.1)
    assert found[0] == pytest.approx(.620957047789532, abs=1e-6)
    assert aux['margin'] == pytest.approx(1.5, abs=1e-5) and aux['preferred'] == pytest.approx(1., abs=1e-5)
    assert special.softmax(answer)[0, 0] == pytest.approx(np.exp(-.620957047789532), abs=1e-6)


@pytest.mark.parametrize('beta', [.05, 2.])
@pytest.mark.parametrize('y', [SOFT, HARD], ids=['soft', 'hard'])
def test_losses_are_their_formulas(beta, y):
    close = dict(rtol=2e-5, atol=1e-5)
    np.testing.assert_allclose(value('dpo', y, beta=beta)[0], pairwise(beta * CHANGE, y), **close)
    smooth = .9 * y + .1 * (1 - y)
    np.testing.assert_allclose(value('dpo', y, traced={'smoothing': .1}, beta=beta)[0], pairwise(beta * CHANGE, smooth),
                               **close)
    h = CHANGE - CHANGE[:, ::-1]
    np.testing.assert_allclose(value('ipo', y, beta=beta)[0], (y * (h - 1 / (2 * beta)) ** 2).sum(1), **close)
    np.testing.assert_allclose(value('simpo', y, beta=beta, traced={'margin': .7})[0], pairwise(beta * M, y, .7),
                               **close)
    odds = special.logit(np.exp(M))
    np.testing.assert_allclose(preference.log_odds(M), odds, **close)
    np.testing.assert_allclose(value('orpo', y, traced={'weight': .3})[0], -(y * M).sum(1) + .3 * pairwise(odds, y),
                               **close)
    np.testing.assert_allclose(value('sft', y)[0], -(y * M).sum(1), **close)
    weak = np.log(np.maximum(y, 1e-6))
    np.testing.assert_allclose(value('wspo', y, beta=beta)[0],
                               (beta * h[:, 0] - weak[:, 0] + weak[:, 1]) ** 2, **close)


def test_confident_pairs_weigh_as_the_loss_of_that_name():
    weight = 2 * SIGMOID(np.abs(special.logit(SOFT[:, 0]))) - 1
    np.testing.assert_allclose(value('dpo', SOFT, confident=True)[0], weight * pairwise(.1 * CHANGE, HARD), rtol=1e-4)
    np.testing.assert_allclose(value('dpo', HARD, confident=True)[0], value('dpo', HARD)[0], rtol=1e-6)
    assert np.all(value('dpo', np.full((B, 2), .5), confident=True)[0] == 0)


@pytest.mark.parametrize('name', ['dpo', 'ipo', 'simpo', 'orpo', 'sft', 'wspo'])
def test_gradients_are_finite_differences(name):
    def total(logits):
        bound = objectives.bind(name)
        settings = bound.settings({k: s.default for k, s in objectives.OBJECTIVES[name].settings.items() if s.traced})
        batch = {'inputs': INPUTS, 'targets': SOFT, 'weight': jnp.ones(B)}
        return bound.objective.losses(lambda p, i: p, logits, batch, (), settings, 0., None)[0].sum()
    with jax.enable_x64(True):
        found = np.asarray(jax.grad(total)(jnp.asarray(L)))
    for at in np.ndindex(B, 2):
        step = np.zeros_like(L)
        step[at] = .05
        wanted = (float(total(jnp.asarray(L + step))) - float(total(jnp.asarray(L - step)))) / .1
        assert found[at] == pytest.approx(wanted, rel=2e-2, abs=2e-3)


@pytest.mark.parametrize('name', ['dpo', 'ipo', 'simpo', 'orpo', 'wspo'])
def test_what_is_answered_is_what_the_loss_favours(name):
    """A step down the loss makes the labelled text the likelier answer."""
    def total(logits):
        return jnp.sum(jnp.asarray(_losses(name, logits)))
    slope = np.asarray(jax.grad(total)(jnp.asarray(L)))
    before, after = (value(name, HARD, logits)[2] for logits in (L, L - .1 * slope))
    mine = lambda z: (HARD * special.log_softmax(z, axis=1)).sum(1)
    assert (mine(after) > mine(before)).all()


def _losses(name, logits):
    bound = objectives.bind(name)
    settings = bound.settings({k: s.default for k, s in objectives.OBJECTIVES[name].settings.items() if s.traced})
    batch = {'inputs': INPUTS, 'targets': jnp.asarray(HARD), 'weight': jnp.ones(B)}
    return bound.objective.losses(lambda p, i: p, logits, batch, (), settings, 0., None)[0]


def test_texts_part_where_their_tokens_do():
    tokens = np.array([[[5, 6, 7, 8, 0], [5, 6, 9, 0, 0]], [[1, 2, 3, 0, 0], [4, 2, 3, 0, 0]],
                       [[5, 6, 7, 0, 0], [5, 6, 7, 8, 9]], [[5, 6, 7, 1, 0], [5, 6, 7, 1, 0]]])
    length = np.array([[4, 3], [3, 3], [3, 5], [4, 4]])
    np.testing.assert_array_equal(begins(tokens, length), [[2, 2], [1, 1], [2, 2], [3, 3]])
