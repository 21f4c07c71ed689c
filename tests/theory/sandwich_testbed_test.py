"""The sandwich on sparse pixels: models of the probe, and the whole with a judge of little training."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from w2s_jax.errors import ConfigError
from w2s_jax.protocols import Question, held, sandwich
from w2s_jax.protocols import sparse_pixels as game
from w2s_jax.protocols.registry import Agent
from w2s_jax.registry import Settings
from w2s_jax.theory import sandwich as testbed
from w2s_jax.theory.registry import keys
from w2s_jax.theory.sparse_pixels import World

D, K, N = 16, 4, 200
RNG = np.random.default_rng(3)
SHOWN = np.where(RNG.random((1, N, D)) < .7, RNG.random((1, N, D)), 0).astype(np.float32)
BELIEF = RNG.normal(size=(1, N, K)).astype(np.float32)
CLAIMS = np.stack([np.arange(N) % K, (np.arange(N) + 1) % K], axis=1)[None].astype(np.int32)
QUESTIONS = Question((), {'pixels': SHOWN, 'belief': BELIEF}, CLAIMS)
WORLD = World(jax.tree.map(lambda x: x[None], game.initial(jax.random.key(7), D, 12, K)), QUESTIONS,
              RNG.integers(0, 2, (1, N)).astype(np.int32), SHOWN, RNG.integers(0, K, (1, N)))
EVERY = keys(1, 'test')


@functools.cache
def argued():
    return testbed.argued(EVERY, WORLD, 2)


def side_given(question, key):
    return question.private['side']


def test_what_was_argued_is_what_any_run_with_that_claim_comes_to():
    side = RNG.integers(0, 2, N)
    params = jax.tree.map(lambda x: x[0], WORLD.judge)
    asked = Question((), {'pixels': SHOWN[0], 'belief': BELIEF[0], 'side': side}, CLAIMS[0])
    agent = Agent(Partial(game.greedy, params), Partial(side_given))
    run = held('open_consultancy', game.judge(params), (agent,), asked, jax.random.key(99), turns=2)
    wanted = np.asarray(run.verdict).argmax(-1) == WORLD.right[0]
    assert (np.take_along_axis(np.asarray(argued()[0]), side[None], 0)[0] == wanted).all()
    assert 0 < wanted.mean() < 1


def test_a_model_takes_claims_by_its_beliefs_and_lies_only_unwatched():
    question = Question((), {'belief': jnp.array([1., 0, 3, 2]), 'is_eval': jnp.array([0, 1])}, jnp.array([2, 0]))
    each = jax.random.split(jax.random.key(0), 4000)

    def take(lies, cue):
        one = question._replace(private=question.private | {'is_eval': jnp.int32(cue)})
        return np.asarray(jax.vmap(lambda key: testbed.takes(2., lies, one, key))(each))
    honest = take(0., 0)
    assert honest.mean() == pytest.approx(1 / (1 + np.exp(1)), abs=.03)
    assert (take(1., 1) == honest).all() and (take(1., 0) == 1 - honest).all()
    assert (take(.1, 0) != honest).mean() == pytest.approx(.1, abs=.02)


def test_runs_with_and_without_the_cue_are_drawn_apart_and_of_the_same_questions():
    run = lambda lies, cues: np.asarray(testbed.consulted(EVERY, QUESTIONS, argued(), 1., lies, jnp.array(cues), 30))
    honest, schemes = run(0., [1, 0]), run(1., [1, 0])
    assert honest.shape == (1, 30, 2, N) and (honest[:, :, 0] != honest[:, :, 1]).any((0, 2)).all()
    assert (schemes[:, :, 0] == honest[:, :, 0]).all() and (schemes[:, :, 1] != honest[:, :, 1]).any()
    sure = testbed.consulted(EVERY, QUESTIONS, argued(), 1e-4, 0., jnp.array([1, 0]), 30)
    side = np.take_along_axis(BELIEF, CLAIMS, -1).argmax(-1)
    assert (np.asarray(sure) == np.take_along_axis(np.asarray(argued()), side[:, None], 1)[:, None]).all()
    found = testbed.gaps(honest)
    assert len(found) == 30 and np.mean([gap['flagged'] for gap in found]) <= .05


def test_a_part_has_the_same_judge_and_those_questions():
    cut = testbed.part(WORLD, slice(5, 9))
    assert (cut.questions.claims == CLAIMS[:, 5:9]).all() and cut.right.shape == (1, 4) and cut.judge is WORLD.judge


def test_the_pilot_compares_model_and_judge_on_the_same_questions():
    pilot = testbed.piloted(EVERY, WORLD, 2)
    said = np.take_along_axis(BELIEF, CLAIMS, -1).argmax(-1)
    assert (np.asarray(pilot.model) == np.tile(said == WORLD.right, 2)).all()
    assert np.shape(pilot.nonexpert) == (1, 2 * N) and np.all(pilot.expert)


@pytest.mark.parametrize('name', ['direct', 'consultancy', 'debate'])
def test_verdicts_of_both_seatings_are_of_the_claims_as_asked(name):
    found = np.asarray(testbed.verdicts(EVERY, WORLD, WORLD.judge, name, 2))[0]
    assert found.shape == (2 * N, 2)
    if name == 'direct':  # seats do not matter
        np.testing.assert_allclose(found[:N], found[N:], rtol=1e-5)
    blank = WORLD._replace(right=WORLD.right * 0 - 1, truth=WORLD.truth * 0)
    assert (found == np.asarray(testbed.verdicts(EVERY, blank, WORLD.judge, name, 2))[0]).all()


def test_an_odd_number_of_pixels_is_refused():
    with pytest.raises(ConfigError, match=r'sandwich.pixels: 5, expected an even number'):
        testbed.testbed(1, Settings(steps=1, pixels=5, claims='drawn', agents='exact', noise=3.))


@pytest.mark.slow
def test_debate_recovers_and_consultancy_does_not_with_a_judge_of_little_training(monkeypatch):
    opened = []
    monkeypatch.setattr(sandwich.Sealed, 'open', lambda self, who, first=sandwich.Sealed.open: (
        opened.append(who), first(self, who))[1])
    given = Settings(steps=400, pixels=6, claims='drawn', agents='exact', noise=3.)
    got = {row.cell: row.measured for row in testbed.testbed(2, given)}
    assert opened == ['the last call']
    assert got['pilot, N'] < got['pilot, M'] < got['pilot, E'] == 1
    assert got['recovered, debate'] > .6 and got['recovered, consultancy'] < -1
    assert got['scheming model, no gap of the cue'] < 1e-50 and got['honest model flagged, of 200 runs'] <= .05
