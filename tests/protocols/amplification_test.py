"""Amplification: what H makes of X', that nobody else answers, and how far X is asked."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from w2s_jax.protocols import amplification
from w2s_jax.protocols.amplification import Course, amplified, started
from w2s_jax.theory import algorithms
from w2s_jax.theory.algorithms import Answerer, Imitator, careless, misreading, model_human, powering, wildcard

KEY = jax.random.key(5)
TASKS = {'doubled': powering(5, (1, 2, 4, 8)), 'all': powering(5, (1, 2, 3, 4, 5, 6, 7, 8)), 'wildcard': wildcard(3)}


def every(task, count=6):
    return task.facts(KEY, count), jnp.broadcast_to(task.every, (count, *task.every.shape))


def oracle(task, facts, questions):
    return jax.nn.one_hot(task.truth(facts, questions), task.answers)


def by_hand(name, facts, question):
    """The answer by the definition."""
    if name == 'wildcard':
        return sum(f[-1] for f in facts if all(p in (2, b) for p, b in zip(question, f[:-1], strict=True)))
    x = question[1]
    for _ in range((1, 2, 4, 8)[question[0]] if name == 'doubled' else question[0] + 1):
        x = facts[x, 1]
    return x


@pytest.mark.parametrize('name', TASKS)
def test_truth_is_by_definition_and_h_with_a_right_x_finds_it(name):
    task = TASKS[name]
    facts, questions = every(task)
    found = amplified(task.human, functools.partial(oracle, task), facts, questions, KEY)
    truth = np.asarray(task.truth(facts, questions))
    assert (np.asarray(found.conclusion) == truth).all()
    assert all(truth[i, j] == by_hand(name, np.asarray(facts[i]), task.every[j])
               for i in range(3) for j in range(len(task.every)))


@pytest.mark.parametrize('name', TASKS)
def test_parts_are_questions_of_the_task_and_easier(name):
    task = TASKS[name]
    facts, questions = every(task)
    parts = np.asarray(amplified(task.human, functools.partial(oracle, task), facts, questions, KEY).parts)
    level = {tuple(q): k for q, k in zip(task.every.tolist(), task.levels, strict=True)}
    for j, k in enumerate(task.levels):
        if k:
            assert all(level[tuple(p)] < k for p in parts[:, j].reshape(-1, parts.shape[-1]).tolist())
    assert (np.asarray(task.human.primitive(jnp.asarray(task.every))) == (task.levels == 0)).all()


def test_above_level_1_targets_are_those_of_x_right_or_wrong():
    task = TASKS['doubled']
    facts, questions = every(task)
    wrong = lambda facts, questions: jax.nn.one_hot(jnp.zeros(questions.shape[:-1], int), 5)
    found = np.asarray(amplified(task.human, wrong, facts, questions, KEY).conclusion)
    truth = np.asarray(task.truth(facts, questions))
    assert (found[:, task.levels <= 1] == truth[:, task.levels <= 1]).all() and (found[:, task.levels > 1] == 0).all()


def test_lookups_are_wrong_as_often_as_said_at_random_or_for_certain_facts():
    task = TASKS['doubled']
    facts, questions = every(task, 400)
    first = questions[:, task.levels == 0]
    right = np.asarray(task.truth(facts, first))
    slips = [np.asarray(careless(task, .1).lookup(facts, first, key)) != right for key in jax.random.split(KEY)]
    assert abs(slips[0].mean() - .1) < .03 and (slips[0] != slips[1]).any()
    human = misreading(task, KEY, 5, .1)
    errors = np.asarray(human.lookup(facts, first, KEY)) != right
    pairs = {(x, y) for x, y in zip(*(a[errors] for a in np.broadcast_arrays(np.arange(5), right)), strict=True)}
    assert len(pairs) == 2 and abs(errors.mean() - .08) < .03
    assert (errors == (np.asarray(human.lookup(facts, first, jax.random.key(9))) != right)).all()


def course(**changes):
    task = TASKS['doubled']
    answer = lambda params, facts, questions: jnp.broadcast_to(params['bias'], (*questions.shape[:-1], 5))
    human = task.human._replace(conclude=lambda questions, answers: jnp.ones_like(answers[..., 0]),
                                primitive=lambda questions: jnp.zeros(questions.shape[:-1], bool))
    questions = lambda key, level: jnp.stack([jnp.full((4, 3), level), jnp.zeros((4, 3), int)], axis=-1)
    return Course(lambda key: task.facts(key, 4), questions, lambda questions: questions[..., 0], answer,
                  lambda params: human, 3, optax.sgd(1.), recent=.5)._replace(**changes)


def test_levels_advance_by_agreement_alone_and_not_past_the_last():
    """H concludes 1 of all questions, which is wrong: who agrees goes on."""
    run = jax.jit(amplification.step, static_argnames='course')
    agrees, disagrees = ({'bias': jnp.eye(5)[i] * 9} for i in (1, 2))
    seen = course()
    learner, levels = started(seen, agrees, agrees), []
    for i in range(16):
        learner = run(learner, jax.random.fold_in(KEY, i), seen)
        levels.append(int(learner.level))
    assert levels == [0, 0, 0, 1] + [1, 1, 1, 2] + [2, 2, 2, 3] + [3] * 4  # 1 - .5^4 > .9
    fixed = course(optimizer=optax.sgd(0.))
    learner = started(fixed, disagrees, agrees)
    assert int(run(learner, KEY, fixed).level) == 0 and float(run(learner, KEY, fixed).agreement) == 0


def test_the_teacher_follows_slowly_or_never():
    begun = {'bias': jnp.zeros(5)}
    for memory, share in ((.9, .1), (1., 0.)):
        chosen = course(memory=memory)
        after = amplification.step(started(chosen, begun, {'bias': jnp.ones(5)}), KEY, chosen)
        moved = np.asarray(after.params['bias'])
        assert moved[1] > 0 and (moved[[0, 2, 3, 4]] < 0).all()
        np.testing.assert_allclose(after.teacher['bias'], (1 - share) + share * moved, rtol=1e-5)


def test_answers_to_a_question_depend_on_no_other_question():
    task = TASKS['wildcard']
    facts, questions = every(task, 2)
    net = Answerer(task.fields_of_facts, task.fields, task.answers, 8, 1, 2)
    params = net.init(KEY, facts, questions[:, :1])
    answer = jax.jit(net.apply)
    np.testing.assert_allclose(answer(params, facts, questions)[:, 5:6], answer(params, facts, questions[:, 5:6]),
                               rtol=1e-4, atol=1e-5)


def test_a_model_of_h_learns_what_h_says():
    task = TASKS['doubled']
    facts, questions = every(task, 16)
    seen = amplified(task.human, functools.partial(oracle, task), facts, questions, KEY)
    copy = Imitator(task.fields, task.answers, 2, 64)
    params, optimizer = copy.init(KEY, questions, seen.answers, 0), optax.adam(1e-2)

    def step(state, _):
        loss, slope = jax.value_and_grad(lambda p: algorithms.imitation_loss(copy, task.human, p, seen))(state[0])
        updates, moments = optimizer.update(slope, state[1])
        return (optax.apply_updates(state[0], updates), moments), loss
    (params, _), losses = jax.jit(lambda s: jax.lax.scan(step, s, None, 200))((params, optimizer.init(params)))
    human = model_human(task.human, copy, params)
    again = amplified(human, functools.partial(oracle, task), facts, questions, KEY)
    assert float(losses[-1]) < .1 * float(losses[0])
    assert float((again.conclusion == seen.conclusion).mean()) > .95
