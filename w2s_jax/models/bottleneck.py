"""A narrow linear encoder of plain features, and the decoder that denoises them: what a student knows before any label
is what its inputs taught it (methods.md B3)."""
import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from w2s_jax.models import heads
from w2s_jax.models.modes import Parts


class Encoder(nn.Module):
    """features `[B, F]` to a code `[B, width]`, linear."""
    width: int

    @nn.compact
    def __call__(self, features):
        return nn.Dense(self.width, name='code')(features)


class Decoder(nn.Module):
    """`[B, 2]`: half the squared distance of what is made of a code to the clean features, and how many these are: the
    negative log-likelihood of a Gaussian, up to a constant."""
    features: int

    @nn.compact
    def __call__(self, x: dict):
        miss = nn.Dense(self.features, name='features')(x['code']) - x['clean']
        return jnp.stack([.5 * jnp.square(miss).sum(-1), jnp.full(len(miss), float(self.features))], axis=-1)


@functools.cache
def parts(width: int, features: int, num_classes: int) -> Parts:
    """An encoder that begins as numbers drawn once, the same for all seeds, with a linear head."""
    shape = jax.ShapeDtypeStruct((1, features), jnp.float32)
    encoder = Encoder(width)

    def code(backbone, variables, inputs):
        return backbone.apply(variables, inputs['features'])

    def load(shardings):
        return {'backbone': jax.device_get(encoder.init(jax.random.key(0), jnp.zeros(shape.shape))['params'])}

    return Parts(f'bottleneck-{width}', 'mlp', encoder, heads.ClassHead(num_classes, True), code, (shape,),
                 {'features': shape}, load=load, weights='drawn from key 0', intercept=('head', 'Dense_0', 'bias'),
                 generative=denoising)


def denoising(parts: Parts) -> Parts:
    """The same encoder with a decoder."""
    features = parts.inputs['features'].shape[1]

    def code(backbone, variables, inputs):
        return {'code': backbone.apply(variables, inputs['features']),
                'clean': inputs.get('clean', inputs['features'])}

    return dataclasses.replace(parts, head=Decoder(features), features=code, intercept=(), generative=None,
                               extra=(*parts.extra, ('head', 'features')))
