"""Bounds at their worst cases, and calibration errors by hand."""
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from sklearn.linear_model import LogisticRegression

from w2s_jax.registry import Settings
from w2s_jax.theory import TESTBEDS, bounds

RNG = np.random.default_rng(0)


def test_half_the_bound_on_losses_is_nearly_met_and_none_is_beyond_it():
    """Pinsker's inequality is sharp of even answers, where the truth is a class alone the loss moves the most."""
    d = special.rel_entr([.5, .5], [.501, .499]).sum()
    assert .99 < np.log(.501 / .5) / (float(bounds.loss_bound(d, .499)) / 2) < 1
    weak, student = np.array([.01, .99]), np.array([.03, .97])
    assert np.log(3) < float(bounds.loss_bound(special.rel_entr(weak, student).sum(), .01)) / 2


def test_the_bound_on_calibration_is_met_by_opposite_answers():
    assert float(bounds.calibration_bound(100.)) == pytest.approx(2)
    assert float(bounds.calibration_bound(.01)) == pytest.approx(.2, rel=.01)


def test_marginal_errors_are_those_of_a_loop():
    answers, truth, group = RNG.dirichlet(np.ones(3), 12), RNG.dirichlet(np.ones(3), 12), RNG.integers(0, 4, 12)
    wanted = sum(abs((answers - truth)[group == g].sum(0)).sum() for g in range(4)) / 12
    assert float(bounds.marginal_error(answers, truth, group)) == pytest.approx(wanted, rel=1e-5)
    assert float(bounds.marginal_error(answers, truth, np.arange(12))) == pytest.approx(
        abs(answers - truth).sum(1).mean(), rel=1e-5)


def test_groups_of_equal_mass():
    score = RNG.normal(size=12)
    group = np.asarray(bounds.equal_mass(jnp.asarray(score), 3))
    assert np.bincount(group).tolist() == [4, 4, 4]
    assert score[group == 0].max() < score[group == 1].min() < score[group == 1].max() < score[group == 2].min()


def test_gaps_are_differences_to_the_same_truth():
    truth, weak, student = RNG.dirichlet(np.ones(3), size=(3, 20))
    found = bounds.gaps(*map(jnp.asarray, (truth, weak, student)))
    risk = lambda f: special.rel_entr(truth, f).sum(1).mean()
    assert float(found.loss) == pytest.approx(abs(risk(weak) - risk(student)), rel=1e-4)
    assert float(found.d) == pytest.approx(special.rel_entr(weak, student).sum(1).mean(), rel=1e-5)
    assert float(found.gamma) == pytest.approx(min(weak.min(), student.min()), rel=1e-5)
    assert float(found.calibration) == pytest.approx(
        abs(abs(weak - truth).sum(1).mean() - abs(student - truth).sum(1).mean()), rel=1e-4)


def test_gradient_descent_ends_at_logistic_regression():
    x, labels = RNG.normal(size=(60, 2)), RNG.integers(0, 2, 60)
    fitted = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-8).fit(x, labels)
    heads = bounds.trained(jnp.asarray(x), jnp.asarray(labels, jnp.float32), 300)
    np.testing.assert_allclose(heads[-1], fitted.coef_[0], atol=1e-3)
    np.testing.assert_allclose(heads[0], .5 * x.T @ (labels - .5) / 60, rtol=1e-4)


def test_the_best_temperature_is_the_one_that_made_the_labels():
    logits = RNG.normal(0, 6, 20_000)
    labels = RNG.random(20_000) < special.expit(logits / 3)
    assert float(bounds.best_temperature(jnp.asarray(logits), jnp.asarray(labels))) == pytest.approx(3, rel=.06)


def test_the_upper_end_is_above_the_mean_in_19_of_20_draws():
    ends = np.array([bounds.upper(RNG.normal(1, 2, 5)) for _ in range(2000)])
    assert (ends > 1).mean() == pytest.approx(.95, abs=.015)


@pytest.mark.long
def test_no_student_is_beyond_and_what_is_no_bound_is_exceeded():
    rows = TESTBEDS['bounds'].fn(2000, Settings(rows=50, runs=4, epochs=300))
    assert [r for r in rows[:8] if not r.holds] == []
    assert [r.control for r in rows[:8]].count(True) == 2
