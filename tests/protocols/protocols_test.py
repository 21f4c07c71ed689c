"""What every protocol keeps to, on a game of numbers: who speaks when, what is seen, what verdicts hang on."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from w2s_jax.errors import ConfigError
from w2s_jax.protocols import PROTOCOLS, Agent, Judge, Question, both, held, swapped
from w2s_jax.protocols.protocols import best_of, pushing
from w2s_jax.protocols.registry import JUDGE, NOBODY, blank
from w2s_jax.registry import Settings

N = 12
KEY = jax.random.key(3)


def said_so_far(scale, question, transcript, side, key):
    """A message that says how many were seen before it, for whom, and something at random."""
    seen = transcript.said.sum()
    size = scale * (1 + seen) + question.private * jax.random.uniform(key)
    return {'seen': seen.astype(jnp.float32), 'vote': jnp.where(jnp.asarray(side) == 1, -size, size)}


def look(question, transcript, side, key):
    return {'seen': transcript.said.sum().astype(jnp.float32), 'vote': question.private * jax.random.normal(key)}


def count_votes(bias, transcript):
    """Votes for the first claim are positive; a claim's own number counts as well, and a seat does not."""
    z = bias * (transcript.claims[0] - transcript.claims[1])
    return jax.nn.softmax(jnp.stack([z + jnp.sum(transcript.messages['vote'] * transcript.said), 0.]))


def largest(question, key):
    return jnp.argmax(question.claims)


JUDGING = Judge(Partial(count_votes, .1), {'seen': jnp.float32(0), 'vote': jnp.float32(0)}, Partial(look))
LOUD, QUIET = (Agent(Partial(said_so_far, scale), Partial(largest)) for scale in (.5, .1))
QUESTIONS = Question(np.arange(N, dtype=np.int32), np.linspace(.1, 1, N, dtype=np.float32),
                     np.stack([np.arange(N), np.arange(N)[::-1] + 20], 1).astype(np.int32))
judged = jax.jit(jax.vmap(JUDGING.judge))
CASES = {'answers_only': {}, 'direct': {'turns': 4}, 'consultancy': {'turns': 4}, 'open_consultancy': {'turns': 4},
         'debate': {'rounds': 2, 'order': 'sequential'}, 'critique': {'turns': 4}, 'self_critique': {'depth': 3}}
BLANK = blank(JUDGING, jax.tree.map(lambda x: x[3], QUESTIONS), 2)


def agents(name, *some):
    return (some or (LOUD, QUIET))[:PROTOCOLS[name].options['agents']]


@functools.cache
def usual(name):
    return held(name, JUDGING, agents(name), QUESTIONS, KEY, **CASES[name])


def run(name, questions=QUESTIONS, key=KEY, judge=JUDGING, **more):
    return held(name, judge, agents(name), questions, key, **CASES[name] | more)


def test_every_protocol_is_looked_at():
    assert set(CASES) == set(PROTOCOLS)


@pytest.mark.parametrize('name', CASES)
def test_the_verdict_hangs_on_the_transcript_alone(name):
    found = usual(name)
    again = np.asarray(judged(found._replace(verdict=np.full((N, 2), np.nan, np.float32))))
    np.testing.assert_allclose(found.verdict, again, rtol=1e-6)
    assert np.asarray(found.verdict).std() > .01
    other = np.asarray(judged(found._replace(claims=np.asarray(found.claims)[:, ::-1])))
    assert np.abs(other - again).max() > .01


@pytest.mark.parametrize('name', CASES)
def test_one_question_is_judged_as_many_are(name):
    found = jax.device_get(usual(name))
    alone = jax.jit(functools.partial(PROTOCOLS[name].fn, settings=Settings(CASES[name])))
    for i in (0, 5, N - 1):
        question = jax.tree.map(lambda x, i=i: x[i], QUESTIONS)
        one = alone(JUDGING, agents(name), question, jax.random.fold_in(KEY, i))
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a, b[i], rtol=1e-5, atol=1e-6), one, found)


@pytest.mark.parametrize('name', CASES)
def test_others_do_not_matter_to_a_question(name):
    some = jax.tree.map(lambda x: x[:5], QUESTIONS)
    same = lambda a, b: np.testing.assert_allclose(a, b[:5], rtol=1e-5, atol=1e-6)
    jax.tree.map(same, *jax.device_get((run(name, some), usual(name))))


def test_debaters_take_turns_and_argue_for_their_own_claims():
    found = usual('debate')
    assert np.asarray(found.seat).tolist() == [[0, 1, 0, 1]] * N == np.asarray(found.side).tolist()
    assert np.asarray(found.said).all()
    assert (np.sign(found.messages['vote']) == [1, -1, 1, -1]).all()
    assert found.messages['seen'][0].tolist() == [0, 1, 2, 3]


def test_in_simultaneous_rounds_the_second_has_not_seen_the_first():
    assert run('debate', order='simultaneous').messages['seen'][0].tolist() == [0, 0, 2, 2]


def test_consultants_argue_for_either_with_even_odds_and_judges_look_for_nobody():
    many = jax.tree.map(lambda x: np.tile(x, (50,) + (1,) * (x.ndim - 1)), QUESTIONS)
    found = run('consultancy', many)
    side = np.asarray(found.side)
    assert (side == side[:, :1]).all() and abs(side[:, 0].mean() - .5) < 4 * .5 / np.sqrt(50 * N)
    assert (np.asarray(found.seat) == 0).all()
    assert (np.asarray(usual('direct').seat) == JUDGE).all() and (np.asarray(usual('direct').side) == NOBODY).all()
    chosen = np.asarray(usual('open_consultancy').side)
    assert (chosen == np.asarray(QUESTIONS.claims).argmax(1)[:, None]).all()


def test_in_the_other_seating_consultants_argue_for_the_other_claim():
    side = np.asarray(both('consultancy', JUDGING, (LOUD,), QUESTIONS, KEY, turns=3).side)
    claims = np.asarray([QUESTIONS.claims, swapped(QUESTIONS).claims])
    argued = np.take_along_axis(claims, side[..., :1].astype(int), -1)
    assert (argued[0] != argued[1]).all()


def test_seats_are_swapped_with_claims_and_agents():
    """In simultaneous rounds nothing hangs on the order, if the agents draw nothing at random."""
    still = QUESTIONS._replace(private=np.zeros(N, np.float32))
    found = both('debate', JUDGING, (LOUD, QUIET), still, KEY, rounds=2, order='simultaneous')
    np.testing.assert_allclose(found.verdict[0], found.verdict[1][:, ::-1], rtol=1e-5)
    assert (np.asarray(found.claims[0]) == np.asarray(found.claims[1])[:, ::-1]).all()
    louder = np.abs(found.messages['vote'][..., ::2]) > np.abs(found.messages['vote'][..., 1::2])
    assert louder[0].all() and not louder[1].any()
    turns = both('debate', JUDGING, (LOUD, QUIET), still, KEY, rounds=2)
    assert np.abs(np.asarray(turns.verdict[0] - turns.verdict[1][:, ::-1])).max() > .01


@pytest.mark.parametrize('side', [0, 1])
def test_colluders_argue_for_one_claim(side):
    found = held('debate', JUDGING, (pushing(LOUD, side),) * 2, QUESTIONS, KEY, rounds=2)
    assert (np.asarray(found.messages['vote']) * (1 - 2 * side) > 0).all()
    assert np.asarray(found.side)[0].tolist() == [0, 1, 0, 1]  # as they were told


def test_keys_decide_what_is_random():
    votes = lambda key: np.asarray(run('debate', key=key).messages['vote'])
    assert (votes(KEY) == votes(jax.random.key(3))).all() and (votes(KEY) != votes(jax.random.key(4))).all()
    assert len(np.unique(votes(KEY)[3])) == 4


def test_other_parameters_are_no_other_program():
    from w2s_jax.protocols.registry import _held
    run('debate')
    before = _held._cache_size()
    run('debate', judge=JUDGING._replace(judge=Partial(count_votes, .7)))
    assert _held._cache_size() == before
    run('debate', rounds=1)
    assert _held._cache_size() == before + 1


@pytest.mark.parametrize(('name', 'some', 'given', 'said'), [
    ('debat', (), {}, "unknown 'debat', expected one of .*did you mean 'debate'"),
    ('debate', (LOUD,), {}, 'debate: 1 agents, expected 2'),
    ('debate', (LOUD, LOUD), {'turns': 3}, "debate: unknown setting 'turns', expected one of rounds, order"),
    ('debate', (LOUD, LOUD), {'rounds': -1}, r'debate.rounds: -1, expected a number in \[0, 500\]'),
    ('open_consultancy', (LOUD._replace(choose=None),), {}, 'agent.choose: None, expected a function')])
def test_what_cannot_be_held_is_said_in_a_line(name, some, given, said):
    with pytest.raises(ConfigError, match=said):
        held(name, JUDGING, some, QUESTIONS, KEY, **given)


def test_a_judge_that_cannot_look_judges_nothing_directly():
    with pytest.raises(ConfigError, match=r'judge.look: None'):
        run('direct', judge=JUDGING._replace(look=None))


def test_a_critic_argues_against_what_was_proposed():
    found = usual('critique')
    proposed = np.asarray(found.claims).argmax(1)
    np.testing.assert_array_equal(np.asarray(found.side), np.repeat(1 - proposed[:, None], 4, 1))
    np.testing.assert_array_equal(np.asarray(found.seat), 1)
    with pytest.raises(ConfigError, match=r'agent\.choose: None'):
        held('critique', JUDGING, (Agent(LOUD.speak), QUIET), QUESTIONS, KEY)


def test_the_best_of_n_is_the_one_the_judge_likes_most():
    one, some = (held('consultancy', JUDGING, (best_of(LOUD, JUDGING, n),), QUESTIONS, KEY, turns=3) for n in (1, 8))
    of_side = lambda found: np.take_along_axis(np.asarray(found.verdict), np.asarray(found.side)[:, :1], 1)[:, 0]
    assert (of_side(some) >= of_side(one) - 1e-6).all() and (of_side(some) > of_side(one) + 1e-3).mean() > .5
    drawn = jax.vmap(lambda key: said_so_far(.5, jax.tree.map(lambda x: x[3], QUESTIONS), BLANK, 1, key)['vote'])(
        jax.random.split(KEY, 8))
    said = best_of(LOUD, JUDGING, 8).speak(jax.tree.map(lambda x: x[3], QUESTIONS), BLANK, 1, KEY)
    assert float(said['vote']) == pytest.approx(float(drawn.min()))  # votes for the second claim are negative
