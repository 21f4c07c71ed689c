"""Layer and root-mean-square norms, with a gradient written out: it takes fewer passes than the traced one."""
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from w2s_jax.models.config import TransformerConfig


class Norm(nn.Module):
    """Layer or root-mean-square norm over the last axis, its weight included in float32."""
    config: TransformerConfig

    @nn.compact
    def __call__(self, x):
        c = self.config
        if c.norm == 'none':
            return x
        scale = self.param('scale', nn.initializers.constant(1.0 - c.norm_offset), x.shape[-1:]) + c.norm_offset
        bias = self.param('bias', nn.initializers.zeros, x.shape[-1:]) if c.norm_bias else None
        return normalised(x, scale, bias, c.norm_eps, c.norm == 'layernorm').astype(c.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def normalised(x, scale, bias, eps: float, centred: bool):
    """`[..., D]` in float32: of mean square one along D, and of mean zero where `centred`, times scale, plus bias.

    Layer norm (arXiv 1607.06450, eq. 4) or root-mean-square norm (arXiv 1910.07467, eq. 4).

    Args:
      scale: `[D]`.  bias: `[D]`, or None.  eps: is added to the mean square.
    """
    return _forward(x, scale, bias, eps, centred)[0]


def _forward(x, scale, bias, eps: float, centred: bool):
    mean: Any = x.astype(jnp.float32).mean(-1, keepdims=True) if centred else 0.0
    moved = x.astype(jnp.float32) - mean
    rate = jax.lax.rsqrt(jnp.mean(moved * moved, -1, keepdims=True) + eps)
    y = moved * rate * _last(scale, x)
    return y if bias is None else y + _last(bias, x), (x, mean, rate, scale, bias)


def _backward(eps: float, centred: bool, saved: tuple, gradient):
    x, mean, rate, scale, bias = saved
    unit = (x.astype(jnp.float32) - mean) * rate
    inner = gradient * _last(scale, x)
    moved = inner - unit * jnp.mean(inner * unit, -1, keepdims=True)
    if centred:
        moved = moved - inner.mean(-1, keepdims=True)
    rows = tuple(range(x.ndim - 1))
    return ((moved * rate).astype(x.dtype), (gradient * unit).sum(rows),
            None if bias is None else gradient.sum(rows))


normalised.defvjp(_forward, _backward)


def _last(vector, x):
    """A vector along the last axis of x."""
    return jnp.expand_dims(vector, range(x.ndim - 1))
