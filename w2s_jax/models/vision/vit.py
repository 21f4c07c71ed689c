"""Vision transformers (arXiv 2010.11929; DINO 2104.14294, DINOv2 2304.07193): patches through the layers of the one
transformer."""
import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from w2s_jax.errors import ConfigError
from w2s_jax.models.config import TransformerConfig
from w2s_jax.models.linear import Linear
from w2s_jax.models.transformer import Shared, layered
from w2s_jax.models.vision.seen import Seen
from w2s_jax.runtime import sharding

CUBIC = -.75  # the free number of the cubic kernel, PyTorch's


@dataclasses.dataclass(frozen=True)
class ViTConfig:
    """transformer: the layers.  image: the side in pixels that the positions were learned for.  patch: of a patch.
    pooler: whether the class token is also pooled, `tanh(W x + b)`."""
    transformer: TransformerConfig
    image: int
    patch: int
    pooler: bool = False

    @property
    def num_layers(self) -> int:
        return self.transformer.num_layers

    def build(self) -> tuple[nn.Module, tuple]:
        """The module, and shapes of what it is called with."""
        module = ViT(self.transformer, self.image // self.patch, self.patch, self.pooler)
        return module, (jax.ShapeDtypeStruct((1, self.image, self.image, 3), jnp.float32),)


class ViT(nn.Module):
    """Images to hidden states. side: how many patches the positions were learned for, along either side."""
    config: TransformerConfig
    side: int
    patch: int
    pooler: bool = False

    @nn.compact
    def __call__(self, images, every_layer: bool = False) -> Seen:
        """images `[B, H, W, 3]` float32, normalised; what is left over at the right and below is not seen."""
        c = self.config
        hidden, layers = layered(c, sharding.split(self._embed(images), 'batch'), Shared(), every_layer)
        pooled = hidden[:, 0]
        if self.pooler:
            pooled = jnp.tanh(Linear(c.d_model, dtype=c.dtype, name='pooler')(pooled))
        return Seen(hidden, pooled, layers, 1)

    def _embed(self, images):
        """`[B, 1 + H' W', D]`: the class token and H' x W' patches, with their positions."""
        c, small = self.config, nn.initializers.normal(.02)
        x = patches(images, self.patch)
        batch, height, width = x.shape[:3]
        x = Linear(c.d_model, axes=3, dtype=c.dtype, name='patches')(x.reshape(batch, height * width, *x.shape[3:]))
        token = self.param('cls', small, (1, 1, c.d_model))
        at = positions(self.param('positions', small, (1, 1 + self.side ** 2, c.d_model)), self.side, height, width)
        first = jnp.broadcast_to(token, (batch, 1, c.d_model)).astype(c.dtype)
        return jnp.concatenate([first, x], axis=1) + at.astype(c.dtype)


def patches(images, side: int):
    """Images `[B, H, W, 3]` as `[B, H', W', side, side, 3]`. Raises ConfigError for those smaller than a patch."""
    height, width = images.shape[1] // side, images.shape[2] // side
    if not height or not width:
        raise ConfigError(f'task.size: images of {images.shape[1]} x {images.shape[2]} pixels, expected at least one '
                          f'patch of {side} x {side}')
    cut = images[:, :height * side, :width * side]
    return cut.reshape(len(images), height, side, width, side, -1).transpose(0, 1, 3, 2, 4, 5)


def positions(table, side: int, height: int, width: int):
    """Learned positions `[1, 1 + side^2, D]`, the class token's first, for `height` x `width` patches: interpolated by
    cubic convolution, as DINO's published code does, where these are not as many."""
    if (height, width) == (side, side):
        return table
    grid = table[0, 1:].reshape(side, side, -1).astype(jnp.float32)
    found = jnp.einsum('yi,xj,ijd->yxd', cubic(side, height), cubic(side, width), grid, precision='highest')
    return jnp.concatenate([table[:, :1], found.reshape(1, height * width, -1).astype(table.dtype)], axis=1)


@functools.cache
def cubic(old: int, new: int) -> np.ndarray:
    """`[new, old]` float32: what each of `new` points, evenly spread over the same length, takes of `old` ones: cubic
    convolution (Keys 1981, eq. 4, a = CUBIC), the outermost points repeated beyond the ends."""
    at = (np.arange(new) + .5) * old / new - .5
    out = np.zeros((new, old))
    for step in (-1, 0, 1, 2):
        nearby = np.floor(at) + step
        far = np.abs(at - nearby)
        inner = (CUBIC + 2) * far ** 3 - (CUBIC + 3) * far ** 2 + 1
        outer = CUBIC * (far ** 3 - 5 * far ** 2 + 8 * far - 4)
        np.add.at(out, (np.arange(new), np.clip(nearby, 0, old - 1).astype(int)), np.where(far <= 1, inner, outer))
    return out.astype(np.float32)
