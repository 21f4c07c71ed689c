"""Algorithmic tasks with an exact truth, in which a question is decomposed into easier ones of the same kind, after
those of Christiano, Shlegeris, Amodei 2018 (arXiv 1810.08575); a learner over facts; a model of who decomposes.

powering: facts x -> s(x) of a permutation; question (number of an exponent, x), answer s^exponent(x).
wildcard: facts bits -> 0 or 1; question a pattern of 0, 1 and 2 (any), answer how many ones match it.
"""
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from w2s_jax.protocols.amplification import Decomposition, Human

ANY = 2  # in a pattern: either bit


class Algorithm(NamedTuple):
    """fields_of_facts, fields: how many values each number of a fact, of a question has.  answers: how many there are.
    every: `[M, F]`, all questions.  levels: `[M]`, how many decompositions deep each is.  facts: `(key, B) -> [B, N,
    P]`.  human: looks up level 0 and decomposes the others.  truth, guess: `(facts, questions [B, Q, F]) -> [B, Q]`,
    what is right, and what one would say who does not look at facts."""
    fields_of_facts: tuple[int, ...]
    fields: tuple[int, ...]
    answers: int
    every: np.ndarray
    levels: np.ndarray
    facts: Callable
    human: Human
    truth: Callable
    guess: Callable


def read(facts: jax.Array, at: jax.Array) -> jax.Array:
    """The last number of the facts `[B, N, P]` with the numbers `at` `[B, ...]`."""
    flat = at.reshape(len(at), -1)
    return jnp.take_along_axis(facts[..., -1], flat, axis=1).reshape(at.shape)


def powering(size: int, exponents: tuple[int, ...]) -> Algorithm:
    """Powers of a permutation of `size` things. s^e(x) = s^(e - h)(s^h(x)), h = e // 2; each half is to be there."""
    powers, halves = np.array(exponents), np.array([exponents.index(max(e // 2, 1)) for e in exponents])
    rest = np.array([exponents.index(max(e - e // 2, 1)) for e in exponents])

    def facts(key, count):
        s = jax.vmap(lambda key: jax.random.permutation(key, size))(jax.random.split(key, count))
        return jnp.stack([jnp.broadcast_to(jnp.arange(size), s.shape), s], axis=-1)

    def ask(questions, answers, turn):
        exponent = jnp.asarray(halves if turn == 0 else rest)[questions[..., 0]]
        return jnp.stack([exponent, questions[..., 1] if turn == 0 else answers[..., 0]], axis=-1)

    def truth(facts, questions):
        def once(x, now):
            return jnp.where(now < jnp.asarray(powers)[questions[..., 0]], read(facts, x), x), None
        return jax.lax.scan(once, questions[..., 1], jnp.arange(max(exponents)))[0]
    human = Human(lambda questions: jnp.asarray(powers)[questions[..., 0]] == 1,
                  lambda facts, questions, key: read(facts, questions[..., 1]), ask,
                  lambda questions, answers: answers[..., 1])
    every = np.array([(e, x) for e in range(len(exponents)) for x in range(size)])
    levels = np.ceil(np.log2(powers)).astype(int)[every[:, 0]]
    return Algorithm((size, size), (len(exponents), size), size, every, levels, facts, human, truth,
                     lambda facts, questions: questions[..., 1])


def wildcard(bits: int) -> Algorithm:
    """How many of the 2^bits facts that match a pattern are 1: the first ANY is set to 0 and to 1, the counts added."""
    keys = np.array(np.unravel_index(np.arange(2 ** bits), (2,) * bits)).T
    number = jnp.asarray(2 ** np.arange(bits)[::-1])

    def facts(key, count):
        value = jax.random.randint(key, (count, 2 ** bits, 1), 0, 2)
        return jnp.concatenate([jnp.broadcast_to(keys, (count, *keys.shape)), value], axis=-1)

    def ask(questions, answers, turn):
        first = (jnp.cumsum(questions == ANY, axis=-1) == 1) & (questions == ANY)
        return jnp.where(first, turn, questions)

    def truth(facts, questions):
        match = (questions[:, :, None] == ANY) | (questions[:, :, None] == facts[:, None, :, :-1])
        return (match.all(-1) * facts[:, None, :, -1]).sum(-1)
    human = Human(lambda questions: (questions != ANY).all(-1),
                  lambda facts, questions, key: read(facts, jnp.minimum(questions, 1) @ number), ask,
                  lambda questions, answers: jnp.clip(answers.sum(-1), 0, 2 ** bits))
    every = np.array(np.unravel_index(np.arange(3 ** bits), (3,) * bits)).T
    guess = lambda facts, questions: 2 ** (questions == ANY).sum(-1) // 2
    return Algorithm((2,) * (bits + 1), (3,) * bits, 2 ** bits + 1, every, (every == ANY).sum(1), facts, human, truth,
                     guess)


def careless(algorithm: Algorithm, share: float) -> Human:
    """An H who looks up wrongly at random, another time anew."""
    human, values = algorithm.human, algorithm.fields_of_facts[-1]

    def lookup(facts, questions, key):
        right, k = human.lookup(facts, questions, key), jax.random.split(key)
        slip = jax.random.bernoulli(k[0], share, right.shape)
        return jnp.where(slip, (right + jax.random.randint(k[1], right.shape, 1, values)) % values, right)
    return human._replace(lookup=lookup)


def misreading(algorithm: Algorithm, key: jax.Array, facts: int, share: float) -> Human:
    """An H who always reads certain facts as another one: of all pairs of a fact's place, of `facts`, and what it says
    at most this share, and at least one."""
    human, values, k = algorithm.human, algorithm.fields_of_facts[-1], jax.random.split(key)
    pairs = facts * values
    worse = jax.random.permutation(k[0], pairs) < max(1, int(share * pairs))
    shift = jnp.where(worse, jax.random.randint(k[1], (pairs,), 1, values), 0).reshape(facts, values)

    def lookup(facts, questions, key):
        said = facts[..., -1]
        other = (said + shift[jnp.arange(len(shift)), said]) % values
        return human.lookup(facts.at[..., -1].set(other), questions, key)
    return human._replace(lookup=lookup)


class Answerer(nn.Module):
    """Facts `[B, N, P]` and questions `[B, Q, F]` to logits `[B, Q, answers]` float32: a transformer in which facts and
    questions attend to facts, so that questions know nothing of each other."""
    facts: tuple[int, ...]
    fields: tuple[int, ...]
    answers: int
    width: int
    layers: int
    heads: int = 4

    @nn.compact
    def __call__(self, facts, questions):
        embed = lambda sizes, x: sum(nn.Embed(n, self.width)(x[..., i]) for i, n in enumerate(sizes))
        count = facts.shape[1]
        x = jnp.concatenate([embed(self.facts, facts), embed(self.fields, questions)], axis=1)
        for _ in range(self.layers):
            y = nn.LayerNorm()(x)
            x += nn.MultiHeadDotProductAttention(self.heads)(y, y[:, :count])
            x += nn.Dense(self.width)(nn.gelu(nn.Dense(2 * self.width)(nn.LayerNorm()(x))))
        return nn.Dense(self.answers)(nn.LayerNorm()(x[:, count:]))


class Imitator(nn.Module):
    """H', a network of two hidden layers on the question, the answers so far and the turn: logits of each field of the
    next part and of the conclusion, a tuple of `[..., size]`."""
    fields: tuple[int, ...]
    answers: int
    parts: int
    width: int = 128

    @nn.compact
    def __call__(self, questions, answers, turn):
        hot = [jax.nn.one_hot(questions[..., i], n) for i, n in enumerate(self.fields)]
        hot += [jax.nn.one_hot(answers[..., i], self.answers) for i in range(self.parts)]  # -1, not yet there, is 0
        x = jnp.concatenate([*hot, jax.nn.one_hot(jnp.broadcast_to(turn, questions.shape[:-1]), self.parts + 1)], -1)
        for _ in range(2):
            x = nn.relu(nn.Dense(self.width)(x))
        return tuple(nn.Dense(n)(x) for n in (*self.fields, self.answers))


def model_human(human: Human, imitator: Imitator, params) -> Human:
    """H', who looks up what H does, and asks and concludes what the network finds most probable."""
    def ask(questions, answers, turn):
        said: Any = imitator.apply(params, questions, answers, turn)
        return jnp.stack([x.argmax(-1) for x in said[:-1]], axis=-1)

    def conclude(questions, answers):
        said: Any = imitator.apply(params, questions, answers, human.parts)
        return said[-1].argmax(-1)
    return human._replace(ask=ask, conclude=conclude)


def so_far(seen: Decomposition, turn: int) -> jax.Array:
    """The answers `[B, Q, K]` that H had before that turn, -1 those that were not there."""
    return jnp.where(jnp.arange(seen.answers.shape[-1]) < turn, seen.answers, -1)


def imitation_loss(imitator: Imitator, human: Human, params, seen: Decomposition) -> jax.Array:
    """Mean cross-entropy of all that H said in transcripts of questions that it did not look up."""
    xent, total = optax.losses.softmax_cross_entropy_with_integer_labels, 0.
    for turn in range(human.parts + 1):
        logits = imitator.apply(params, seen.questions, so_far(seen, turn), turn)
        if turn < human.parts:
            total += sum(xent(x, seen.parts[..., turn, i]) for i, x in enumerate(logits[:-1]))
        else:
            total += xent(logits[-1], seen.conclusion)
    return jnp.where(human.primitive(seen.questions), 0, total).mean()
