"""Models in Hugging Face folders: config.json and safetensors to our parameters, and back.

Every tensor of a checkpoint is used or on its family's list of ignored ones, and every parameter is filled once.
"""
import collections
import dataclasses
import functools
import hashlib
import json
import math
import pathlib
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from w2s_jax.errors import ConfigError, WeightsError
from w2s_jax.models import families, tables
from w2s_jax.models.config import TransformerConfig
from w2s_jax.models.families import configure, family_of
from w2s_jax.models.tensors import DTYPES, Tensor, fill, list_tensors, read_json, read_rows, weight_files
from w2s_jax.models.transformer import Transformer
from w2s_jax.models.vision import families as vision
from w2s_jax.models.vision.resnet import ResNetConfig
from w2s_jax.models.vision.vit import ViTConfig
from w2s_jax.store import trees

FAMILIES = {**families.FAMILIES, **vision.FAMILIES}
Config = TransformerConfig | ViTConfig | ResNetConfig

TOKENIZER_FILES = ('tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json', 'added_tokens.json',
                   'vocab.txt', 'vocab.json', 'merges.txt', 'tokenizer.model', 'spiece.model', 'chat_template.jinja')
COUNTS = ('num_hidden_layers', 'n_layer')  # what config.json calls the number of its blocks
POOLING_FILES = ('modules.json', '1_Pooling/config.json')


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A model folder whose tensors are known to fit. tensors: by name, without the family's prefix."""
    folder: pathlib.Path
    raw: Mapping[str, Any]
    family: str
    config: Any  # a Config
    tensors: Mapping[str, Tensor]


def read(folder: pathlib.Path, layers: int = 0, pooler: bool = False) -> Checkpoint:
    """Reads config and names of a model folder, and checks that they fit.

    layers: use so many of its blocks, from the first; 0: all.  pooler: with that of a ViT. Raises WeightsError,
    ConfigError, one line.
    """
    raw = read_json(folder / 'config.json')
    try:
        family, config = family_of(raw, FAMILIES), configure(raw, FAMILIES)
        config = dataclasses.replace(config, pooler=True) if pooler else config
    except (WeightsError, ConfigError) as e:
        raise WeightsError(f'{folder / "config.json"}: {e}') from None
    tensors: dict[str, Tensor] = {}
    for tensor in list_tensors(folder):
        name = _canonical(tensor.key, FAMILIES[family].prefixes)
        if name in tensors:
            raise WeightsError(f'{folder}: tensors {tensors[name].key!r} and {tensor.key!r} are the same parameter')
        tensors[name] = tensor
    checkpoint = Checkpoint(folder, raw, family, config, tensors)
    _check_size(checkpoint)
    _check(checkpoint)
    return cut(checkpoint, layers) if layers else checkpoint


def cut(checkpoint: Checkpoint, layers: int) -> Checkpoint:
    """A checkpoint's first blocks, its embeddings and its final norm. Raises ConfigError where it has fewer."""
    config = checkpoint.config
    if layers > config.num_layers:
        raise ConfigError(f'layers: {layers}, expected at most the {config.num_layers} of {checkpoint.folder.name}')
    raw = {k: (layers if k in COUNTS else v[:layers] if isinstance(v, list) and len(v) == config.num_layers else v)
           for k, v in checkpoint.raw.items()}
    made = configure(raw, FAMILIES)
    if isinstance(config, ViTConfig):
        made = dataclasses.replace(made, pooler=config.pooler)
    return dataclasses.replace(checkpoint, raw=raw, config=made)


def _canonical(key: str, prefixes: Sequence[str]) -> str:
    name = next((key.removeprefix(p) for p in prefixes if key.startswith(p)), key)
    return re.sub(r'\.beta$', '.bias', re.sub(r'\.gamma$', '.weight', name))  # TensorFlow's names, in old checkpoints


def module_of(config: Config) -> tuple[Any, tuple]:
    """The backbone of a config, and shapes of what it is called with."""
    if isinstance(config, TransformerConfig):
        return Transformer(config), (jax.ShapeDtypeStruct((1, 1), jnp.int32),)
    return config.build()


@functools.lru_cache(maxsize=16)
def expected(config: Config) -> dict[str, tuple[int, ...]]:
    """The shapes of the backbone's parameters, by path joined with dots."""
    module, call = module_of(config)
    tree = jax.eval_shape(module.init, jax.random.key(0), *call)
    return {k: v.shape for k, v in flax.traverse_util.flatten_dict(tree['params'], sep='.').items()}


def _layered(path: str) -> bool:
    return path.startswith('layers.')


@functools.lru_cache(maxsize=16)
def _table(family: str, config: Config) -> tables.Table:
    """The tensor and the rule of each parameter, by its path."""
    table = FAMILIES[family].table
    return table if isinstance(table, dict) else table(config)


def _groups(family: str, config: Config) -> dict[str, list[str]]:
    """For each tensor's name (with {} for the layer) the paths of the parameters that it holds."""
    groups: dict[str, list[str]] = {}
    for path, (name, _) in _table(family, config).items():
        if path in expected(config):
            groups.setdefault(name, []).append(path)
    return groups


def _give(checkpoint: Checkpoint, paths: list[str], arrays: list[np.ndarray]) -> np.ndarray:
    return _table(checkpoint.family, checkpoint.config)[paths[0]][1].give(arrays)


def _check_size(checkpoint: Checkpoint) -> None:
    """Raises WeightsError where config.json describes far more numbers than there are: looking at each tensor would
    take memory for them."""
    try:
        wanted = sum(map(math.prod, expected(checkpoint.config).values()))
    except (TypeError, ValueError, OverflowError, ZeroDivisionError) as e:
        raise WeightsError(f'{checkpoint.folder / "config.json"}: sizes that make no model ({str(e).splitlines()[0]})'
                           ) from None
    found = sum(math.prod(t.shape) for t in checkpoint.tensors.values())
    if wanted > max(10 * found, 10**7):
        raise WeightsError(f'{checkpoint.folder / "config.json"}: its sizes make {wanted} parameters, but the weight '
                           f'files hold {found} numbers')


def _check(checkpoint: Checkpoint) -> None:
    """Every tensor used or ignored, every parameter filled, every shape right; else WeightsError names the tensor."""
    family, shapes, tensors = FAMILIES[checkpoint.family], expected(checkpoint.config), checkpoint.tensors
    for path in shapes.keys() - _table(checkpoint.family, checkpoint.config).keys():
        raise WeightsError(f'{checkpoint.folder}: {checkpoint.family} has no tensor for parameter {path!r}')
    left = set(tensors)
    for name, paths in _groups(checkpoint.family, checkpoint.config).items():
        shape = _give(checkpoint, paths, [np.broadcast_to(False, shapes[p][_layered(p):]) for p in paths]).shape
        for key in [name.format(i) for i in range(checkpoint.config.num_layers)] if _layered(paths[0]) else [name]:
            _fits(checkpoint, key, shape)
            left.discard(key)
    ignored = re.compile('|'.join((*family.ignored, *map(re.escape, family.heads))))
    for key in sorted(left):
        if not ignored.fullmatch(key):
            raise WeightsError(f'{checkpoint.folder}: unexpected tensor {tensors[key].key!r}')


def _fits(checkpoint: Checkpoint, name: str, shape: tuple[int, ...]) -> None:
    tensor = checkpoint.tensors.get(name)
    if tensor is None:
        raise WeightsError(f'{checkpoint.folder}: missing tensor {name!r}')
    if tensor.shape != shape:
        raise WeightsError(f'{checkpoint.folder}: tensor {tensor.key!r} has shape {tensor.shape}, expected {shape}')
    if tensor.dtype is None:
        raise WeightsError(f'{checkpoint.folder}: tensor {tensor.key!r} is not of a type among {", ".join(DTYPES)}')


def _part(checkpoint: Checkpoint, path: str, dtype, index: tuple[slice, ...]) -> np.ndarray:
    """The part `index` of one parameter, read from the file without the rest of the parameter in memory."""
    shape, (name, rule) = expected(checkpoint.config)[path], _table(checkpoint.family, checkpoint.config)[path]
    spans = [range(*s.indices(n)) for s, n in zip(index, shape, strict=True)]
    out = np.empty([len(s) for s in spans], dtype)
    if _layered(path):
        for row, layer in zip(out, spans[0], strict=True):
            found = rule.take(read_rows(checkpoint.tensors[name.format(layer)]), shape[1:])
            row[...] = found.reshape(shape[1:])[index[1:]]
    elif rule is tables.COPY:
        fill(out, checkpoint.tensors[name], spans[0].start, index[1:])
    else:
        out[...] = rule.take(read_rows(checkpoint.tensors[name]), shape).reshape(shape)[index]
    return out


def load(folder: pathlib.Path, *, dtype: str = 'float32', shardings: Callable | None = None, layers: int = 0,
         pooler: bool = False) -> dict:
    """The parameters of a model folder, as its module (`module_of`) expects them.

    Args:
      dtype: of the parameters, 'float32' or 'bfloat16'.
      shardings: None for NumPy arrays on this host, or (path joined with '/', shape) -> jax Sharding: each
        device's part is then read on its own.
      layers: so many blocks, from the first; 0: all.  pooler: with that of a ViT.
    Raises WeightsError for a folder that cannot be used.
    """
    checkpoint, kind = read(folder, layers, pooler), jnp.dtype(dtype)
    flat: dict[str, Any] = {}
    for path, shape in expected(checkpoint.config).items():
        part = functools.partial(_part, checkpoint, path, kind)
        flat[path] = part((slice(None),) * len(shape)) if shardings is None else jax.make_array_from_callback(
            shape, shardings(path.replace('.', '/'), shape), part)
    return flax.traverse_util.unflatten_dict(flat, sep='.')


def load_head(folder: pathlib.Path, *, dtype: str = 'float32') -> np.ndarray | None:
    """The table `[V, D]` of the next-token head; None where it is the embeddings of the tokens.

    Raises WeightsError where the family or the folder has no such head.
    """
    checkpoint = read(folder)
    if not FAMILIES[checkpoint.family].heads:
        raise WeightsError(f'{folder}: {checkpoint.family} has no next-token head')
    if tied(checkpoint):
        return None
    name = _head_name(checkpoint)
    _fits(checkpoint, name, (checkpoint.config.vocab_size, checkpoint.config.d_out))
    out = np.empty(checkpoint.tensors[name].shape, jnp.dtype(dtype))
    fill(out, checkpoint.tensors[name], 0)
    return out


def _head_name(checkpoint: Checkpoint) -> str:
    names = FAMILIES[checkpoint.family].heads
    return next((name for name in names if name in checkpoint.tensors), names[0])


def tied(checkpoint: Checkpoint) -> bool:
    """Whether the next-token head is the embeddings of the tokens."""
    return bool(checkpoint.raw.get('tie_word_embeddings', FAMILIES[checkpoint.family].tied))


def to_tensors(checkpoint: Checkpoint, params: dict) -> dict[str, np.ndarray]:
    """Parameters (or gradients of them) as the checkpoint's tensors, under its names for them."""
    flat = {k: np.asarray(v) for k, v in flax.traverse_util.flatten_dict(params, sep='.').items()}
    found = {}
    for name, paths in _groups(checkpoint.family, checkpoint.config).items():
        for i in range(checkpoint.config.num_layers) if _layered(paths[0]) else [None]:
            tensor = _give(checkpoint, paths, [flat[p] if i is None else flat[p][i] for p in paths])
            found[checkpoint.tensors[name.format(i)].key] = np.ascontiguousarray(tensor)
    return found


def export(folder: pathlib.Path, params: dict, checkpoint: Checkpoint, head=None) -> None:
    """Writes parameters as a folder that transformers loads, with the names, config and tokenizer of `checkpoint`.

    Args:
      head: the table `[V, D]` of an untied next-token head; without it such a folder has none.
    Raises WeightsError where the parameters are not those of `checkpoint.config`, or the folder is its own.
    """
    if folder.resolve() == checkpoint.folder.resolve():
        raise WeightsError(f'{folder}: export would overwrite the checkpoint itself')
    shapes = {k: jax.ShapeDtypeStruct(v, np.float32) for k, v in expected(checkpoint.config).items()}
    trees.check(folder, params, flax.traverse_util.unflatten_dict(shapes, sep='.'))
    tensors = to_tensors(checkpoint, params)
    if head is not None:
        name = _head_name(checkpoint)
        key = checkpoint.tensors[name].key if name in checkpoint.tensors else name
        tensors[key] = np.ascontiguousarray(head)
    folder.mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file(tensors, str(folder / 'model.safetensors'), metadata={'format': 'pt'})
    dtype = collections.Counter(str(t.dtype) for t in tensors.values()).most_common(1)[0][0]
    raw = {k: v for k, v in checkpoint.raw.items() if k != 'torch_dtype'} | {'dtype': dtype}
    (folder / 'config.json').write_text(json.dumps(raw, indent=2) + '\n', encoding='utf-8')
    for name in (*TOKENIZER_FILES, *POOLING_FILES):
        if (checkpoint.folder / name).exists():
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(checkpoint.folder / name, folder / name)


@functools.lru_cache(maxsize=4096)
def _digest(path: pathlib.Path, size: int, changed_ns: int) -> str:
    return trees.file_fingerprint(path)


def fingerprint(folder: pathlib.Path) -> str:
    """SHA-256 of a model's config, weights and tokenizer: its identity wherever it lies. Raises WeightsError."""
    paths, _ = weight_files(folder)
    optional = [folder / name for name in (*TOKENIZER_FILES, *POOLING_FILES)]
    total = hashlib.sha256()
    for path in [folder / 'config.json', *paths, *(p for p in optional if p.exists())]:
        try:
            stat = path.stat()
        except OSError:
            raise WeightsError(f'{path}: no such file') from None
        total.update(f'{path.relative_to(folder)} {_digest(path, stat.st_size, stat.st_mtime_ns)}\n'.encode())
    return total.hexdigest()


def read_out(checkpoint: Checkpoint) -> str:
    """Where a sequence's vector is: 'last', 'first' or 'mean', for `heads.read_out`.

    Causal models: the last real token. Encoders: what sentence-transformers' `1_Pooling/config.json` says; without
    one, the mean for MiniLM (by the name of the folder, or of the model that it says it comes from), whose
    published checkpoints are all sentence encoders that pool so; else the first token.
    """
    if checkpoint.config.causal:
        return 'last'
    path = checkpoint.folder / '1_Pooling' / 'config.json'
    places = {'mean_tokens': 'mean', 'mean': 'mean', 'cls_token': 'first', 'cls': 'first', 'lasttoken': 'last'}
    if path.exists():
        raw = read_json(path)
        modes = [k.removeprefix('pooling_mode_') for k, v in raw.items() if k.startswith('pooling_mode_') and v is True]
        modes += [str(raw['pooling_mode'])] if 'pooling_mode' in raw else []
        if len(modes) != 1 or modes[0] not in places:
            raise WeightsError(f'{path}: pools by {modes}, expected one of {", ".join(places)}')
        return places[modes[0]]
    names = f'{checkpoint.folder.name} {checkpoint.raw.get("_name_or_path", "")}'
    return 'mean' if 'minilm' in names.lower() or 'sentence-transformers' in names.lower() else 'first'


def max_length(checkpoint: Checkpoint) -> int:
    """How many positions the model was made for."""
    return checkpoint.config.max_length
