"""RAVEN's weights: golden numbers (methods.md, section 8), derivatives, and what they must do and not do."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2s_jax import objectives
from w2s_jax.errors import ConfigError
from w2s_jax.objectives import OBJECTIVES
from w2s_jax.registry import Settings

P = jnp.array([[[.8, .2], [.4, .6]], [[.3, .7], [.6, .4]]])  # [B, T, K]
STUDENT = jnp.log(jnp.array([[.7, .3], [.2, .8]]))
RAVEN = OBJECTIVES['weighted_teachers'].fn()


def step(teachers=P, logits=STUDENT, state=None, progress=.5, rows=None, weight=None, n=None, **settings):
    """(losses, weights that are logged, state) after a step on a batch."""
    defaults = {'weights': 'global', 'rate': .1, 'easy': 0., 'freeze': 0., 'resets': 0}
    chosen = Settings(defaults | settings)
    size = len(teachers)
    batch = {'inputs': logits, 'targets': teachers.mean(1), 'teachers': teachers,
             'row': jnp.arange(size) if rows is None else jnp.array(rows),
             'weight': jnp.ones(size) if weight is None else jnp.array(weight)}
    columns = {'teachers': jax.ShapeDtypeStruct(teachers.shape[1:], jnp.float32)}
    state = RAVEN.init_state(columns, n or size, chosen) if state is None else state
    found, aux = RAVEN.losses(lambda params, inputs: inputs, None, batch, state, chosen, jnp.float32(progress), None)
    return np.array(found), np.array(aux['teacher_weights']), RAVEN.update(state, None, aux, chosen)


def drawn(size=16, teachers=3, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    return (jnp.array(rng.dirichlet(np.ones(classes), (size, teachers)), jnp.float32),
            jnp.array(rng.normal(size=(size, classes)), jnp.float32))


def test_golden_numbers():
    found, weights, _ = step()
    assert found.mean() == pytest.approx(.7712850510, abs=1e-6)
    slopes = objectives.mixture_slopes(jnp.full((2, 2), .5), P, STUDENT).mean(0)
    np.testing.assert_allclose(slopes, [-.18870186, .18870186], atol=1e-6)
    np.testing.assert_allclose(weights, [.51887019, .48112981], atol=1e-6)


def test_slopes_are_finite_differences_of_the_renormalised_mixture():
    teachers, logits = drawn()
    log, w = np.array(jax.nn.log_softmax(logits), np.float64), np.array([.2, .5, .3])

    def loss(w):
        q = np.einsum('t,btk->bk', w, np.array(teachers, np.float64))
        return -(q / q.sum(-1, keepdims=True) * log).sum(-1).mean()
    by_hand = [(loss(w + e) - loss(w - e)) / 2e-5 for e in 1e-5 * np.eye(3)]
    found = objectives.mixture_slopes(jnp.broadcast_to(jnp.array(w, jnp.float32), (16, 3)), teachers,
                                      jax.nn.log_softmax(logits)).mean(0)
    np.testing.assert_allclose(found, by_hand, atol=1e-5)


@pytest.mark.parametrize('rate', [.01, 1., 1e5])
def test_weights_stay_on_the_simplex_and_go_to_the_teacher_that_is_easiest_to_fit(rate):
    teachers, logits = drawn()
    state, each = None, -np.array((teachers * jax.nn.log_softmax(logits)[:, None]).sum(-1)).mean(0)
    for _ in range(30):
        _, weights, state = step(teachers, logits, state, rate=rate)
        assert (weights > 0).all() and weights.sum() == pytest.approx(1, abs=1e-6)
    assert weights.argmax() == each.argmin() and (rate < 10 or weights.max() > .99)


def test_the_order_of_teachers_is_that_of_their_weights():
    teachers, logits = drawn()
    order = jnp.array([2, 0, 1])
    (a, w, _), (b, v, _) = step(teachers, logits), step(teachers[:, order], logits)
    np.testing.assert_allclose(w[np.array(order)], v, atol=1e-6)
    np.testing.assert_allclose(a, b, atol=1e-6)
    assert len(np.unique(w.round(4))) == 3


def test_frozen_weights_and_rate_zero_stay_even():
    assert step(freeze=.6)[1].tolist() == [.5, .5] == step(rate=0.)[1].tolist()
    assert step(freeze=.5)[1].tolist() != [.5, .5]


def test_resets_are_evenly_spread():
    _, weights, state = step(progress=.3, resets=1)
    assert weights[0] > .51
    again = step(state=state, progress=.4, resets=1)[1]
    assert again[0] > weights[0]
    fresh = step(state=state, progress=.5, resets=1)[1]
    np.testing.assert_allclose(fresh, step()[1], atol=1e-7)
    later = step(state=step(state=state, progress=.5, resets=1)[2], progress=.6, resets=1)[1]
    assert later[0] > fresh[0]


def test_easy_rows_are_those_on_which_all_agree_and_the_mean_is_theirs():
    teachers = jnp.concatenate([P, jnp.array([[[.9, .1], [.7, .3]], [[.2, .8], [.4, .6]]])])
    logits = jnp.concatenate([STUDENT, STUDENT])
    found, _, _ = step(teachers, logits, easy=.6)
    plain = step(teachers, logits)[0]
    assert (found[:2] == 0).all()
    np.testing.assert_allclose(found[2:], 2 * plain[2:], rtol=1e-6)
    assert found.mean() == pytest.approx(plain[2:].mean())
    np.testing.assert_array_equal(step(teachers, logits, easy=.5)[0], plain)  # its share of training is over
    assert (step(easy=1.)[0] == 0).all() and step(easy=1.)[1].tolist() == [.5, .5]  # no row is easy
    heavy = step(teachers, logits, easy=.6, weight=[1, 1, 3, 1])[0]
    np.testing.assert_allclose(heavy[2:], 1.5 * plain[2:], rtol=1e-6)


def test_weights_of_rows_are_each_rows_own():
    teachers, logits = drawn(4)
    _, seen, state = step(teachers, logits, rows=[5, 0, 2, 7], n=9, weights='rows', rate=10.)
    weights = np.array(state['weights'])
    assert weights.shape == (9, 3)
    np.testing.assert_allclose(weights[[1, 3, 4, 6, 8]], 1 / 3, atol=1e-6)
    np.testing.assert_allclose(seen, weights[[5, 0, 2, 7]].mean(0), atol=1e-6)
    each = -np.array((teachers * jax.nn.log_softmax(logits)[:, None]).sum(-1))
    np.testing.assert_array_equal(weights[[5, 0, 2, 7]].argmax(-1), each.argmin(-1))


def test_a_row_of_no_weight_moves_nothing():
    one = step(P[:1], STUDENT[:1])[1]
    np.testing.assert_allclose(step(weight=[1, 0])[1], one, atol=1e-6)
    assert abs(one - step()[1]).max() > 1e-3


def test_one_teacher_is_cross_entropy_to_the_bit():
    from w2s_jax.losses import LOSSES
    teachers, logits = drawn(teachers=1)
    found = step(teachers, logits)[0]
    plain = LOSSES['xent'].fn(logits, teachers[:, 0], progress=0., settings=Settings(), state=())[0]
    np.testing.assert_array_equal(found, np.array(plain))


def test_without_teachers_it_says_what_is_missing():
    with pytest.raises(ConfigError, match=r"^objective 'weighted_teachers': learns labels of several "):
        RAVEN.init_state({'targets': None}, 3, Settings(weights='global'))
