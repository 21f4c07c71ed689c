"""The sparse-pixel game: what the judge may see, and agents against trying every pixel by hand."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2s_jax.errors import ConfigError
from w2s_jax.protocols import Question, both, held
from w2s_jax.protocols import sparse_pixels as game
from w2s_jax.protocols.protocols import pushing
from w2s_jax.registry import Settings
from w2s_jax.theory import sparse_pixels as testbed

D, K, N = 16, 4, 8
KEY = jax.random.key(0)


RNG = np.random.default_rng(7)
PARAMS = game.initial(jax.random.key(7), D, 12, K)
SHOWN = np.where(RNG.random((N, D)) < .7, RNG.random((N, D)), 0).astype(np.float32)
BELIEF = RNG.normal(size=(N, K)).astype(np.float32)
CLAIMS = np.stack([np.arange(N) % K, (np.arange(N) + 1 + np.arange(N) // K) % K], axis=1).astype(np.int32)
QUESTIONS = Question((), {'pixels': SHOWN, 'belief': BELIEF}, CLAIMS)
JUDGE, AGENT = game.judge(PARAMS), game.advocate(PARAMS)
judged = jax.jit(jax.vmap(JUDGE.judge))


@functools.cache
def debate():
    return jax.device_get(held('debate', JUDGE, (AGENT, AGENT), QUESTIONS, KEY, rounds=2))


def by_numpy(pixels, seen):
    """The judge's logits `[K]`."""
    p = jax.device_get(PARAMS)
    hidden = np.maximum(np.r_[pixels * seen, seen] @ p['w1'] + p['b1'], 0)
    return hidden @ p['w2'] + p['b2']


def test_every_message_is_a_pixel_as_it_is_and_no_pixel_comes_twice():
    at, value = (np.asarray(debate().messages[x]) for x in ('at', 'value'))
    assert (value == np.take_along_axis(SHOWN, at, 1)).all() and (value > 0).all()
    assert all(len(set(row)) == 4 for row in at)


@pytest.mark.parametrize('side', [0, 1])
def test_a_greedy_agent_finds_the_best_of_all_pixels(side):
    before = debate()._replace(said=np.tile([True, True, False, False], (N, 1)))
    speak = jax.jit(jax.vmap(lambda question, transcript: AGENT.speak(question, transcript, side, KEY)))
    for i, (found, claims) in enumerate(zip(speak(QUESTIONS, before)['at'], CLAIMS, strict=True)):
        shown, worth = before.messages['at'][i, :2], np.full(D, -np.inf)
        for pixel in set(np.flatnonzero(SHOWN[i])) - set(shown.tolist()):
            logits = by_numpy(SHOWN[i], np.isin(np.arange(D), [*shown, pixel]).astype(np.float32))[claims]
            worth[pixel] = logits[side] - logits[1 - side]
        assert int(found) == worth.argmax()


def test_the_judge_is_the_network_on_what_was_revealed():
    for shown, pixels, claims, verdict in zip(debate().messages['at'], SHOWN, CLAIMS, debate().verdict, strict=True):
        logits = by_numpy(pixels, np.isin(np.arange(D), shown).astype(np.float32))[claims]
        np.testing.assert_allclose(verdict, np.exp(logits) / np.exp(logits).sum(), rtol=1e-4)


def test_hidden_pixels_have_no_gradient_in_the_verdict_and_revealed_ones_have():
    def first(pixels):
        asked = QUESTIONS._replace(private={'pixels': pixels, 'belief': BELIEF})
        return held('debate', JUDGE, (AGENT, AGENT), asked, KEY, rounds=2).verdict[:, 0].sum()
    slope = np.asarray(jax.jit(jax.grad(first))(SHOWN))
    shown = (debate().messages['at'][..., None] == np.arange(D)).any(1)
    assert (slope[~shown] == 0).all() and (slope[shown] != 0).mean() > .9


def test_turns_that_did_not_take_place_change_nothing():
    found = debate()._replace(said=np.tile([True, True, True, False], (N, 1)))
    at, value = (found.messages[x].copy() for x in ('at', 'value'))
    at[:, 3], value[:, 3] = 5, 9
    assert (judged(found) == judged(found._replace(messages={'at': at, 'value': value}))).all()
    assert (judged(found) != debate().verdict).any()


def test_pixels_that_are_masked_change_nothing_whoever_masks_them():
    """Judges are trained on whole images with a mask, so that it is the network that must not look."""
    seen = (RNG.random((N, D)) < .4).astype(np.float32)
    logits = jax.jit(testbed.answers)
    other = np.where(seen > 0, SHOWN, 1 - SHOWN)
    assert (logits(PARAMS, SHOWN, seen) == logits(PARAMS, other, seen)).all()
    assert (logits(PARAMS, SHOWN, seen) != logits(PARAMS, SHOWN, np.ones_like(seen))).any(1).all()


def test_who_said_it_and_when_does_not_matter_to_the_judge():
    found = debate()
    turned = found._replace(messages={k: x[:, ::-1] for k, x in found.messages.items()}, seat=1 - found.seat,
                            side=1 - found.side)
    np.testing.assert_allclose(found.verdict, judged(turned), rtol=1e-5)
    other = np.asarray(judged(found._replace(claims=found.claims[:, ::-1])))
    np.testing.assert_allclose(found.verdict[:, ::-1], other, rtol=1e-5)


@pytest.mark.parametrize(('name', 'given'), [('direct', {'turns': 3}), ('answers_only', {})])
def test_without_agents_seats_do_not_matter(name, given):
    found = jax.device_get(both(name, JUDGE, (), QUESTIONS, KEY, **given))
    assert (found.messages['at'][0] == found.messages['at'][1]).all()
    np.testing.assert_allclose(found.verdict[0], found.verdict[1][:, ::-1], rtol=1e-5)


def test_alone_an_agent_does_better_for_its_claim_than_chance_and_than_with_an_opponent():
    looked = held('direct', JUDGE, (), QUESTIONS, KEY, turns=4).verdict
    for side in (0, 1):
        alone = held('debate', JUDGE, (pushing(AGENT, side),) * 2, QUESTIONS, KEY, rounds=2).verdict[:, side]
        assert alone.mean() > max(looked[:, side].mean(), debate().verdict[:, side].mean()) + .05


def test_an_agent_that_chooses_believes_in_its_choice():
    found = held('open_consultancy', JUDGE, (AGENT,), QUESTIONS, KEY, turns=2)
    assert (np.asarray(found.side)[:, 0] == np.take_along_axis(BELIEF, CLAIMS, 1).argmax(1)).all()


def test_masks_show_pixels_that_are_there_and_every_number_of_them():
    images = jnp.where(jnp.arange(D)[None] < 9, jnp.ones((6000, D)), 0).at[0].set(0).at[1, 2:].set(0)
    seen = np.asarray(testbed.masks(KEY, images, 4))
    assert set(np.unique(seen)) == {0, 1} and (seen <= np.asarray(images)).all() and seen[1].sum() <= 2
    counts = np.bincount(seen[2:].sum(1).astype(int), minlength=5)
    assert len(counts) == 5 and abs(counts / 5998 - .2).max() < .03
    assert abs(seen[2:, :9].mean(0) - 2 / 9).max() < .03


@pytest.mark.parametrize('claims', testbed.CLAIMS)
def test_wrong_claims_are_wrong(claims):
    truth, belief = jnp.arange(3000) % 10, jax.random.normal(KEY, (3000, 10))
    other = np.asarray(testbed.wrong(KEY, truth, belief, claims))
    assert (other != truth).all() and len(np.unique(other)) == 10
    if claims == 'likely':
        rest = np.where(np.arange(10) == np.asarray(truth)[:, None], -np.inf, belief)
        assert (other == rest.argmax(1)).all()
    else:
        assert abs(np.bincount((other - truth) % 10, minlength=10)[1:] / 3000 - 1 / 9).max() < .03


def test_bars_are_cleared_by_bounds_not_by_means():
    sure, unsure = np.array([.96, .961, .962, .961]), np.array([.9, 1., .95, 1.])
    assert testbed.at_least('', .95, sure).holds and not testbed.at_least('', .95, unsure).holds
    assert testbed.at_most('', .97, sure).holds and not testbed.at_most('', .97, unsure).holds
    assert testbed.at_least('', .95, sure).measured == pytest.approx(.961)


def test_an_odd_number_of_pixels_is_refused():
    with pytest.raises(ConfigError, match=r'sparse_pixels.pixels: 5, expected an even number'):
        testbed.sparse_pixels(1, Settings(steps=1, pixels=5, claims='drawn'))


@pytest.mark.slow
def test_debate_beats_consultancy_with_a_judge_of_little_training(monkeypatch):
    monkeypatch.setattr(testbed, 'LENGTHS', (100,))
    got = {row.cell: row.measured for row in testbed.sparse_pixels(2, Settings(steps=400, pixels=6, claims='drawn'))}
    assert got['debate, truth first'] > got['random pixels'] > got['consultancy'] + .1
    assert got['debate, colluders for the lie'] < .2 < got['consultancy']
    assert got['consultancy, for the truth'] > .9 > .1 > got['consultancy, for the lie']
    assert got['labels of debate'] > got['labels of random pixels'] > got['labels of consultancy'] + .1
    assert got['student of debate, 100 steps'] > got['student of consultancy, 100 steps']
    assert got['Elo, truth - lie, greedy'] > 100 and got['Elo, greedy - at random, for the truth'] > 100
