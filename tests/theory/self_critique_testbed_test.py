"""Traces with one wrong step, critics that are trained on them, and the whole testbed in small."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2s_jax.theory import self_critique as testbed
from w2s_jax.theory.registry import keys

KEY = jax.random.key(2)


def test_traces_have_one_wrong_step_or_none_and_then_a_wrong_result():
    public = jax.device_get(testbed.traces(KEY, 2000).public)
    assert (np.sort(testbed.TABLE, axis=1) == np.arange(testbed.VALUES)).all()
    assert len(np.unique(testbed.TABLE, axis=0)) == testbed.OPERATIONS
    should = testbed.TABLE[public['operation'], public['before']]
    assert (public['wrong'] == (should != public['after'])).all() and public['wrong'].sum(1).max() == 1
    assert (public['before'][:, 1:] == public['after'][:, :-1]).all()
    some = public['wrong'].any(1)
    assert abs(some.mean() - testbed.SHARE) < .04 and set(public['wrong'].argmax(1)[some]) == set(range(testbed.STEPS))
    value = public['before'][:, 0]
    for operation in public['operation'].T:
        value = testbed.TABLE[operation, value]
    assert ((value != public['after'][:, -1]) == some).all()


def test_skills_are_counted_from_statements():
    true = np.array([[1, 1], [1, 0], [1, 1], [0, 1], [0, 0]], bool)
    found = testbed.skill(true)
    assert found.first == pytest.approx(.6) and found.true == [pytest.approx(2 / 3)] and found.false == [.5]


def test_votes_of_one_more_are_as_in_closed_form():
    questions = testbed.traces(KEY, 4000)
    got = float(testbed.voted_responses(questions, KEY, 2).mean())
    assert got == pytest.approx(testbed.game.vote_of_responses(testbed.VALUES, testbed.SHARE, 2), abs=.03)


def test_a_critic_does_not_see_which_step_is_wrong():
    questions = testbed.traces(KEY, 4)
    one = jax.tree.map(lambda x: x[0], questions)
    said = jax.tree.map(lambda x: x[0], testbed.before_the_judge(testbed.game.skilled(.5), questions, KEY, 1))
    params = testbed.Critic().init(KEY, one.public, said)
    slope = jax.grad(lambda wrong: sum(x.sum() for x in testbed.Critic().apply(
        params, one.public | {'wrong': wrong}, said)))(jnp.zeros(testbed.STEPS))
    assert (slope == 0).all()


@pytest.mark.slow
def test_critics_learn_and_depths_are_predicted_from_skills_measured_elsewhere():
    short, long = (testbed.of_trained(keys(1, 'a'), 8000, steps) for steps in (30, 400))
    assert long[0].measured > short[0].measured + .2
    assert all(row.holds for row in long if row.limit is not None)
