"""Scores of verdicts against numbers by hand, and ratings against those that the games were drawn from."""
import numpy as np
import pytest
from scipy import special

from w2s_jax.errors import DataError
from w2s_jax.protocols import scores

VERDICT = np.array([[.9, .1], [.4, .6], [.5, .5], [.2, .8]])
RIGHT = np.array([0, 0, 1, 1])


def test_by_hand():
    assert scores.of_right(VERDICT, RIGHT).tolist() == [.9, .4, .5, .8]
    assert scores.correct(VERDICT, RIGHT).tolist() == [1, 0, .5, 1]
    assert scores.accuracy(VERDICT, RIGHT) == 2.5 / 4
    assert scores.brier(VERDICT, RIGHT) == pytest.approx((.01 + .36 + .25 + .04) / 4)
    odds = np.log([9, 4 / 6, 1, 4])
    assert scores.agent_score_difference(VERDICT, RIGHT) == pytest.approx(odds.mean())


def test_a_judge_that_always_takes_the_first_is_right_in_half_of_both_seatings():
    first = np.tile([.8, .2], (2, 4, 1))
    assert scores.accuracy(first, scores.in_both(RIGHT)) == .5
    assert scores.agent_score_difference(first, scores.in_both(RIGHT)) == pytest.approx(0)
    turned = np.stack([VERDICT, VERDICT[:, ::-1]])
    assert scores.accuracy(turned, scores.in_both(RIGHT)) == scores.accuracy(VERDICT, RIGHT)


def test_consultants_are_compared_by_what_they_argued_for():
    side = np.array([0, 1, 1, 0])  # true, false, true, false: judged at .9, .6, .5, .2
    wanted = np.log([.9, .5]).mean() - np.log([.6, .2]).mean()
    assert scores.agent_score_difference(VERDICT, RIGHT, side) == pytest.approx(wanted)
    assert np.isnan(scores.agent_score_difference(VERDICT, RIGHT, RIGHT))


def test_a_judge_that_believes_everything_pays_honesty_nothing():
    side = np.array([0, 1, 1, 0])
    gullible = np.where(side[:, None] == np.arange(2), .99, .01)
    assert scores.agent_score_difference(gullible, RIGHT, side) == pytest.approx(0)


def test_ratings_are_found_again():
    rng, ratings, seat = np.random.default_rng(0), np.array([150., 0., -50., -100.]), 40.
    first, second = rng.integers(0, 4, (2, 40_000))
    chance = special.expit((ratings[first] - ratings[second] + seat) / scores.ELO)
    found, advantage = scores.bradley_terry(first, second, chance)  # expected results: exact but for the prior
    np.testing.assert_allclose(found, ratings, atol=.1)
    assert advantage == pytest.approx(seat, abs=.1)
    found, advantage = scores.bradley_terry(first, second, rng.random(40_000) < chance)
    np.testing.assert_allclose(found, ratings, atol=8)
    assert advantage == pytest.approx(seat, abs=8)


def test_400_points_are_ten_to_one_and_who_always_wins_has_a_rating():
    games = np.zeros(11, int), np.ones(11, int), np.r_[np.ones(10), 0]
    seats = [np.r_[a, b] for a, b in zip(games, (*games[1::-1], 1 - games[2]), strict=True)]
    found, advantage = scores.bradley_terry(*seats)
    assert found[0] - found[1] == pytest.approx(400, abs=3) and abs(advantage) < 1e-3
    sure = scores.bradley_terry(np.array([0, 1]), np.array([1, 0]), np.array([1, 0]))[0]
    assert np.isfinite(sure).all() and sure[0] > sure[1] + 400


def test_protocols_are_paired_by_question():
    rng = np.random.default_rng(1)
    hard = rng.random(400)
    a, b = (hard < .9).astype(float), (hard < .8).astype(float)  # the same questions are hard for both
    found, shuffled = scores.compared(a, b), scores.compared(a, rng.permutation(b))
    assert found['mean'] == pytest.approx(a.mean() - b.mean()) == shuffled['mean']
    assert 0 < found['low'] < found['mean'] < found['high'] and found['p'] < 1e-6 < shuffled['p']
    width = lambda x: x['high'] - x['low']
    assert width(found) < .8 * width(shuffled) and width(found) == pytest.approx(4 * np.sqrt(.09 / 400), rel=.15)
    assert scores.compared(a, a)['p'] == 1
    with pytest.raises(DataError, match='expected the same questions'):
        scores.compared(a, b[1:])


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match=r'verdict: shape \(4, 2\), expected \(2, 4, 2\)'):
        scores.brier(VERDICT, scores.in_both(RIGHT))
