"""The models that benchmarks run, what a step of them must compute, and our side's loops over them."""
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from experiments.benchmark import jax_loop, subjects
from w2s_jax.models import heads, hf
from w2s_jax.models.config import TransformerConfig
from w2s_jax.models.transformer import Block, Shared, Transformer

SPEC = {'dtype': 'float32', 'rate': 1e-2, 'warmup': 0.0, 'steps': 100, 'accumulate': 1, 'devices': 1, 'mesh': 'data'}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tiny.folder(tmp_path_factory.mktemp('models') / 'model')


@pytest.fixture(scope='module')
def grouped(tmp_path_factory):
    """A Llama with two query heads for each key: 2 layers, width 64, 4 heads of 16, 2 of keys, inner 96."""
    path = tmp_path_factory.mktemp('models') / 'grouped'
    subjects.write_random(path, subjects.llama(2, 64, 4, 2, 96, 50))
    return path


def product_flops(jaxpr) -> int:
    """Floating-point operations of all matrix products of a jaxpr, loops included."""
    total = 0
    for e in jaxpr.eqns:
        if e.primitive is jax.lax.dot_general_p:
            (contracted, _), _ = e.params['dimension_numbers']
            depth = math.prod(e.invars[0].aval.shape[i] for i in contracted)
            total += 2 * depth * math.prod(e.outvars[0].aval.shape)
        inner = [j for v in e.params.values() for j in (v if isinstance(v, tuple | list) else [v])]
        inner = [getattr(j, 'jaxpr', j) for j in inner]
        total += e.params.get('length', 1) * sum(product_flops(j) for j in inner if hasattr(j, 'eqns'))
    return total


def rows(name, found, batch, length):
    """One batch of inputs."""
    arrays = subjects.arrays(name, found, batch, length)
    return {k: jnp.asarray(arrays[k][:batch, None]) for k in ('tokens', 'length') if k in arrays}


@pytest.mark.parametrize(('name', 'batch', 'length'), [
    ('folder', 2, 16), ('grouped', 3, 100), ('chess-xs', 2, 64), ('chess-m', 3, 64)])
def test_flops_are_those_of_all_products(request, name, batch, length):
    name = name if subjects.is_chess(name) else str(request.getfixturevalue(name))
    found = subjects.parts(name, 'float32')
    model = subjects.bound(name, found)
    params = jax.eval_shape(model.init, jax.random.key(0))
    jaxpr = jax.make_jaxpr(model.apply)(params, rows(name, found, batch, length))
    assert subjects.forward_flops(found, batch, length) == product_flops(jaxpr.jaxpr) > 0
    assert subjects.step_flops(found, batch, length) == 3 * subjects.forward_flops(found, batch, length)


def test_flops_by_hand(grouped):
    found = subjects.parts(str(grouped), 'float32')
    query_and_out, key_and_value, mlp = 2 * 64 * 64, 2 * 64 * 32, 3 * 64 * 96
    attention = 2 * (2 * 10 * 10 * 64)  # scores and their sums over values, each a head of 16 for 4 heads
    forward = 2 * (5 * 10 * 2 * (query_and_out + key_and_value + mlp) + 5 * attention) + 5 * 2 * 64 * 2
    assert subjects.forward_flops(found, 5, 10) == forward


@pytest.mark.parametrize('gated', [True, False])
def test_flops_of_one_layer_are_near_those_that_xla_counts(gated):
    """Of a layer that stands alone: of a scan XLA counts the body once."""
    c = TransformerConfig(64, 256, 1, 4, 512, num_kv_heads=2, position='none', gated=gated, remat='none')
    x = jnp.zeros((4, 64, 256))
    params = jax.eval_shape(Block(c).init, jax.random.key(0), x, Shared())

    def loss(params, x):
        return (Block(c).apply(params, x, Shared())[0] ** 2).sum()  # of a plain sum the last product is not needed
    counted = [jax.jit(f).lower(params, x).cost_analysis()['flops'] for f in (loss, jax.grad(loss, (0, 1)))]
    forward = 4 * 64 * (2 * subjects.kernels(params) + 4 * 64 * 256)
    assert forward < counted[0] < 1.1 * forward
    assert 3 * forward < counted[1] < 1.1 * 3 * forward


def test_least_bytes_by_hand(grouped):
    found = subjects.parts(str(grouped), 'bfloat16')
    kernels = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96) + 64 * 2
    rows_of_table, activations = 5 * 10 * 4 * 64, 2 * 5 * 10 * 2 * 2 * 64  # in and out, two bytes each
    assert subjects.moved_bytes(found, 5, 10) == 4 * kernels + rows_of_table + activations
    wide = subjects.parts(str(grouped), 'float32')
    assert subjects.moved_bytes(wide, 5, 10) == 4 * kernels + rows_of_table + 2 * activations


@pytest.mark.parametrize(('name', 'millions'), [('llama-135m', 134.5), ('llama-1b', 1235.8), ('llama-8b', 7504.9),
                                                ('llama-70b', 69503.0)])
def test_random_models_have_the_sizes_of_the_models_they_are_like(name, millions):
    raw = subjects.shape(name)
    size = sum(math.prod(shape) for _, shape in subjects.llama_tensors(raw))
    assert size / 1e6 == pytest.approx(millions, rel=1e-3)  # as published, without an untied next-token head
    config = subjects.language.hf.configure(raw)
    assert size == sum(math.prod(x) for x in hf.expected(config).values())


def test_random_models_are_folders_that_both_sides_load(tmp_path):
    first, again = (subjects.materialised('random:1x64', tmp_path / x) for x in 'ab')
    params, same = hf.load(subjects.pathlib.Path(first)), hf.load(subjects.pathlib.Path(again))
    jax.tree.map(np.testing.assert_array_equal, params, same)
    assert np.std(params['layers']['mlp']['up']['kernel']) == pytest.approx(.02, rel=.05)
    assert subjects.materialised('random:1x64', tmp_path / 'a') == first  # written once
    assert subjects.materialised('chess-xs', tmp_path) == 'chess-xs'


def test_arrays_are_what_both_sides_train_on(folder):
    found = subjects.parts(str(folder), 'float32')
    arrays, config = subjects.arrays(str(folder), found, 4, 16), hf.read(folder).config
    assert arrays['tokens'].shape == (64, 16) and arrays['tokens'].max() < config.vocab_size
    assert (arrays['length'] == 16).all() and set(arrays['truth']) == {0, 1}
    assert arrays['order'].shape[1] == 4 and arrays['head'].shape == (config.d_out, 2)
    assert sorted(arrays['order'][:16].ravel()) == list(range(64))
    boards = subjects.arrays('chess-xs', subjects.parts('chess-xs', 'float32'), 2, 64)
    assert boards['tokens'].shape == (32, 64) and boards['truth'].max() >= 2 and 'head' not in boards


@pytest.mark.parametrize('accumulate', [1, 4])
def test_the_stepper_trains_the_model_of_the_folder(folder, accumulate):
    arrays = subjects.arrays(str(folder), subjects.parts(str(folder), 'float32'), 8, 16)
    step, about = jax_loop.stepper(SPEC | {'model': str(folder), 'accumulate': accumulate}, arrays)
    at, checkpoint = arrays['order'][0], hf.read(folder)
    tokens, length = arrays['tokens'][at], arrays['length'][at]
    hidden = Transformer(checkpoint.config).apply({'params': hf.load(folder)}, tokens, length)
    logits = heads.read_out(hidden, length, hf.read_out(checkpoint)) @ arrays['head']
    want = -jax.nn.log_softmax(logits)[np.arange(8), arrays['truth'][at]].mean()
    losses = [float(step(0)[0]) for _ in range(5)]
    np.testing.assert_allclose(losses[0], want, rtol=1e-5)
    assert losses[-1] < 0.9 * losses[0]
    assert about()['peak_bytes'] > about()['state_bytes'] > 0


@pytest.mark.parametrize('name', ['folder', 'chess-xs'])
def test_labels_are_the_same_one_batch_or_all(request, name):
    name = name if subjects.is_chess(name) else str(request.getfixturevalue(name))
    arrays = subjects.arrays(name, subjects.parts(name, 'float32'), 8, subjects.length_of(name, 16))
    spec = SPEC | {'model': name}
    batch = np.asarray(jax_loop.labeller(spec, arrays).step(0))[0]
    whole = jax_loop.predictor(spec, arrays).step(0)[0]
    np.testing.assert_allclose(batch, whole[arrays['order'][0]], atol=1e-6)
    np.testing.assert_allclose(whole.sum(-1), 1, rtol=1e-5)
