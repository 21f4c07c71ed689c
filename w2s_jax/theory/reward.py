"""Reward models and policies that are tuned on them, against closed forms (Ouyang et al. 2022, arXiv 2203.02155).

On the Markov language (markov.py). A reward model learns which of two texts is preferred, P(a over b) = sigmoid(r(a) -
r(b)) (Bradley, Terry 1952), in the class that the truth is in: a number a transition.

The optimum of E r - beta KL is known. On a small language, of which all texts can be listed, it must be reached by
policy gradient, whose return per token is r_t - beta log(p_t / q_t): at the optimum what is left of it is the same on
all ways from a state, so that advantages vanish and with them the noise of what is sampled; and by DPO on how often
each text is preferred to each other (arXiv 2305.18290), whose minimum it is.

The best of n texts of p has, with F the probability of texts that earn no more, the probabilities F^n - (F - p)^n, and
KL to p at most log n - (n - 1) / n, attained where each text is improbable (Beirami et al. 2024, arXiv 2401.01879).

A policy that is tuned on few noisy preferences is tuned on their errors, too, the more the further it goes: gold reward
rises and falls with KL (Gao, Schulman, Hilton 2023, arXiv 2210.10760), while on gold itself d E r / d(1 / beta) = Var r
cannot fall.
"""
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from w2s_jax.registry import Setting, Settings
from w2s_jax.theory import markov
from w2s_jax.theory.bounds import upper
from w2s_jax.theory.contrast import descent, dpo
from w2s_jax.theory.registry import TESTBEDS, Row, in_float64, keys

STATES, LENGTH, BETA = 3, 3, .5  # of the small language, and what its policies pay for KL
BATCH, RATE, CLIP, EPOCHS = 256, .05, .2, 4  # texts a step; of Adam, falling to 0; of PPO
PAIRS = TEST = 10_000  # of texts, of a reward model
SAMPLED = 200_000  # pairs of texts, where preferences are no population
BEST = (2, 4, 16, 64)  # n
RIDGE, NEWTON = .01, 12  # of reward models: lambda / 2 |r|^2, and steps
SIZES = tuple(np.geomspace(.02, 20, 40))  # 1 / beta
FEW, FLIPPED = 1000, .2  # pairs of a weak reward model, and the share of its labels that is turned round


class Method(NamedTuple):
    """A policy gradient. trace: lambda of generalised advantages; 1: the return.  epochs: steps on the same texts.
    clip: of the ratio to the policy that drew them; inf: none.  beta: what it pays for KL."""
    trace: float
    epochs: int
    clip: float
    beta: float = BETA


METHODS = {'REINFORCE with a baseline': Method(1., 1, np.inf), 'PPO, clipped, GAE .95': Method(.95, EPOCHS, CLIP)}


def advantages(returns: jax.Array, values: jax.Array, trace: float) -> jax.Array:
    """Generalised advantages `[N, T]` without discount (arXiv 1506.02438, eq. 16), of what tokens earn `[N, T]` and
    the values `[N, T]` of the states they are drawn in."""
    ahead, found = jnp.zeros(len(returns)), []
    later = jnp.concatenate([values[:, 1:], jnp.zeros((len(values), 1))], axis=1)
    for delta in (returns + later - values).T[::-1]:
        ahead = delta + trace * ahead
        found.append(ahead)
    return jnp.stack(found[::-1], axis=1)


def chosen(table: jax.Array, tokens: jax.Array) -> jax.Array:
    """What `[T, S, S]` says of each transition of texts `[N, T + 1]`: `[N, T]`."""
    return table[jnp.arange(len(table)), tokens[:, :-1], tokens[:, 1:]]


def surrogate(logits: jax.Array, old: jax.Array, tokens: jax.Array, advantage: jax.Array, clip: float) -> jax.Array:
    """What is minimised (arXiv 1707.06347, eq. 7); at the policy that drew the texts its gradient is REINFORCE's."""
    ratio = jnp.exp(chosen(jax.nn.log_softmax(logits) - old, tokens))
    return -jnp.mean(jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - clip, 1 + clip) * advantage).sum(1))


@functools.partial(jax.jit, static_argnames=('method', 'steps'))
def improved(every: jax.Array, language: markov.Language, method: Method, steps: int) -> jax.Array:
    """The policy `[keys, T, S, S]` after so many batches of a policy gradient from the reference, of each language."""
    optimizer = optax.adam(optax.linear_schedule(RATE, 0, steps * method.epochs))

    def step(carry, key, language):
        logits, memory, values = carry
        k = jax.random.split(key)
        old = jax.nn.log_softmax(logits)
        tokens = markov.texts(k[0], old, markov.prompts(k[1], language.start, BATCH))
        earned = chosen(language.gold[None] - method.beta * (old - language.reference), tokens)
        where = (jnp.arange(LENGTH), tokens[:, :-1])
        advantage = advantages(earned, values[where], method.trace)
        for _ in range(method.epochs):
            slope = jax.grad(surrogate)(logits, old, tokens, advantage, method.clip)
            change, memory = optimizer.update(slope, memory)
            logits = optax.apply_updates(logits, change)
        ahead = jnp.cumsum(earned[:, ::-1], axis=1)[:, ::-1]
        sums, counts = (jnp.zeros_like(values).at[where].add(v) for v in (ahead - values[where], 1.))
        return (logits, memory, values + .1 * sums / jnp.maximum(counts, 1)), None

    def one(key, language):
        first = language.reference, optimizer.init(language.reference), jnp.zeros((LENGTH, STATES))
        last = jax.lax.scan(functools.partial(step, language=language), first, jax.random.split(key, steps))[0]
        return jax.nn.log_softmax(last[0])
    return jax.vmap(one)(every, language)


@functools.partial(jax.jit, static_argnames='steps')
def preferred(every: jax.Array, language: markov.Language, steps: int) -> jax.Array:
    """Policies `[keys, 3, T, S, S]` of DPO on all pairs of texts to a prompt, both from the reference: with each pair's
    probability of being drawn and being preferred; with counts of SAMPLED draws; and with preferences turned round."""
    tokens = markov.every(STATES, LENGTH)
    pairs = lambda x: jnp.stack(jnp.broadcast_arrays(x[:, :, None], x[:, None]), axis=3).reshape(-1, 2)

    def one(key, language):
        k = jax.random.split(key)
        before = pairs(markov.likelihoods(language.reference, tokens))
        weight = jnp.exp(before.sum(1)) * jnp.repeat(language.start, len(before) // STATES)
        chance = jax.nn.softmax(pairs(markov.likelihoods(language.gold, tokens)))
        drawn = jax.random.poisson(k[0], SAMPLED * weight).astype(float)
        share = jax.random.binomial(k[1], drawn, chance[:, 0]) / jnp.maximum(drawn, 1)
        cases = ((weight, chance), (drawn / SAMPLED, jnp.stack([share, 1 - share], axis=1)), (weight, chance[:, ::-1]))

        def tuned(weight, targets):
            after = lambda x: pairs(markov.likelihoods(jax.nn.log_softmax(x), tokens))
            loss = lambda x: jnp.sum(weight * dpo(after(x), before, targets, BETA))
            return jax.nn.log_softmax(descent(loss, language.reference, steps, optax.linear_schedule(RATE, 0, steps)))
        return jnp.stack([tuned(*case) for case in cases])
    return jax.vmap(one)(every, language)


def best_of(n: int, chances: jax.Array, rewards: jax.Array) -> jax.Array:
    """KL `[]` of the best of n to one, of texts with probabilities and rewards `[N]`, no two of which are equal."""
    p = chances[jnp.argsort(rewards)]
    below = jnp.cumsum(p) - p
    best = (below + p) ** n - below ** n
    return jnp.sum(jnp.where(best > 0, best * jnp.log(best / p), 0))


def most(n: int) -> float:
    """log n - (n - 1) / n."""
    return float(np.log(n) - (n - 1) / n)


def reward_model(first: jax.Array, second: jax.Array, wins: jax.Array, states: int, tokens: bool = False) -> jax.Array:
    """The reward of each transition `[S, S]` by which texts `[N, T + 1]` are most likely preferred as they were.

    wins: in [0, 1], of the first over the second `[N]`.  tokens: the reward hangs on the token that comes alone.
    Logistic regression with a ridge, by Newton's method.
    """
    seen = lambda texts: markov.transitions(texts, states).reshape(-1, states, states)
    x = seen(first) - seen(second)
    x = x.sum(1) if tokens else x.reshape(len(x), -1)

    def step(_, r):
        p = jax.nn.sigmoid(x @ r)
        curve = (x * (p * (1 - p))[:, None]).T @ x + RIDGE * jnp.eye(len(r))
        return r + jnp.linalg.solve(curve, x.T @ (wins - p) - RIDGE * r)
    found = jax.lax.fori_loop(0, NEWTON, step, jnp.zeros(x.shape[1]))
    return jnp.broadcast_to(found.reshape(-1, states), (states, states))


def judged(key: jax.Array, language: markov.Language, number: int, flipped: float) -> tuple[jax.Array, ...]:
    """Pairs of texts of the reference, `[N, T + 1]` each, to one prompt, and whether the first was preferred `[N]`: by
    gold reward, with a share of answers turned round."""
    k = jax.random.split(key, 4)
    prompt = markov.prompts(k[0], language.start, number)
    first, second = (markov.texts(key, language.reference, prompt) for key in k[1:3])
    chance = preference(language.gold, first, second)
    return first, second, jax.random.bernoulli(k[3], flipped + (1 - 2 * flipped) * chance).astype(float)


def preference(reward: jax.Array, first: jax.Array, second: jax.Array) -> jax.Array:
    """P(first over second) `[N]` of texts `[N, T + 1]`, by a reward `[S, S]`."""
    return jax.nn.sigmoid(markov.total(reward, first) - markov.total(reward, second))


@functools.partial(jax.jit, static_argnames=('number', 'states', 'tokens'))
def models(every: jax.Array, number: int, flipped: float, tokens: bool = False,
           states: int = 12) -> tuple[markov.Language, jax.Array]:
    """Of each key a language, and the reward model `[keys, S, S]` of so many pairs of its texts."""
    def one(key):
        k = jax.random.split(key)
        language = markov.drawn(k[0], states)
        first, second, wins = judged(k[1], language, number, flipped)
        return language, reward_model(first, second, wins, states, tokens)
    return jax.lax.map(one, every)


@jax.jit
def accuracy(every: jax.Array, language: markov.Language, reward: jax.Array) -> dict[str, jax.Array]:
    """`[keys]`, on TEST pairs: how often a reward model says what is preferred ('model'), as gold reward would
    ('bayes'), and by how much its answers to a pair and the pair turned round add up to another number than 1."""
    def one(key, language, reward):
        first, second, _ = judged(key, language, TEST, 0.)
        chance, said = preference(language.gold, first, second), preference(reward, first, second)
        return {'model': jnp.mean(jnp.where(said > .5, chance, 1 - chance)), 'bayes': jnp.mean(abs(chance - .5) + .5),
                'turned': jnp.max(abs(said + preference(reward, second, first) - 1))}
    return jax.vmap(one)(every, language, reward)


@jax.jit
def curves(language: markov.Language, reward: jax.Array) -> dict[str, jax.Array]:
    """`[keys, SIZES]`: 'kl' and 'gold' of policies that are optimal for a reward `[keys, S, S]`, by 1 / beta."""
    def one(language, reward):
        policies = jax.vmap(lambda size: markov.optimum(language.reference, size * reward, 1.))(jnp.array(SIZES))
        return {'kl': jax.vmap(lambda p: markov.divergence(p, language.reference, language.start))(policies),
                'gold': jax.vmap(lambda p: markov.expected(p, language.start, language.gold))(policies)}
    return jax.vmap(one)(language, reward)


@functools.partial(jax.jit, static_argnames=('n', 'states', 'length'))
def bests(every: jax.Array, n: int, states: int = 12, length: int = 3) -> jax.Array:
    """KL `[keys, S]` of the best of n texts to each prompt of a language, by gold reward."""
    def one(key):
        language, tokens = markov.drawn(key, states, length), markov.every(states, length)
        chances = jnp.exp(markov.likelihoods(language.reference, tokens))
        return jax.vmap(functools.partial(best_of, n))(chances, markov.likelihoods(language.gold, tokens))
    return jax.vmap(one)(every)


def reached(runs: int, steps: int) -> list[Row]:
    """How far policies on the small language are from the closed form, and those that must not get there."""
    small = jax.vmap(lambda key: markov.drawn(key, STATES, LENGTH))(keys(runs, 'small'))
    aim = jax.vmap(lambda x: markov.optimum(x.reference, x.gold, BETA))(small)
    apart = jax.jit(jax.vmap(lambda p, q, x: markov.total_variation(p, q, x.start)))

    def row(cell, policies, limit, control=False):
        off = np.asarray(apart(policies, aim, small))
        error = off.min() if control else off.max()
        return Row(f'total variation to the closed form, {cell}', 0, float(off.mean()), float(error),
                   'smallest' if control else 'largest', limit, runs, control=control)
    gradient = lambda method: improved(keys(runs, 'gradient'), small, method, steps)
    free = METHODS['REINFORCE with a baseline']._replace(beta=0.)
    counts = preferred(keys(runs, 'pairs'), small, steps)
    return [*(row(name, gradient(method), .005) for name, method in METHODS.items()),
            row('REINFORCE that does not pay for KL', gradient(free), .005, control=True),
            row('DPO, all pairs', counts[:, 0], .01), row(f'DPO, {SAMPLED} drawn pairs', counts[:, 1], None),
            row('DPO, preferences turned round', counts[:, 2], .01, control=True)]


def chosen_best(seeds: int) -> list[Row]:
    """Best of n, beside its bound and beside that of half as many, which it must exceed."""
    rows = list[Row]()
    for n in BEST:
        kl = np.asarray(bests(keys(seeds, 'best'), n))
        rows += [Row(f'KL of the best of {n}', most(n), float(kl.mean()), float(kl.max() - most(n)),
                     'largest KL - bound', 0., 0),
                 Row(f'KL of the best of {n}, bound of {n // 2}', most(n // 2), float(kl.mean()),
                     float(kl.min() - most(n // 2)), 'smallest KL - bound', 0., 0, control=True)]
    return rows


def agreement(runs: int) -> list[Row]:
    """Reward models of many pairs against Bayes; of as many with labels at random."""
    rows = list[Row]()
    for cell, flipped in (('labels by gold', 0.), ('labels at random', .5)):
        found = jax.device_get(accuracy(keys(runs, 'judged'), *models(keys(runs, 'model'), PAIRS, flipped)))
        model, bayes = found['model'], found['bayes']
        rows.append(Row(f'accuracy of the reward model, {cell}', float(bayes.mean()), float(model.mean()),
                        float((bayes - model).max()), 'largest difference to Bayes', .01, runs, control=flipped > 0))
        if not flipped:
            rows.append(Row('P(a over b) + P(b over a)', 1, float(1 + found['turned'].mean()),
                            float(found['turned'].max()), 'largest difference', 1e-6, 0))
    return rows


def over_optimised(seeds: int) -> list[Row]:
    """Gold reward of policies that go further and further for a reward: where it is highest, and at the end."""
    rows, few = list[Row](), keys(seeds, 'weak')
    language, by_token = models(few, FEW, FLIPPED, tokens=True)
    cases = (('sees transitions', models(few, FEW, FLIPPED)[1], .5, -.1), ('sees tokens', by_token, None, None),
             ('gold', language.gold, .5, -.1))
    for name, reward, share, fall in cases:
        found = jax.device_get(curves(language, reward))
        gold, control = found['gold'], name == 'gold'
        inside = float((gold.argmax(1) < len(SIZES) - 1).mean())
        common = gold[::2].mean(0).argmax()  # chosen by half of the languages, judged by the others
        end, peak, middle = gold[1::2, -1], gold.max(1), gold[1::2, common]
        cell = lambda text, name=name: f'reward model that {name}, {text}' if name != 'gold' else f'gold, {text}'
        rows += [
            Row(cell('peak inside of the range'), 1, inside, 1 - inside, '1 - share', share, seeds * len(SIZES),
                control=control),
            Row(cell('gold reward, at each peak to the end'), float(gold[:, -1].mean()), float(peak.mean()),
                upper(gold[:, -1] - peak), '95 % upper end of predicted - measured', fall, 0, control=control),
            Row(cell(f'gold reward, at {found["kl"][:, common].mean():.1f} nats to {found["kl"][:, -1].mean():.1f}'),
                float(end.mean()), float(middle.mean()), upper(end - middle), 'as above', fall, 0, control=control)]
    least = float(np.diff(gold).min())
    return [*rows, Row('gold, least step of gold reward', 0, least, -least, '-measured', 1e-9, 0)]


@TESTBEDS.register('reward', seeds=200,
                   runs=Setting(10, 2, 10**4, doc='languages with policies that are trained'),
                   steps=Setting(1000, 1, 10**6, doc='batches of policy gradients; steps of DPO'))
@in_float64
def reward(seeds: int, settings: Settings) -> list[Row]:
    """Reward models against Bayes, policies against closed forms, and what is gained on the way to a wrong reward."""
    return [*agreement(settings.runs), *reached(settings.runs, settings.steps), *chosen_best(settings.runs),
            *over_optimised(seeds)]
