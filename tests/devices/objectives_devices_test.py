"""Objectives on perturbed inputs and of several teachers: the same in microbatches, on eight devices, and by pmap."""
import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import one_device

from w2s_jax import objectives
from w2s_jax.runtime import sharding
from w2s_jax.train import adversarial, program
from w2s_jax.train import step as stepping

F, B, K, T, RUNS = 6, 32, 3, 4, 2
COLUMNS = (('doubt', ()), ('inverse', (K,)), ('row', ()), ('teachers', (T, K)))
NUMBERS = {'eps': .1, 'step': .25, 'alpha': .5, 'alpha_warmup': .2, 'rate': .5, 'easy': .1, 'freeze': .1, 'resets': 0}
STATIC = {'weighted_teachers rows': {'weights': 'rows'}}


def init(key, pretrained=None):
    return {'a': jax.random.normal(key, (F, 16)) * .5, 'b': jax.random.normal(jax.random.fold_in(key, 1), (16, K)) * .5}


def apply(params, inputs, frozen=None):
    return jnp.tanh(inputs['features'] @ params['a']) @ params['b']


def hyper(name):
    traced = [k for k, s in objectives.OBJECTIVES[name.split()[0]].settings.items() if s.traced]
    full = functools.partial(np.full, RUNS, dtype=np.float32)
    return jax.tree.map(full, stepping.hyper(1e-2, 0., .999, 1., 0., **{k: NUMBERS[k] for k in traced}))


def batch(seed):
    """Weights differ from row to row, so that a mean of means is another number."""
    rng = np.random.default_rng(seed)
    return ({'features': rng.normal(size=(RUNS, B, F)).astype(np.float32)},
            {'targets': rng.dirichlet(np.ones(K), (RUNS, B)).astype(np.float32),
             'inverse': rng.dirichlet(np.ones(K), (RUNS, B)).astype(np.float32),
             'teachers': rng.dirichlet(np.ones(K), (RUNS, B, T)).astype(np.float32),
             'doubt': rng.uniform(0, 1, (RUNS, B)).astype(np.float32),
             'weight': rng.uniform(.1, 3, (RUNS, B)).astype(np.float32),
             'row': np.stack([rng.permutation(B) for _ in range(RUNS)]).astype(np.int32)})


def steps(name, mesh, driver='jit', accumulate=1):
    """Parameters and what is logged after three steps."""
    bound = objectives.bind(name.split()[0], STATIC.get(name))
    static = stepping.Static(bound, 10, B, K, accumulate, columns=COLUMNS, rows=B)
    states = program.compiled_init(init, static, mesh)(hyper(name), np.arange(RUNS, dtype=np.uint32), None, None, RUNS)
    step = (program.pmapped_step if driver == 'pmap' else program.compiled_step)(apply, static, 'vmap', mesh)
    metrics = None
    for i in range(3):
        both = batch(i)
        placed = sharding.deal_batch(both, 8) if driver == 'pmap' else sharding.place_batch(both, mesh)
        states, metrics = step(states, *placed, hyper(name), None)
    return jax.device_get((states.params, metrics))


@functools.cache
def expected(name):
    return steps(name, one_device())


@pytest.mark.long
@pytest.mark.parametrize('layout', ['accumulate 4', 'data 8', 'pmap 8, accumulate 4'])
@pytest.mark.parametrize('name', ['noise', 'adv_w2s', 'weighted_teachers', 'weighted_teachers rows'])
def test_three_steps_are_the_same_on_every_layout(layout, name):
    mesh = sharding.make_mesh() if '8' in layout else one_device()
    got = steps(name, mesh, 'pmap' if 'pmap' in layout else 'jit', 4 if 'accumulate' in layout else 1)
    chex.assert_trees_all_close(got, expected(name), atol=2e-5)
    if name == 'weighted_teachers':
        assert np.ptp(got[1]['teacher_weights'], axis=-1).min() > .01  # they have moved


@pytest.mark.long
def test_draws_by_the_place_in_a_part_would_be_seen(monkeypatch):
    draws = adversarial.attacks.draws
    monkeypatch.setattr(adversarial.attacks, 'draws',
                        lambda key, rows, sample: draws(key, jnp.arange(len(rows)), sample))
    monkeypatch.setitem(objectives.OBJECTIVES.entries, 'noise', dataclasses.replace(
        objectives.OBJECTIVES['noise'], version='broken'))
    got = steps('noise', one_device(), accumulate=4)
    assert np.abs(got[1]['loss'] - expected('noise')[1]['loss']).max() > 1e-4
