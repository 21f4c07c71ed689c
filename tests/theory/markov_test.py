"""What is computed by passes over positions against sums over all texts, in NumPy."""
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from w2s_jax.errors import ConfigError
from w2s_jax.theory import markov

S, T = 3, 3
RNG = np.random.default_rng(0)
START = np.array([.5, .2, .3])
FIRST = special.log_softmax(RNG.normal(size=(T, S, S)), axis=-1)
SECOND = special.log_softmax(RNG.normal(size=(T, S, S, S)), axis=-1)
REWARDS = {'stationary': RNG.normal(size=(S, S)), 'by position': RNG.normal(size=(T, S, S))}
TEXTS = list(itertools.product(range(S), repeat=T + 1))
POLICIES = pytest.mark.parametrize('policy', [FIRST, SECOND], ids=['last token', 'last two'])
EACH = pytest.mark.parametrize('reward', REWARDS.values(), ids=REWARDS)


def step(table, text, t):
    if table.ndim == 4:
        return table[t, text[max(t - 1, 0)], text[t], text[t + 1]]
    return table[t, text[t], text[t + 1]] if table.ndim == 3 else table[text[t], text[t + 1]]


def sums(table):
    return np.array([sum(step(table, text, t) for t in range(T)) for text in TEXTS])


def chances(policy):
    """Of all texts, prompts with them."""
    return START[[text[0] for text in TEXTS]] * np.exp(sums(policy))


def means(values, weight):
    """By prompt."""
    return (values * weight).reshape(S, -1).sum(1) / weight.reshape(S, -1).sum(1)


@POLICIES
@EACH
def test_expectation_and_variance_are_sums_over_all_texts(policy, reward):
    p, r = chances(policy), sums(reward)
    assert p.sum() == pytest.approx(1)
    assert float(markov.expected(policy, START, reward)) == pytest.approx((p * r).sum(), abs=1e-5)
    spread = START @ (means(r ** 2, p) - means(r, p) ** 2)
    assert float(markov.variance(policy, START, reward)) == pytest.approx(spread, rel=1e-4)


@POLICIES
@EACH
def test_the_optimum_is_the_reference_times_exp_reward(policy, reward):
    found = markov.optimum(policy, reward, .7)
    wanted = np.exp(sums(policy) + sums(reward) / .7).reshape(S, -1)
    wanted = START[:, None] * wanted / wanted.sum(1, keepdims=True)
    np.testing.assert_allclose(chances(np.asarray(found, np.float64)), wanted.ravel(), rtol=1e-4)
    np.testing.assert_allclose(special.logsumexp(found, axis=-1), 0, atol=1e-5)


@EACH
def test_no_other_policy_does_better_than_the_optimum(reward):
    value = lambda p: float(markov.expected(p, START, reward) - .7 * markov.divergence(p, FIRST, START))
    best = markov.optimum(FIRST, reward, .7)
    others = [special.log_softmax(np.asarray(best) + .1 * RNG.normal(size=best.shape), axis=-1) for _ in range(9)]
    assert all(value(p) < value(best) for p in others)


@POLICIES
def test_divergence_and_total_variation_are_sums_over_all_texts(policy):
    p, q = chances(policy), chances(FIRST[::-1])
    assert float(markov.divergence(policy, FIRST[::-1], START)) == pytest.approx((p * np.log(p / q)).sum(), abs=1e-5)
    assert float(markov.total_variation(policy, FIRST[::-1], START)) == pytest.approx(.5 * abs(p - q).sum(), abs=1e-5)


def test_what_never_comes_counts_for_nothing():
    with np.errstate(divide='ignore'):
        policy = np.log(np.broadcast_to([[0, 1., 0], [.5, .5, 0], [0, 0, 1]], (T, S, S)))
    assert np.isfinite(float(markov.divergence(policy, FIRST, START)))
    assert float(markov.expected(policy, START, np.exp(policy))) == pytest.approx(
        (chances(policy) * sums(np.exp(policy))).sum(), rel=1e-5)


@POLICIES
def test_texts_come_as_often_as_the_policy_says(policy):
    k = jax.random.split(jax.random.key(0))
    found = np.asarray(markov.texts(k[0], policy, markov.prompts(k[1], START, 40_000)))
    counts = np.bincount(found @ (S ** np.arange(T, -1, -1)), minlength=S ** (T + 1)) / len(found)
    p = chances(policy)
    assert np.all(abs(counts - p) < 5 * np.sqrt(p / len(found)))
    np.testing.assert_allclose(markov.total(policy, found[:50]), sums(policy)[found[:50] @ (27, 9, 3, 1)], rtol=1e-5)


def test_rewards_are_products_with_counts_of_transitions():
    texts, reward = np.array(TEXTS), REWARDS['stationary']
    np.testing.assert_allclose(markov.transitions(texts, S) @ reward.ravel(), sums(reward), atol=1e-5)


def test_all_texts_are_there_by_prompt():
    found = markov.every(S, T)
    assert found.shape == (S, S ** T, T + 1) and len(np.unique(found.reshape(-1, T + 1), axis=0)) == S ** (T + 1)
    assert all((found[s, :, 0] == s).all() for s in range(S))


def test_a_language_has_probabilities_and_is_refused_without_states():
    language = markov.drawn(jax.random.key(3), 5, 2)
    assert language.reference.shape == (2, 5, 5) and language.gold.shape == (5, 5)
    np.testing.assert_allclose(jnp.exp(language.reference).sum(-1), 1, rtol=1e-5)
    with pytest.raises(ConfigError, match='states, length: 1, 8, expected at least 2 states'):
        markov.drawn(jax.random.key(0), 1)
