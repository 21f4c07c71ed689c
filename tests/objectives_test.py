"""RAVEN's weights: golden numbers (methods.md, section 8), derivatives, and what they must do and not do."""
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2s_jax import objectives
from w2s_jax.errors import ConfigError
from w2s_jax.objectives import OBJECTIVES
from w2s_jax.registry import Settings
from w2s_jax.train import step as stepping

P = jnp.array([[[.8, .2], [.4, .6]], [[.3, .7], [.6, .4]]])  # [B, T, K]
STUDENT = jnp.log(jnp.array([[.7, .3], [.2, .8]]))
RAVEN = OBJECTIVES['weighted_teachers'].fn()


def step(teachers=P, logits=STUDENT, state=None, progress=.5, rows=None, weight=None, n=None, begin=None,
         **settings):
    """(losses, weights that are logged, state) after a step on a batch."""
    defaults = {'weights': 'global', 'rate': .1, 'easy': 0., 'freeze': 0., 'resets': 0, 'start': 'uniform'}
    chosen = Settings(defaults | settings)
    size = len(teachers)
    batch = {'inputs': logits, 'targets': teachers.mean(1), 'teachers': teachers,
             'row': jnp.arange(size) if rows is None else jnp.array(rows),
             'weight': jnp.ones(size) if weight is None else jnp.array(weight)}
    batch |= {} if begin is None else {'start': jnp.array(begin, jnp.float32)}
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


def test_weights_begin_where_they_are_told_and_go_back_there():
    chosen = {'start': 'kl', 'begin': [[.2, .8]] * 2, 'resets': 1}
    np.testing.assert_allclose(step(freeze=.6, **chosen)[1], [.2, .8], rtol=1e-6)
    found, weights, state = step(progress=.3, **chosen)
    moved = np.array([.2, .8]) - .1 * np.array(objectives.mixture_slopes(
        jnp.broadcast_to(jnp.array([.2, .8]), (2, 2)), P, jax.nn.log_softmax(STUDENT)).mean(0))
    np.testing.assert_allclose(weights, moved / moved.sum(), rtol=1e-5)
    mixed = .2 * np.array(P[:, 0]) + .8 * np.array(P[:, 1])
    np.testing.assert_allclose(found, -(mixed * np.array(STUDENT)).sum(-1), rtol=1e-5)
    assert step(state=state, progress=.4, **chosen)[1][0] > weights[0]
    np.testing.assert_allclose(step(state=state, progress=.5, **chosen)[1], weights, atol=1e-7)


def test_rows_begin_and_go_back_each_when_it_is_seen():
    teachers, logits = drawn(4)
    begin, rows = np.random.default_rng(1).dirichlet(3 * np.ones(3), 4), [5, 0, 2, 7]
    chosen = {'weights': 'rows', 'rate': 10., 'start': 'random', 'begin': begin, 'rows': rows, 'n': 9, 'resets': 1}
    kept = np.array(step(teachers, logits, freeze=1., progress=.3, **chosen)[2]['weights'])
    np.testing.assert_allclose(kept[rows], begin, rtol=1e-5)
    first = step(teachers, logits, progress=.3, **chosen)[2]
    chosen |= {'begin': begin[:2], 'rows': rows[:2], 'state': first}
    later = step(teachers[:2], logits[:2], progress=.6, **chosen)[2]
    wanted = step(teachers[:2], logits[:2], progress=.3, **(chosen | {'state': None}))[2]['weights']
    np.testing.assert_allclose(later['weights'][jnp.array(rows[:2])], wanted[jnp.array(rows[:2])], atol=1e-5)
    np.testing.assert_allclose(later['weights'][jnp.array(rows[2:])], first['weights'][jnp.array(rows[2:])], atol=1e-5)


@pytest.mark.parametrize('parts', [3, 16, 49])
def test_parts_begin_at_their_step(parts):
    steps = 17 * parts
    begun = [float(objectives._reset({'weights': jnp.ones(2), 'part': jnp.float32(-1)}, {
        'teachers': P, 'row': jnp.arange(2)}, Settings(weights='global', start='uniform', resets=parts - 1.),
        jnp.int32(i) / steps)['part']) for i in [*range(0, steps, 17), *range(16, steps, 17)]]
    assert begun == [*range(parts), *range(parts)]


@pytest.mark.parametrize('weights', ['global', 'rows'])
def test_microbatches_change_no_weights(weights):
    teachers, logits = drawn(16, 3, 2)
    begin = drawn(1, 16, 3)[0][0]
    bound = objectives.bind('weighted_teachers', {'weights': weights, 'start': 'random'})
    batch = {'inputs': {'x': logits}, 'targets': teachers[:, 0], 'weight': jnp.linspace(.5, 2, 16),
             'row': jnp.arange(16), 'teachers': teachers,
             'start': begin if weights == 'rows' else jnp.broadcast_to(begin[0], (16, 3))}
    numbers, found = stepping.hyper(.1, rate=5., easy=0., freeze=0., resets=1), []
    for parts in (1, 4):
        static = stepping.Static(bound, 4, 16, 2, parts, columns=(('start', (3,)), ('teachers', (3, 2))), rows=16)
        state = stepping.init_state(numbers, 0, None, init=lambda key, start: {'a': jnp.eye(2)}, static=static)
        one = functools.partial(stepping.train_step, apply=lambda p, x, frozen: x['x'] @ p['a'], static=static)
        for _ in range(3):  # beyond the reset
            columns = {k: v for k, v in batch.items() if k != 'inputs'}
            state, _ = jax.jit(one)(state, batch['inputs'], columns, numbers)
        found.append((state.params, state.loss_state))
    chex.assert_trees_all_close(*found, atol=1e-6)
    assert float(jnp.abs(found[0][1]['weights'].reshape(-1, 3)[0] - batch['start'][0]).max()) > 1e-3


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
