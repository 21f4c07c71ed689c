"""Backbones of images, from Hugging Face folders or the hub, or untrained, with a head for classes."""
import dataclasses
import functools
import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from w2s_jax.data import Dataset
from w2s_jax.errors import ConfigError, WeightsError
from w2s_jax.models import heads, hf, language
from w2s_jax.models.config import TransformerConfig
from w2s_jax.models.modes import Parts
from w2s_jax.models.tensors import read_json
from w2s_jax.models.vision.resnet import ResNetConfig
from w2s_jax.models.vision.seen import read_out
from w2s_jax.models.vision.vit import ViTConfig

IMAGENET = ((.485, .456, .406), (.229, .224, .225))  # mean and deviation of red, green, blue, of 1
PLACES = {'vit': ('first', 'mean', 'pooled'), 'dinov2': ('first', 'mean', 'pooled'), 'resnet': ('mean', 'pooled')}

_LAYERS: dict[str, Any] = {'max_length': 0, 'vocab_size': 0, 'causal': False, 'norm': 'layernorm', 'norm_bias': True,
                           'position': 'none', 'gated': False, 'activation': 'gelu', 'bias_qkv': True,
                           'bias_out': True, 'bias_mlp': True}
UNTRAINED = {  # for images of 32 pixels
    'resnet-xs': ResNetConfig(8, (8,), (1,), bottleneck=False, first=True, small=True),
    'resnet-s': ResNetConfig(16, (16, 32, 64), (1, 1, 1), bottleneck=False, first=True, small=True),
    'vit-s': ViTConfig(TransformerConfig(d_model=64, num_layers=4, num_heads=4, d_ff=256, **_LAYERS), 32, 4),
}


def parts(name: str, field: str, dataset: Dataset, part) -> Parts:
    """The parts of the model of images in folder or hub repository `name`. Raises ConfigError, WeightsError.

    part: its section of the config: read_out, layers, intercept.
    """
    folder = language.find(name, field)
    shown = language.shown(name, folder)
    try:
        return _pretrained(folder, shown, hf.fingerprint(folder), scaling(folder),
                           dataset.pool.inputs['images'].shape[1:], dataset.num_classes, part.read_out, part.layers,
                           part.intercept)
    except ConfigError as e:
        raise ConfigError(str(e) if str(e).startswith('task.') else f'{field.removesuffix(".model")}.{e}') from None


def scaling(folder: pathlib.Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, deviation) of red, green and blue in [0, 1] that a model was trained with: `preprocessor_config.json`'s,
    or else those of ImageNet. Raises WeightsError for numbers that are none."""
    path = folder / 'preprocessor_config.json'
    raw = read_json(path) if path.exists() else {}
    if raw.get('do_normalize', True) is False:
        return (0., 0., 0.), (1., 1., 1.)
    mean, deviation = (raw.get(k, first) for k, first in zip(('image_mean', 'image_std'), IMAGENET, strict=True))
    for name, values, low in (('image_mean', mean, -1e3), ('image_std', deviation, 1e-6)):
        if not isinstance(values, list | tuple) or len(values) != 3 or not all(
                isinstance(v, int | float) and math.isfinite(v) and low <= v <= 1e3 for v in values):
            raise WeightsError(f'{path}: {name}: {str(values)[:60]}, expected three numbers'
                               f'{" above 0" if low > 0 else ""}')
    if raw.get('do_rescale', True) is not True or not math.isclose(raw.get('rescale_factor', 1 / 255), 1 / 255):
        raise WeightsError(f'{path}: do_rescale, rescale_factor: {raw.get("do_rescale")!r}, '
                           f'{raw.get("rescale_factor")!r}, expected true and 1 / 255')
    return tuple(map(float, mean)), tuple(map(float, deviation))


@functools.lru_cache(maxsize=8)
def _pretrained(folder: pathlib.Path, name: str, fingerprint: str, scale: tuple, shape: tuple[int, int, int],
                num_classes: int, place: str, layers: int, intercept: bool) -> Parts:
    checkpoint = hf.read(folder, layers)
    if checkpoint.family not in PLACES:
        raise WeightsError(f'{folder}: {checkpoint.family} reads texts, expected a model of images: one of '
                           f'{", ".join(PLACES)}')
    place = _place(place, checkpoint.family)
    pooler = place == 'pooled' and checkpoint.family == 'vit'
    config = hf.read(folder, layers, pooler).config
    cut = (('layers', layers),) if layers else ()
    return _parts(name, checkpoint.family, config, scale, shape, num_classes, place, intercept,
                  load=lambda shardings: {'backbone': hf.load(folder, shardings=shardings, layers=layers,
                                                              pooler=pooler)},
                  weights=fingerprint, extra=cut)


def _place(asked: str, family: str) -> str:
    if asked and asked not in PLACES[family]:
        raise ConfigError(f'read_out: {asked!r}, expected one of {", ".join(PLACES[family])} of a {family}')
    return asked or PLACES[family][0]


def untrained(name: str, field: str, dataset: Dataset, settings) -> Parts:
    """A small network for images of about 32 pixels, not pretrained."""
    if 'images' not in dataset.pool.inputs:
        raise ConfigError(f'{field}: {name!r} reads images, but task {dataset.name!r} has none')
    return _untrained(name, dataset.pool.inputs['images'].shape[1:], dataset.num_classes)


@functools.cache
def _untrained(name: str, shape: tuple[int, int, int], num_classes: int) -> Parts:
    family = name.partition('-')[0]
    return _parts(name, f'untrained {family}', UNTRAINED[name], IMAGENET, shape, num_classes, 'mean', True)


def _parts(name: str, family: str, config, scale: tuple, shape: tuple[int, int, int], num_classes: int, place: str,
           intercept: bool, *, extra: tuple = (), **more) -> Parts:
    module, _ = hf.module_of(config)
    mean, deviation = (np.array(x, np.float32)[None, None, None] for x in scale)

    def features(backbone, variables, inputs):
        images = (inputs['images'].astype(jnp.float32) / 255 - mean) / deviation
        return read_out(backbone.apply(variables, images), place)

    # Its name is not `read_out`: such models are exported as models of texts.
    extra = (('place', place), ('scale', scale), ('intercept', intercept), *extra)
    found = Parts(name, family, module, heads.ClassHead(num_classes, intercept), features,
                  (jax.ShapeDtypeStruct((1, *shape), jnp.float32),),
                  {'images': jax.ShapeDtypeStruct((1, *shape), jnp.uint8)}, extra=extra,
                  intercept=('head', 'Dense_0', 'bias') if intercept else (), **more)
    return dataclasses.replace(found, places=_places(module, found.call))


def _places(module, call: tuple) -> int:
    """At how many places of an image each parameter is used: the mean over the layers. Raises ConfigError for images
    that a model cannot read."""
    def layers(key, images):
        return list(module.init_with_output(key, images, every_layer=True)[0].layers)[1:]
    found = jax.eval_shape(layers, jax.random.key(0), *call)
    return round(np.mean([layer.shape[1] for layer in found]))
