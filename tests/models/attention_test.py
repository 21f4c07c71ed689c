"""The fused ways to compute attention give what plain products give, wherever a token is real."""
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2s_jax.errors import ConfigError
from w2s_jax.models import attention, heads, transformer
from w2s_jax.models.config import TransformerConfig
from w2s_jax.models.transformer import Transformer

BASE = TransformerConfig(vocab_size=19, d_model=128, num_layers=2, num_heads=4, d_ff=128, num_kv_heads=2, head_dim=64)
KINDS = {'causal': {}, 'both ways': {'causal': False}, 'window': {'window': 50},
         'window both ways': {'window': 50, 'causal': False}, 'cap': {'attention_cap': 5.},
         'scale': {'query_scale': .2, 'num_kv_heads': 0}}
HALF = {'dtype': 'bfloat16'}
needs_gpu = pytest.mark.skipif(jax.default_backend() != 'gpu', reason='no NVIDIA GPU')


def draw(c, size=200, rows=2):
    rng = np.random.default_rng(size)
    new = lambda heads: jnp.asarray(rng.normal(size=(rows, size, heads, c.per_head)), c.dtype)
    return new(c.num_heads), new(c.kv_heads), new(c.kv_heads)


def plain(c, q, k, v, length):
    return transformer.attend(q, k, v, transformer.seen_by(c, q.shape[1], length, None), scale=attention.scale(c),
                              cap=c.attention_cap)


def both(c, way, length, size=200):
    """Outputs and gradients of plain products and of `way`, padding left out."""
    arrays, real = draw(c, size), (np.arange(size)[None] < np.asarray(length)[:, None])[..., None, None]
    weight = np.random.default_rng(1).normal(size=arrays[0].shape).astype(np.float32)

    def value(fn, *arrays):
        y = jnp.where(real, fn(c, *arrays, jnp.asarray(length, jnp.int32)), 0).astype(jnp.float32)
        return (y * weight).sum(), y
    return [jax.jit(jax.value_and_grad(functools.partial(value, fn), (0, 1, 2), has_aux=True))(*arrays)
            for fn in (plain, attention.FUSED[way])]


@pytest.mark.parametrize('kind', KINDS)
def test_the_tpu_kernel_equals_plain_products(kind):
    ((_, want), grads), ((_, found), again) = both(dataclasses.replace(BASE, **KINDS[kind]), 'splash', [200, 77])
    np.testing.assert_allclose(found, want, atol=1e-5)
    for a, b in zip(again, grads, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
        assert np.abs(b).max() > .5


def test_rows_may_be_as_short_as_one_token():
    ((_, want), _), ((_, found), grads) = both(BASE, 'splash', [1, 130], 130)
    np.testing.assert_allclose(found, want, atol=1e-5)
    assert all(np.isfinite(g).all() for g in grads)


@needs_gpu
@pytest.mark.parametrize('kind', ['causal', 'both ways', 'window', 'scale'])
def test_cudnn_equals_plain_products(kind):
    ((_, want), grads), ((_, found), again) = both(
        dataclasses.replace(BASE, **HALF, **KINDS[kind]), 'cudnn', [200, 77])
    np.testing.assert_allclose(found, want, atol=2e-2)
    for a, b in zip(again, grads, strict=True):
        assert np.linalg.norm((a - b).astype(np.float32)) < 2e-2 * np.linalg.norm(b.astype(np.float32))


@pytest.fixture
def a_gpu(monkeypatch):
    """What JAX asks of the machine before it writes a program for cuDNN."""
    from jax._src.cudnn import fused_attention_stablehlo as fused
    monkeypatch.setattr(fused, 'check_cudnn_version', lambda: 91000)
    monkeypatch.setattr(fused, 'check_compute_capability', lambda _: True)
    monkeypatch.setattr(fused, 'is_cuda_compute_capability_equal', lambda _: False)
    monkeypatch.setattr(attention, '_capability', lambda: (9, 0))


@pytest.mark.parametrize('runs', [0, 3])
@pytest.mark.parametrize('kind', ['causal', 'both ways', 'window', 'scale'])
def test_a_model_with_cudnn_is_written_for_cuda(a_gpu, kind, runs):
    """Forward and backward, one run and runs side by side that share their texts; as far as a CPU can tell."""
    c = dataclasses.replace(BASE, **HALF, **KINDS[kind], attention='cudnn')
    module, tokens, length = Transformer(c), jnp.zeros((2, 64), jnp.int32), jnp.array([64, 9])
    params = jax.eval_shape(module.init, jax.random.key(0), tokens, length)
    step = jax.grad(lambda p: module.apply(p, tokens, length).astype(jnp.float32).sum())
    if runs:
        step, params = jax.vmap(step), jax.tree.map(lambda x: jax.ShapeDtypeStruct((runs, *x.shape), x.dtype), params)
    text = jax.jit(step).trace(params).lower(lowering_platforms=('cuda',)).as_text()
    assert 'fmha' in text and 'fmhaSoftmaxBackward' in text
    assert ('PADDING_CAUSAL' if c.causal else 'PADDING') in text


@pytest.mark.parametrize('kind', KINDS)
def test_a_model_with_the_tpu_kernel_is_written_for_tpus(kind, monkeypatch):
    c = dataclasses.replace(BASE, **HALF, **KINDS[kind], attention='splash')
    monkeypatch.setattr(attention, 'lacks', lambda c, way: '')
    monkeypatch.setattr(attention.jax, 'default_backend', lambda: 'tpu')
    module, tokens, length = Transformer(c), jnp.zeros((2, 256), jnp.int32), jnp.array([256, 9])
    params = jax.eval_shape(module.init, jax.random.key(0), tokens, length)
    step = jax.grad(lambda p: module.apply(p, tokens, length).astype(jnp.float32).sum())
    text = jax.jit(step).trace(params).lower(lowering_platforms=('tpu',)).as_text()
    assert text.count('tpu_custom_call') >= 3  # forward, and backward by queries and by keys


@pytest.fixture
def splash(monkeypatch):
    monkeypatch.setattr(attention, 'lacks', lambda c, way: '')
    return dataclasses.replace(BASE, attention='splash', num_layers=1)


def loss(module, params, tokens, length):
    hidden = module.apply(params, tokens, length)
    return jnp.sum(jnp.sin(heads.read_out(hidden, length, 'last')))


@pytest.mark.long
def test_a_model_with_it_is_the_same_model(splash):
    modules = [Transformer(dataclasses.replace(splash, attention=a)) for a in ('xla', 'splash')]
    tokens, length = np.random.default_rng(0).integers(0, 19, (3, 40)).astype(np.int32), jnp.array([40, 1, 17])
    params = modules[0].init(jax.random.key(0), tokens, length)
    want, found = (jax.jit(jax.value_and_grad(functools.partial(loss, m)))(params, tokens, length) for m in modules)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), found, want)


def test_garbage_in_the_padding_does_not_move_the_read_out(splash):
    module, length = Transformer(splash), jnp.array([40, 1, 17])
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 19, (3, 40)).astype(np.int32)
    other = np.where(np.arange(40)[None] < np.asarray(length)[:, None], tokens, rng.integers(0, 19, (3, 40)))
    assert (tokens != other).sum() > 40
    params = module.init(jax.random.key(0), tokens, length)
    read = jax.jit(lambda t: heads.read_out(module.apply(params, t, length), length, 'last'))
    np.testing.assert_allclose(read(tokens), read(other), atol=1e-6)


def test_what_a_kernel_cannot_do_is_said():
    for change, way, reason in (
            ({}, 'cudnn', 'an NVIDIA GPU'), ({}, 'splash', 'a TPU'), (HALF, 'cudnn', 'an NVIDIA GPU')):
        with pytest.raises(ConfigError, match=rf"^train.attention: '{way}' needs {reason}.*, expected auto or xla$"):
            attention.check(dataclasses.replace(BASE, **change, attention=way))


@pytest.mark.parametrize(('change', 'reason'), [
    ({'dtype': 'float32'}, 'bfloat16'), ({'head_dim': 60}, 'not 60'), ({'head_dim': 512}, 'not 512'),
    ({'attention_cap': 5.}, 'without a cap'), ({'window': 9, 'causal': False}, 'causal window'),
    ({'window': 9, 'sliding': (True, False)}, 'in all layers'), ({'position': 'grid', 'max_length': 64}, 'no bias')])
def test_cudnn_is_taken_where_it_fits_only(a_gpu, change, reason):
    fits = dataclasses.replace(BASE, **HALF)
    assert not attention.lacks(fits, 'cudnn')
    assert reason in attention.lacks(dataclasses.replace(fits, **change), 'cudnn')
