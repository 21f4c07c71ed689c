"""Iterated amplification (Christiano, Shlegeris, Amodei 2018, arXiv 1810.08575): a learner X learns to answer
questions that nobody answers for it. A human H, who can only look up primitive questions, decomposes others; a slow
copy X' of the learner answers the parts; X learns what H concludes: X(q) <- Amplify^H(X')(q).

Facts are int `[B, N, P]`, what a context says; questions int `[B, Q, F]`; answers int `[B, Q]`. A learner is any
`answer(params, facts, questions) -> logits [B, Q, A]`. No function here is given a true answer.
"""
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class Human(NamedTuple):
    """primitive: `(questions) -> bool [B, Q]`, which ones are looked up.  lookup: `(facts, questions, key) -> answers`
    of those.  ask: `(questions, answers so far [B, Q, K], turn) -> the next part, [B, Q, F]`; of the answers the first
    `turn` are there, the others are -1.  conclude: `(questions, answers [B, Q, K]) -> answers`.  parts: K."""
    primitive: Callable
    lookup: Callable
    ask: Callable
    conclude: Callable
    parts: int = 2


class Decomposition(NamedTuple):
    """What H did: questions `[B, Q, F]`, parts `[B, Q, K, F]`, answers to them `[B, Q, K]`, conclusion `[B, Q]`."""
    questions: jax.Array
    parts: jax.Array
    answers: jax.Array
    conclusion: jax.Array


class Learner(NamedTuple):
    """params, moments: of X and its optimiser.  teacher: of X', the mean of X.  level: the hardest that is asked.
    agreement: running share of its questions at which X and Amplify(X') agree.  model, model_moments: of H'."""
    params: Any
    moments: Any
    teacher: Any
    level: jax.Array
    agreement: jax.Array
    model: Any = ()
    model_moments: Any = ()


class Imitation(NamedTuple):
    """How H' learns. loss: `(params of H', a Decomposition) -> number`.  real: the H that it imitates.  watched: of so
    many contexts of a batch it is shown one question each."""
    loss: Callable
    real: Human
    watched: int = 8


class Course(NamedTuple):
    """How X learns.

    facts: `(key) -> [B, N, P]`.  questions: `(key, level) -> [B, Q, F]` of levels up to that one.  level: `(questions)
    -> [B, Q]`.  answer: the learner.  human: `(params of H') -> Human`, who makes the targets.  levels: the hardest
    question's.  optimizer: of X, and of H'.  memory: share of X' kept in a step, 1: it never moves.  recent: share of
    the running agreement kept in a step.  bar: agreement from which on the next level is asked.  imitation: of an
    H' that learns, or None.
    """
    facts: Callable
    questions: Callable
    level: Callable
    answer: Callable
    human: Callable
    levels: int
    optimizer: optax.GradientTransformation
    memory: float = .99
    recent: float = .98
    bar: float = .9
    imitation: Imitation | None = None


def amplified(human: Human, answer: Callable, facts: jax.Array, questions: jax.Array, key: jax.Array) -> Decomposition:
    """Amplify^H(X'): H asks its parts one after the other, X' answers those that H cannot look up, H concludes.

    Args:
      answer: X', `(facts, questions) -> logits [B, Q, A]`; the most probable answer is given.
      facts: `[B, N, P]`.  questions: `[B, Q, F]`; of primitive ones the conclusion is H's lookup.
    """
    keys = jax.random.split(key, human.parts + 1)
    parts, answers = list[jax.Array](), jnp.full((*questions.shape[:-1], human.parts), -1)
    for turn in range(human.parts):
        part = human.ask(questions, answers, turn)
        said = jnp.where(human.primitive(part), human.lookup(facts, part, keys[turn]), answer(facts, part).argmax(-1))
        parts, answers = [*parts, part], answers.at[..., turn].set(said)
    conclusion = jnp.where(human.primitive(questions), human.lookup(facts, questions, keys[-1]),
                           human.conclude(questions, answers))
    return Decomposition(questions, jnp.stack(parts, axis=-2), answers, conclusion)


def started(course: Course, params: Any, teacher: Any, model: Any = (), level: int = 0) -> Learner:
    """Before the first step; X' may begin elsewhere than X."""
    return Learner(params, course.optimizer.init(params), teacher, jnp.int32(level), jnp.float32(0), model,
                   course.optimizer.init(model))


def step(learner: Learner, key: jax.Array, course: Course) -> Learner:
    """One batch: targets of X' and H, a step of X towards them, X' after it, and the next level where they agree."""
    k = jax.random.split(key, 4)
    facts, questions = course.facts(k[0]), course.questions(k[1], learner.level)
    slow = lambda facts, questions: course.answer(learner.teacher, facts, questions)
    targets = jax.lax.stop_gradient(amplified(course.human(learner.model), slow, facts, questions, k[2]).conclusion)

    def loss(params):
        logits = course.answer(params, facts, questions)
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, targets).mean(), logits.argmax(-1)
    slope, said = jax.grad(loss, has_aux=True)(learner.params)
    updates, moments = course.optimizer.update(slope, learner.moments, learner.params)
    params = optax.apply_updates(learner.params, updates)
    teacher = optax.incremental_update(params, learner.teacher, 1 - course.memory)
    level, agreement = advanced(learner, said == targets, course.level(questions) == learner.level, course)
    learner = learner._replace(params=params, moments=moments, teacher=teacher, level=level, agreement=agreement)
    if course.imitation is None:
        return learner
    return imitated(learner, facts, questions, slow, k[3], course.imitation, course.optimizer)


def advanced(learner: Learner, agree: jax.Array, top: jax.Array, course: Course) -> tuple[jax.Array, jax.Array]:
    """Level and running agreement after a batch, from agreement `[B, Q]` at the questions `top` `[B, Q]` of the hardest
    level asked. It begins anew from 0 with each level; nothing but self-agreement moves it."""
    share = jnp.where(top.any(), (agree & top).sum() / jnp.maximum(top.sum(), 1), learner.agreement)
    agreement = course.recent * learner.agreement + (1 - course.recent) * share
    up = (agreement > course.bar) & (learner.level < course.levels)
    return learner.level + up, jnp.where(up, 0., agreement)


def imitated(learner: Learner, facts: jax.Array, questions: jax.Array, slow: Callable, key: jax.Array,
             imitation: Imitation, optimizer: optax.GradientTransformation) -> Learner:
    """H' after a step towards what the real H does with a few questions of the batch."""
    few = slice(imitation.watched)
    seen = amplified(imitation.real, slow, facts[few], questions[few, :1], key)
    slope = jax.grad(imitation.loss)(learner.model, seen)
    updates, moments = optimizer.update(slope, learner.model_moments, learner.model)
    return learner._replace(model=optax.apply_updates(learner.model, updates), model_moments=moments)
