"""Break points, detection and choice, each against a plain account of it."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from sklearn.metrics import f1_score

from w2s_jax.registry import Settings
from w2s_jax.theory import TESTBEDS
from w2s_jax.theory import overlap as o

RNG = np.random.default_rng(0)


@pytest.mark.parametrize('count', [2, 3, 30])
def test_a_break_is_the_best_of_all(count):
    values = RNG.permutation(np.r_[RNG.normal(size=count), RNG.normal(4, .5, size=count // 2)])
    ordered = np.sort(values)
    costs = [sum(((part - part.mean()) ** 2).sum() for part in np.split(ordered, [i])) for i in range(1, len(values))]
    rest = np.r_[values, 100., -100.]
    found = o.break_point(jnp.asarray(rest), jnp.arange(len(rest)) < len(values))
    assert float(found) == pytest.approx(ordered[1 + np.argmin(costs)], rel=1e-6)


def test_rows_have_the_blocks_of_their_kind():
    kind = jnp.repeat(jnp.arange(3), 2000)
    rows = jax.device_get(o.draw(jax.random.key(0), kind, 4.))
    means = np.array([[(rows.x[kind == k, at] * rows.y[kind == k]).mean() for at in (0, o.BLOCK)] for k in range(3)])
    np.testing.assert_allclose(means[[o.EASY, o.HARD, o.BOTH]], [[4, 0], [0, 4], [4, 4]], atol=.1)
    assert rows.x[:, 1].std() == pytest.approx(1, abs=.05)


def test_kinds_have_their_shares():
    shares = np.bincount(np.asarray(o.kinds(jax.random.key(1), 20_000, .4))) / 20_000
    np.testing.assert_allclose(shares[[o.EASY, o.HARD, o.BOTH]], [.3, .3, .4], atol=.015)


def test_what_is_far_apart_is_detected():
    x = np.array([[9, 0], [-9, 1], [1, 9], [0, -8], [9, 9], [9, -8]], float)
    weak = special.expit(x[:, 0])
    found = np.asarray(o.detect(jnp.asarray(weak), jnp.asarray(x)))
    np.testing.assert_array_equal(found, [o.EASY, o.EASY, o.HARD, o.HARD, o.BOTH, o.BOTH])


def test_f1_is_that_of_the_library():
    found, truth = RNG.random((2, 50)) < .4
    assert float(o.f1(jnp.asarray(found), jnp.asarray(truth))) == pytest.approx(f1_score(truth, found))
    assert float(o.f1(jnp.zeros(3, bool), jnp.zeros(3, bool))) == 0


def test_a_student_at_the_end_has_its_teachers_head():
    x, head = RNG.normal(size=(50, 3)), np.array([1., -2, 0])
    np.testing.assert_allclose(o.converged(jnp.asarray(x), jnp.asarray(special.expit(x @ head))), head, atol=1e-3)


def test_accuracy_that_is_predicted_is_that_of_a_step_on_very_many_rows():
    rows, test = (jax.device_get(o.draw(jax.random.key(i), kind, 2.)) for i, kind in enumerate(
        (o.kinds(jax.random.key(9), 100_000, .2), jnp.full(20_000, o.HARD))))
    step = rows.x.T @ (special.expit(o.SHARPNESS * rows.x[:, 0]) - .5)
    assert o.predicted(.2, 2., 100_000) == pytest.approx((test.x @ step * test.y > 0).mean(), abs=.01)
    assert o.predicted(0, 2., 1000) == .5
    assert .5 < o.predicted(.2, 2., 50) < o.predicted(.2, 2., 500)


def test_the_best_source_is_chosen_after_each_was_tried():
    reward = lambda key, source: jnp.array([.2, .9, .4])[source] + .01 * jax.random.normal(key)
    tried = np.asarray(o.choose(reward, jax.random.split(jax.random.key(0), 60), 3, 10.))
    assert sorted(tried[:3]) == [0, 1, 2] and (tried[-20:] == 1).mean() > .9
    assert (np.asarray(o.choose(reward, jax.random.split(jax.random.key(0), 60), 3, .1))[-20:] == 1).mean() < .6


def test_choices_are_those_of_a_plain_loop():
    means, log = np.array([.5, .6, .3]), np.log(25)
    sums, counts, wanted = np.zeros(3), np.zeros(3), []
    for _ in range(25):
        bound = [sums[k] / counts[k] + (2 * log / (4 * counts[k])) ** .5 if counts[k] else np.inf for k in range(3)]
        wanted.append(int(np.argmax(bound)))
        sums[wanted[-1]] += means[wanted[-1]]
        counts[wanted[-1]] += 1
    found = o.choose(lambda key, k: jnp.asarray(means)[k], jax.random.split(jax.random.key(0), 25), 3, 4.)
    assert np.asarray(found).tolist() == wanted


@pytest.mark.long
def test_density_decides_what_a_student_of_few_steps_learns_and_not_one_at_the_end():
    rows = TESTBEDS['overlap'].fn(4, Settings(rows=500, size=4.))
    said = {r.cell: r for r in rows if r.limit is not None}
    assert all(r.holds for cell, r in said.items() if 'accuracy at' in cell or 'Spearman' in cell or 'best' in cell)
    assert said['accuracy at density .8, trained to the end'].control
