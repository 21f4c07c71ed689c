"""Advantages, surrogates, best of n and reward models against NumPy; policies on a small language."""
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from w2s_jax.theory import markov
from w2s_jax.theory import reward as r
from w2s_jax.theory.registry import in_float64, keys

RNG = np.random.default_rng(0)


def test_advantages_are_sums_of_discounted_surprises():
    earned, values = RNG.normal(size=(2, 5, 3))
    surprise = earned + np.c_[values[:, 1:], np.zeros(5)] - values
    wanted = [sum(.9 ** (k - t) * surprise[:, k] for k in range(t, 3)) for t in range(3)]
    np.testing.assert_allclose(r.advantages(earned, jnp.asarray(values), .9), np.stack(wanted, 1), rtol=1e-5, atol=1e-6)
    ahead = earned[:, ::-1].cumsum(1)[:, ::-1]
    np.testing.assert_allclose(r.advantages(earned, jnp.asarray(values), 1.), ahead - values, rtol=1e-5, atol=1e-6)


def test_the_surrogate_is_clipped_on_one_side_and_has_reinforces_slope():
    old = jnp.log(jnp.array([[[.5, .5], [.5, .5]]]))
    tokens, logits = jnp.array([[0, 1], [1, 0]]), jnp.log(jnp.array([[[.2, .8], [.1, .9]]]))
    found = float(r.surrogate(logits, old, tokens, jnp.array([[2.], [-3.]]), .2))
    assert found == pytest.approx(-(1.2 * 2 - .8 * 3) / 2, abs=1e-6)  # ratios 1.6 and .2
    assert float(r.surrogate(logits, old, tokens, jnp.array([[-2.], [3.]]), .2)) == pytest.approx((3.2 - .6) / 2)
    slope = jax.grad(r.surrogate)(old, old, tokens, jnp.array([[2.], [0.]]), np.inf)
    np.testing.assert_allclose(slope[0], [[.5, -.5], [0, 0]], atol=1e-6)  # -(1/2) 2 (1[b] - p_b)


@pytest.mark.parametrize('n', [2, 3])
def test_best_of_n_is_that_of_all_draws(n):
    p, rewards = special.softmax(RNG.normal(size=5)), RNG.normal(size=5)
    best = np.zeros(5)
    for draws in itertools.product(range(5), repeat=n):
        best[max(draws, key=lambda i: rewards[i])] += p[list(draws)].prod()
    assert float(r.best_of(n, p, rewards)) == pytest.approx((best * np.log(best / p)).sum(), abs=1e-5)


@in_float64
def test_the_bound_is_attained_where_texts_are_improbable():
    many = float(r.best_of(8, jnp.full(20_000, 1 / 20_000), jnp.asarray(RNG.normal(size=20_000))))
    assert r.most(8) == pytest.approx(np.log(8) - 7 / 8) and r.most(8) - 1e-3 < many < r.most(8)


@in_float64
@pytest.mark.parametrize('tokens', [False, True])
def test_a_reward_model_of_all_preferences_is_the_truth(tokens):
    reward = np.broadcast_to(RNG.normal(size=3), (3, 3)) if tokens else RNG.normal(size=(3, 3))
    texts = markov.every(3, 3).reshape(-1, 4)
    i, j = np.triu_indices(len(texts), 1)
    wins = r.preference(reward, texts[i], texts[j])
    found = r.reward_model(texts[i], texts[j], wins, 3, tokens)
    np.testing.assert_allclose(r.preference(found, texts[i], texts[j]), wins, atol=1e-3)
    turned = r.reward_model(texts[j], texts[i], 1 - wins, 3, tokens)
    np.testing.assert_allclose(r.preference(turned, texts[j], texts[i]), 1 - r.preference(found, texts[i], texts[j]),
                               atol=1e-6)
    if tokens:
        assert np.ptp(found, axis=0).max() == 0


def test_judges_prefer_gold_and_are_wrong_as_often_as_said():
    language = markov.drawn(jax.random.key(0), 4, 3)
    language = language._replace(gold=1000 * language.gold)
    for flipped in (0., .3):
        first, second, wins = (np.asarray(v) for v in r.judged(jax.random.key(1), language, 5000, flipped))
        apart = np.asarray(markov.total(language.gold, first) - markov.total(language.gold, second))
        assert (first[:, 0] == second[:, 0]).all()
        assert np.mean((wins > .5) != (apart > 0), where=apart != 0) == pytest.approx(flipped, abs=.03)


@in_float64
def test_accuracy_is_that_of_bayes_for_the_truth_alone():
    language = jax.vmap(lambda k: markov.drawn(k, 4, 3))(keys(2, 'a test'))
    right, wrong = (jax.device_get(r.accuracy(keys(2, 'b'), language, sign * language.gold)) for sign in (1, -1))
    np.testing.assert_allclose(right['model'], right['bayes'])
    apart = wrong['bayes'] + wrong['model']
    assert ((apart > .99) & (apart < 1.2)).all() and (right['bayes'] > .6).all()  # above 1: texts that are one
    assert right['turned'].max() < 1e-12


@in_float64
def test_on_the_way_to_gold_it_only_rises_and_the_other_way_falls():
    language = jax.vmap(lambda k: markov.drawn(k, 4, 3))(keys(2, 'a test'))
    found, back = (r.curves(language, gold) for gold in (language.gold, -language.gold))
    assert np.diff(found['gold']).min() > 0 > np.diff(back['gold']).max()
    assert np.diff(found['kl']).min() > 0


@in_float64
@pytest.mark.slow
def test_policies_reach_the_closed_form_and_without_kl_do_not():
    rows = r.reached(2, 600)
    off = {row.cell.partition('form, ')[2]: row for row in rows}
    assert all(row.holds for row in rows if row.limit), off
    assert off['DPO, all pairs'].measured < off['DPO, 200000 drawn pairs'].measured < .1
