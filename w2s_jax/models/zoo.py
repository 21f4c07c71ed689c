"""MODELS: name -> a model, or its parts. A folder or a hub id names a language model, or one of images, as well.

A model is registered as `fn(name, field, dataset, settings) -> Model | Parts`; field is where the user wrote the name.
"""
import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp

from w2s_jax import paths
from w2s_jax.data import Dataset
from w2s_jax.errors import ConfigError
from w2s_jax.models import bottleneck, chess_moves, defaults, heads, language, logistic, mlp, modes, squares
from w2s_jax.models.config import TransformerConfig
from w2s_jax.models.modes import Model, Parts
from w2s_jax.models.transformer import Transformer
from w2s_jax.models.vision import images
from w2s_jax.registry import Registry, Setting, Settings, known
from w2s_jax.runtime import sharding
from w2s_jax.store import trees

MODELS = Registry('model')
ASSETS = pathlib.Path(__file__).parent.parent / 'assets'


def chess_config(d_model: int, num_layers: int, num_heads: int, position: str) -> TransformerConfig:
    """A bidirectional encoder over 64 squares. ReLU and no biases: they cost least on a CPU."""
    return TransformerConfig(
        vocab_size=chess_moves.VOCAB_SIZE, d_model=d_model, num_layers=num_layers, num_heads=num_heads,
        d_ff=4 * d_model, max_length=chess_moves.NUM_SQUARES, causal=False, position=position,
        activation='relu', gated=False)


CHESS_LADDER = {
    'chess-xs': chess_config(32, 2, 1, 'learned'),
    'chess-s': chess_config(64, 3, 2, 'learned'),
    'chess-m': chess_config(128, 3, 4, 'grid'),
    'chess-l': chess_config(128, 8, 4, 'grid'),
    **{f'chess-s-{n}': chess_config(64, 3, 2, 'learned') for n in (1, 2, 3)},  # one model, early, later, late
}


@functools.cache
def untrained_chess(name: str) -> Parts:
    """A rung of the ladder before pretraining: tokens `[B, 1, 64]` to move logits `[B, 1858]`."""
    config = CHESS_LADDER[name]

    def features(backbone, variables, inputs):
        return backbone.apply(variables, inputs['tokens'][:, 0].astype(jnp.int32))

    return _chess_parts(name, heads.MoveHead(config.d_model), features, 'tokens')


def _chess_parts(name: str, head, features: Callable, *inputs: str) -> Parts:
    shapes = {'tokens': (1, 1, chess_moves.NUM_SQUARES), 'squares': (1, 2, 2)}
    return Parts(name, 'chess', Transformer(CHESS_LADDER[name]), head, features,
                 (jax.ShapeDtypeStruct((1, chess_moves.NUM_SQUARES), jnp.int32),),
                 {k: jax.ShapeDtypeStruct(shapes[k], jnp.int32) for k in inputs}, generative=squares.hiding)


@functools.cache
def pretrained_chess(name: str) -> Parts:
    """A rung of the ladder with the weights that come with the package."""
    parts, path = untrained_chess(name), ASSETS / 'chess' / f'{name}.safetensors'

    params = trees.load(path)
    trees.check(path, params, parts.shapes)
    return dataclasses.replace(parts, load=functools.partial(_placed, params), weights=trees.file_fingerprint(path),
                               answers=True)


@functools.cache
def choosing_chess(name: str) -> Parts:
    """A pretrained rung that is asked which of two moves is better: tokens `[B, 1, 64]` and squares `[B, 2, 2]` (of
    either move, from and to) to the scores `[B, 2]` that its policy gives them."""
    whole = pretrained_chess(name)
    params = whole.load(None)
    head = {k: v for k, v in params['head'].items() if k != 'promotion'}

    def features(backbone, variables, inputs):
        hidden = backbone.apply(variables, inputs['tokens'][:, 0].astype(jnp.int32))
        return heads.at_squares(hidden, inputs['squares'])

    parts = _chess_parts(name, heads.ChoiceHead(CHESS_LADDER[name].d_model), features, 'tokens', 'squares')
    return dataclasses.replace(parts, load=functools.partial(_placed, params | {'head': head}), weights=whole.weights,
                               answers=True, extra=(('head', 'choice'),))


def _placed(params: dict, shardings) -> dict:
    def place(keys, x):
        return sharding.put(x, shardings('/'.join(k.key for k in keys), x.shape)) if shardings else x
    return jax.tree_util.tree_map_with_path(place, params)


def chess(name: str, field: str, dataset: Dataset, settings: Settings) -> Parts:
    """A pretrained rung of the chess ladder."""
    if 'squares' in dataset.pool.inputs:
        return choosing_chess(name)
    _needs(field, name, dataset, 'tokens', chess_moves.NUM_MOVES)
    return pretrained_chess(name)


@functools.cache
def _perceptron(name: str, features: int, num_classes: int) -> Model:
    module = mlp.FeatureMLP(int(name.removeprefix('mlp-')), num_classes)
    return _of_features(name, module, features, defaults.learning_rate('mlp', 'full', 0))


def _of_features(name: str, module, features: int, rate: float) -> Model:
    """A model of features `[B, F]` alone, not pretrained."""
    def init(key, pretrained=None):
        return module.init(key, jnp.zeros((1, features)))['params']

    def apply(params, inputs, frozen=None):
        return module.apply({'params': params}, inputs['features'])

    return Model(name, init, apply, modes.count(jax.eval_shape(init, jax.random.key(0))), {'model': name}, rate)


@MODELS.register('logistic', features=Setting(0, 0, 10**6, doc='of the task, the first so many; 0: all'))
def logistic_regression(name: str, field: str, dataset: Dataset, settings: Settings) -> Model:
    """Logistic regression, from zero, on the first features of the task."""
    _needs(field, name, dataset, 'features', dataset.num_classes)
    width = dataset.pool.inputs['features'].shape[1]
    if settings.features > width:
        raise ConfigError(f'{field.removesuffix("model")}features: {settings.features}, expected at most {width}, the '
                          f'features of task {dataset.name!r}')
    seen = settings.features or width
    return _first(f'{name}-{seen}', seen, width, dataset.num_classes)


@functools.cache
def _first(name: str, seen: int, features: int, num_classes: int) -> Model:
    return _of_features(name, logistic.Logistic(seen, num_classes), features,
                        defaults.learning_rate('logistic', 'full', 0))


def perceptron(name: str, field: str, dataset: Dataset, settings: Settings) -> Model:
    """An untrained perceptron; the number in its name is its width."""
    _needs(field, name, dataset, 'features', dataset.num_classes)
    return _perceptron(name, dataset.pool.inputs['features'].shape[1], dataset.num_classes)


def bottleneck_encoder(name: str, field: str, dataset: Dataset, settings: Settings) -> Parts:
    """A linear encoder of features to as many numbers as its name says, which its inputs can teach (bottleneck.py)."""
    _needs(field, name, dataset, 'features', dataset.num_classes)
    return bottleneck.parts(int(name.removeprefix('bottleneck-')), dataset.pool.inputs['features'].shape[1],
                            dataset.num_classes)


@functools.cache
def _linear(column: str, width: int, num_classes: int) -> Parts:
    shape = jax.ShapeDtypeStruct((1, width), jnp.float32)
    return Parts('linear', 'linear', mlp.NoBackbone(), heads.ClassHead(num_classes, bias=True),
                 lambda backbone, variables, inputs: inputs[column], (), {column: shape},
                 load=lambda shardings: {'backbone': {}}, intercept=('head', 'Dense_0', 'bias'),
                 extra=(('column', column),))


def linear(name: str, field: str, dataset: Dataset, settings: Settings) -> Parts:
    """A linear probe on features that the data bring: the teacher's on `weak`, if there are some."""
    inputs = dataset.pool.inputs
    column = settings.reads or ('weak' if field == 'teacher.model' and 'weak' in inputs else 'features')
    if 'features' not in inputs:
        _needs(field, name, dataset, 'features', dataset.num_classes)
    if column not in inputs:
        raise ConfigError(f"{field.rpartition('.')[0]}.reads: {column!r}, but task {dataset.name!r} has "
                          f"{', '.join(sorted(inputs))}, expected one of them")
    return _linear(column, inputs[column].shape[1], dataset.num_classes)


def _needs(field: str, name: str, dataset: Dataset, inputs: str, num_classes: int) -> None:
    if inputs not in dataset.pool.inputs or dataset.num_classes != num_classes:
        raise ConfigError(f'{field}: {name!r} does not fit task {dataset.name!r}')


for _name in CHESS_LADDER:
    MODELS.register(_name)(chess)
MODELS.register('bottleneck-8')(bottleneck_encoder)
MODELS.register('linear', reads=Setting('', choices=('', 'features', 'weak'), doc="which features; '': of the teacher "
                                        'weak, if there are some, else features'))(linear)
for _name in images.UNTRAINED:
    MODELS.register(_name)(images.untrained)
for _width in (4, 32, 128, 256, 2048):
    MODELS.register(f'mlp-{_width}')(perceptron)


def check_name(field: str, name: str) -> None:
    """Raises ConfigError unless `name` is registered, is a folder, or may be a hub id (`owner/name`)."""
    if name not in MODELS and '/' not in name and not paths.is_folder(name):
        try:
            known(field, name, MODELS)
        except ConfigError as e:
            raise ConfigError(f'{e} (or a folder with config.json and safetensors, or a hub id owner/name)') from None


def get(part, field: str, dataset: Dataset, execution=None) -> Model:
    """The model that config section `part` (teacher or student) describes, for a dataset. Raises UserError.

    execution: the config's section `train`, which says how it computes; None: as the model itself has it.
    """
    name, check = part.model, f'{field}.model'
    check_name(check, name)
    if name in MODELS:
        entry = MODELS[name]
        settings = Settings({k: part[k] for k in entry.settings})
        found = entry.fn(name, check, dataset, settings)
    elif 'images' in dataset.pool.inputs:
        found = images.parts(name, check, dataset, part)
    else:
        found = language.parts(name, check, dataset, part)
    if name in MODELS and (part.read_out or part.layers):
        raise ConfigError(f'{field}.{"read_out" if part.read_out else "layers"}: {part.read_out or part.layers!r}, but '
                          f'{name!r} is no language model, expected none')
    ours = isinstance(found, Parts) and isinstance(getattr(found.backbone, 'config', None), TransformerConfig)
    if part.dtype != 'float32' and not ours:
        raise ConfigError(f'{field}.dtype: {part.dtype!r}, but {name!r} is no transformer of this package, '
                          'expected float32')
    if isinstance(found, Model):
        if part.mode != 'full':
            raise ConfigError(f'{field}.mode: {part.mode!r}, but {name!r} has no backbone to freeze, expected full')
        return _identified(found, name, part)
    if not found.call and part.mode != 'probe':
        raise ConfigError(f'{field}.mode: {part.mode!r}, but {name!r} has nothing to train below its head, expected '
                          'probe')
    if ours:
        found = modes.computing(found, part.dtype, **{k: execution[k] for k in ('remat', 'attention') if execution})
    try:
        factors = tuple(part.lora.items()) if part.mode == 'lora' else ()
        return _identified(modes.bind(found, part.mode, factors), name, part)
    except ConfigError as e:
        raise ConfigError(f'{field}.{e}') from None


def _identified(model: Model, name: str, part) -> Model:
    """A model whose identity holds the version and the settings that it was registered with."""
    if name not in MODELS:
        return model
    more = {k: v for k, v in MODELS[name].identity(part).items() if k != 'name'}
    return _with_identity(model, json.dumps(more, sort_keys=True))


@functools.lru_cache(maxsize=64)
def _with_identity(model: Model, more: str) -> Model:
    return dataclasses.replace(model, identity=model.identity | json.loads(more))
