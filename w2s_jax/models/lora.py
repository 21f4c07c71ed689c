"""Low-rank adapters (LoRA, arXiv 2106.09685): small factors trained beside frozen kernels."""
import math
import re

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from w2s_jax.errors import ConfigError
from w2s_jax.models.linear import Linear

Shapes = dict[tuple[str, ...], tuple[tuple[int, ...], int, int]]  # path -> (layer axis if any, in, out)


def linears(module: nn.Module, params, *inputs) -> Shapes:
    """Every `Linear` of a module by its path, such as `layers/attention/query`, with its sizes.

    Args:
      params: a tree of arrays or shapes.  inputs: what the module is called with; only shapes matter.
    """
    found: dict[tuple[str, ...], tuple[int, int, int]] = {}

    def note(call, args, kwargs, context):
        layer = context.module
        if isinstance(layer, Linear) and context.method_name == '__call__':
            out = (layer.features,) if isinstance(layer.features, int) else tuple(layer.features)
            found[layer.path] = math.prod(args[0].shape[-layer.axes:]), math.prod(out), layer.axes + len(out)
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        jax.eval_shape(lambda p, x: module.apply({'params': p}, *x), params, inputs)
    kernels = flax.traverse_util.flatten_dict(params)
    return {path: (kernels[(*path, 'kernel')].shape[:-ndim], size_in, size_out)
            for path, (size_in, size_out, ndim) in found.items()}


def select(shapes: Shapes, pattern: str, field: str) -> Shapes:
    """Those whose path, joined by `/`, `pattern` matches somewhere. Raises ConfigError where none does."""
    try:
        chosen = {path: shape for path, shape in shapes.items() if re.search(pattern, '/'.join(path))}
    except re.error as e:
        raise ConfigError(f'{field}: {pattern!r} is not a regular expression ({e})') from None
    if not chosen:
        raise ConfigError(f'{field}: {pattern!r} matches none of {", ".join("/".join(path) for path in shapes)}')
    return chosen


def check_rank(rank: int, shapes: Shapes, field: str) -> None:
    """Raises ConfigError for factors that would be larger than a layer that they adapt."""
    path, (_, size_in, size_out) = min(shapes.items(), key=lambda item: min(item[1][1:]))
    if rank > min(size_in, size_out):
        raise ConfigError(f'{field}: {rank}, expected at most {min(size_in, size_out)}, the smaller side of '
                          f'{"/".join(path)} ({size_in} to {size_out})')


def draw(key, shapes: Shapes, rank: int) -> dict:
    """Factors `a` `[..., I, r]`, uniform in +-1/sqrt(I), and `b` `[..., r, O]`, zero: at first nothing changes."""
    flat = {}
    for i, (path, (layers, size_in, size_out)) in enumerate(sorted(shapes.items())):
        bound = size_in ** -.5
        flat[(*path, 'a')] = jax.random.uniform(jax.random.fold_in(key, i), (*layers, size_in, rank),
                                                minval=-bound, maxval=bound)
        flat[(*path, 'b')] = jnp.zeros((*layers, rank, size_out))
    return flax.traverse_util.unflatten_dict(flat)


def scaled(adapters: dict, scale: float) -> dict:
    """The factors with alpha / rank put into `b`, as `Linear` takes them."""
    flat = flax.traverse_util.flatten_dict(adapters)
    return flax.traverse_util.unflatten_dict({k: v * scale if k[-1] == 'b' else v for k, v in flat.items()})


def merge(params: dict, adapters: dict, scale: float) -> dict:
    """The backbone's parameters with `scale * a b` added to the adapted kernels: the same function, no adapters."""
    flat = dict(flax.traverse_util.flatten_dict(params))
    factors = flax.traverse_util.flatten_dict(adapters)
    for path in {k[:-1] for k in factors}:
        kernel = flat[(*path, 'kernel')]
        change = scale * np.matmul(factors[(*path, 'a')], factors[(*path, 'b')], dtype=np.float32)
        flat[(*path, 'kernel')] = (kernel + change.reshape(kernel.shape)).astype(kernel.dtype)
    return flax.traverse_util.unflatten_dict(flat)
