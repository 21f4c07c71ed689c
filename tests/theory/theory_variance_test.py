"""Gain as misfit and cross term, means of teachers, and where losses lead."""
import numpy as np
import pytest
from scipy import optimize, special

from w2s_jax.theory import variance

RNG = np.random.default_rng(0)


def test_gain_is_misfit_and_cross_term_of_any_student():
    weak, student, truth = RNG.normal(size=(5, 40)), RNG.normal(size=40), RNG.normal(size=40)
    parts = variance.Parts(*map(float, variance.decomposed(weak, student, truth)))
    gain = ((weak - truth) ** 2).mean() - ((student - truth) ** 2).mean()
    assert parts.gain == pytest.approx(gain, rel=1e-4)
    assert parts.gain == pytest.approx(parts.misfit + parts.cross, rel=1e-3)
    assert parts.misfit == pytest.approx(((weak - student) ** 2).mean(), rel=1e-5)


def test_the_cross_term_of_the_mean_teacher_vanishes():
    weak, truth = RNG.normal(size=(5, 40)), RNG.normal(size=40)
    assert abs(variance.decomposed(weak, weak.mean(0), truth).cross) < 1e-5
    assert abs(variance.decomposed(weak, weak[0], truth).cross) > .1


def test_the_dual_mean_is_nearest_to_all_teachers():
    weak = RNG.dirichlet(np.ones(3), size=4)
    apart = lambda z: special.rel_entr(special.softmax(z), weak).sum(1).mean()
    found = special.softmax(optimize.minimize(apart, np.zeros(3)).x)
    np.testing.assert_allclose(variance.dual_mean(weak), found, atol=1e-4)


def test_reverse_cross_entropy_forgets_how_sure_a_label_is():
    labels = np.array([[.6, .4], [.1, .9]], np.float32)
    np.testing.assert_allclose(variance.minimiser('xent', labels), labels, atol=1e-4)
    np.testing.assert_allclose(variance.minimiser('reverse_xent', labels), [[1, 0], [0, 1]], atol=1e-3)
