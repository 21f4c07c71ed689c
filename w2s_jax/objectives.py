"""Objectives: what a run minimises, one level above a loss. Pure functions, bound by name.

A loss (losses.py) sees logits and targets. An objective sees all columns of the batch, the parameters and the model
itself as `forward(params, inputs) -> logits [B, K]`, so it may perturb inputs, train several networks, or learn
something beside the weights. However a batch is cut (microbatches, meshes, pmap), an objective sees the whole of it.
"""
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from w2s_jax.errors import ConfigError
from w2s_jax.losses import LOSSES
from w2s_jax.registry import Entry, Registry, Settings, known

OBJECTIVES = Registry('objective', traces=True)


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
    """The five functions of an objective; all but `losses` have defaults for one network that remembers nothing.

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
    return OBJECTIVES[bound.name].fn()


def from_loss(loss: Entry) -> Objective:
    """A loss as an objective: one network, the loss of its logits, and what the loss remembers."""
    def losses(forward, params, batch, state, settings, progress, key):
        per_example, aux, state = loss.fn(forward(params, batch['inputs']), batch['targets'], progress=progress,
                                          settings=settings, state=state)
        return per_example, aux | {'state': state}

    def first(columns, n, settings):
        make = loss.options.get('init_state')
        return make(columns['targets'].shape[-1]) if make else ()

    return Objective(losses, init_state=first, update=lambda state, params, aux, settings: aux['state'],
                     per_example=loss.options.get('per_example', False))
