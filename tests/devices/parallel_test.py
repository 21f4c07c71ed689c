"""Drivers and meshes: the same numbers however the work is laid out, and the state where RULES say."""
import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import one_device

from w2s_jax import objectives
from w2s_jax.errors import ConfigError
from w2s_jax.models.modes import Model
from w2s_jax.runtime import sharding
from w2s_jax.train import gradients, program
from w2s_jax.train import step as stepping
from w2s_jax.train import trainer as train
from w2s_jax.train.checkpoint import Checkpoint
from w2s_jax.train.runs import Runs

L, D, H, C, F, V, B, K = 2, 32, 4, 8, 128, 512, 32, 2  # two classes: the confidence loss then has a threshold
STATIC = stepping.Static('xent', 20, B, K)
LAYOUTS = {'data 8': (8, 1, 1), 'fsdp 8': (1, 8, 1), '2x2x2': (2, 2, 2), 'tensor 4': (2, 1, 4)}


def init(key, pretrained=None):
    """A small network with the paths of a transformer."""
    shapes = {'tokens': {'embedding': (V, D)}, 'layers': {
        'attention': {'query': {'kernel': (L, D, H, C)}, 'out': {'kernel': (L, H, C, D)}},
        'mlp': {'up': {'kernel': (L, D, F), 'bias': (L, F)}, 'down': {'kernel': (L, F, D)}}},
        'head': {'kernel': (D, K)}}
    leaves, tree = jax.tree.flatten(shapes, is_leaf=lambda x: isinstance(x, tuple))
    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(tree, [jax.random.normal(k, s) * .1 for k, s in zip(keys, leaves, strict=True)])


def apply(params, inputs, frozen=None):
    x = params['tokens']['embedding'][inputs['tokens']].mean(1)
    for i in range(L):
        layer = jax.tree.map(lambda p, i=i: p[i], params['layers'])
        heads = jnp.einsum('bd,dhc->bhc', x, layer['attention']['query']['kernel'])
        x = x + jnp.einsum('bhc,hcd->bd', jnp.tanh(heads), layer['attention']['out']['kernel'])
        up = jnp.tanh(x @ layer['mlp']['up']['kernel'] + layer['mlp']['up']['bias'][None])
        x = x + up @ layer['mlp']['down']['kernel']
    return x @ params['head']['kernel']


def hyper(runs, alpha=.5):
    return stepping.hyper(*(np.full(runs, x, np.float32) for x in (1e-3, .01, .999, 1., .1)),
                          alpha=np.full(runs, alpha, np.float32), alpha_warmup=np.full(runs, .2, np.float32))


def batch(seed=0, runs=2):
    """Weights differ from row to row, so that a mean of means is another number."""
    rng = np.random.default_rng(seed)
    targets = rng.dirichlet(np.ones(K), (runs, B)).astype(np.float32)
    return ({'tokens': rng.integers(0, V, (runs, B, 5)).astype(np.int32)},
            {'targets': targets, 'weight': rng.uniform(.1, 3, (runs, B)).astype(np.float32)})


def five_steps(static, mesh, driver='jit', runs=2):
    states = program.compiled_init(init, static, mesh)(hyper(runs), np.arange(runs, dtype=np.uint32), None, None, runs)
    drive = program.pmapped_step if driver == 'pmap' else program.compiled_step
    drive.cache_clear()
    step, metrics = drive(apply, static, 'vmap', mesh), None
    for i in range(5):
        both = batch(i, runs)
        placed = sharding.deal_batch(both, 8) if driver == 'pmap' else sharding.place_batch(both, mesh)
        states, metrics = step(states, *placed, hyper(runs), None)
    return jax.device_get((states.params, states.opt_state, states.loss_state, metrics))


@functools.cache
def expected(loss):
    return five_steps(dataclasses.replace(STATIC, objective=loss), one_device())


@pytest.mark.parametrize('loss', ['xent', 'confidence'])
@pytest.mark.parametrize('accumulate', [1, 4])
@pytest.mark.parametrize('layout', [*LAYOUTS, 'pmap 8', 'one device'])
def test_five_steps_are_the_same_on_every_layout(layout, accumulate, loss, monkeypatch):
    monkeypatch.setattr(sharding, 'SMALL', 1)
    sharding.sharding.cache_clear()
    static = dataclasses.replace(STATIC, objective=loss, accumulate=accumulate)
    mesh = sharding.make_mesh(*LAYOUTS.get(layout, (8, 1, 1))) if layout != 'one device' else one_device()
    got = five_steps(static, mesh, 'pmap' if layout == 'pmap 8' else 'jit')
    chex.assert_trees_all_close(got, expected(loss), atol=1e-5)
    sharding.sharding.cache_clear()


def mean_of_means(tree, axis):
    """Each device divides by its own weight, and the results are averaged."""
    return jax.lax.pmean(tree, axis) if isinstance(tree, tuple | dict) else tree


def summed_twice(tree, axis):
    return jax.lax.psum(jax.lax.psum(tree, axis) if isinstance(tree, tuple | dict) else tree, axis)


@pytest.mark.parametrize('wrong', [mean_of_means, summed_twice])
@pytest.mark.parametrize('loss', ['xent', 'confidence'])
def test_a_wrong_reduction_would_be_seen(wrong, loss, monkeypatch):
    over = gradients.over

    def broken(axis, collective, tree, **options):
        return over(axis, wrong if collective is jax.lax.psum else collective, tree, **options)
    monkeypatch.setattr(gradients, 'over', broken)
    got = five_steps(dataclasses.replace(STATIC, objective=loss), sharding.make_mesh(), 'pmap')[3]
    want = expected(loss)[3]
    assert max(np.abs(got[k] - want[k]).max() for k in ('loss', 'grad_norm')) > 1e-3


def test_a_threshold_of_each_device_would_be_seen(monkeypatch):
    static = dataclasses.replace(STATIC, objective='confidence')
    want = expected('confidence')[3]
    one_by_one = objectives.bind('confidence').objective._replace(per_example=True)
    monkeypatch.setattr(objectives, '_built', lambda bound: one_by_one)
    got = five_steps(static, sharding.make_mesh(), 'pmap')[3]
    assert np.abs(got['loss'] - want['loss']).max() > 1e-4


def test_the_state_lives_where_the_rules_say(monkeypatch):
    monkeypatch.setattr(sharding, 'SMALL', 1)
    sharding.sharding.cache_clear()
    mesh = sharding.make_mesh(2, 2, 2)
    states = program.compiled_init(init, STATIC, mesh)(hyper(2), np.arange(2, dtype=np.uint32), None, None, 2)

    def parts(path):
        leaf = functools.reduce(lambda tree, k: tree[k], path.split('/'), states.params)
        return tuple(full // own for full, own in zip(leaf.shape, leaf.addressable_shards[0].data.shape, strict=True))
    assert parts('tokens/embedding') == (1, 2, 2)
    assert parts('layers/attention/query/kernel') == (1, 1, 2, 2, 1)
    assert parts('layers/attention/out/kernel') == (1, 1, 2, 1, 2)
    assert parts('layers/mlp/down/kernel') == (1, 1, 2, 2)
    moments = [x for x in jax.tree.leaves(states.opt_state) if x.shape == (2, V, D)]
    assert len(moments) == 2 and all(m.addressable_shards[0].data.shape == (2, V // 2, D // 2) for m in moments)
    sharding.sharding.cache_clear()


def test_what_does_not_divide_stays_whole_and_is_logged(caplog):
    sharding.sharding.cache_clear()
    mesh = sharding.make_mesh(1, 2, 4)
    found = sharding.sharding(mesh, 'layers/attention/key/kernel', (6, 4096, 3, 128))
    assert found.spec == jax.sharding.PartitionSpec(None, 'fsdp', None, None)
    assert 'layers/attention/key/kernel (6, 4096, 3, 128): 3 over tensor=4 does not divide' in caplog.text
    assert sharding.sharding(mesh, 'layers/mlp_norm/scale', (6, 65536)).is_fully_replicated
    assert sharding.sharding(mesh, 'layers/mlp/up/kernel', (6, 32, 64)).is_fully_replicated  # small


def test_pmap_refuses_a_batch_that_devices_do_not_divide():
    with pytest.raises(ConfigError, match=r'train\.batch_size: 12, expected a multiple of the 8 devices'):
        sharding.deal_batch({'x': np.zeros((1, 12, 2))}, 8)


@pytest.mark.parametrize('driver', ['jit', 'pmap'])
def test_a_whole_training_is_the_same_with_both_drivers(driver, tmp_path):
    rng = np.random.default_rng(0)
    pool = {'tokens': rng.integers(0, V, (100, 5)).astype(np.int32)}
    rows = np.stack([rng.permutation(100)[:64] for _ in range(3)])
    truth = (pool['tokens'].sum(1) % 2).astype(np.int32)
    runs = Runs(pool, rows, truth[rows], np.arange(3), hyper(3), {'tokens': pool['tokens'][:10]}, 2, K)
    model = Model('tiny', init, apply, 1, {}, 1e-3)
    static, found = stepping.Static('confidence', 8, B, K), []
    for mesh, how in ((one_device(), 'jit'), (sharding.make_mesh(), driver)):
        trainer = train.Trainer(model, static, mesh, 'vmap', driver=how)
        checkpoint = Checkpoint(tmp_path / f'{len(found)}')
        params, history = trainer.fit(runs, checkpoint, 3)
        checkpoint.close()
        found.append((jax.device_get(params), history.loss, trainer.predict(params, pool)))
    chex.assert_trees_all_close(*found, atol=1e-5)
