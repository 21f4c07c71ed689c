"""The mathematics of on-policy training: against NumPy, in the limits, on distributions that can be enumerated."""
import itertools

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from w2s_jax.errors import ConfigError
from w2s_jax.registry import Settings
from w2s_jax.train import policy
from w2s_jax.train.policy import ALGORITHMS

ROWS, MOST = 6, 5
LENGTH = np.array([5, 3, 1, 4, 5, 2])
MASK = np.arange(MOST) < LENGTH[:, None]


def numbers(seed, shape=(ROWS, MOST)):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def settings(name, **changes):
    return Settings({k: s.default for k, s in ALGORITHMS[name].settings.items()} | changes)


def backwards(rewards, values, gamma, decay):
    """GAE by its definition, a sum of the later deltas."""
    found = np.zeros_like(rewards)
    for row, n in enumerate(LENGTH):
        after = [*values[row, 1:n], 0]
        deltas = [rewards[row, t] + gamma * after[t] - values[row, t] for t in range(n)]
        for t in range(n):
            found[row, t] = sum((gamma * decay) ** (k - t) * deltas[k] for k in range(t, n))
    return found


@pytest.mark.parametrize(('gamma', 'decay'), [(1., .95), (.9, .5), (.8, 1.), (.7, 0.)])
def test_advantages_are_the_sums_that_define_them(gamma, decay):
    rewards, values = numbers(0), numbers(1)
    found = policy.gae(rewards, values, MASK, gamma, decay)
    np.testing.assert_allclose(found, backwards(rewards, values, gamma, decay), atol=1e-5)


def test_with_lambda_1_an_advantage_is_the_return_minus_the_value_and_with_0_one_error():
    rewards, values = numbers(0) * MASK, numbers(1) * MASK
    returns = np.cumsum(rewards[:, ::-1], 1)[:, ::-1]
    np.testing.assert_allclose(policy.gae(rewards, values, MASK, 1., 1.), (returns - values) * MASK, atol=1e-5)
    later = np.pad(values[:, 1:], ((0, 0), (0, 1)))
    np.testing.assert_allclose(policy.gae(rewards, values, MASK, .9, 0.), (rewards + .9 * later - values) * MASK,
                               atol=1e-6)


def test_texts_of_a_prompt_are_compared_with_each_other_alone():
    rewards = numbers(2, (6,))
    for name, want in (('deviation', lambda x: (x - x.mean()) / (x.std(ddof=1) + policy.LEAST)),
                       ('mean', lambda x: x - x.mean())):
        found = policy.group_relative(jnp.asarray(rewards), 3, name == 'deviation')
        np.testing.assert_allclose(found, np.concatenate([want(x) for x in np.split(rewards, 2)]), atol=1e-6)
    others = [rewards[i] - np.mean([rewards[j] for j in range(6) if j // 3 == i // 3 and j != i]) for i in range(6)]
    np.testing.assert_allclose(policy.leave_one_out(jnp.asarray(rewards), 3), others, atol=1e-6)
    assert not np.any(policy.group_relative(jnp.full(6, .3), 3))
    for one in (policy.group_relative, policy.leave_one_out):
        with pytest.raises(ConfigError, match='samples: 1 a prompt, expected 2 or more'):
            one(jnp.asarray(rewards), 1)


def test_whitened_advantages_have_mean_0_and_deviation_1_over_what_was_drawn():
    found = np.asarray(policy.whitened(jnp.asarray(3 + 2 * numbers(3)), MASK))
    np.testing.assert_allclose([found[MASK].mean(), found[MASK].std()], [0, 1], atol=1e-3)
    assert not found[~MASK].any()


def distribution(logits):
    return jax.nn.log_softmax(jnp.asarray(logits))


def test_both_estimators_of_kl_are_right_on_the_mean():
    p, q = distribution(numbers(4, (7,))), distribution(numbers(5, (7,)))
    kl = float(jnp.sum(jnp.exp(p) * (p - q)))
    assert kl > .1
    for estimate in (policy.k1, policy.k3):
        np.testing.assert_allclose(jnp.sum(jnp.exp(p) * estimate(p, q)), kl, rtol=1e-5)
    np.testing.assert_allclose(policy.reverse_kl(p, q), kl, rtol=1e-5)
    assert (policy.k3(p, q) >= 0).all() and (policy.k1(p, q) < 0).any()
    near = distribution(numbers(4, (7,)) + .1 * numbers(6, (7,)))
    spreads = [float(jnp.sum(jnp.exp(p) * k(p, near) ** 2) - jnp.sum(jnp.exp(p) * k(p, near)) ** 2)
               for k in (policy.k1, policy.k3)]
    assert spreads[1] < .1 * spreads[0]  # where the two are near, as they are meant to be


def test_what_the_two_penalties_pull_at():
    """k3 as a loss: KL(q || p). k1 as a reward: KL(p || q)."""
    logits, q = jnp.asarray(numbers(4, (7,))), distribution(numbers(5, (7,)))
    p = jnp.exp(distribution(logits))  # tokens are drawn, and what they cost is differentiated

    def as_loss(logits):
        return jnp.sum(p * policy.k3(distribution(logits), q))

    def as_reward(logits):
        worth = -policy.k1(jnp.log(p), q)
        return jnp.sum(p * policy.reinforce(distribution(logits), worth, jnp.ones(7, bool)))
    forward = jax.grad(lambda x: jnp.sum(jnp.exp(q) * (q - distribution(x))))(logits)
    reverse = jax.grad(lambda x: policy.reverse_kl(distribution(x), q))(logits)
    np.testing.assert_allclose(jax.grad(as_loss)(logits), forward, atol=1e-6)
    np.testing.assert_allclose(jax.grad(as_reward)(logits), reverse, atol=1e-6)
    assert np.abs(forward - reverse).max() > .05


def test_the_clipped_surrogate_is_ppos():
    logprob, old, advantage = -np.abs(numbers(6)), -np.abs(numbers(7)), numbers(8)
    found, held = policy.clipped(logprob, old, advantage, MASK, .2)
    ratio = np.exp(logprob - old)
    want = -np.minimum(ratio * advantage, np.clip(ratio, .8, 1.2) * advantage)
    np.testing.assert_allclose(found, want * MASK, atol=1e-5)
    outside = ((ratio > 1.2) & (advantage > 0)) | ((ratio < .8) & (advantage < 0))
    np.testing.assert_array_equal(held, outside & MASK)
    assert (held[MASK]).mean() not in (0, 1)
    slope = jax.grad(lambda x: policy.clipped(x, old, advantage, MASK, .2)[0].sum())(logprob)
    np.testing.assert_array_equal(np.asarray(slope) == 0, np.asarray(held) | ~MASK)


def test_at_a_ratio_of_1_the_surrogate_has_the_policy_gradient():
    logprob, advantage = -np.abs(numbers(6)), numbers(8)
    slopes = [jax.grad(lambda x, f=f: f(x).sum())(logprob) for f in (
        lambda x: policy.clipped(x, logprob, advantage, MASK, .2)[0], lambda x: policy.reinforce(x, advantage, MASK))]
    np.testing.assert_allclose(*slopes, atol=1e-6)
    np.testing.assert_allclose(slopes[0], -advantage * MASK, atol=1e-6)


def test_a_penalty_and_a_reward_stand_at_their_tokens():
    reward, kl = numbers(9, (ROWS,)), numbers(10)
    want = -.5 * kl * MASK
    want[np.arange(ROWS), LENGTH - 1] += reward
    np.testing.assert_allclose(policy.shaped(reward, kl, MASK, .5), want, atol=1e-6)


def test_what_a_texts_loss_is_divided_by():
    losses = numbers(11)
    total = (losses * MASK).sum(1)
    for divide, by in (('text', LENGTH), ('tokens', LENGTH.mean()), ('most', MOST), ('none', 1)):
        np.testing.assert_allclose(policy.spread(losses, MASK, divide), total / by, rtol=1e-5, err_msg=divide)


def test_what_is_distilled():
    anchor, after, before = (distribution(numbers(s, (3, 7))) for s in (1, 2, 3))
    raw = np.exp(np.asarray(anchor + .7 * (after - before), np.float64))
    np.testing.assert_allclose(np.exp(policy.shifted(anchor, after, before, .7)), raw / raw.sum(-1, keepdims=True),
                               rtol=1e-5)
    np.testing.assert_allclose(policy.shifted(anchor, after, before, 0.), anchor, atol=1e-6)
    np.testing.assert_allclose(policy.shifted(before, after, before, 1.), after, atol=1e-6)
    assert float(policy.reverse_kl(anchor, after).min()) > 0
    np.testing.assert_allclose(policy.reverse_kl(anchor, anchor), 0, atol=1e-6)


TEXTS = np.array(list(itertools.product(range(3), repeat=2)))  # all texts of two tokens out of three


def said(logits, texts):
    """`[n, 2]`: log-probabilities of the tokens of texts, of a policy with logits `[4, 3]`: first and after each."""
    logprobs = jax.nn.log_softmax(logits)
    return jnp.stack([logprobs[3, texts[:, 0]], logprobs[texts[:, 0], texts[:, 1]]], axis=1)


@pytest.mark.parametrize('baseline', ['none', 'leave_one_out'])
def test_reinforce_follows_the_gradient_of_reward_less_kl(baseline):
    """In expectation over all texts, or all pairs of texts; the baseline adds no bias."""
    logits, reference, worth = (jnp.asarray(numbers(s, shape)) for s, shape in ((1, (4, 3)), (2, (4, 3)), (3, (9,))))
    samples = 1 if baseline == 'none' else 2
    drawn = np.array(list(itertools.product(range(9), repeat=samples))).reshape(-1)
    texts, use = TEXTS[drawn], settings('reinforce', baseline=baseline, kl=.3)
    algorithm, mask = ALGORITHMS['reinforce'].fn(), np.ones((len(drawn), 2), bool)
    old = said(logits, texts)
    columns = {'mask': mask, 'reward': worth[drawn], 'old': old, 'reference': said(reference, texts)}
    columns |= algorithm.judge(columns, samples, use)
    chance = jnp.exp(old.sum(1)).reshape(-1, samples).prod(1)  # of each group

    def estimate(logits):
        losses = algorithm.losses({'logprob': said(logits, texts)}, columns, use)[0]
        return jnp.sum(chance * losses.reshape(-1, samples).mean(1))

    def objective(logits):
        own, other = said(logits, TEXTS).sum(1), said(reference, TEXTS).sum(1)
        return jnp.sum(jnp.exp(own) * (worth - .3 * (own - other)))
    np.testing.assert_allclose(jax.grad(estimate)(logits), -jax.grad(objective)(logits), atol=1e-6)


def drawn(junk=0.):
    """What a round of each algorithm has, with `junk` behind the ends of texts."""
    found = {k: np.where(MASK, x, x + junk) for k, x in (
        ('old', -np.abs(numbers(1))), ('reference', -np.abs(numbers(2))), ('value', numbers(3)),
        ('logprob', -np.abs(numbers(4))), ('divergence', np.abs(numbers(5))), ('now', numbers(6)))}
    return found | {'mask': MASK, 'reward': numbers(7, (ROWS,))}


def lost(name, logprob, value, divergence, rows, **changes):
    """(losses, what is logged) of an algorithm."""
    algorithm, use = ALGORITHMS[name].fn(), settings(name, **changes)
    batch = {k: v for k, v in rows.items() if k not in ('logprob', 'divergence', 'now')}
    batch |= algorithm.judge(batch, 3, use)
    return algorithm.losses({'logprob': logprob, 'value': value, 'divergence': divergence}, batch, use)


@pytest.mark.parametrize('name', sorted(ALGORITHMS))
def test_what_stands_behind_the_end_of_a_text_changes_nothing(name):
    told = []
    for junk in (0., 30.):
        rows = drawn(junk)
        state = rows['logprob'], rows['now'], rows['divergence']
        slopes = jax.grad(lambda *x, rows=rows: lost(name, *x, rows)[0].sum(), argnums=(0, 1, 2))(*state)
        assert not any(np.asarray(s)[~MASK].any() for s in slopes)
        told.append((lost(name, *state, rows), slopes))
    assert any(np.any(s) for s in told[0][1])
    jax.tree.map(np.testing.assert_array_equal, *told)


@pytest.mark.parametrize('name', sorted(ALGORITHMS))
def test_gradients_are_finite_differences(name):
    rows = drawn()
    changes = {} if name == 'distill' else {'kl': .3}

    def loss(logprob, value, divergence):
        return lost(name, logprob, value, divergence, rows, **changes)[0].sum()
    jax.test_util.check_grads(loss, (rows['logprob'], rows['now'], rows['divergence']), 1, ['rev'], atol=.02, rtol=.02,
                              eps=1e-2)


def test_grpo_and_ppo_are_made_of_these_parts():
    rows, use = drawn(), settings('grpo', kl=.3)
    each, held = policy.clipped(rows['logprob'], rows['old'], np.repeat(
        policy.group_relative(rows['reward'], 3)[:, None], MOST, 1), MASK, .2)
    penalty = policy.k3(rows['logprob'], rows['reference'])
    found, logged = lost('grpo', rows['logprob'], rows['now'], rows['divergence'], rows, kl=.3)
    np.testing.assert_allclose(found, ((each + .3 * penalty) * MASK).sum(1) / LENGTH, rtol=1e-5)
    np.testing.assert_allclose(logged['clipped'], held[MASK].mean())
    assert use.deviation and use.divide == 'text'

    batch = {k: rows[k] for k in ('mask', 'reward', 'old', 'reference', 'value')}
    columns = ALGORITHMS['ppo'].fn().judge(batch, 3, settings('ppo', whiten=False, kl=.3, decay=.9))
    rewards = np.asarray(policy.shaped(rows['reward'], rows['old'] - rows['reference'], MASK, .3))
    want = backwards(rewards, rows['value'], 1., .9)
    np.testing.assert_allclose(columns['advantage'], want, atol=1e-5)
    np.testing.assert_allclose(columns['return'], want + rows['value'] * MASK, atol=1e-5)
    found, _ = lost('ppo', rows['logprob'], rows['now'], rows['divergence'], rows, whiten=False, kl=.3, decay=.9)
    each, _ = policy.clipped(rows['logprob'], rows['old'], want, MASK, .2)
    error = .1 * (rows['now'] - want - rows['value']) ** 2 / 2
    np.testing.assert_allclose(found, ((each + error) * MASK).sum(1) / LENGTH.mean(), rtol=1e-4)


def test_what_reinforce_ends_at_is_the_closed_form():
    """Of all distributions over texts the one with the most reward less kl times KL is reference exp(reward / kl) / Z;
    a policy that follows the expected loss of its own texts, as its weights change, ends there."""
    reference, worth = jnp.asarray(numbers(2, (4, 3))), jnp.asarray(numbers(3, (9,)))
    algorithm, mask, use = ALGORITHMS['reinforce'].fn(), np.ones((9, 2), bool), settings('reinforce', baseline='mean',
                                                                                         kl=.5)

    def slope(logits):
        old = jax.lax.stop_gradient(said(logits, TEXTS))
        columns = {'mask': mask, 'reward': worth, 'old': old, 'reference': said(reference, TEXTS)}
        columns |= algorithm.judge(columns, 9, use)
        return jax.grad(lambda x: jnp.sum(jnp.exp(old.sum(1)) * algorithm.losses(
            {'logprob': said(x, TEXTS)}, columns, use)[0]))(logits)
    end = jax.jit(lambda: jax.lax.fori_loop(0, 2000, lambda _, x: x - .3 * slope(x), jnp.zeros((4, 3))))()
    want = jax.nn.softmax(said(reference, TEXTS).sum(1) + worth / .5)
    apart = jnp.abs(jnp.exp(said(end, TEXTS).sum(1)) - want).sum() / 2
    before = jnp.abs(jnp.exp(said(reference, TEXTS).sum(1)) - want).sum() / 2
    assert apart < .005 < .1 < before
