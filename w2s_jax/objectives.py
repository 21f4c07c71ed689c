"""Objectives: what a run minimises, one level above a loss. Pure functions, bound by name.

A loss (losses.py) sees logits and targets. An objective sees all columns of the batch, the parameters and the model
itself as `forward(params, inputs) -> logits [B, K]`, so it may perturb inputs, train several networks, or learn
something beside the weights. However a batch is cut (microbatches, meshes, pmap), an objective sees the whole of it.
"""
import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from w2s_jax.errors import ConfigError
from w2s_jax.labels.ensembles import STARTS
from w2s_jax.losses import LOSSES, weighted_mean
from w2s_jax.registry import Entry, Registry, Setting, Settings, known

# pairs: forward gives the log-likelihoods of a row's two texts, `[B, 2]`, and `inputs` have `begins` and `reference`,
# both `[B, 2]` (phases/score.py)
# shows: forward gives (logits, what the head read), and the column `features` is what a frozen backbone makes of a row
OBJECTIVES = Registry('objective', options=('pairs', 'shows'), traces=True)
# How a language model learns from texts of its own (train/policy.py). critic: it wants a value of every token, a head
# that is trained beside the policy.  teacher: its target is a distribution of tokens, other models', and no reward.
ALGORITHMS = Registry('algorithm', options=('critic', 'teacher'), traces=True)


def init_params(model: Callable, key, start):
    """The parameters of one network. model: (key, start) -> params; start: what is pretrained, or None."""
    return model(key, start)


def init_state(columns: dict, n: int, settings: Settings):
    """Nothing to remember."""
    return ()


def keep_state(state, params, aux: dict, settings: Settings):
    """What was remembered stays."""
    return state


def predict(forward: Callable, params, inputs):
    """The logits of the one network."""
    return forward(params, inputs)


class Objective(NamedTuple):
    """The five functions of an objective; all but `losses` have defaults for one network that remembers nothing. What
    is registered is a function that makes them, of nothing or of the static settings.

    losses: (forward, params, batch, state, settings, progress, key) -> (per_example `[B]`, aux). batch: `inputs`,
      `targets` `[B, K]`, `weight` `[B]`, `row` `[B]` (places among the run's rows, in [0, n)), and further columns.
      aux: a dict of arrays; all but its entry 'state' is logged, and its last values reach the artifact.
    init: (model, key, start) -> params.  init_state: (columns, n, settings) -> state, columns being shapes of a row.
    update: (state, params, aux, settings) -> state, after every step.
    predict: (forward, params, inputs) -> logits `[B, K]`.
    per_example: its value for an example depends on that example alone, and its draws on that example's `row`.
    """
    losses: Callable
    init: Callable = init_params
    init_state: Callable = init_state
    update: Callable = keep_state
    predict: Callable = predict
    per_example: bool = False


class Columns(dict):
    """The columns of a batch. One that is not there is an error that names the objective."""

    def __init__(self, columns: dict, of: str):
        super().__init__(columns)
        self.of = of

    def __missing__(self, name: str):
        raise ConfigError(f'objective {self.of!r}: reads column {name!r}, expected one of {", ".join(sorted(self))} '
                          '(a method gives more by fit(columns=...))')


@dataclasses.dataclass(frozen=True)
class Bound:
    """An objective, or a loss, by name, with its static settings: hashable, a program is compiled for it.

    version: of its code, so that code that has changed is compiled anew.
    """
    name: str
    version: str
    static: tuple[tuple[str, Any], ...] = ()

    @property
    def objective(self) -> Objective:
        """Its functions."""
        return _built(self)

    @property
    def is_loss(self) -> bool:
        """Whether it reads logits and targets alone."""
        return self.name in LOSSES

    def __str__(self) -> str:
        return f'{"loss" if self.is_loss else "objective"} {self.name!r}'

    def settings(self, traced: dict) -> Settings:
        """All its settings: the static ones and these."""
        return Settings(dict(self.static) | traced)


def entry(name: str, field: str = 'student.loss.name') -> Entry:
    """The loss or the objective of that name. Raises ConfigError with the nearest names."""
    known(field, name, {**LOSSES, **OBJECTIVES})
    return LOSSES[name] if name in LOSSES else OBJECTIVES[name]


def bind(name: str, values: dict | None = None) -> Bound:
    """The loss or objective of that name with static settings: the defaults, or those of `values`."""
    found = entry(name)
    values = {k: s.default for k, s in found.settings.items()} | (values or {})
    static = tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in values.items()
                   if k in found.settings and not found.settings[k].traced)
    return Bound(name, found.version, static)


@functools.cache
def _built(bound: Bound) -> Objective:
    if bound.is_loss:
        return from_loss(LOSSES[bound.name])
    make = OBJECTIVES[bound.name].fn
    return make(Settings(dict(bound.static))) if inspect.signature(make).parameters else make()


def check_losses(bound: Bound, per_example, weight) -> None:
    """Raises ConfigError unless what a loss or an objective found are real numbers `[B]`, one for each example."""
    if jnp.shape(per_example) != weight.shape or not jnp.issubdtype(jnp.result_type(per_example), jnp.floating):
        raise ConfigError(f'{bound}: returns losses {_told(per_example)}, expected one float for each example, '
                          f'{_told(weight)}, without a mean over them')


def check_state(bound: Bound, before, after) -> None:
    """Raises ConfigError if what is remembered has another structure, shape or type after a step."""
    shapes = [jax.tree.map(lambda x: (jnp.shape(x), str(jnp.result_type(x))), s) for s in (before, after)]
    if shapes[0] != shapes[1]:
        raise ConfigError(f'{bound}: its state was {_told(before)} and is {_told(after)} after a step, expected the '
                          'same names, shapes and types')


def _told(value) -> str:
    """`float32[32]`, or what else there is."""
    if isinstance(value, dict):
        return '{' + ', '.join(f'{k}: {_told(v)}' for k, v in value.items()) + '}'
    if isinstance(value, tuple | list):
        return '(' + ', '.join(map(_told, value)) + ')'
    try:
        return f'{jnp.result_type(value)}{list(jnp.shape(value))}'
    except (TypeError, ValueError):
        return type(value).__name__


def from_loss(loss: Entry) -> Objective:
    """A loss as an objective: one network, the loss of its logits, and what the loss remembers."""
    def losses(forward, params, batch, state, settings, progress, key):
        found = loss.fn(forward(params, batch['inputs']), batch['targets'], progress=progress, settings=settings,
                        state=state)
        if not isinstance(found, tuple) or len(found) != 3 or not isinstance(found[1], dict):
            raise ConfigError(f'loss {loss.name!r}: returns {_told(found)}, expected (losses [B], a dict of scalars to '
                              'log, the next state)')
        per_example, aux, state = found
        for name, value in aux.items():
            if jnp.ndim(value):
                raise ConfigError(f'loss {loss.name!r}: logs {name!r} of shape {jnp.shape(value)}, expected a scalar')
        return per_example, aux | {'state': state}

    def first(columns, n, settings):
        make = loss.options.get('init_state')
        return make(columns['targets'].shape[-1]) if make else ()

    return Objective(losses, init_state=first, update=lambda state, params, aux, settings: aux['state'],
                     per_example=loss.options.get('per_example', False))


@OBJECTIVES.register('next_token')
def next_token() -> Objective:
    """The mean negative log-likelihood of the tokens of each row, of a model with a next-token head (generative.py).

    Reads no targets. What it predicts is the geometric mean of the probabilities of a row's tokens, as class 0 of two:
    1 / perplexity.
    """
    def losses(forward, params, batch, state, settings, progress, key):
        found = forward(params, batch['inputs'])
        loss = found[:, 0] / jnp.maximum(found[:, 1], 1)
        return loss, {'log_perplexity': weighted_mean(loss, batch['weight'])}

    def answers(forward, params, inputs):
        found = forward(params, inputs)
        log = -found[:, 0] / jnp.maximum(found[:, 1], 1)
        return jnp.stack([log, jnp.log1p(-jnp.exp(jnp.minimum(log, -1e-6)))], axis=-1)

    return Objective(losses, predict=answers, per_example=True)


@OBJECTIVES.register('hidden_squares', share=Setting(.15, 0, 1, '(]', traced=True, doc='of the squares, hidden'))
def hidden_squares() -> Objective:
    """What stands on squares that look empty: the mean negative log-likelihood, of a chess model with a head for them
    (squares.py). Reads no targets.
    """
    def losses(forward, params, batch, state, settings, progress, key):
        tokens = batch['inputs']['tokens']
        hidden = jax.vmap(lambda row: jax.random.bernoulli(jax.random.fold_in(key, row), settings.share,
                                                           tokens.shape[-1:]))(batch['row'])
        found = forward(params, {'tokens': tokens, 'hidden': hidden})
        loss = found[:, 0] / jnp.maximum(found[:, 1], 1)
        return loss, {'log_perplexity': weighted_mean(loss, batch['weight'])}

    return Objective(losses, predict=OBJECTIVES['next_token'].fn().predict, per_example=True)


@OBJECTIVES.register('denoising', noise=Setting(.5, 0, 1e3, traced=True, doc='standard deviation of what is added'))
def denoising() -> Objective:
    """Clean features out of noisy ones: half the mean squared error, of a model with a decoder (bottleneck.py).

    Reads no targets (Vincent et al. 2008, denoising autoencoders).
    """
    def losses(forward, params, batch, state, settings, progress, key):
        clean = batch['inputs']['features']
        draws = jax.vmap(lambda row: jax.random.normal(jax.random.fold_in(key, row), clean.shape[1:]))(batch['row'])
        found = forward(params, {'features': clean + settings.noise * draws, 'clean': clean})
        loss = found[:, 0] / found[:, 1]
        return loss, {'log_perplexity': weighted_mean(loss, batch['weight'])}

    return Objective(losses, predict=OBJECTIVES['next_token'].fn().predict, per_example=True)


@OBJECTIVES.register('anchored', shows=True, strength=Setting(
    1., 0, 1e6, traced=True, doc='weight of the drift from what the pretrained model makes of a row'))
def anchored() -> Objective:
    """Cross-entropy plus strength |h - h_0|^2 / |h_0|^2, h being what the head reads of a row, h_0 what it would read
    of the pretrained model: for students that are to hold on other distributions of preferences than the labels' (after
    arXiv 2605.25629, of which the abstract alone was read). It logs `drift`, the mean of that quotient.
    """
    def losses(forward, params, batch, state, settings, progress, key):
        logits, read = forward(params, batch['inputs'])
        start = batch['features'].reshape(len(batch['features']), -1)
        apart = read.astype(jnp.float32).reshape(start.shape) - start
        drift = jnp.sum(apart ** 2, axis=-1) / jnp.maximum(jnp.sum(start ** 2, axis=-1), 1e-12)
        loss = optax.losses.softmax_cross_entropy(logits.astype(jnp.float32), batch['targets'])
        return loss + settings.strength * drift, {'drift': weighted_mean(drift, batch['weight'])}

    return Objective(losses, predict=lambda forward, params, inputs: forward(params, inputs)[0], per_example=True)


def mixture_slopes(weights, teachers, log_probabilities):
    """`[B, T]`: by how much the cross-entropy with the mixture of teachers' labels grows with each one's weight.

    With q = norm(sum_t w_t P_t), the weights summing to 1, it is H(P_t, p) - H(q, p): linear in w but for what keeps
    the sum, so that the weights go to a corner, to the teacher that the student finds easiest to fit.

    Args:
      weights: `[B, T]`.  teachers: `[B, T, K]`, P.  log_probabilities: `[B, K]`, log p of the student.
    """
    each = -jnp.sum(teachers * log_probabilities[:, None], axis=-1)
    return each - jnp.sum(weights * each, axis=-1, keepdims=True)


def on_simplex(weights):
    """Weights `[..., T]`, none below 1e-6, of sum 1."""
    kept = jnp.maximum(weights, 1e-6)
    return kept / kept.sum(-1, keepdims=True)


@OBJECTIVES.register(
    'weighted_teachers',
    weights=Setting('global', choices=('global', 'rows'), doc='one for each teacher, or for each row as well'),
    rate=Setting(.1, 0, 1e6, traced=True, doc='of gradient descent on the weights; 0: they stay even'),
    easy=Setting(.25, 0, 1, traced=True, doc='share of training on rows that all teachers answer alike'),
    freeze=Setting(.25, 0, 1, traced=True, doc='share of training before the weights move'),
    start=Setting('uniform', choices=STARTS, doc='of the weights: even, drawn by the seed, or by one over the entropy '
                  "of each teacher's labels or their divergence from the others'"),
    resets=Setting(0, 0, 10**6, traced=True, doc='how often, evenly spread, the weights go back to their start'))
def weighted_teachers() -> Objective:
    """Cross-entropy with a mixture of several teachers' labels, whose weights descend with the student (RAVEN: Jeon et
    al. 2025, arXiv 2510.21332, and its code). Reads the column `teachers` `[B, T, K]` (method `raven`), and of a start
    that is not even `start` `[B, T]`, which without weights for rows is the same for all.

    It logs `teacher_weights`, after the step and, of rows, averaged over the batch.
    """
    def losses(forward, params, batch, state, settings, progress, key):
        teachers = batch['teachers']
        logits = forward(params, batch['inputs']).astype(jnp.float32)
        state = _reset(state, batch, settings, progress)
        own = state['weights'][batch['row']] if settings.weights == 'rows' else jnp.broadcast_to(
            state['weights'], teachers.shape[:2])
        share = _learned(teachers, batch['weight'], progress < settings.easy)
        targets = jnp.sum(own[..., None] * teachers, axis=1)
        slopes = mixture_slopes(own, teachers, jax.lax.stop_gradient(jax.nn.log_softmax(logits)))
        state = _descended(state, batch, slopes * share[:, None], settings, progress)
        seen = state['weights'][batch['row']].mean(0) if settings.weights == 'rows' else state['weights']
        return optax.losses.softmax_cross_entropy(logits, targets) * share, {'teacher_weights': seen, 'state': state}

    def first(columns, n, settings):
        if 'teachers' not in columns:
            raise ConfigError("objective 'weighted_teachers': learns labels of several teachers, expected "
                              "method.name='raven'")
        number = columns['teachers'].shape[0]
        shape = (n, number) if settings.weights == 'rows' else (number,)
        return {'weights': jnp.full(shape, 1 / number), 'part': jnp.full(shape[:-1], -1.)}

    return Objective(losses, init_state=first, update=lambda state, params, aux, settings: aux['state'])


def _reset(state, batch, settings: Settings, progress):
    """The weights' start at the beginning of each of `resets` + 1 parts of training; of a row, when it is first seen in
    that part, before which nobody reads its weights."""
    part = jnp.floor(progress * (settings.resets + 1) * (1 + 3e-7))  # a step / steps may be rounded down
    own = settings.weights == 'rows'
    rows = batch['row'] if own else ...
    begin = jnp.full(batch['teachers'].shape[:2], 1 / state['weights'].shape[-1]) if settings.start == 'uniform' else (
        on_simplex(batch['start']))
    late = (part > state['part'][rows])[..., None]
    fresh = jnp.where(late, begin if own else begin[0], state['weights'][rows])
    return {'weights': state['weights'].at[rows].set(fresh), 'part': state['part'].at[rows].set(part)}


def _learned(teachers, weight, easy):
    """`[B]`: what a row's loss is multiplied by. 1, or while only easy rows are learned, those on which all teachers
    agree, 0 for others and as much more for these that the batch counts the same."""
    answers = teachers.argmax(-1)
    alike = (answers == answers[:, :1]).all(-1).astype(jnp.float32)
    left = jnp.sum(alike * weight)
    return jnp.where(easy, alike * jnp.where(left > 0, jnp.sum(weight) / jnp.maximum(left, 1e-30), 0), 1.)


def _descended(state, batch, slopes, settings: Settings, progress):
    """One step of gradient descent on the weights, and back onto the simplex, unless they are frozen.

    slopes: `[B, T]`; the loss is their mean by `batch['weight']`.
    """
    step = settings.rate * slopes * (batch['weight'] / jnp.sum(batch['weight']))[:, None]
    before = state['weights']
    moved = before.at[batch['row']].add(-step) if settings.weights == 'rows' else before - step.sum(0)
    return state | {'weights': jnp.where(progress < settings.freeze, before, on_simplex(moved))}
