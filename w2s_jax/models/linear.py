"""The linear layer of the transformer, with a low-rank adapter where one is given, and its table of embeddings."""
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from w2s_jax.runtime import sharding

ADAPTERS = 'adapters'  # the Flax collection that LoRA's factors live in, beside 'params'
LINEAR = 'linear'  # what these layers give, by name, for a backward pass that keeps it (`TransformerConfig.remat`)


class Linear(nn.Module):
    """`[..., *in]` to `[..., *features]`, contracting the last `axes` axes; the kernel is `[*in, *features]`.

    Where the collection `adapters` holds factors `a` `[I, r]` and `b` `[r, O]` under this module's path (I and
    O are the products of the in and out sizes), `x a b` is added: LoRA (arXiv 2106.09685, eq. 3), with its scale
    already in `b`. Such a layer's kernel need not be trained, and then costs no gradient.
    """
    features: int | Sequence[int]
    axes: int = 1
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x):
        out = (self.features,) if isinstance(self.features, int) else tuple(self.features)
        ins, batch = x.shape[-self.axes:], x.shape[:-self.axes]
        size_in, size_out = math.prod(ins), math.prod(out)

        def draw(key, shape, dtype=jnp.float32):
            return nn.initializers.lecun_normal()(key, (size_in, size_out), dtype).reshape(shape)

        kernel = self.param('kernel', draw, (*ins, *out))
        x = x.reshape(-1, size_in).astype(self.dtype)  # of two axes: else the kernel's gradient copies y transposed
        kernel = kernel.reshape(size_in, size_out).astype(self.dtype)
        if size_in > size_out and jax.default_backend() == 'cpu':  # its gradient is then [O, T] [T, I], a fifth faster
            kernel = jax.lax.optimization_barrier(kernel.T).T
        y = x @ kernel
        if self.has_variable(ADAPTERS, 'a'):
            a: Any = self.get_variable(ADAPTERS, 'a')
            b: Any = self.get_variable(ADAPTERS, 'b')
            y = y + (x @ a.astype(self.dtype)) @ b.astype(self.dtype)
        if self.use_bias:
            bias = self.param('bias', nn.initializers.zeros, out)
            y = y + bias.reshape(1, size_out).astype(self.dtype)
        return checkpoint_name(sharding.split(y.reshape(*batch, *out), 'batch'), LINEAR)


class Embed(nn.Embed):
    """`nn.Embed` that looks up first and casts then: the gradients of a token that is there a thousand times are added
    up in float32, and no copy of the table is made. Where a mesh has a table's columns apart (`sharding.RULES`), a
    device looks up its columns for the rows of all that share a table, and they then exchange them."""

    def __call__(self, inputs):
        if inputs.ndim == 1:
            return jnp.take(self.embedding, inputs, axis=0).astype(self.dtype)
        found = jnp.take(self.embedding, sharding.split(inputs, 'data'), axis=0).astype(self.dtype)
        return sharding.split(found, 'data', *(None,) * (inputs.ndim - 1), 'fsdp')
