"""Critics of critics: what the judge makes of them, their truth, and closed forms against sums over all cases."""
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2s_jax.errors import ConfigError
from w2s_jax.protocols import Judge, Question, held
from w2s_jax.protocols import self_critique as game

KEY, T, N = jax.random.key(3), 4, 3000
AT = np.arange(N) % (2 * T)  # of half of the traces the wrong step, the others are right
WRONG = AT[:, None] == np.arange(T)
QUESTIONS = Question({'wrong': jnp.asarray(WRONG)}, (), jnp.zeros((N, 2), jnp.int32))


def asked(agent, depth):
    return jax.device_get(held('self_critique', game.judge(), (agent,), QUESTIONS, KEY, depth=depth))


def test_critics_without_error_name_the_wrong_step_and_confirm_it():
    found = asked(game.skilled(1.), 3)
    some = AT < T
    assert (found.messages['step'][some, 0] == AT[some]).all() and found.messages['says'][some, :3].all()
    assert (found.verdict.argmax(1) == some).all()


def test_what_a_critic_says_is_about_the_one_before_it():
    found = asked(game.skilled(.6), 3)
    step, says = found.messages['step'], found.messages['says']
    true = np.take_along_axis(WRONG, step[:, :1], 1)[:, 0]
    some = AT < T
    assert abs(true[some].mean() - .6) < .05 and not true[~some].any()
    for order in (1, 2):
        true = says[:, order] == true
        assert abs(true.mean() - .6) < .05


def test_the_judge_verifies_the_named_step_exactly_if_an_even_number_denies():
    found = asked(game.skilled(.5), 3)
    denied = (~found.messages['says'][:, :3]).sum(1)
    looked = found.messages['step'][:, 3]
    assert (looked == found.messages['step'][:, 0])[denied % 2 == 0].all()
    assert abs((looked == found.messages['step'][:, 0])[denied % 2 == 1].mean() - 1 / T) < .05
    assert (found.verdict[:, 1] == np.take_along_axis(WRONG, looked[:, None], 1)[:, 0]).all()


def test_a_right_trace_is_never_taken_for_wrong():
    assert (asked(game.skilled(.3), 2).verdict[AT >= T].argmax(1) == 0).all()


@pytest.mark.parametrize('depth', [0, 1, 2, 3])
def test_the_closed_form_is_the_sum_over_all_that_can_be_said(depth):
    first, right = .7, [(.9, .6), (.55, .8)][:max(depth - 1, 0)]
    total = 0.
    for truths in itertools.product([True, False], repeat=depth):
        chance, last, stands = 1., None, depth > 0
        for order, true in enumerate(truths):
            p = first if order == 0 else right[order - 1][0 if last else 1]
            if order:
                stands ^= true != last  # it denies: it says that the statement below is false
            chance, last = chance * (p if true else 1 - p), true
        total += chance * (float(truths[0]) if stands else 1 / T)
    true, false = [a for a, _ in right], [b for _, b in right]
    got = game.accuracy(T, .3, first if depth else None, true, false)
    assert got == pytest.approx(.7 + .3 * total)


def test_measured_is_predicted_and_a_third_order_changes_nothing():
    for depth in (1, 2, 3):
        skills = [.8] * (depth - 1)
        said = (asked(game.skilled(.8), depth).verdict.argmax(1) == (AT < T)).mean()
        assert said == pytest.approx(game.accuracy(T, .5, .8, skills, skills), abs=.025)
    assert game.accuracy(T, .5, .8, [.8], [.8]) == pytest.approx(game.accuracy(T, .5, .8, [.8] * 2, [.8] * 2))


def test_winners_of_votes_by_hand():
    np.testing.assert_allclose(game.winners([.6, .4], 1), [.6, .4])
    np.testing.assert_allclose(game.winners([.6, .4], 3), [.648, .352])
    np.testing.assert_allclose(game.winners([.6, .4], 1, 0), [.8, .2])  # one each: either as often
    np.testing.assert_allclose(game.winners([.5, .3, .2], 2), [.5, .3, .2])
    assert game.vote_of_critiques(T, .5, .6, 1) == pytest.approx(game.accuracy(T, .5, .6))
    assert game.vote_of_responses(3, .5, 1) == pytest.approx(.5 * (.5 + .25) + .5 * (1 - .25 - .75 / 2))


def test_too_many_votes_and_a_judge_who_cannot_look_are_refused():
    with pytest.raises(ConfigError, match='votes: 9 for 16 options'):
        game.winners([1 / 16] * 16, 9)
    with pytest.raises(ConfigError, match=r'judge.look: None'):
        held('self_critique', Judge(*game.judge()[:2]), (game.skilled(1.),), QUESTIONS, KEY)
