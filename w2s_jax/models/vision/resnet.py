"""Residual networks (arXiv 1512.03385), of basic and bottleneck blocks. Batch norms use the statistics that they were
pretrained with, in training too: what an image gives does not depend on the batch it is in."""
import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from w2s_jax.models import tables
from w2s_jax.models.vision.seen import Seen

EPS = 1e-5  # PyTorch's default, that no config changes
_ACTIVATIONS = {'relu': jax.nn.relu, 'gelu': lambda x: jax.nn.gelu(x, approximate=False), 'silu': jax.nn.silu}
ACTIVATIONS = tuple(_ACTIVATIONS)
_HE = nn.initializers.variance_scaling(2., 'fan_out', 'normal')


@dataclasses.dataclass(frozen=True)
class ResNetConfig:
    """embedding: channels of the stem.  widths, depths: of each stage, channels and blocks.  bottleneck: blocks of
    three convolutions, the middle one a quarter as wide, instead of two.  early: the first convolution of a bottleneck
    has the stride, and not the middle one.  first: the first stage halves the image, too.  small: a stem of 3 x 3 that
    halves nothing, for images of 32 pixels (1512.03385, section 4.2)."""
    embedding: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    bottleneck: bool = True
    activation: str = 'relu'
    first: bool = False
    early: bool = False
    small: bool = False
    num_layers: int = 0  # that a network can be cut after: none

    def build(self) -> tuple[nn.Module, tuple]:
        """The module, and shapes of what it is called with."""
        return ResNet(self), (jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32),)

    def stride(self, stage: int) -> int:
        return 2 if stage or self.first else 1


class NormedConvolution(nn.Module):
    """`[B, H, W, C]` to `[B, H / stride, W / stride, features]`: a convolution and a batch norm in inference form."""
    features: int
    side: int
    stride: int = 1

    @nn.compact
    def __call__(self, x):
        pad = [(self.side // 2, self.side // 2)] * 2
        x = nn.Conv(self.features, (self.side,) * 2, self.stride, pad, use_bias=False, kernel_init=_HE,
                    name='convolution')(x)
        one, zero, shape = nn.initializers.ones, nn.initializers.zeros, (self.features,)
        scale, bias = self.param('scale', one, shape), self.param('bias', zero, shape)
        mean, variance = (jax.lax.stop_gradient(self.param(name, first, shape))
                          for name, first in (('mean', zero), ('variance', one)))
        scale = scale * jax.lax.rsqrt(variance + EPS)
        return x * scale[None, None, None] + (bias - mean * scale)[None, None, None]


class Block(nn.Module):
    """One residual block. shortcut: whether the image is brought to the block's width and size on its way around."""
    config: ResNetConfig
    features: int
    stride: int
    shortcut: bool

    @nn.compact
    def __call__(self, x):
        c, y = self.config, x
        for i, (features, side, stride) in enumerate(layers := convolutions(c, self.features, self.stride)):
            y = NormedConvolution(features, side, stride, name=f'part{i}')(y)
            y = jax.nn.relu(y) if i + 1 < len(layers) else y  # inside of a block whatever the config says, as published
        around = NormedConvolution(self.features, 1, self.stride, name='shortcut')(x) if self.shortcut else x
        return _ACTIVATIONS[c.activation](y + around)


def convolutions(c: ResNetConfig, features: int, stride: int) -> list[tuple[int, int, int]]:
    """(channels, side, stride) of the convolutions of a block."""
    if not c.bottleneck:
        return [(features, 3, stride), (features, 3, 1)]
    inner, (early, late) = features // 4, (stride, 1) if c.early else (1, stride)
    return [(inner, 1, early), (inner, 3, late), (features, 1, 1)]


def blocks(c: ResNetConfig) -> list[tuple[int, int, int, bool]]:
    """(stage, place in it, stride, whether there is a convolution on the way around) of every block."""
    found, before = [], c.embedding
    for stage, (width, depth) in enumerate(zip(c.widths, c.depths, strict=True)):
        for i in range(depth):
            stride = 1 if i else c.stride(stage)
            found.append((stage, i, stride, stride != 1 or before != width))
            before = width
    return found


class ResNet(nn.Module):
    """Images to a map of features, whose places are read as a sequence."""
    shape: ResNetConfig

    @nn.compact
    def __call__(self, images, every_layer: bool = False) -> Seen:
        """images `[B, H, W, 3]` float32, normalised."""
        c = self.shape
        x = NormedConvolution(c.embedding, 3 if c.small else 7, 1 if c.small else 2, name='stem')(images)
        x = _ACTIVATIONS[c.activation](x)
        x = x if c.small else nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        kept = [x]
        for stage, i, stride, shortcut in blocks(c):
            x = Block(c, c.widths[stage], stride, shortcut, name=f'stage{stage}_block{i}')(x)
            kept += [x] if i + 1 == c.depths[stage] else []
        flat = [y.reshape(len(y), -1, y.shape[-1]) for y in kept]
        return Seen(flat[-1], x.mean((1, 2)), flat if every_layer else None, 0)


def table(c: ResNetConfig) -> tables.Table:
    """What the tensors of such a network are called."""
    found = tables.normed_convolution('stem', 'embedder.embedder')
    for stage, i, _, shortcut in blocks(c):
        ours, theirs = f'stage{stage}_block{i}', f'encoder.stages.{stage}.layers.{i}'
        for part in range(len(convolutions(c, c.widths[stage], 1))):
            found |= tables.normed_convolution(f'{ours}.part{part}', f'{theirs}.layer.{part}')
        if shortcut:
            found |= tables.normed_convolution(f'{ours}.shortcut', f'{theirs}.shortcut')
    return found
