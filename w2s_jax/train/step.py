"""One training step as a pure function: a state and a batch in, a state and metrics out.

`apply(params, inputs, frozen) -> logits [B, K]` is all that is asked of a model; `frozen` is what it does not
train, shared by all runs. Runs that share their static part (`Static`) train in one program; what differs between
them stands in `hyper`, a dict of scalars (or `[R]`, stacked): learning_rate, weight_decay, clip, warmup, and as
`optimizer` and `loss` dicts of the traced settings of these.
"""
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from w2s_jax.errors import ConfigError
from w2s_jax.objectives import Bound, bind, check_state
from w2s_jax.train import optimizers
from w2s_jax.train.gradients import gradients


@dataclasses.dataclass(frozen=True)
class Static:
    """What a program is compiled for.

    objective: one with its settings, or the name of one at its defaults.  columns: (name, shape of a row) of the batch
    beside its inputs, if its objective asks; rows: n, how many rows a run has; stops: whether parameters are kept on
    the way (stopping.py).  intercept: path of the parameter that starts at `hyper['intercept']` `[K]`, if that is
    there.
    """
    objective: Bound | str
    steps: int
    batch_size: int
    num_classes: int
    accumulate: int = 1  # microbatches a step
    optimizer: str = 'adamw'
    schedule: str = 'cosine'
    columns: tuple[tuple[str, tuple[int, ...]], ...] = ()
    rows: int = 0
    stops: bool = False
    intercept: tuple[str, ...] = ()

    def __post_init__(self):
        if isinstance(self.objective, str):
            object.__setattr__(self, 'objective', bind(self.objective))

    @property
    def bound(self) -> Bound:
        """The objective with its settings."""
        assert isinstance(self.objective, Bound)
        return self.objective

    def shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Column -> shape of a row, without its axis of rows."""
        columns = {'targets': (self.num_classes,), 'weight': ()} | dict(self.columns)
        return {k: jax.ShapeDtypeStruct(shape, jnp.float32) for k, shape in columns.items()}


@flax.struct.dataclass
class TrainState:
    """Everything a run remembers, one pytree.

    rng: the run's key; a step's key is fold_in(rng, step).  loss_state: of the objective.  kept: the parameters that a
    stopping rule chose so far and their score, () without one.
    """
    step: Any
    params: Any
    opt_state: Any
    rng: Any
    loss_state: Any
    kept: Any = ()


def init_state(hyper: dict, seed, pretrained, start=None, *, init: Callable, static: Static) -> TrainState:
    """The state before the first step.

    Args:
      seed: may be traced.  init: (key, pretrained) -> params.  start: parameters to go on from in place of what `init`
        gives, a part of the tree.
    """
    init_key, rng = jax.random.split(jax.random.key(seed))
    objective = static.bound.objective
    if 'intercept' in hyper:
        init = with_intercept(init, static.intercept, hyper['intercept'])
    params = overlay(objective.init(init, init_key, pretrained), start)
    tx = optimizers.build(static.optimizer, static.schedule, static.steps, hyper)
    settings = static.bound.settings(hyper['loss'])
    loss_state = objective.init_state(static.shapes(), static.rows, settings)
    kept = {'params': params, 'score': jnp.float32(-jnp.inf)} if static.stops else ()
    return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params), rng, loss_state, kept)


def with_intercept(init: Callable, path: tuple[str, ...], value) -> Callable:
    """`init` with `value` as the parameter at `path`."""
    def started(key, pretrained=None):
        first = value
        for name in reversed(path):
            first = {name: first}
        return overlay(init(key, pretrained), first)
    return started


def overlay(params, start):
    """`params` with every leaf that `start` has in its place. Raises ConfigError for one that does not fit."""
    if start is None:
        return params
    if not isinstance(start, dict):
        if getattr(params, 'shape', None) != start.shape:
            raise ConfigError(f'start: parameters of shape {start.shape}, expected {getattr(params, "shape", "none")}')
        return start
    if missing := start.keys() - params.keys():
        raise ConfigError(f'start: has {min(missing)!r}, expected parameters of the same model and mode')
    return {k: overlay(v, start.get(k)) for k, v in params.items()}


def train_step(state: TrainState, inputs, columns, hyper: dict, frozen=None, *, apply: Callable, static: Static,
               axis: str | None = None):
    """One optimiser step on a batch.

    Args:
      columns: `targets` `[B, K]`, rows summing to 1, `weight` `[B]`, and what else the objective reads.
      axis: of a pmap over parts of the batch.
    Returns: the next state, and a dict of float32 arrays (loss, gradient norm, what the objective logs).
    """
    (loss, aux), grads = gradients(state, {'inputs': inputs, **columns}, hyper, frozen, apply=apply, static=static,
                                   axis=axis)
    tx = optimizers.build(static.optimizer, static.schedule, static.steps, hyper)
    params, opt_state = optimizers.step(tx, grads, state.opt_state, state.params)
    bound = static.bound
    loss_state = bound.objective.update(state.loss_state, params, aux, bound.settings(hyper['loss']))
    check_state(bound, state.loss_state, loss_state)
    metrics = {'loss': loss, 'grad_norm': optax.tree.norm(grads), **{k: v for k, v in aux.items() if k != 'state'}}
    return TrainState(state.step + 1, params, opt_state, state.rng, loss_state, state.kept), metrics


def predict_step(params, inputs, frozen=None, *, apply: Callable, bound: Bound | None = None):
    """Class probabilities `[B, K]` float32, of the objective's own prediction if it has one."""
    forward = functools.partial(_forward, apply=apply, frozen=frozen)
    logits = bound.objective.predict(forward, params, inputs) if bound else forward(params, inputs)
    return jax.nn.softmax(logits.astype(jnp.float32), axis=-1)


def _forward(params, inputs, *, apply, frozen):
    return apply(params, inputs, frozen)


def keep_better(state: TrainState, scores) -> TrainState:
    """The states of R runs, each with its parameters kept if its score `[R]` is above that of those kept before."""
    better = scores > state.kept['score']

    def choose(new, old):
        return jnp.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)
    kept = {'params': jax.tree.map(choose, state.params, state.kept['params']),
            'score': jnp.where(better, scores, state.kept['score'])}
    return TrainState(state.step, state.params, state.opt_state, state.rng, state.loss_state, kept)


def hyper(learning_rate, weight_decay=0.0, beta2=.999, clip=1.0, warmup=0.0, **loss) -> dict:
    """The traced numbers of runs by hand, scalars or `[R]`; those of the loss by name."""
    return {'learning_rate': learning_rate, 'weight_decay': weight_decay, 'clip': clip, 'warmup': warmup,
            'optimizer': {'beta2': beta2}, 'loss': loss}
