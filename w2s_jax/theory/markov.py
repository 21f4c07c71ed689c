"""A language that is a Markov chain, in which what is asked of a policy is a sum and not an estimate.

A text is a start state, its prompt, and T further tokens, each one of S states. A policy is a table of
log-probabilities of the next token: `[T, S, S]`, by position and last token, or `[T, S, S, S]`, by position and the
last two tokens (of the first token both are the prompt). A reward is a sum over transitions of a table `[S, S]`, or
`[T, S, S]` by position. Such a sum has its expectation, its variance and its best policy from one pass over positions:

    max_p E_p r - beta KL(p || q)   at   p(y | x) = q(y | x) exp(r(y) / beta) / Z(x),

whose tables are p_t(s' | s) = q_t(s' | s) exp(r_t(s, s') / beta) Z_{t+1}(s') / Z_t(s), Z_T = 1 (Todorov 2009, PNAS 106,
11478; as the optimum of RLHF: Rafailov et al. 2023, arXiv 2305.18290, eq. 4).

Arrays may be NumPy's; what comes back is JAX's.
"""
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from w2s_jax.errors import ConfigError


class Language(NamedTuple):
    """start `[S]`: probabilities of prompts.  reference `[T, S, S]`: log-probabilities, the same at each position.
    gold `[S, S]`: the reward of a transition."""
    start: jax.Array
    reference: jax.Array
    gold: jax.Array


def drawn(key: jax.Array, states: int = 12, length: int = 8) -> Language:
    """A language with every prompt equally likely; logits of tokens and rewards of transitions are standard normal."""
    if states < 2 or length < 1:
        raise ConfigError(f'states, length: {states}, {length}, expected at least 2 states and 1 token')
    k = jax.random.split(key)
    table = jax.nn.log_softmax(jax.random.normal(k[0], (states, states)))
    return Language(jnp.full(states, 1 / states), jnp.broadcast_to(table, (length, states, states)),
                    jax.random.normal(k[1], (states, states)))


def optimum(reference: ArrayLike, reward: ArrayLike, beta: ArrayLike) -> jax.Array:
    """The policy, in the shape of the reference, that maximises E r - beta KL from it, by backward recursion.

    reward: `[S, S]`, `[T, S, S]` or in the shape of the reference.
    """
    reference = jnp.asarray(reference)
    gain = by_position(jnp.asarray(reward) / beta, reference)

    def back(ahead, at):  # ahead: log Z of what follows, by what it is told of
        score = at[0] + at[1] + ahead[None]
        ahead = jax.nn.logsumexp(score, axis=-1)
        return ahead, score - ahead[..., None]
    ahead = jnp.zeros(reference.shape[2:], jnp.result_type(reference, gain))
    return jax.lax.scan(back, ahead, (reference, gain), reverse=True)[1]


def by_position(reward: ArrayLike, policy: jax.Array) -> jax.Array:
    """A reward, `[S, S]`, `[T, S, S]` or of the policy's shape, in the policy's shape."""
    reward = jnp.asarray(reward)
    if reward.ndim == 3 and policy.ndim == 4:
        reward = reward[:, None]
    return jnp.broadcast_to(reward, policy.shape)


def occupancy(policy: ArrayLike, start: ArrayLike) -> jax.Array:
    """How probable each transition is in its context, in the shape of the policy: `[T, S, S]` or `[T, S, S, S]`."""
    policy = jnp.asarray(policy)
    here = jnp.asarray(start).astype(policy.dtype)

    def ahead(here, step):
        found = here[..., None] * jnp.exp(step)
        return found.sum(0), found
    return jax.lax.scan(ahead, jnp.diag(here) if policy.ndim == 4 else here, policy)[1]


def expected(policy: ArrayLike, start: ArrayLike, reward: ArrayLike) -> jax.Array:
    """E r of a text `[]`."""
    there = occupancy(policy, start)
    return jnp.sum(jnp.where(there > 0, there * by_position(reward, there), 0))  # it may be -inf where nothing comes


def divergence(policy: ArrayLike, other: ArrayLike, start: ArrayLike) -> jax.Array:
    """KL(policy || other) of texts given their prompts `[]`, in nats; other: also `[T, S, S]` of `[T, S, S, S]`."""
    policy = jnp.asarray(policy)
    return expected(policy, start, policy - by_position(other, policy))


def variance(policy: ArrayLike, start: ArrayLike, reward: ArrayLike) -> jax.Array:
    """E Var(r | prompt) `[]`: what differs between prompts is no part of it."""
    policy = jnp.asarray(policy)
    reward = by_position(reward, policy)

    def back(later, at):  # later: mean and square of what is still to come
        mean, square = (x[None] for x in later)
        step, now = jnp.exp(at[0]), at[1]
        return (jnp.sum(step * (now + mean), axis=-1),
                jnp.sum(step * (now ** 2 + 2 * now * mean + square), axis=-1)), None
    zero = jnp.zeros(policy.shape[2:], jnp.result_type(policy, reward))
    mean, square = jax.lax.scan(back, (zero, zero), (policy, reward), reverse=True)[0]
    spread = square - mean ** 2
    return jnp.sum(start * (jnp.diag(spread) if policy.ndim == 4 else spread))


def prompts(key: jax.Array, start: ArrayLike, number: int) -> jax.Array:
    """`[number]` states."""
    return jax.random.categorical(key, jnp.log(jnp.asarray(start)), shape=(number,))


def texts(key: jax.Array, policy: ArrayLike, first: ArrayLike) -> jax.Array:
    """A text `[N, T + 1]` after each prompt `[N]`, which is its first token."""
    policy = jnp.asarray(policy)
    found = [jnp.asarray(first)] * (policy.ndim - 2)
    for step, k in zip(policy, jax.random.split(key, len(policy)), strict=True):
        found.append(jax.random.categorical(k, step[tuple(found[2 - policy.ndim:])]))
    return jnp.stack(found[policy.ndim - 3:], axis=1)


def total(table: ArrayLike, tokens: ArrayLike) -> jax.Array:
    """Sums `[N]` over the transitions of texts `[N, T + 1]`: of a policy their log-likelihood, of a reward what they
    earn. table: `[S, S]`, `[T, S, S]` or `[T, S, S, S]`."""
    table, tokens = jnp.asarray(table), jnp.asarray(tokens)
    length = tokens.shape[1] - 1
    table = jnp.broadcast_to(table, (length, *table.shape)) if table.ndim == 2 else table
    context = (tokens[:, np.maximum(np.arange(length) - 1, 0)],) * (table.ndim == 4)
    return table[(np.arange(length), *context, tokens[:, :-1], tokens[:, 1:])].sum(1)


def transitions(tokens: ArrayLike, states: int) -> jax.Array:
    """How often each transition comes in texts `[N, T + 1]`: `[N, S S]`, whose product with a reward is `total`."""
    tokens = jnp.asarray(tokens)
    which = tokens[:, :-1] * states + tokens[:, 1:]
    return jnp.stack([jax.nn.one_hot(at, states ** 2) for at in which.T]).sum(0)


def every(states: int, length: int) -> np.ndarray:
    """All texts of a small language, `[S, S^T, T + 1]`: of each prompt its own."""
    found = np.array(list(itertools.product(range(states), repeat=length + 1)))
    return found.reshape(states, -1, length + 1)


def likelihoods(policy: ArrayLike, tokens: ArrayLike) -> jax.Array:
    """Log-likelihoods `[S, S^T]` of `every` text, or what they earn of a reward."""
    tokens = jnp.asarray(tokens)
    return total(policy, tokens.reshape(-1, tokens.shape[-1])).reshape(tokens.shape[:-1])


def total_variation(policy: ArrayLike, other: ArrayLike, start: ArrayLike) -> jax.Array:
    """Half the sum over all texts of how much the probabilities of two policies differ, `[]`; of small languages."""
    shape = jnp.shape(policy)
    tokens = every(shape[-1], shape[0])
    apart = jnp.abs(jnp.exp(likelihoods(policy, tokens)) - jnp.exp(likelihoods(other, tokens)))
    return .5 * jnp.sum(jnp.asarray(start)[:, None] * apart)
