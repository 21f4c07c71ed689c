"""ZOO: name -> a model: how to draw it, how to apply it, what it starts from."""
import dataclasses
import functools
import pathlib
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from w2s_jax.data import Dataset
from w2s_jax.errors import ConfigError
from w2s_jax.models import heads, mlp, weights
from w2s_jax.models.config import TransformerConfig
from w2s_jax.models.transformer import Transformer
from w2s_jax.optimizers import known
from w2s_jax.tasks import chess_moves

GIVEN = 'given'  # as teacher.model: the weak labels come with the data
ASSETS = pathlib.Path(__file__).parent.parent / 'assets'


@dataclasses.dataclass(frozen=True)
class Model:
    """A model bound to a task.

    init: (key, pretrained or None) -> params; what is not pretrained is drawn from the key.
    apply: (params, inputs) -> logits `[B, K]`.  load: () -> pretrained tree on the host, or None.
    fingerprint: the identity of the pretrained weights.  answers: whether it can answer untrained.
    """
    name: str
    init: Callable
    apply: Callable
    num_params: int
    load: Callable = lambda: None
    fingerprint: str = ''
    answers: bool = False


class ChessModel(nn.Module):
    """tokens `[B, 1, 64]` to move logits `[B, 1858]`."""
    config: TransformerConfig

    @nn.compact
    def __call__(self, tokens):
        hidden = Transformer(self.config, name='backbone')(tokens[:, 0].astype(jnp.int32))
        return heads.MoveHead(self.config.d_model, name='head')(hidden)


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
}


def overlay(params: dict, pretrained: dict | None) -> dict:
    """`params` with every leaf that `pretrained` has put in its place."""
    if pretrained is None:
        return params
    return {k: (overlay(v, pretrained[k]) if isinstance(v, dict) else pretrained[k]) if k in pretrained else v
            for k, v in params.items()}


def count(params) -> int:
    """How many numbers a tree of arrays or shapes holds."""
    return sum(x.size for x in jax.tree.leaves(params))


@functools.cache
def untrained_chess(name: str) -> Model:
    """A rung of the ladder before pretraining."""
    module = ChessModel(CHESS_LADDER[name])
    example = jnp.zeros((1, 1, chess_moves.NUM_SQUARES), jnp.int32)

    def init(key, pretrained=None):
        return overlay(module.init(key, example)['params'], pretrained)

    def apply(params, inputs):
        return module.apply({'params': params}, inputs['tokens'])

    return Model(name, init, apply, count(jax.eval_shape(init, jax.random.key(0))))


@functools.cache
def _pretrained_chess(name: str) -> Model:
    model = untrained_chess(name)
    path = ASSETS / 'chess' / f'{name}.safetensors'

    @functools.cache
    def load():
        params = weights.load(path)
        weights.check(path, params, jax.eval_shape(model.init, jax.random.key(0)))
        return params

    return dataclasses.replace(model, load=load, fingerprint=weights.file_fingerprint(path), answers=True)


def chess(name: str, field: str, dataset: Dataset) -> Model:
    """A pretrained rung of the chess ladder."""
    _needs(field, name, dataset, 'tokens', chess_moves.NUM_MOVES)
    return _pretrained_chess(name)


@functools.cache
def _perceptron(name: str, features: int, num_classes: int) -> Model:
    module = mlp.FeatureMLP(int(name.removeprefix('mlp-')), num_classes)

    def init(key, pretrained=None):
        return module.init(key, jnp.zeros((1, features)))['params']

    def apply(params, inputs):
        return module.apply({'params': params}, inputs['features'])

    return Model(name, init, apply, count(jax.eval_shape(init, jax.random.key(0))))


def perceptron(name: str, field: str, dataset: Dataset) -> Model:
    """An untrained perceptron; the number in its name is its width."""
    _needs(field, name, dataset, 'features', dataset.num_classes)
    return _perceptron(name, dataset.pool.inputs['features'].shape[1], dataset.num_classes)


def _needs(field: str, name: str, dataset: Dataset, inputs: str, num_classes: int) -> None:
    if inputs not in dataset.pool.inputs or dataset.num_classes != num_classes:
        raise ConfigError(f'{field}: {name!r} does not fit task {dataset.name!r}')


ZOO: dict[str, Callable[[str, str, Dataset], Model]] = {
    **dict.fromkeys(CHESS_LADDER, chess),
    **{f'mlp-{width}': perceptron for width in (4, 32, 128, 256, 2048)},
}


def get(name: str, field: str, dataset: Dataset) -> Model:
    """The model that config `field` names, for a dataset. Raises ConfigError or WeightsError."""
    return ZOO[known(field, name, ZOO)](name, field, dataset)
