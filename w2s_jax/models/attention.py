"""Which attention a layer computes with, chosen here and nowhere else: plain products (`transformer.attend`, on every
backend), cuDNN's fused kernel on NVIDIA GPUs, or the TPU kernel that comes with JAX. They agree on every real token.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from w2s_jax.errors import ConfigError
from w2s_jax.models.config import TransformerConfig
from w2s_jax.runtime import sharding

LONG = 512  # tokens from which on `auto` takes the TPU kernel: shorter ones keep little (not measured: no TPU at hand)
LANES = 128  # of a TPU: the kernel's blocks are multiples of it
BLOCKS = (512, 256, LANES)  # tokens of a block, the first that divides a text's
AXES = ('batch', None, 'tensor', None)  # what of the mesh splits `[B, L, H, C]`


def attended(c: TransformerConfig, q, k, v, length, slides, bias):
    """Each token's weighed mean of the values that it may see, `[B, L, H, C]`.

    Args:
      q: `[B, L, H, C]`.  k, v: `[B, L, K, C]`, K divides H.  length: `[B]`, how many tokens of a row are real, or None.
      slides: whether this layer's window is on, where layers differ, else None.  bias: `[1, H, L, L]` or None.
    What comes out at a place that is padding is finite and otherwise not said. Raises ConfigError.
    """
    way = choose(c, q.shape[1])
    if way == 'xla':
        from w2s_jax.models import transformer
        return transformer.attend(q, k, v, transformer.seen_by(c, q.shape[1], length, slides), bias,
                                  scale=scale(c), cap=c.attention_cap)
    length = jnp.full(len(q), q.shape[1], jnp.int32) if length is None else length.astype(jnp.int32)
    # Runs side by side share the lengths but no queries; cuDNN's batching rule wants either both or none to differ.
    length = jnp.where(q[:, 0, 0, 0] == 0, length, length)
    if q.shape[2] != k.shape[2] and not sharding.divides('tensor', k.shape[2]):
        k, v = (jnp.repeat(x, q.shape[2] // k.shape[2], axis=2) for x in (k, v))

    def local(q, k, v, length):
        return FUSED[way](c, q, k, v, length)
    return sharding.per_device(local, (AXES, AXES, AXES, AXES[:1]), AXES)(q, k, v, length)


class Past(NamedTuple):
    """What one more token of each row is to know of those before it.

    at: `[B]`, its position.  slots: `[B, S]`, the positions of what the cache holds; those from `at` on are not read.
    """
    at: jax.Array
    slots: jax.Array


def recalled(c: TransformerConfig, q, k, v, cache, past: Past, slides):
    """`[B, 1, H, C]`: what `attended` gives of a causal model for one more token, that before it from a cache.

    Args:
      q: `[B, 1, H, C]`.  k, v: `[B, 1, K, C]`, the token's own.  cache: keys and values, each `[B, K, S, C]`.
      slides: as for `attended`.
    """
    (batch, _, heads, width), groups = q.shape, k.shape[2]
    q = q.reshape(batch, groups, -1, width)
    k, v = k.swapaxes(1, 2), v.swapaxes(1, 2)

    def products(keys):
        return jnp.einsum('bkgc,bksc->bkgs', q, keys.astype(q.dtype), preferred_element_type=jnp.float32)
    logits = jnp.concatenate([products(cache[0]), products(k)], -1) * scale(c)
    if c.attention_cap:
        logits = c.attention_cap * jnp.tanh(logits / c.attention_cap)
    seen = past.slots < past.at[:, None]
    if c.window:
        near = past.at[:, None] - past.slots < c.window
        seen = seen & (near if slides is None else near | ~slides)
    seen = jnp.pad(seen, ((0, 0), (0, 1)), constant_values=True)[:, None, None]
    weight = jax.nn.softmax(jnp.where(seen, logits, -1e30), axis=-1).astype(q.dtype)
    # The token's own value is multiplied and added apart: put behind the others, it would copy them all.
    y = jnp.einsum('bkgs,bksc->bkgc', weight[..., :-1], cache[1].astype(q.dtype)) + weight[..., -1:] * v
    return y.reshape(batch, 1, heads, width)


def scale(c: TransformerConfig) -> float:
    """What the products of queries and keys are multiplied by."""
    return c.query_scale or c.per_head ** -.5


def cudnn(c: TransformerConfig, q, k, v, length):
    """cuDNN's fused attention, whose softmax is in float32; rows' padding comes out as zeros."""
    return jax.nn.dot_product_attention(
        q, k, v, scale=scale(c), is_causal=c.causal, query_seq_lengths=length, key_value_seq_lengths=length,
        local_window_size=(_window(c) - 1, 0) if 0 < _window(c) < q.shape[1] else None, implementation='cudnn')


def splash(c: TransformerConfig, q, k, v, length):
    """JAX's TPU kernel (`pallas.ops.tpu.splash_attention`); on other backends it is interpreted, for tests."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
    size, heads = q.shape[1:3]
    real = (jnp.arange(size + -size % LANES)[None] < length[:, None]).astype(jnp.int32)
    block = next(b for b in BLOCKS if real.shape[1] % b == 0)
    sizes = kernels.BlockSizes(block_q=block, block_kv=block, block_q_dkv=block, block_kv_dkv=block, block_q_dq=block,
                               block_kv_dq=block)
    call = kernels.make_splash_mha(
        masks.MultiHeadMask([_mask(c, real.shape[1])] * heads), head_shards=1, q_seq_shards=1,
        block_sizes=sizes, attn_logits_soft_cap=c.attention_cap or None, interpret=jax.default_backend() != 'tpu')

    def by_head(x):
        return jnp.pad(x, ((0, 0), (0, -size % LANES), (0, 0), (0, 0))).transpose(0, 2, 1, 3)
    # Queries take the scale, in float32: it is no power of two for most widths.
    scaled = (q.astype(jnp.float32) * scale(c)).astype(q.dtype)
    y = jax.vmap(call)(by_head(scaled), by_head(k), by_head(v), kernels.SegmentIds(real, real))
    return y.transpose(0, 2, 1, 3)[:, :size]


def _mask(c: TransformerConfig, size: int):
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
    if 0 < _window(c) < size:
        return masks.LocalMask((size, size), (_window(c) - 1, 0 if c.causal else _window(c) - 1), 0)
    return (masks.CausalMask if c.causal else masks.FullMask)((size, size))


def _window(c: TransformerConfig) -> int:
    return c.window if not c.sliding or c.sliding[0] else 0  # in all layers, or `lacks` says so


FUSED = {'cudnn': cudnn, 'splash': splash}


def choose(c: TransformerConfig, size: int) -> str:
    """Which way a program for texts of `size` tokens takes: the config's, or the fused one that the backend has."""
    if c.attention != 'auto':
        check(c)
        return c.attention
    if not sharding.known():
        return 'xla'  # a kernel runs on one device; which part of the work is whose is not known here
    found = next((way for way in FUSED if not lacks(c, way)), 'xla')
    return 'xla' if found == 'splash' and size < LONG else found


def check(c: TransformerConfig) -> None:
    """Raises ConfigError where this machine or this model cannot do what `train.attention` says."""
    if c.attention in FUSED and (reason := lacks(c, c.attention)):
        raise ConfigError(f'train.attention: {c.attention!r} needs {reason}, expected auto or xla')


def lacks(c: TransformerConfig, way: str) -> str:
    """What a fused attention needs and this machine or this model does not have; '' where it can be used."""
    uneven = c.window and len(set(c.sliding)) > 1
    needs: tuple[tuple[object, str], ...]
    if way == 'cudnn':
        capability = _capability()
        needs = (
            (capability >= (8, 0), 'an NVIDIA GPU of the Ampere generation or later'),
            (c.dtype == 'bfloat16', 'dtype bfloat16'),
            (c.per_head % 8 == 0 and c.per_head <= (256 if capability >= (9, 0) else 128),
             f'heads of a width that 8 divides, up to 128 (256 on Hopper), not {c.per_head}'),
            (not c.attention_cap, 'attention logits without a cap'),
            (not c.window or (c.causal and not uneven), 'a causal window, the same in all layers'))
    else:
        needs = ((jax.default_backend() == 'tpu', 'a TPU'), (not uneven, 'a window that is the same in all layers'))
    return next((text for has, text in (*needs, (c.position != 'grid', 'no bias')) if not has), '')


def _capability() -> tuple[int, ...]:
    """Of the NVIDIA GPU that JAX computes on, such as (9, 0); () where there is none."""
    if jax.default_backend() != 'gpu':
        return ()
    found = getattr(jax.local_devices()[0], 'compute_capability', '')
    return tuple(int(n) for n in found.split('.')) if found.replace('.', '').isdigit() else ()
