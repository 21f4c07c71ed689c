"""The one linear layer of the transformer: any axes in and out, with a low-rank adapter where one is given."""
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

ADAPTERS = 'adapters'  # the Flax collection that LoRA's factors live in, beside 'params'


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
        y = x @ kernel.reshape(size_in, size_out).astype(self.dtype)
        if self.has_variable(ADAPTERS, 'a'):
            a: Any = self.get_variable(ADAPTERS, 'a')
            b: Any = self.get_variable(ADAPTERS, 'b')
            y = y + (x @ a.astype(self.dtype)) @ b.astype(self.dtype)
        if self.use_bias:
            bias = self.param('bias', nn.initializers.zeros, out)
            y = y + bias.reshape(1, size_out).astype(self.dtype)
        return y.reshape(*batch, *out)
