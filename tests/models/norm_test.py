"""Norms against Flax's own and the gradient that JAX derives from those."""
import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2s_jax.models.config import TransformerConfig
from w2s_jax.models.norm import Norm

EPS = 1e-3
KINDS = {'layer': ('layernorm', True), 'layer, without bias': ('layernorm', False),
         'root mean square': ('rmsnorm', False), 'root mean square, with bias': ('rmsnorm', True)}


def ours(kind, bias, dtype='float32', offset=0.0):
    return Norm(TransformerConfig(vocab_size=2, d_model=8, num_layers=1, num_heads=2, d_ff=8, max_length=8, norm=kind,
                                  norm_bias=bias, norm_eps=EPS, norm_offset=offset, dtype=dtype))


def flax_norm(params, x, kind, bias):
    plain = {'scale': params['scale']}
    if kind == 'rmsnorm':
        return nn.RMSNorm(epsilon=EPS).apply({'params': plain}, x) + (params['bias'][None, None] if bias else 0)
    norm = nn.LayerNorm(epsilon=EPS, use_bias=bias, use_fast_variance=False)
    return norm.apply({'params': params if bias else plain}, x)


@pytest.fixture
def drawn():
    rng = np.random.default_rng(0)
    params = {'scale': rng.normal(size=8).astype(np.float32), 'bias': rng.normal(size=8).astype(np.float32)}
    x = (3 + 2 * rng.normal(size=(4, 5, 8))).astype(np.float32)
    return params, x, rng.normal(size=x.shape).astype(np.float32)


@pytest.mark.parametrize('name', KINDS)
def test_norms_and_their_gradients_are_those_of_flax(name, drawn):
    (kind, bias), (params, x, weight) = KINDS[name], drawn
    params = params if bias else {'scale': params['scale']}

    def of(norm):
        return jax.value_and_grad(lambda p, x: (weight * norm(p, x)).sum(), (0, 1))(params, x)
    chex.assert_trees_all_close(of(lambda p, x: ours(kind, bias).apply({'params': p}, x)),
                                of(lambda p, x: flax_norm(p, x, kind, bias)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('kind', ['layernorm', 'rmsnorm'])
def test_bfloat16_is_normed_in_float32_and_its_gradient_is_as_short(kind, drawn):
    params, x, weight = drawn
    short = jnp.asarray(x, jnp.bfloat16)

    def of(dtype, x):
        norm = ours(kind, True, dtype)
        return jax.value_and_grad(lambda x: (weight * norm.apply({'params': params}, x)).sum().astype(jnp.float32))(x)
    (_, found), (_, want) = of('bfloat16', short), of('float32', short.astype(jnp.float32))
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(jnp.float32), want, rtol=.02, atol=.02)


def test_an_offset_is_added_to_the_scale(drawn):
    params, x, _ = drawn
    shifted = {'scale': params['scale'] - 1}
    found = ours('rmsnorm', False, offset=1.0).apply({'params': shifted}, x)
    want = ours('rmsnorm', False).apply({'params': {'scale': params['scale']}}, x)
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5)
