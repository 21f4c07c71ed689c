"""Steps that are drawn without rows against steps with them, and starts."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2s_jax.theory import warm_start as w

RNG = np.random.default_rng(0)


def keys(count):
    return jax.random.split(jax.random.key(0), count)


def test_gradients_have_the_mean_and_the_spread_of_those_of_rows():
    """2000 batches of 20 rows in 4 dimensions, against rows that are drawn, differentiated by hand."""
    truth, _, weak = (np.asarray(v, np.float64) for v in w.directions(jax.random.key(2), 4))
    u = (truth + weak + RNG.normal(0, .3, 4)) / np.linalg.norm(truth + weak)
    u = u / np.linalg.norm(u)
    found = np.asarray(jax.vmap(lambda k: w.gradient(k, jnp.asarray(u), jnp.asarray(weak), 20))(keys(4000)))
    z = RNG.normal(size=(4000, 20, 4))
    a = z @ u
    label = (z @ weak) ** 3 - 3 * (z @ weak) + w.NOISE * RNG.normal(size=a.shape)
    slope = ((a ** 3 - 3 * a - label) * (3 * a ** 2 - 3))[..., None] * z
    wanted = (slope - (slope @ u)[..., None] * u).mean(1)
    spread = wanted.std(0)
    np.testing.assert_allclose(found.mean(0), wanted.mean(0), atol=5 * spread.max() / 4000 ** .5)
    np.testing.assert_allclose(found.std(0), spread, rtol=.25)
    np.testing.assert_allclose(found @ u, 0, atol=2e-4 * abs(found).max())


def test_the_polynomial_is_hermites():
    np.testing.assert_allclose(w.hermite(jnp.array([-1.5, .5, 2])), [1.125, -1.375, 2], rtol=1e-6)


def test_beside_the_plane_of_both_a_gradient_is_as_long_as_the_residuals():
    u, weak, rows = np.eye(40)[0], np.array([.6, .8, *[0] * 38]), 9
    found = np.asarray(w.gradient(jax.random.key(5), jnp.asarray(u), jnp.asarray(weak), rows))
    normal = np.asarray(jax.random.normal(jax.random.key(5), (3 * rows + 40,)), np.float64)
    a, b, noise = normal[:3 * rows].reshape(3, rows)
    he = lambda z: z ** 3 - 3 * z
    residual = (he(a) - he(.6 * a + .8 * b) - w.NOISE * noise) * (3 * a ** 2 - 3)
    np.testing.assert_allclose(found[2:], np.sqrt((residual ** 2).sum()) * normal[3 * rows + 2:] / rows, rtol=1e-3)
    assert found[1] == pytest.approx(residual @ b / rows, rel=1e-3)


def test_the_mean_slope_is_that_of_the_population():
    assert float(w.slopes(keys(40), .8, 6, 5000).mean()) == pytest.approx(w.convexity(.8), rel=.03)
    step, c = 1e-5, .8  # of 6 (1 - c^3), which falls by the angle t, c = cos t
    loss = lambda t: 6 * (1 - np.cos(t) ** 3)
    t = np.arccos(c)
    along = (loss(t + step) - loss(t - step)) / (2 * step)
    assert w.convexity(c) == pytest.approx(along * np.sin(t) / (2 * (1 - c)), rel=1e-6)


def test_directions_have_their_angles():
    truth, spike, weak = w.directions(jax.random.key(0), 9)
    assert float(truth @ spike) == pytest.approx(w.CORRELATION, abs=1e-5)
    assert float(truth @ weak) == pytest.approx((1 - w.BIAS ** 2) ** .5, abs=1e-5)
    np.testing.assert_allclose([jnp.linalg.norm(v) for v in (truth, spike, weak)], 1, atol=1e-5)


def test_pre_training_finds_the_spike_and_only_of_enough_rows():
    spike = w.unit(jnp.arange(1., 51))
    near = lambda strength, rows: np.abs(jax.vmap(lambda k: w.spectral(k, strength, spike, rows))(keys(30)) @ spike)
    assert near(1., 400).mean() == pytest.approx(w.found_overlap(50, 400, 1., correlation=1.), rel=.06)
    assert near(.3, 50).mean() < .5
    assert w.found_overlap(100, 99, 1.) == 0
    assert w.found_overlap(200, 3200, .5) == pytest.approx(.653, abs=1e-3)


def test_pre_training_is_that_of_rows_which_are_drawn():
    spike = np.eye(4)[1]
    rows = RNG.normal(size=(3000, 8, 4)) * (1 + spike) ** .5
    wanted = np.linalg.eigh(np.einsum('bni,bnj->bij', rows, rows))[1][:, :, -1] @ spike
    found = jax.vmap(lambda k: w.spectral(k, 1., jnp.asarray(spike), 8))(keys(3000)) @ spike
    np.testing.assert_allclose(np.quantile(abs(np.asarray(found)), [.25, .5, .75]),
                               np.quantile(abs(wanted), [.25, .5, .75]), atol=.04)


def test_a_start_is_turned_to_the_side_of_the_labels():
    weak = w.unit(jnp.array([1., 2, 0]))
    for sign in (1, -1):
        np.testing.assert_allclose(w.oriented(jax.random.key(0), sign * weak, weak), weak, atol=1e-6)


def test_steps_have_their_length_and_lead_to_the_teacher():
    truth, _, weak = w.directions(jax.random.key(1), 5)
    path = np.asarray(w.learned(jax.random.key(2), w.unit(truth + .8 * w.directions(jax.random.key(3), 5)[1]), weak,
                                truth, 150))
    assert len(path) == 151
    assert abs(np.diff(np.arccos(path))).max() < w.RATE + 1e-3
    assert path[-1] == pytest.approx((1 - w.BIAS ** 2) ** .5, abs=.01)


@pytest.mark.long
def test_students_of_enough_pre_training_reach_the_teacher():
    rows = {r.cell: r for r in [*w.transition(8, 200), *w.convex(20)]}
    assert all(r.holds for cell, r in rows.items() if 'n = 16 n_c' in cell or 'convexity' in cell)
    assert rows['students beyond 0.9, d 200, n = 0.25 n_c'].holds
    assert all(r.holds for r in rows.values() if r.control)
