"""One Flax Linen transformer for every family. Shapes: B sequences, L tokens, D model, H heads, C per head."""
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from w2s_jax.models.config import TransformerConfig

_ACTIVATIONS: dict[str, Callable] = {
    'gelu': functools.partial(jax.nn.gelu, approximate=False),
    'gelu_tanh': functools.partial(jax.nn.gelu, approximate=True),
    'relu': jax.nn.relu,
    'silu': jax.nn.silu,
}


class Norm(nn.Module):
    """Layer or root-mean-square norm over the last axis, in float32, cast back before the weight."""
    config: TransformerConfig

    @nn.compact
    def __call__(self, x):
        c = self.config
        if c.norm == 'none':
            return x
        x32 = x.astype(jnp.float32)
        if c.norm == 'layernorm':
            x32 = x32 - x32.mean(-1, keepdims=True)
        x32 = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, -1, keepdims=True) + c.norm_eps)
        scale = self.param('scale', nn.initializers.constant(1.0 - c.norm_offset), (x.shape[-1],))
        y = x32 * jnp.expand_dims(scale + c.norm_offset, range(x.ndim - 1))
        if c.norm_bias:
            bias = self.param('bias', nn.initializers.zeros, (x.shape[-1],))
            y = y + jnp.expand_dims(bias, range(x.ndim - 1))
        return y.astype(c.dtype)


def rotate(x, positions, base: float, fraction: float):
    """Rotary position embedding (arXiv 2104.09864), half-split as in Hugging Face's Llama.

    Args:
      x: `[B, L, H, C]`.  positions: `[L]`.  fraction: the share of C, from the front, that is rotated.
    """
    rotated = int(x.shape[-1] * fraction)
    half = rotated // 2
    frequency = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = (positions.astype(jnp.float32)[:, None] * frequency[None, :])[None, :, None, :]
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    a, b, rest = x[..., :half].astype(jnp.float32), x[..., half:rotated].astype(jnp.float32), x[..., rotated:]
    return jnp.concatenate([(a * cos - b * sin).astype(x.dtype), (b * cos + a * sin).astype(x.dtype), rest], -1)


def grid_bias(module: nn.Module, c: TransformerConfig):
    """`[1, H, L, L]`: one learned number a head for each step in files and ranks between two cells."""
    side = round(c.max_length ** .5)
    file, rank = np.arange(c.max_length) % side, np.arange(c.max_length) // side
    steps = [(x[:, None] - x[None]) + side - 1 for x in (file, rank)]
    table = module.param('grid', nn.initializers.zeros, ((2 * side - 1) ** 2, c.num_heads))
    return table[steps[0] * (2 * side - 1) + steps[1]].transpose(2, 0, 1)[None].astype(c.dtype)


class Attention(nn.Module):
    """Multi-head attention with grouped keys, over the first `length` tokens of each row."""
    config: TransformerConfig

    @nn.compact
    def __call__(self, x, length):
        c = self.config
        dense = functools.partial(nn.DenseGeneral, use_bias=c.bias_qkv, dtype=c.dtype)
        q = dense((c.num_heads, c.per_head), name='query')(x)
        k = dense((c.kv_heads, c.per_head), name='key')(x)
        v = dense((c.kv_heads, c.per_head), name='value')(x)
        if c.qk_norm:
            q, k = Norm(c, name='query_norm')(q), Norm(c, name='key_norm')(k)
        if c.position == 'rotary':
            positions = jnp.arange(x.shape[1])
            q = rotate(q, positions, c.rotary_base, c.rotary_fraction)
            k = rotate(k, positions, c.rotary_base, c.rotary_fraction)
        bias = grid_bias(self, c) if c.position == 'grid' else None
        y = jax.nn.dot_product_attention(q, k, v, bias, scale=c.query_scale or None, is_causal=c.causal,
                                         key_value_seq_lengths=length)
        return nn.DenseGeneral(c.d_model, axis=(-2, -1), use_bias=c.bias_out, dtype=c.dtype, name='out')(y)


class MLP(nn.Module):
    """Two dense layers, the first gated where the config says so (arXiv 2002.05202)."""
    config: TransformerConfig

    @nn.compact
    def __call__(self, x):
        c = self.config
        dense = functools.partial(nn.Dense, use_bias=c.bias_mlp, dtype=c.dtype)
        y = _ACTIVATIONS[c.activation](dense(c.d_ff, name='gate' if c.gated else 'up')(x))
        if c.gated:
            y = y * dense(c.d_ff, name='up')(x)
        return dense(c.d_model, name='down')(y)


class Block(nn.Module):
    """One layer. Returns (hidden, None), the form that `nn.scan` wants."""
    config: TransformerConfig

    @nn.compact
    def __call__(self, x, length):
        c = self.config
        attention, mlp = Attention(c, name='attention'), MLP(c, name='mlp')
        norms = {k: Norm(c, name=k) for k in ('attention_norm', 'mlp_norm')}
        if c.norm_place == 'post':
            x = norms['attention_norm'](x + attention(x, length))
            return norms['mlp_norm'](x + mlp(x)), None
        a = attention(norms['attention_norm'](x), length)
        if c.norm_place == 'both':
            a = Norm(c, name='attention_post_norm')(a)
        m = mlp(norms['mlp_norm'](x if c.parallel_residual else x + a))
        if c.norm_place == 'both':
            m = Norm(c, name='mlp_post_norm')(m)
        return x + a + m, None


class Transformer(nn.Module):
    """Tokens to hidden states; the layers are scanned, so their parameters carry a leading layer axis."""
    config: TransformerConfig

    @nn.compact
    def __call__(self, tokens, length=None):
        """tokens `[B, L]` int32, length `[B]` int32 (None: all are full) -> `[B, L, D]`."""
        c = self.config
        embed = functools.partial(nn.Embed, features=c.d_model, dtype=c.dtype)
        x = embed(c.vocab_size, name='tokens')(tokens) * jnp.asarray(c.embed_scale, c.dtype)
        if c.position in ('learned', 'grid'):
            table = embed(c.max_length + c.position_offset, name='positions')
            x = x + table(jnp.arange(tokens.shape[1]) + c.position_offset)[None]
        if c.token_types:
            x = x + embed(c.token_types, name='types')(jnp.zeros_like(tokens))
        if c.embed_norm:
            x = Norm(c, name='embed_norm')(x)
        block: Any = nn.remat(Block, prevent_cse=False) if c.remat == 'full' else Block
        layers: Any = nn.scan(block, variable_axes={'params': 0}, split_rngs={'params': True},
                         in_axes=nn.broadcast, length=c.num_layers)
        x, _ = layers(c, name='layers')(x, length)
        return Norm(c, name='final_norm')(x) if c.final_norm else x
