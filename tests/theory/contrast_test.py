"""Contrastive tables and tilts against NumPy, DPO against its optimum, and a small testbed."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from w2s_jax.registry import Settings
from w2s_jax.sampling.pick import Pick, contrasted
from w2s_jax.theory import contrast as c
from w2s_jax.theory import markov
from w2s_jax.theory.registry import in_float64, keys

RNG = np.random.default_rng(0)
BEFORE, AFTER = special.log_softmax(RNG.normal(size=(2, 4, 5, 5)), axis=-1)


@pytest.mark.parametrize('alpha', c.ALPHAS)
@pytest.mark.parametrize('head', [.1, .6])
def test_tables_are_those_of_the_formula_and_of_what_samples(alpha, head):
    found = np.exp(np.asarray(c.contrasted(Pick(alpha=alpha, head=head), BEFORE, AFTER)))
    p0, p1 = np.exp(BEFORE), np.exp(AFTER)
    wanted = np.where(p1 >= head * p1.max(-1, keepdims=True), p1 / p0 ** (1 - alpha), 0)
    np.testing.assert_allclose(found, wanted / wanted.sum(-1, keepdims=True), atol=1e-6)
    one = jax.nn.softmax(contrasted(jnp.stack([BEFORE[2, 3], AFTER[2, 3]]), alpha, head))
    np.testing.assert_allclose(found[2, 3], one, atol=1e-7)


def test_golden_numbers_of_a_step():
    before, after, wanted = c.GOLDEN
    found = c.contrasted(Pick(alpha=.4, head=.1), jnp.log(jnp.array(before)), jnp.log(jnp.array(after)))
    np.testing.assert_allclose(np.exp(found), wanted, atol=1e-6)
    assert wanted[0] == .6074419 and sum(wanted) == pytest.approx(1, abs=1e-7)


def test_a_tilt_is_of_whole_texts_and_not_of_tokens():
    start, ratio, tokens = np.full(5, .2), AFTER - BEFORE, markov.every(5, 4)
    chance = lambda policy: np.asarray(markov.likelihoods(policy, tokens), np.float64)
    wanted = special.softmax(chance(AFTER) + .5 * chance(ratio), axis=1)
    np.testing.assert_allclose(np.exp(chance(c.tilted(AFTER, ratio, .5))), wanted, rtol=1e-3)
    apart = markov.total_variation(c.by_token(AFTER, ratio, .5), c.tilted(AFTER, ratio, .5), start)
    assert float(apart) > .02
    one = c.by_token(AFTER, ratio, .5)[1, 2]
    np.testing.assert_allclose(one, special.log_softmax(1.5 * AFTER - .5 * BEFORE, axis=-1)[1, 2], atol=1e-5)


def test_the_weak_model_has_learned_the_noisy_reward():
    clean, before, after = c.weak(jax.random.key(0), 0., 4)
    ratio = c.BETA * markov.likelihoods(after - before, markov.every(4, 8)[:, :200])
    gold = markov.likelihoods(clean.gold, markov.every(4, 8)[:, :200])
    np.testing.assert_allclose((ratio - gold).std(1), 0, atol=1e-4)
    assert np.corrcoef((c.weak(jax.random.key(0), 1., 4)[2] - before).ravel(), (after - before).ravel())[0, 1] < .95


@in_float64
def test_a_fit_tends_to_what_is_counted():
    tokens = np.array([[0, 1, 0], [0, 1, 1], [0, 1, 0], [0, 1, 0]])
    found = np.exp(c.fitted(jnp.log(jnp.full((2, 2, 2, 2), .5)), tokens, 2000, .05))
    np.testing.assert_allclose(found[1, 0, 1], [.75, .25], atol=1e-3)
    assert found[0, 0, 0, 1] > .99 and found[0, 1, 1, 1] == .5


def test_dpo_has_the_golden_number_and_the_slope_of_differences():
    found, before = jnp.array([[-12., -15.]]), jnp.array([[-13., -14.5]])
    loss = lambda x: c.dpo(x, before, jnp.array([[1., 0.]]), .1)[0]
    assert float(loss(found)) == pytest.approx(.620957047789532, abs=1e-6)
    step = jnp.array([[.5, 0.]])
    along = (loss(found + step) - loss(found - step)) / 1.
    assert float(jax.grad(loss)(found)[0, 0]) == pytest.approx(float(along), abs=1e-4)


@in_float64
def test_dpo_makes_what_is_chosen_likelier_than_what_is_rejected():
    policy = jnp.log(jnp.full((2, 2, 2, 2), .5))
    chosen, rejected = jnp.array([[0, 0, 1]] * 3), jnp.array([[0, 1, 1]] * 3)
    found = c.preferring(policy, chosen, rejected, 20, .05)
    gained = lambda tokens: float((markov.total(found, tokens) - markov.total(policy, tokens))[0])
    assert gained(chosen) > .2 and gained(rejected) < -.2


@pytest.mark.long
@in_float64
def test_variance_integrates_to_the_gain_by_text_alone():
    found = jax.device_get(c.decoded(keys(3, 'a test'), 1., 4))
    off = abs(found['integral'] / found['gain'] - 1)
    assert off[:, 0].max() < 1e-6 < off[:, 1].min()
    assert (np.diff(found['implicit'][:, :4]).mean(0) > 0).all() and (found['gold'][:, 5] < found['gold'][:, 4]).all()


def test_compared_is_about_the_mean_of_pairs():
    low = RNG.normal(size=20)
    assert c.compared('a', low, low + .1 + .01 * RNG.normal(size=20)).holds
    assert not c.compared('a', low, low + .1 * RNG.normal(size=20) - .1).holds
    assert c.compared('a', low + .1, low, control=True).holds


@pytest.mark.slow
def test_students_of_a_small_language():
    rows = {r.cell: r for r in c.TESTBEDS['contrast'].fn(4, Settings(noise=1., runs=4, texts=200, steps=10))}
    first = rows['gold reward, 10 steps, WeakSFT to ConG-S']
    assert first.measured > first.predicted
    better, worse = (rows[f'gold reward, 10 steps, ConG-S to ConG{text}'] for text in
                     ('', ', chosen and rejected exchanged'))
    assert better.measured > better.predicted > worse.measured
