"""Recursive self-critique (w2s_jax/protocols/self_critique.py; Wen et al. 2025, arXiv 2502.04675) on traces of a
computation: critics of set skill against closed forms, votes of the same compute, and trained critics.

A trace applies STEPS operations, each a permutation of VALUES values, one after the other; a wrong step has another
result than its operation, from which the next step goes on. So a wrong step never mends itself, and the result of a
trace is wrong if and only if a step is.
"""
import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from w2s_jax.protocols import Question, Transcript, held, scores
from w2s_jax.protocols import self_critique as game
from w2s_jax.protocols.registry import Agent
from w2s_jax.registry import Setting, Settings
from w2s_jax.theory.registry import TESTBEDS, Row, keys

STEPS, VALUES, OPERATIONS, SHARE = 16, 7, 7, .5  # SHARE of traces has a wrong step
SKILLS = (.95, .8, .6, .5)
DEPTHS = (0, 1, 2, 3, 4)
LENGTHS = (30, 50, 100)  # steps of training
TRAINED = 3  # orders of trained critics
BATCH, RATE, WIDTH = 128, 3e-3, 32
TABLE = np.random.default_rng(0).permuted(np.tile(np.arange(VALUES), (OPERATIONS, 1)), axis=1)  # a row an operation


def traces(key: jax.Array, count: int) -> Question:
    """Questions whether traces are right. public: {'wrong' [N, T], 'before', 'operation', 'after' int [N, T]}; only
    critics may read more than one step."""
    k = jax.random.split(key, 5)
    operation = jax.random.randint(k[0], (count, STEPS), 0, OPERATIONS)
    at = jax.random.randint(k[1], (count, 1), 0, STEPS)
    wrong = (jnp.arange(STEPS)[None] == at) & jax.random.bernoulli(k[2], SHARE, (count, 1))
    shift = jnp.where(wrong, jax.random.randint(k[3], (count, 1), 1, VALUES), 0)

    def one(before, now):
        operation, shift = now
        after = (jnp.asarray(TABLE)[operation, before] + shift) % VALUES
        return after, (before, after)
    first = jax.random.randint(k[4], (count,), 0, VALUES)
    before, after = jax.lax.scan(one, first, (operation.T, shift.T))[1]
    public = {'wrong': wrong, 'before': before.T, 'operation': operation, 'after': after.T}
    return Question(public, (), jnp.broadcast_to(jnp.arange(2), (count, 2)))


def right(questions: Question) -> np.ndarray:
    """The number of the right claim, `[N]`: 1 where a step is wrong."""
    return np.asarray(questions.public['wrong'].any(-1)).astype(int)


class Critic(nn.Module):
    """One question and a transcript to logits: `[T]`, which step is wrong, and of the last statement being true."""

    @nn.compact
    def __call__(self, public: dict, transcript: Transcript):
        hot = [jax.nn.one_hot(public[name], n)
               for name, n in (('before', VALUES), ('operation', OPERATIONS), ('after', VALUES))]
        spoken = transcript.said & (transcript.seat == 0)
        named = (jnp.arange(STEPS) == transcript.messages['step'][0]) & spoken[0]
        denied = (spoken & ~transcript.messages['says']).sum() % 2
        about = jnp.stack([named, jnp.full(STEPS, denied)], axis=-1).astype(jnp.float32)
        x = nn.Dense(WIDTH)(jnp.concatenate([*hot, about], axis=-1))
        x += nn.Dense(WIDTH)(nn.relu(nn.Dense(4 * WIDTH)(x)))
        x += nn.MultiHeadDotProductAttention(2)(nn.LayerNorm()(x))
        x += nn.Dense(WIDTH)(nn.relu(nn.Dense(2 * WIDTH)(nn.LayerNorm()(x))))
        point = nn.Dense(2)(x)
        return point[:, 0], (jnp.where(named, point[:, 1], 0)).sum()


def trained_agent(params: Any) -> Agent:
    """Speaks at order i with the i-th of the parameters `[orders, ...]`."""
    return Agent(jax.tree_util.Partial(_speak, params))


def _speak(params, question, transcript, side, key):
    order = transcript.said.sum()
    said: Any = Critic().apply(jax.tree.map(lambda x: x[order], params), question.public, transcript)
    steps, true = said
    return {'step': jnp.where(order == 0, steps.argmax(), transcript.messages['step'][0]).astype(jnp.int32),
            'says': (order == 0) | (true > 0)}


def critic_loss(params: Any, question: Question, transcript: Transcript, order: int) -> jax.Array:
    """Of a critic of one question: of the wrong step at order 1, above it of whether the last statement is true."""
    steps, true = Critic().apply(params, question.public, transcript)
    wrong = question.public['wrong']
    if order == 1:
        return jnp.where(wrong.any(), optax.losses.softmax_cross_entropy_with_integer_labels(steps, wrong.argmax()), 0)
    return optax.losses.sigmoid_binary_cross_entropy(true, game.is_true(question, transcript).astype(jnp.float32))


def among(params: Any, order: int) -> Agent:
    """The trained critic of one order, those of other orders being simulated, right half of the time."""
    return Agent(jax.tree_util.Partial(_among, params, order))


def _among(params, order, question, transcript, side, key):
    other = game.skilled(.5).speak(question, transcript, side, key)
    mine = _speak(params, question, transcript, side, key)
    return jax.tree.map(lambda a, b: jnp.where(transcript.said.sum() == order - 1, a, b), mine, other)


def before_the_judge(agent: Agent, questions: Question, key: jax.Array, depth: int) -> Transcript:
    """What the critics said, without the judge's look."""
    found = held('self_critique', game.judge(), (agent,), questions, key, depth=depth)
    return found._replace(said=found.said & (found.seat == 0))


def critic(key: jax.Array, below: Any, order: int, steps: jax.Array) -> Any:
    """Parameters of a critic of that order after so many steps of Adam, above trained ones `[order - 1, ...]`."""
    optimizer, first = optax.adam(RATE), jax.random.fold_in(key, 0)
    others = trained_agent(below) if order > 1 else game.skilled(1.)  # at order 1 nobody has spoken

    def batch(key):
        k = jax.random.split(key)
        questions = traces(k[0], BATCH)
        return questions, before_the_judge(others, questions, k[1], order - 1)

    def loss(params, questions, said):
        return jax.vmap(lambda q, t: critic_loss(params, q, t, order))(questions, said).mean()

    def step(now, state):
        params, moments = state
        updates, moments = optimizer.update(jax.grad(loss)(params, *batch(jax.random.fold_in(key, now))), moments)
        return optax.apply_updates(params, updates), moments
    one = jax.tree.map(lambda x: x[0], batch(first))
    params = Critic().init(first, one[0].public, one[1])
    return jax.lax.fori_loop(1, steps + 1, step, (params, optimizer.init(params)))[0]


@functools.partial(jax.jit, static_argnames='order')
def critics(every: jax.Array, below: Any, order: int, steps: jax.Array) -> Any:
    """`critic` of each key, its own, above `[keys, order - 1, ...]`."""
    return jax.lax.map(lambda x: critic(x[0], x[1], order, steps), (every, below))


def trained(every: jax.Array, orders: int, steps: int) -> Any:
    """Parameters `[keys, orders, ...]`, each order's critic with a start and batches of its own."""
    found: Any = ()
    for order in range(1, orders + 1):
        own = jax.vmap(lambda key, order=order: jax.random.fold_in(key, order))(every)
        one = jax.tree.map(lambda x: x[:, None], critics(own, found, order, jnp.int32(steps)))
        found = one if order == 1 else jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), found, one)
    return found


class Skill(NamedTuple):
    """Of critics on traces with a wrong step: first, how often order 1 names it; true, false: of each order above how
    often it is right where the statement below is true, and where it is false."""
    first: float
    true: list[float]
    false: list[float]


def truth(questions: Question, transcript: Transcript) -> np.ndarray:
    """Which statements are true, bool `[N, orders]`, of traces with a wrong step."""
    some = np.asarray(questions.public['wrong'].any(-1))
    wrong = np.asarray(questions.public['wrong'])[some]
    step, says = (np.asarray(transcript.messages[x])[some] for x in ('step', 'says'))
    found = [np.take_along_axis(wrong, step[:, :1], 1)[:, 0]]
    for order in range(1, transcript.said.shape[1] - 1):
        found.append(says[:, order] == found[-1])
    return np.stack(found, axis=1)


def skill(true: np.ndarray) -> Skill:
    """From which statements were true `[N, orders]`. Of an order that never met a case, which has no weight, NaN."""
    share = lambda now, at: float(now[at].mean()) if at.any() else np.nan
    pairs = list(zip(true.T[:-1], true.T[1:], strict=True))
    return Skill(float(true[:, 0].mean()), [share(b, a) for a, b in pairs], [share(b, ~a) for a, b in pairs])


def judged(agent: Agent, questions: Question, key: jax.Array, depth: int) -> float:
    """The judge's accuracy."""
    found = held('self_critique', game.judge(), (agent,), questions, key, depth=depth)
    return scores.accuracy(found.verdict, right(questions))


@functools.partial(jax.jit, static_argnames='votes')
def voted_critiques(questions: Question, key: jax.Array, chance: float, votes: int) -> jax.Array:
    """Whether the judge is right `[N]` who verifies the step that most of so many critics of that skill name."""
    wrong, k = questions.public['wrong'], jax.random.split(key)
    speak = jax.vmap(lambda key: held('self_critique', game.judge(), (game.skilled(chance),), questions, key,
                                      depth=1).messages['step'][:, 0])
    count = jax.nn.one_hot(speak(jax.random.split(k[0], votes)), STEPS).sum(0)
    step = (count + jax.random.uniform(k[1], count.shape)).argmax(-1)  # of equals any
    return jnp.take_along_axis(wrong, step[:, None], 1)[:, 0] == wrong.any(-1)


@functools.partial(jax.jit, static_argnames='votes')
def voted_responses(questions: Question, key: jax.Array, votes: int) -> jax.Array:
    """Whether one is right `[N]` who compares a trace's result with that of most of so many other traces of the same
    question, which go through its operations from its first value."""
    public, k = questions.public, jax.random.split(key, 4)
    shape = (votes, len(public['wrong']), STEPS)
    wrong = (jnp.arange(STEPS)[None, None] == jax.random.randint(k[0], (*shape[:2], 1), 0, STEPS))
    wrong &= jax.random.bernoulli(k[1], SHARE, (*shape[:2], 1))
    shift = jnp.where(wrong, jax.random.randint(k[2], shape, 1, VALUES), 0)

    def one(before, now):
        operation, shift = now
        return (jnp.asarray(TABLE)[operation, before] + shift) % VALUES, None
    start = jnp.broadcast_to(public['before'][:, 0], shape[:2])
    ends = jax.lax.scan(one, start, (public['operation'].T, jnp.moveaxis(shift, -1, 0)))[0]
    own = public['after'][:, -1]
    count = jax.nn.one_hot(jnp.concatenate([own[None], ends]), VALUES).sum(0)
    best = (count + jax.random.uniform(k[3], count.shape)).argmax(-1)
    return (best == own) == ~public['wrong'].any(-1)


def close(cell: str, predicted: float, measured: float, limit: float | None) -> Row:
    """Of two accuracies that are to agree."""
    return Row(cell, predicted, measured, abs(measured - predicted), 'difference', limit, 0)


def formula(critic: float, depth: int) -> float:
    """The judge's accuracy with critics of one skill at all orders."""
    return game.accuracy(STEPS, SHARE, critic if depth else None, *[[critic] * max(depth - 1, 0)] * 2)


def of_set_skill(every: jax.Array, asked: int) -> list[Row]:
    """Depths and votes beside their closed forms, what a first critic is worth, and what a second costs."""
    count = asked * len(every)
    questions, rows, lost = traces(every[0], count), list[Row](), []
    for i, q in enumerate(SKILLS):
        key = jax.random.fold_in(every[0], i + 1)
        got = [judged(game.skilled(q), questions, key, depth) for depth in DEPTHS]
        rows += [close(f'skill {q}, depth {d}', formula(q, d), got[d], .01) for d in DEPTHS]
        if q >= .8:
            rows.append(Row(f'skill {q}, depth 1 - depth 0', .25, got[1] - got[0], .25 - got[1] + got[0],
                            'bar - difference', 0., 0))
        lost.append(got[2] - got[1])
        rows.append(Row(f'skill {q}, depth 2 - depth 1', formula(q, 2) - formula(q, 1), lost[-1],
                        lost[-1] - min(0, *lost[:-1], 0), 'above 0 or above that of more skill', 0., 0))
        rows += [close(f'skill {q}, vote of {n} critiques', game.vote_of_critiques(STEPS, SHARE, q, n),
                       float(voted_critiques(questions, key, q, n).mean()), .01) for n in DEPTHS[2:]]
    rows += [close(f'vote with {n} more responses', game.vote_of_responses(VALUES, SHARE, n),
                   float(voted_responses(questions, every[0], n).mean()), .01) for n in DEPTHS[1:]]
    wrong = judged(game.skilled(.8), questions, every[0], 2)
    return [*rows, close('skill .8 at depth 2, with the formula of depth 1', formula(.8, 1), wrong, .01)._replace(
        control=True)]


def of_trained(every: jax.Array, asked: int, steps: int) -> list[Row]:
    """Trained critics: accuracy by depth, and predicted from skills that were measured on other traces."""
    params = trained(every, TRAINED, steps)
    found: dict[str, list[float]] = {}
    put = lambda name, value: found.setdefault(name, []).append(value)
    for seed, key in enumerate(every):
        k = jax.random.split(key, 4)
        mine = jax.tree.map(lambda x, seed=seed: x[seed], params)
        agent = trained_agent(mine)
        other, questions = traces(k[0], asked), traces(k[1], asked)
        place = skill(truth(other, before_the_judge(agent, other, k[2], TRAINED)))
        single = [skill(truth(other, before_the_judge(among(mine, order), other, k[2], TRAINED)))
                  for order in range(2, TRAINED + 1)]
        alone = Skill(place.first, *([x[i] for i, x in enumerate(side)] for side in
                                     zip(*(s[1:] for s in single), strict=True)))
        put('skill 1', place.first)
        for order in range(2, TRAINED + 1):
            put(f'skill {order}', (place.true[order - 2] + place.false[order - 2]) / 2)
        for depth in range(TRAINED + 1):
            put(f'depth {depth}', judged(agent, questions, k[3], depth))
            for name, x in (('in place', place), ('alone', alone)):
                above = max(depth - 1, 0)
                put(f'{name} {depth}', game.accuracy(STEPS, SHARE, x.first if depth else None,
                                                     *(np.nan_to_num(y[:above]).tolist() for y in x[1:])))
    mean = {name: float(np.mean(x)) for name, x in found.items()}
    rows = [Row(f'trained {steps} steps, skill of order {i}', np.nan, mean[f'skill {i}'], np.nan, '', None, len(every))
            for i in range(1, TRAINED + 1)]
    for name, limit in (('in place', .03), ('alone', None)):
        rows += [close(f'trained {steps} steps, depth {d}, skills measured {name}', mean[f'{name} {d}'],
                       mean[f'depth {d}'], limit) for d in range(1 if name == 'in place' else 2, TRAINED + 1)]
    return rows


@TESTBEDS.register('self_critique', seeds=3, asked=Setting(20_000, 100, 10**7, doc='traces of a seed'))
def self_critique(seeds: int, settings: Settings) -> list[Row]:
    """Critics of critics of a trace with one wrong step, of set skill and trained, against closed forms and votes."""
    every = keys(seeds, 'self critique')
    return [*of_set_skill(every, settings.asked), *(
        row for steps in LENGTHS for row in of_trained(every, settings.asked, steps))]
