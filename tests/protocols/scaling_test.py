"""Success by capability gap: fits of planted curves, nested steps in closed form, and the authors' own numbers."""
import functools
import itertools

import numpy as np
import pytest

from w2s_jax.errors import ConfigError, DataError
from w2s_jax.protocols import scaling
from w2s_jax.protocols.scaling import Elbows

X = np.linspace(900., 1500., 25)
PLANTED = [Elbows(-300, 200, 1050, 1350), Elbows(200, -300, 1050, 1350), Elbows(0, 50, 950, 1010),
           Elbows(10, 400, 1330, 1470), Elbows(-80, 160, 900, 1500)]
# Slope and intercept of ratings in four games, guard and houdini, and what the authors' code makes of them at a gap of
# 400 above 1103: success and the best number of steps (elo/theory-predictions.ipynb of arXiv 2504.18530's repository).
GAMES = [((1.5305382247861692, -622.9317463747565), (.8344154600833648, 173.2206142928111), .1106235944425842, 1),
         ((1.0983942546126946, -47.49890598669299), (.04936115584058696, 1080.3983558810423), .5135844751096337, 1),
         ((.7192614624976502, 552.0221384375485), (1.9518243250891987, -1361.61176329289), .2756914076767661, 2),
         ((1.1666737577004682, -229.07366870912878), (.6795738441484533, 422.0053838057133), .0979770020632037, 1)]


def relu(x):
    return np.maximum(x, 0)


@pytest.mark.parametrize('at', PLANTED)
def test_the_double_relu_is_two_relus_and_monotone(at):
    x = np.linspace(0, 2500, 501)
    slope = (at.high - at.low) / (at.second - at.first)
    found = scaling.double_relu(x, at)
    np.testing.assert_allclose(found, at.low + slope * (relu(x - at.first) - relu(x - at.second)), atol=1e-9)
    assert (np.diff(found) * np.sign(at.high - at.low) >= 0).all()
    assert found[0] == at.low and found[-1] == at.high


@pytest.mark.parametrize('at', PLANTED)
def test_a_fit_finds_what_was_planted(at):
    order = np.random.default_rng(0).permutation(len(X))
    found = scaling.fitted(X[order], scaling.double_relu(X, at)[order])
    np.testing.assert_allclose(found[:4], at[:4], rtol=1e-4, atol=.05)
    assert found.rest < 1e-4


@pytest.mark.parametrize('at', PLANTED[:2])
def test_a_fit_of_shares_finds_what_was_planted_and_stands_noise(at):
    share = scaling.success(X, at)
    np.testing.assert_allclose(scaling.fitted_success(X, share)[:4], at[:4], rtol=1e-3, atol=.5)
    games = 400
    seen = np.random.default_rng(1).binomial(games, share) / games
    found = scaling.fitted_success(X, seen)
    assert np.abs(scaling.success(X, found) - share).max() < .05
    np.testing.assert_allclose(found[:2], at[:2], atol=60)
    assert found.rest <= np.mean((seen - share) ** 2)


def test_weights_decide_between_points_that_disagree():
    x, y = np.repeat(X, 2), np.repeat(scaling.double_relu(X, PLANTED[0]), 2)
    y[1::2] += 100
    found = scaling.fitted(x, y, weights=np.tile([1., 0.], len(X)))
    np.testing.assert_allclose(found[:4], PLANTED[0][:4], rtol=1e-3, atol=.5)


def test_shares_of_nought_and_one_leave_ratings_finite():
    found = scaling.fitted_success(X, (X < 1200).astype(float))
    assert abs(found.low) <= scaling.MOST and abs(found.high) <= scaling.MOST and found.low > 0 > found.high
    np.testing.assert_allclose(scaling.success(X[[0, -1]], found), [1, 0], atol=.01)


@pytest.mark.parametrize(('guard', 'houdini', 'wanted', 'steps'), GAMES)
def test_nesting_is_that_of_the_published_code(guard, houdini, wanted, steps):
    line = lambda given: lambda x: given[0] * x + given[1]
    best = scaling.best_steps(lambda n: scaling.nested(line(guard), line(houdini), 1103., 400., n))
    assert best == (steps, pytest.approx(wanted, rel=1e-9))


def test_one_step_is_no_nesting_and_more_are_a_product():
    guard, houdini = (functools.partial(scaling.double_relu, at=at) for at in (PLANTED[0], PLANTED[4]))
    for n in (1, 2, 5):
        at = np.linspace(1000, 1400, n + 1)
        wanted = np.prod([1 / (1 + 10 ** ((houdini(b) - guard(a)) / 400)) for a, b in itertools.pairwise(at)])
        assert scaling.nested(guard, houdini, 1000, 400, n) == pytest.approx(wanted, rel=1e-12)


def test_a_curve_of_the_gap_alone_is_the_same_as_ratings_that_rise_alike():
    """Both lines of slope 1: the difference hangs on the gap alone."""
    curve = lambda gap: scaling.won(150 - gap)
    for n in (1, 3, 8):
        by_ratings = scaling.nested(lambda x: x + 150, lambda x: x, 777., 600., n)
        assert scaling.nested_by_gap(curve, 600., n) == pytest.approx(by_ratings, rel=1e-12)


def test_nesting_falls_with_the_gap_and_to_nothing_with_ever_more_steps():
    curve = functools.partial(scaling.success, at=Elbows(250, -400, 50, 500))
    gaps = np.linspace(0, 1500, 40)
    for n in (1, 2, 6):
        assert (np.diff([scaling.nested_by_gap(curve, gap, n) for gap in gaps]) <= 1e-15).all()
    assert scaling.nested_by_gap(curve, 0, 3) == pytest.approx(float(curve(0)) ** 3)
    assert scaling.nested_by_gap(curve, 400, 2000) < 1e-100
    sure = functools.partial(scaling.success, at=Elbows(600, -400, 50, 500))
    best, share = scaling.best_steps(lambda n: scaling.nested_by_gap(sure, 700, n))
    assert 1 < best < 20 and share > scaling.nested_by_gap(sure, 700, 1) + .2


@pytest.mark.parametrize(('x', 'y', 'said'), [
    (X[:4], X[:4], '4 points, expected at least 5'), (X, X[:5], 'as many finite numbers'),
    (X, X * np.nan, 'as many finite numbers'), (X * 0, X, '1 points, expected')])
def test_points_that_are_none_are_refused(x, y, said):
    with pytest.raises(DataError, match=said):
        scaling.fitted(x, y)


def test_shares_and_steps_out_of_range_are_refused():
    with pytest.raises(DataError, match=r'success: 0.9 to 1.5, expected shares'):
        scaling.fitted_success(X, X / 1000)
    with pytest.raises(DataError, match='weights below 0'):
        scaling.fitted(X, X, -X)
    with pytest.raises(ConfigError, match='steps: 0, expected at least 1'):
        scaling.nested_by_gap(scaling.won, 1., 0)
    with pytest.raises(ConfigError, match='steps: 0'):
        scaling.nested(scaling.won, scaling.won, 0., 1., 0)
