"""Iterated amplification (w2s_jax/protocols/amplification.py) on algorithmic tasks (algorithms.py): no question above
level 0 is ever answered by anyone but the learner itself. Truth is for `accuracies` alone, after training.
"""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from w2s_jax.protocols.amplification import Course, Human, Imitation, Learner, amplified, started, step
from w2s_jax.registry import Setting, Settings
from w2s_jax.theory.algorithms import (
    Algorithm,
    Answerer,
    Imitator,
    careless,
    imitation_loss,
    misreading,
    model_human,
    powering,
    so_far,
    wildcard,
)
from w2s_jax.theory.registry import TESTBEDS, Row, keys
from w2s_jax.theory.sparse_pixels import at_least, at_most, reported

BATCH, ASKED = 64, 8  # contexts of a step, and questions about each
WIDTH, LAYERS = 64, 3
CHUNK = 200  # steps between looks at whether it is done
SETTLED = .995  # running self-agreement at the top level at which training ends
TESTED = 512  # contexts
SIZE, BITS, WRONG = 8, 3, .1  # things that are permuted; of a fact's number; share of wrong lookups
EXPONENTS = {'doubled': (1, 2, 4, 8, 16), 'all': tuple(range(1, 17))}


def network(algorithm: Algorithm) -> Answerer:
    """The learner's."""
    return Answerer(algorithm.fields_of_facts, algorithm.fields, algorithm.answers, WIDTH, LAYERS)


def imitator(algorithm: Algorithm, human: Human) -> Imitator:
    """The network of H'."""
    return Imitator(algorithm.fields, algorithm.answers, human.parts)


def course(algorithm: Algorithm, human: Human, rate: float, frozen: bool = False, imitates: bool = False) -> Course:
    """Of an algorithm and who decomposes."""
    levels = int(algorithm.levels.max())
    count, copy = jnp.asarray(np.bincount(algorithm.levels)), imitator(algorithm, human)

    def questions(key, level):
        at = jnp.asarray(algorithm.levels)
        weight = jnp.where(at == level, 1 if frozen else jnp.maximum(level, 1), 1)  # else half are of the hardest level
        chance = jnp.where(at <= level, weight / count[at], 0)
        return jnp.asarray(algorithm.every)[jax.random.choice(key, len(at), (BATCH, ASKED), p=chance / chance.sum())]

    def level(questions):
        place = jnp.asarray(np.cumprod((1, *algorithm.fields[:0:-1]))[::-1])
        return jnp.asarray(algorithm.levels)[questions @ place]
    return Course(lambda key: algorithm.facts(key, BATCH), questions, level, network(algorithm).apply,
                  (lambda params: model_human(human, copy, params)) if imitates else lambda params: human, levels,
                  optax.adam(rate), memory=1. if frozen else .99,
                  imitation=Imitation(functools.partial(imitation_loss, copy, human), human) if imitates else None)


@functools.partial(jax.jit, static_argnames=('course', 'steps'))
def some(learners: Learner, every: jax.Array, first: int, course: Course, steps: int) -> Learner:
    """The learners `[keys, ...]` after so many steps more, each with its own key."""
    def one(learner, key):
        walk = lambda learner, now: (step(learner, jax.random.fold_in(key, now), course), None)
        return jax.lax.scan(walk, learner, first + jnp.arange(steps))[0]
    return jax.vmap(one)(learners, every)


def beginners(every: jax.Array, course: Course, net: Answerer, model: Imitator, level: int) -> Learner:
    """A learner of each key that has learned nothing, with an X' and an H' of their own starts."""
    def one(key):
        k = jax.random.split(key, 4)
        facts, questions = course.facts(k[0])[:1], course.questions(k[0], level)[:1, :1]
        x, slow = (net.init(k, facts, questions) for k in k[1:3])
        nothing = jnp.full((1, 1, model.parts), -1)
        return started(course, x, slow, model.init(k[3], questions, nothing, 0), level)
    return jax.jit(jax.vmap(one))(every)


def trained(every: jax.Array, algorithm: Algorithm, human: Human, settings: Settings, steps: int, frozen: bool = False,
            opened: bool = False, imitates: bool = False) -> tuple[Learner, int]:
    """Learners `[keys, ...]`, and after how many steps they were done: all agree with themselves at the top level, or
    `steps`. frozen: X' stays what it was.  opened: all levels are asked from the first step on."""
    chosen = course(algorithm, human, settings.rate, frozen, imitates)
    learners = beginners(every, chosen, network(algorithm), imitator(algorithm, human), chosen.levels * opened)
    for first in range(0, steps, CHUNK):
        learners = some(learners, every, first, chosen, CHUNK)
        done = (learners.level == chosen.levels) & (learners.agreement > SETTLED)
        if bool(done.all()) and not opened:
            break
    return learners, first + CHUNK


def by_level(algorithm: Algorithm, right: jax.Array) -> np.ndarray:
    """Means `[seeds, levels + 1]` of `[seeds, M]`, one of each question."""
    return np.stack([np.asarray(right)[:, algorithm.levels == k].mean(1) for k in range(algorithm.levels.max() + 1)], 1)


def accuracies(algorithm: Algorithm, learners: Learner, key: jax.Array) -> np.ndarray:
    """Of X at all questions about TESTED further contexts, `[seeds, levels + 1]`."""
    facts, questions = examined(algorithm, key)
    right = algorithm.truth(facts, questions)
    said = lambda params: jnp.argmax(jnp.asarray(network(algorithm).apply(params, facts, questions)), axis=-1)
    return by_level(algorithm, jax.lax.map(lambda params: (said(params) == right).mean(0), learners.params))


def guessed(algorithm: Algorithm, key: jax.Array) -> np.ndarray:
    """The same, `[levels + 1]`, of one who does not look at facts."""
    facts, questions = examined(algorithm, key)
    right = algorithm.guess(facts, questions) == algorithm.truth(facts, questions)
    return by_level(algorithm, right.mean(0)[None])[0]


def examined(algorithm: Algorithm, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Facts `[TESTED, N, P]` and all questions about each `[TESTED, M, F]`."""
    return algorithm.facts(key, TESTED), jnp.broadcast_to(algorithm.every, (TESTED, *algorithm.every.shape))


def imitation(algorithm: Algorithm, learners: Learner, key: jax.Array) -> np.ndarray:
    """How often H' asks and concludes all that H does, `[seeds]`, at questions that are not looked up; X' answers."""
    human, (facts, questions) = algorithm.human, examined(algorithm, key)

    def one(learner):
        copy = model_human(human, imitator(algorithm, human), learner.model)
        answer = functools.partial(network(algorithm).apply, learner.teacher)
        seen = amplified(human, answer, facts, questions, key)
        same = copy.conclude(questions, seen.answers) == seen.conclusion
        for turn in range(human.parts):
            same &= (copy.ask(questions, so_far(seen, turn), turn) == seen.parts[..., turn, :]).all(-1)
        asked = ~human.primitive(questions)
        return (same & asked).sum() / asked.sum()
    return np.asarray(jax.lax.map(one, learners))


def leveled(cell: str, got: np.ndarray, guess: np.ndarray, taken: int, bar: float | None = None) -> list[Row]:
    """A row for each level, predicted being the guess, and how long it took; of the top level there is a bar."""
    rows = [reported(f'{cell}, level {k}', x)._replace(predicted=g)
            for k, (x, g) in enumerate(zip(got.T, guess, strict=True))]
    if bar is not None:
        rows[-1] = at_least(f'{cell}, level {len(guess) - 1}', bar, got[:, -1], len(got))
    return [*rows, reported(f'{cell}, steps', taken)]


def fails(cell: str, bar: float, values: np.ndarray) -> Row:
    """A control that must stay below the bar in all seeds."""
    return Row(cell, bar, float(np.mean(values)), bar - float(np.max(values)), 'bar - best', 0., len(values), True)


@TESTBEDS.register('amplification', seeds=1,
                   steps=Setting(6000, CHUNK, 10**6, doc='at most, of training'),
                   rate=Setting(1e-3, 0, 1, '(]', doc='of Adam'),
                   powers=Setting('doubled', choices=tuple(EXPONENTS), doc='exponents: 1, 2, 4, 8, 16, or 1 to 16'),
                   controls=Setting(1600, CHUNK, 10**6, doc='steps of those who cannot settle'))
def amplification(seeds: int, settings: Settings) -> list[Row]:
    """Learners that answer what nobody answers for them, by amplification of a human who can only look up facts."""
    every = keys(seeds, 'amplification')
    return [*of_powers(every, settings), *of_patterns(every, settings)]


def of_powers(every: jax.Array, settings: Settings) -> list[Row]:
    """Powers of a permutation of 8 things, and the same with X' as it began."""
    task, test = powering(SIZE, EXPONENTS[settings.powers]), jax.random.fold_in(every[0], 1)
    guess = guessed(task, test)
    learners, taken = trained(every, task, task.human, settings, settings.steps)
    still, _ = trained(every, task, task.human, settings, settings.controls, frozen=True, opened=True)
    stuck = accuracies(task, still, test)
    return [*leveled('powering', accuracies(task, learners, test), guess, taken, .99),
            at_least("powering, X' frozen, level 1", .9, stuck[:, 1], len(every)),
            *(at_most(f"powering, X' frozen, level {k}", .2, stuck[:, k]) for k in range(2, stuck.shape[1]))]


def of_patterns(every: jax.Array, settings: Settings) -> list[Row]:
    """Counts of what matches a pattern: with H, with an H' that imitates it, with lookups that are wrong."""
    task, test = wildcard(BITS), jax.random.fold_in(every[0], 2)
    guess = guessed(task, test)
    run = lambda human=task.human, **how: trained(every, task, human, settings, **({'steps': settings.steps} | how))
    right = lambda learners: accuracies(task, learners, test)
    learners, taken = run()
    rows = leveled('wildcard', right(learners), guess, taken, .99)
    learners, taken = run(imitates=True)
    rows += leveled("wildcard, H'", right(learners), guess, taken, .99)
    rows.append(reported("wildcard, H' says all that H does", imitation(task, learners, test)))
    slips, errs = careless(task, WRONG), misreading(task, every[0], 2 ** BITS, WRONG)
    learners, _ = run(slips, steps=settings.controls)
    rows += [fails('wildcard, lookups wrong at random, top level', .9, right(learners)[:, -1]),
             reported('wildcard, lookups wrong at random, level reached', learners.level)]
    learners, _ = run(slips, steps=settings.controls, opened=True)
    rows.append(reported('the same, all levels asked at once', right(learners)[:, -1]))
    learners, _ = run(errs)
    return [*rows, fails('wildcard, lookups wrong for certain facts, top level', .9, right(learners)[:, -1])]
