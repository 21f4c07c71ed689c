"""Projections on linear heads and on balls of them."""
import jax
import numpy as np
import pytest
from scipy import optimize

from w2s_jax.theory import misfit


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


RNG = np.random.default_rng(0)
FEATURES, TARGETS = RNG.normal(size=(60, 4)) * [1, 1, .1, .01], RNG.normal(size=(60, 2))


def test_heads_are_numpys():
    wanted = np.linalg.lstsq(FEATURES, TARGETS, rcond=None)[0]
    np.testing.assert_allclose(misfit.least_squares(FEATURES, TARGETS), wanted, rtol=1e-9)


def test_heads_of_features_that_depend_on_each_other_are_the_shortest():
    twice = np.concatenate([FEATURES, FEATURES[:, :1]], axis=1)
    wanted = np.linalg.pinv(twice) @ TARGETS
    np.testing.assert_allclose(misfit.least_squares(twice, TARGETS), wanted, rtol=1e-8, atol=1e-10)


def test_a_head_in_a_ball_is_the_best_one_there():
    radius = np.array([.5, 100.])  # the second is longer than any that it needs
    heads = np.asarray(misfit.in_ball(FEATURES, TARGETS, radius))
    square = lambda w: np.mean((FEATURES @ w - TARGETS[:, 0]) ** 2)
    found = optimize.minimize(square, np.zeros(4), method='SLSQP', options={'ftol': 1e-14},
                              constraints={'type': 'ineq', 'fun': lambda w: .25 - w @ w})
    np.testing.assert_allclose(heads[:, 0], found.x, atol=1e-5)
    assert np.linalg.norm(heads[:, 0]) == pytest.approx(.5, rel=1e-9)
    np.testing.assert_allclose(heads[:, 1], np.linalg.lstsq(FEATURES, TARGETS[:, 1], rcond=None)[0], rtol=1e-6)


def test_gain_equals_misfit_of_a_projection_and_of_nothing_else():
    truth = FEATURES @ RNG.normal(size=(4, 2))
    student = np.asarray(FEATURES @ misfit.least_squares(FEATURES, TARGETS))
    d = misfit.distances(TARGETS, student, truth)
    np.testing.assert_allclose(d.gain, d.misfit, rtol=1e-12)
    np.testing.assert_allclose(d.weak, ((TARGETS - truth) ** 2).mean(0), rtol=1e-12)
    assert abs(misfit.distances(TARGETS, .9 * student, truth).residual).min() > .01
    assert abs(misfit.distances(TARGETS, student, truth + RNG.normal(size=truth.shape)).residual).min() > .01
