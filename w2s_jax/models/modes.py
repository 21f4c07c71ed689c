"""MODES: the ways to fine-tune a backbone with a head: full, lora, probe. Parts of a model in, a Model out."""
import dataclasses
import functools
import json
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from w2s_jax.errors import ConfigError
from w2s_jax.models import attention as ways
from w2s_jax.models import defaults, lora
from w2s_jax.models.linear import ADAPTERS
from w2s_jax.models.tokens import Tokenizer
from w2s_jax.models.transformer import Transformer

COMPILATION = 1e12  # floating-point operations that two cores do while a training step is compiled
UNROLLED = 12  # layers at most; the time to compile grows with them


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A model bound to a task and a mode; what train.py and phases.py know of one.

    init: (key, pretrained or None) -> trained params; what is not pretrained is drawn from the key.
    apply: (params, inputs, frozen) -> logits `[B, K]`.  load: shardings -> what `init` starts from, or None.
    frozen: shardings -> what is not trained, or None, of `frozen_shapes`.  identity: what of it decides results, JSON.
    shardings: (path joined with '/', shape) -> jax Sharding to load an array into, or None to load into NumPy.
    num_params: all of them (probe: the head's).  work: of these, what every position meets, tables of embeddings not.
    read: how many numbers every position meets where features are computed (probe: the backbone's), else 0.
    answers: whether it can answer untrained.  tokenizer, max_length, vocab_size: of texts.
    featurize: (frozen, inputs) -> what the head reads, where only the head is trained (probe), else None.
    unrolled: () -> `apply` without a loop over layers, where that is any good.  positions: of a row that is no text.
    intercept: path of its head's intercept in the params, which starts at the shares of the classes; () for none.
    backbone: () -> the same model as a probe, whose features are its frozen backbone's; None if it has none.
    generative: () -> the same backbone with a head that predicts its own inputs (generative.py); None if it has none.
    prompted: () -> the same untrained, which tells texts of a row apart by their likelihoods; None if it cannot.
    policy: () -> the same with its next-token head, to be trained on which text of a row is preferred: `apply` gives
      their log-likelihoods `[B, S]`; None if it has none.  scored: whether its inputs have beside them what an
      untrained one says of them (phases/score.py).
    shown: () -> the same, whose `apply` gives (logits, what the head read); None if no training moves the latter.
    language: (params, frozen) -> (variables of `transformer`, the table `[V, D]` of its next-token head); None if it
      predicts no tokens, as only a generative model does.
    """
    name: str
    init: Callable
    apply: Callable
    num_params: int
    identity: dict
    learning_rate: float
    load: Callable = lambda shardings: None
    frozen: Callable = lambda shardings: None
    frozen_shapes: Any = None
    answers: bool = False
    tokenizer: Tokenizer | None = None
    max_length: int = 0
    featurize: Callable | None = None
    work: int = 0
    read: int = 0
    positions: int = 1
    unrolled: Callable[[], Callable] | None = None
    backbone: Callable[[], 'Model'] | None = None
    generative: Callable[[], 'Model'] | None = None
    prompted: Callable[[], 'Model'] | None = None
    policy: Callable[[], 'Model'] | None = None
    scored: bool = False
    shown: Callable[[], 'Model'] | None = None
    vocab_size: int = 0
    intercept: tuple[str, ...] = ()
    language: Callable | None = None
    transformer: Any = None

    def apply_for(self, rows: int, length: int = 0) -> Callable:
        """`apply` for a training step that sees so many rows in all, texts of up to `length` tokens (0: no texts).

        On a CPU a tenth of the time goes into the stacks of what a loop over layers keeps. Without one the program is
        larger: that pays where the tenth takes longer than a compilation.
        """
        operations = 6 * self.work * rows * (length or self.positions)
        return self.unrolled() if self.unrolled and operations / 10 > COMPILATION else self.apply

    def others(self) -> list['Model']:
        """What the same backbone is beside it."""
        return [make() for make in (self.backbone, self.generative, self.prompted, self.policy, self.shown)
                if make]

    @property
    def key(self) -> str:
        """The identity as text."""
        return json.dumps(self.identity, sort_keys=True)


@dataclasses.dataclass(frozen=True, eq=False)
class Parts:
    """A pretrained backbone and a head, before a mode says which of them is trained.

    features: (backbone, its variables, inputs) -> `[B, ...]`, what the head reads.  call: shapes of what the
    backbone is called with.  inputs: shapes of one batch of inputs.  load: shardings -> {'backbone': ...,
    maybe 'head'}, or None.  weights: the fingerprint of what `load` reads.  answers: whether the head, too, is
    pretrained.
    """
    name: str
    family: str
    backbone: nn.Module
    head: nn.Module
    features: Callable
    call: tuple
    inputs: dict[str, jax.ShapeDtypeStruct]
    load: Callable = lambda shardings: None
    weights: str = ''
    answers: bool = False
    tokenizer: Tokenizer | None = None
    max_length: int = 0
    extra: tuple[tuple[str, Any], ...] = ()  # what else decides results
    intercept: tuple[str, ...] = ()  # see `Model`
    places: int = 1  # of an image, that each parameter is used at
    generative: Callable[['Parts'], 'Parts'] | None = None  # what `Model.generative` is made of
    comparing: Callable[['Parts'], 'Parts'] | None = None  # what `Model.prompted` is made of
    preferring: Callable[['Parts'], 'Parts'] | None = None  # what `Model.policy` is made of
    scored: bool = False  # see `Model`
    shows: bool = False  # see `Model.shown`
    table: Callable | None = None  # (params, variables of the backbone) -> the table of a next-token head

    def read(self, variables, inputs):
        """What the head reads, `[B, ...]`."""
        return self.features(self.backbone, variables, inputs)

    @functools.cached_property
    def shapes(self) -> dict:
        """The shapes of all parameters."""
        return jax.eval_shape(functools.partial(draw, self), jax.random.key(0))

    @property
    def num_params(self) -> int:
        return count(self.shapes)

    @property
    def positions(self) -> int:
        """L of one batch of inputs, of images places; 1 where these have neither."""
        return self.inputs['tokens'].shape[-1] if 'tokens' in self.inputs else self.places


def count(params) -> int:
    """How many numbers a tree of arrays or shapes holds."""
    return sum(x.size for x in jax.tree.leaves(params))


def overlay(params: dict, pretrained: dict | None) -> dict:
    """`params` with every leaf that `pretrained` has put in its place."""
    if pretrained is None:
        return params
    return {k: (overlay(v, pretrained[k]) if isinstance(v, dict) else pretrained[k]) if k in pretrained else v
            for k, v in params.items()}


def draw(parts: Parts, key) -> dict:
    """Random parameters {'backbone': ..., 'head': ...}."""
    zeros = functools.partial(jax.tree.map, lambda s: jnp.zeros(s.shape, s.dtype))
    keys = jax.random.split(key)
    backbone = parts.backbone.init(keys[0], *zeros(parts.call)).get('params', {})  # of none, the inputs are features
    features = jax.eval_shape(lambda p, inputs: parts.read({'params': p}, inputs), backbone, parts.inputs)
    head = parts.head.init(keys[1], zeros(features)).get('params')
    return {'backbone': backbone} | ({'head': head} if head else {})


def answer(parts: Parts, params: dict, variables: dict, inputs):
    """What the head makes of inputs, or that and what it read; one without parameters of its own is not among `params`.
    """
    read = parts.read(variables, inputs)
    logits = parts.head.apply({'params': params.get('head', {})}, read)
    return (logits, read) if parts.shows else logits


def _language(parts: Parts, variables: Callable) -> Callable | None:
    """See `Model.language`."""
    table = parts.table
    if table is None:
        return None

    def language(params, frozen=None):
        found = variables(params, frozen)
        return found, table(params, found)
    return language


def _model(parts: Parts, mode: str, init, apply, **fields) -> Model:
    identity = {'model': parts.name, 'weights': parts.weights, 'mode': mode, **dict(parts.extra)}
    identity |= fields.pop('extra', {})
    tables = {k: v for k, v in parts.shapes['backbone'].items() if k in ('tokens', 'positions', 'types')}
    return Model(parts.name, init, apply, parts.num_params, identity,
                 defaults.learning_rate(parts.family, mode, parts.num_params), work=parts.num_params - count(tables),
                 tokenizer=parts.tokenizer, max_length=parts.max_length, positions=parts.positions,
                 vocab_size=getattr(getattr(parts.backbone, 'config', None), 'vocab_size', 0),
                 intercept=parts.intercept, scored=parts.scored, transformer=parts.backbone, **fields)


def full(parts: Parts, settings: tuple) -> Model:
    """Everything is trained."""
    def init(key, pretrained=None):
        return overlay(draw(parts, key), pretrained)

    def variables(params, frozen=None):
        return {'params': params['backbone']}

    def apply(params, inputs, frozen=None):
        return answer(parts, params, variables(params), inputs)

    return _model(parts, 'full', init, apply, load=parts.load, answers=parts.answers,
                  language=_language(parts, variables))


def with_adapters(parts: Parts, settings: tuple) -> Model:
    """The backbone is frozen; adapters (rank, alpha, targets) of its linear layers, and the head, are trained."""
    rank, alpha, targets = (dict(settings)[k] for k in ('rank', 'alpha', 'targets'))
    found = lora.linears(parts.backbone, parts.shapes['backbone'], *parts.call)
    chosen, scale = lora.select(found, targets, 'lora.targets'), alpha / rank
    lora.check_rank(rank, chosen, 'lora.rank')

    def init(key, pretrained=None):
        keys = jax.random.split(key)
        head = overlay({k: v for k, v in draw(parts, keys[0]).items() if k == 'head'}, pretrained)
        return {ADAPTERS: lora.draw(keys[1], chosen, rank), **head}

    def variables(params, frozen):
        return {'params': frozen, ADAPTERS: lora.scaled(params[ADAPTERS], scale)}

    def apply(params, inputs, frozen):
        return answer(parts, params, variables(params, frozen), inputs)

    return _model(parts, 'lora', init, apply, load=functools.partial(_head, parts), answers=parts.answers,
                  language=_language(parts, variables),
                  frozen=functools.partial(_backbone, parts), frozen_shapes=parts.shapes['backbone'],
                  extra={'lora': dict(settings)})


def probe(parts: Parts, settings: tuple) -> Model:
    """The backbone is frozen and run once; a new head alone is trained, on its cached features (scaled, so that
    a pretrained head would not fit them)."""
    def init(key, pretrained=None):
        return {'head': draw(parts, key)['head']}

    def apply(params, inputs, frozen=None):
        return parts.head.apply({'params': params['head']}, inputs['features'])

    def featurize(backbone, inputs):
        return parts.read({'params': backbone}, inputs).astype(jnp.float32)

    small = _model(parts, 'probe', init, apply, frozen=functools.partial(_backbone, parts), featurize=featurize)
    head = count(parts.shapes['head'])
    return dataclasses.replace(small, num_params=head, work=head, read=small.work)


def _backbone(parts: Parts, shardings):
    pretrained = parts.load(shardings)
    if pretrained is None:
        raise ConfigError(f'{parts.name}: nothing pretrained to freeze, expected mode full')
    return pretrained['backbone']


def _head(parts: Parts, shardings):
    """The pretrained head, where there is one; a language model's backbone is not read for it."""
    return {k: v for k, v in parts.load(shardings).items() if k == 'head'} if parts.answers else None


@functools.lru_cache(maxsize=64)
def computing(parts: Parts, dtype: str, remat: str = 'auto', attention: str = 'auto') -> Parts:
    """The same parts, their transformer computing in `dtype`, and as the config's `train.remat` and `train.attention`
    say. Only the first decides results. Raises ConfigError where this machine does not have that attention."""
    config = parts.backbone.config
    wanted = dataclasses.replace(config, dtype=dtype, attention=attention,
                                 remat=config.remat if remat == 'auto' else remat)
    ways.check(wanted)
    if wanted == config:
        return parts
    extra = parts.extra if dtype == config.dtype else (*parts.extra, ('dtype', dtype))
    return dataclasses.replace(parts, backbone=parts.backbone.clone(config=wanted), extra=extra)


def showing(parts: Parts) -> Parts:
    """The same parts, whose model gives what the head read as well."""
    return dataclasses.replace(parts, shows=True, extra=(*parts.extra, ('shows', 'features')))


MODES: dict[str, Callable[[Parts, tuple], Model]] = {'full': full, 'lora': with_adapters, 'probe': probe}


@functools.lru_cache(maxsize=32)
def bind(parts: Parts, mode: str, settings: tuple) -> Model:
    """The Model of a mode. One for the same arguments: programs are compiled for a model's `apply`.

    settings: the items of the config's `lora` section. Raises ConfigError.
    """
    model = MODES[mode](parts, settings)
    if mode != 'probe':
        model = dataclasses.replace(model, backbone=functools.cache(lambda: bind(parts, 'probe', ())),
                                    shown=functools.cache(lambda: bind(showing(parts), mode, settings)))
    if parts.generative:
        make, whole = parts.generative, 'full' if mode == 'probe' else mode
        model = dataclasses.replace(model, generative=functools.cache(lambda: bind(make(parts), whole, settings)))
    if parts.comparing:
        compare = parts.comparing
        model = dataclasses.replace(model, prompted=functools.cache(lambda: bind(compare(parts), 'full', settings)))
    if parts.preferring:
        prefer, own = parts.preferring, 'full' if mode == 'probe' else mode
        model = dataclasses.replace(model, policy=functools.cache(lambda: bind(prefer(parts), own, settings)))
    if jax.default_backend() != 'cpu' or model.featurize or not isinstance(parts.backbone, Transformer):
        return model
    config = parts.backbone.config
    if config.num_layers > UNROLLED or config.remat == 'full':  # memory counts most there, and a loop bounds it
        return model
    flat = dataclasses.replace(parts, backbone=parts.backbone.clone(config=dataclasses.replace(config, unroll=True)))
    return dataclasses.replace(model, unrolled=functools.cache(lambda: MODES[mode](flat, settings).apply))
