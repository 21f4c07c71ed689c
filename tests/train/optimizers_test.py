"""Optimisers: what they keep, that they learn, that runs side by side take the same steps."""
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hurry import hurried  # noqa: F401  (a fixture)
from meshes import one_device

from w2s_jax.runtime import sharding
from w2s_jax.train import memory, optimizers, program
from w2s_jax.train import step as stepping
from w2s_jax.train.optimizers import OPTIMIZERS

STEPPING = [name for name, entry in OPTIMIZERS.items() if not entry.options.get('exact')]
D, F, LAYERS, V = 128, 256, 2, 512  # one layer of two is used: less to compile
BYTES = {'adamw': (8, 8), 'adamw_half': (6, 6), 'adafactor': (0, .1), 'lion': (2, 2), 'sgd': (4, 4)}  # a parameter


def init(key, pretrained=None):
    """Matrices large enough to be factored, vectors that are not, at the paths of a transformer."""
    shapes = {'tokens': {'embedding': (V, D)}, 'layers': {
        'attention': {'query': {'kernel': (LAYERS, D, 4, 128)}, 'out': {'kernel': (LAYERS, 4, 128, D)}},
        'norm': {'scale': (LAYERS, D)},
        'mlp': {'up': {'kernel': (LAYERS, D, F), 'bias': (LAYERS, F)}, 'down': {'kernel': (LAYERS, F, D)}}},
        'head': {'kernel': (D, 2)}}
    leaves, tree = jax.tree.flatten(shapes, is_leaf=lambda x: isinstance(x, tuple))
    return jax.tree.unflatten(tree, [.05 * jnp.sin(jnp.arange(np.prod(s)) ** 1.5 + i).reshape(s)  # quick to compile
                                     for i, s in enumerate(leaves)])


def apply(params, inputs, frozen=None):
    x = params['tokens']['embedding'][inputs['tokens']].mean(1)
    layer = jax.tree.map(lambda p: p[0], params['layers'])
    heads = jnp.einsum('bd,dhc->bhc', x * (1 + layer['norm']['scale'][None]), layer['attention']['query']['kernel'])
    x = x + jnp.einsum('bhc,hcd->bd', jnp.tanh(heads), layer['attention']['out']['kernel'])
    up = jnp.tanh(x @ layer['mlp']['up']['kernel'] + layer['mlp']['up']['bias'][None])
    x = x + up @ layer['mlp']['down']['kernel']
    return x @ params['head']['kernel']


def hyper(rates, beta2=.999):
    one = lambda x: np.broadcast_to(np.asarray(x, np.float32), len(rates))
    return stepping.hyper(one(rates), *(one(x) for x in (.01, beta2, 1., .1)))


def batch(seed, size=32):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, V, (1, size, 5)).astype(np.int32)
    truth = (tokens[0].sum(1) % V > V // 2).astype(int)
    return {'tokens': tokens}, np.eye(2, dtype=np.float32)[truth][None]


def steps(name, mesh, rates=(3e-3, 1e-3), number=5, how='vmap', repeat=False, **changes):
    static, runs = stepping.Static('xent', 100, 32, 2, optimizer=name), len(rates)
    states = program.compiled_init(init, static, mesh)(hyper(rates, **changes), np.zeros(runs, np.uint32), None,
                                                          None, 1)
    step, losses = program.compiled_step(apply, static, how, mesh), []
    for i in range(number):
        inputs, targets = batch(0 if repeat else i)
        supervision = {'targets': np.repeat(targets, runs, 0), 'weight': np.ones((runs, 32), np.float32)}
        states, metrics = step(states, sharding.place_batch(inputs, mesh), sharding.place_batch(supervision, mesh),
                               hyper(rates, **changes), None)
        losses.append(np.asarray(metrics['loss']))
    return states, np.stack(losses)


@pytest.mark.parametrize('name', STEPPING)
def test_it_keeps_what_it_says(name):
    params = jax.eval_shape(init, jax.random.key(0))
    tx = optimizers.build(name, 'cosine', 10, jax.tree.map(lambda x: x[0], hyper([1e-3])))
    kept, size = memory.nbytes(jax.eval_shape(tx.init, params)), sum(x.size for x in jax.tree.leaves(params))
    low, high = BYTES[name]
    assert low * size <= kept <= high * size + 100, kept / size
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(params))


@pytest.mark.parametrize('name', STEPPING)
def test_it_learns_a_batch_by_heart(name):
    rate = {'sgd': .3, 'lion': 1e-3}.get(name, 3e-3)
    _, losses = steps(name, one_device(), [rate], 40, repeat=True)
    assert losses[-1, 0] < .3 * losses[0, 0], losses[:, 0]


@pytest.mark.long
@pytest.mark.parametrize('name', STEPPING)
def test_runs_side_by_side_step_as_alone(name):
    mesh = one_device()
    together, _ = steps(name, mesh, (3e-3, 1e-3))
    alone, _ = steps(name, mesh, (1e-3,))
    # A sign has no small error: a parameter whose mean gradient is zero but for rounding may step the other way.
    chex.assert_trees_all_close(jax.tree.map(lambda x: x[1], together.params),
                                jax.tree.map(lambda x: x[0], alone.params), atol=2e-5 if name != 'lion' else 5e-3)


def test_adafactor_takes_the_steps_of_optax():
    params = {'wide': jnp.ones((256, 128)), 'narrow': jnp.ones(5)}
    ours = optimizers.build('adafactor', 'constant', 10, stepping.hyper(1e-3, 0., .999999, 0., 0.))
    theirs = optax.adafactor(1e-3, multiply_by_parameter_scale=False)
    found = want = params
    a, b = ours.init(params), theirs.init(params)
    for seed in range(3):
        grads = jax.tree.map(lambda x, s=seed: jax.random.normal(jax.random.key(s), x.shape), params)
        (step_a, a), (step_b, b) = jax.jit(ours.update)(grads, a, found), jax.jit(theirs.update)(grads, b, want)
        found, want = optax.apply_updates(found, step_a), optax.apply_updates(want, step_b)
    chex.assert_trees_all_close(found, want, atol=1e-6)
    assert np.abs(found['wide'] - 1).max() > 1e-3


def test_beta2_is_traced_and_holds_adafactors_decay_down():
    mesh = one_device()
    one, other = (steps('adafactor', mesh, beta2=b)[0].params['head']['kernel'] for b in (.2, .999))
    assert np.abs(one - other).max() > 1e-5


def test_traced_numbers_compile_once():
    static = stepping.Static('xent', 100, 32, 2, optimizer='lion')
    mesh = one_device()
    program.compiled_step.cache_clear()
    for rate in (1e-3, 1e-4):
        steps('lion', mesh, (rate,), 1)
    assert program.compiled_step(apply, static, 'vmap', mesh).traces == 1
