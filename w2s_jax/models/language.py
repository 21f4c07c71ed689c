"""Language models from Hugging Face folders or the hub, with a head for classes or for preference pairs."""
import dataclasses
import functools
import os
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp

from w2s_jax import paths
from w2s_jax.data import Dataset
from w2s_jax.errors import ConfigError, WeightsError
from w2s_jax.models import generative, heads, hf, tokens
from w2s_jax.models.config import TransformerConfig
from w2s_jax.models.modes import Parts
from w2s_jax.models.transformer import Transformer

HUB_FILES = ['*.json', '*.safetensors', '*.txt', '*.model']  # no pickles, no code


class TextHead(nn.Module):
    """`[B, S, D]` to logits: K classes of one text, or the scalar rewards of a pair of completions."""
    num_classes: int
    bias: bool = True

    @nn.compact
    def __call__(self, x):
        if x.shape[1] == 1:
            return heads.ClassHead(self.num_classes, self.bias, name='classes')(x[:, 0])
        return heads.RewardHead(name='reward')(x)


def parts(name: str, field: str, dataset: Dataset, part) -> Parts:
    """The parts of the language model in folder or hub repository `name`. Raises ConfigError, WeightsError.

    part: its section of the config: dtype, read_out, layers, intercept.
    """
    texts = dataset.pool.inputs.get('text')
    if texts is None:
        raise ConfigError(f'{field}: {name!r} is a language model, but task {dataset.name!r} has no texts')
    folder = find(name, field)
    try:
        return _parts(folder, shown(name, folder), hf.fingerprint(folder), texts.shape[1], dataset.num_classes,
                      part.dtype, part.read_out, part.layers, part.intercept)
    except ConfigError as e:
        raise ConfigError(f'{field.removesuffix(".model")}.{e}') from None


def shown(name: str, folder: pathlib.Path) -> str:
    """What a model is called: by its folder, or its hub id, since a snapshot's folder is a hash."""
    return folder.name if paths.is_folder(name) else name


def find(name: str, field: str) -> pathlib.Path:
    """The folder of a model: `name` itself, or a snapshot from the hub (from its cache where offline), of a branch, tag
    or commit where `name` ends with @ and that."""
    if paths.is_folder(name):
        return pathlib.Path(name).expanduser().absolute()
    repository, _, revision = name.partition('@')
    if repository.count('/') != 1 or name.startswith(('.', '/', '~')):
        raise ConfigError(f'{field}: {paths.shortened(name)}: no such folder')
    import huggingface_hub
    offline = bool(os.environ.get('HF_HUB_OFFLINE', '') not in ('', '0'))
    try:
        return pathlib.Path(huggingface_hub.snapshot_download(
            repository, revision=revision or None, allow_patterns=HUB_FILES, local_files_only=offline))
    except Exception as e:  # the hub's own errors, of the network's and of its cache
        reason = 'offline, and not in the cache' if offline else ' '.join(str(e).split())[:160]
        raise ConfigError(f'{field}: {name!r} is not a folder and cannot be had from the hub ({reason})') from None


@functools.lru_cache(maxsize=8)
def _parts(folder: pathlib.Path, name: str, fingerprint: str, texts: int, num_classes: int, dtype: str,
           read_out: str, layers: int, intercept: bool) -> Parts:
    checkpoint = hf.read(folder, layers)
    if not isinstance(checkpoint.config, TransformerConfig):
        raise WeightsError(f'{folder}: {checkpoint.family} reads images, expected a language model')
    if read_out == 'pooled':
        raise ConfigError("read_out: 'pooled', expected one of last, first, mean of a language model")
    config = dataclasses.replace(checkpoint.config, dtype=dtype)
    place, backbone = read_out or hf.read_out(checkpoint), Transformer(config)
    bias = intercept and texts == 1

    def features(backbone, variables, inputs):
        length = inputs['length'].reshape(-1)
        hidden = backbone.apply(variables, inputs['tokens'].reshape(len(length), -1), length)
        return heads.read_out(hidden, length, place).reshape(*inputs['length'].shape, -1)

    def predicting(parts):
        return generative.predicting(parts, hf.tied(checkpoint), functools.partial(hf.load_head, folder))

    shape = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.int32)
    cut = (('layers', layers),) if layers else ()
    return Parts(name, checkpoint.family, backbone, TextHead(num_classes, bias), features,
                 (shape((1, 8)), shape((1,))), {'tokens': shape((1, texts, 8)), 'length': shape((1, texts))},
                 load=lambda shardings: {'backbone': hf.load(folder, shardings=shardings, layers=layers)},
                 weights=fingerprint, intercept=('head', 'classes', 'Dense_0', 'bias') if bias else (),
                 tokenizer=tokens.load(folder), max_length=hf.max_length(checkpoint),
                 extra=(('dtype', dtype), ('read_out', place), ('intercept', bias), *cut),
                 generative=predicting if config.causal else None,
                 comparing=(lambda parts: generative.comparing(predicting(parts))) if config.causal else None,
                 preferring=(lambda parts: generative.preferring(predicting(parts)))
                 if config.causal and texts == 2 else None)
