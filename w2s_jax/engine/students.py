"""Students alone: trained from a data set in memory and handed over as parameters, and the plain forward pass that
says what such parameters answer. Nothing is evaluated, no report is written.

Whoever trains and whoever predicts may so be different processes, of which only one has the truth.
"""
import dataclasses
import inspect
import json
import pathlib
from collections.abc import Iterable
from typing import Any

import flax.traverse_util
import jax
import ml_collections
import numpy as np

from w2s_jax import config as configs
from w2s_jax import objectives
from w2s_jax.data import Dataset, Inputs
from w2s_jax.engine import execute as execution
from w2s_jax.engine import plan as plans
from w2s_jax.engine import truth
from w2s_jax.engine.runner import Runner, quiet
from w2s_jax.errors import ConfigError, WeightsError
from w2s_jax.graph import Phase
from w2s_jax.losses import LOSSES
from w2s_jax.models import zoo
from w2s_jax.objectives import OBJECTIVES, Objective
from w2s_jax.phases import context as common
from w2s_jax.registry import Settings
from w2s_jax.store.artifacts import Store
from w2s_jax.train.trainer import stack


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """A model after training. role: student or ceiling.  label: of the method.  params: a tree of arrays; None if the
    run diverged, `failed` says why."""
    role: str
    label: str
    seed: int
    params: dict | None
    failed: str = ''


def train(config, dataset: Dataset, folder: str | pathlib.Path, roles: Iterable[str] = ('student',),
          blind: bool = False) -> list[Trained]:
    """Trains what the config's method calls students (or ceilings) on a data set that is at hand.

    Args:
      dataset: in place of the one that `config.task` names.  folder: for artifacts; what is there is not done again.
      blind: whether `dataset` has no truth but placeholders, so that a plan whose students need some is refused.
    Returns: one of each role, label and seed. Raises ConfigError.
    """
    config = plans.ready(config)
    key = json.dumps(configs.flat(config.task), sort_keys=True)
    plan = plans.prepare(config, quiet, {key: dataset})
    targets = [t for t in plan.targets if t.role in roles]
    for target in targets:
        if not isinstance(target.need, Phase) or target.need.kind != 'fit':
            raise ConfigError(f'{target.role} {target.label!r}: is not trained, expected a fit')
        if blind and any(phase.sees_truth for phase in truth.everyone(target.need)):
            raise ConfigError(f'method.name: {config.method.name!r} trains a model on truth for {target.label!r}, '
                              'but there is none here, expected the weak labels alone')
    found = execution.execute([t.need for t in targets if isinstance(t.need, Phase)], Store(pathlib.Path(folder)),
                              Runner([plan], quiet).run, quiet)
    return [_trained(target, found[target.need.id]) for target in targets]


def _trained(target, outcome) -> Trained:
    if isinstance(outcome, execution.Failure):
        return Trained(target.role, target.label, target.seed, None, outcome.reason)
    return Trained(target.role, target.label, target.seed, outcome.params())


class Forward:
    """The plain forward pass of a config's student on a data set's inputs, with softmax: no objective has a say."""

    def __init__(self, config, dataset: Dataset):
        config = plans.ready(config)
        self.model = zoo.get(config.student, 'student', dataset, config.train)
        context = common.make_context(config, {'student': self.model}, quiet)
        section = {'model': self.model.identity, 'num_classes': dataset.num_classes}
        self.trainer = common.predictor(section, context, dataset.pool.inputs)
        shapes = jax.eval_shape(lambda: self.model.init(jax.random.key(0), self.model.load(self.trainer.shardings)))
        self.expected: dict[str, Any] = flax.traverse_util.flatten_dict(shapes, sep='.')

    def check(self, params: dict[str, np.ndarray]) -> dict:
        """Flat parameters, names joined by dots, as a tree. Raises WeightsError, one line, unless they are exactly
        those of the model: names, shapes, and finite numbers."""
        name = self.model.name
        for key in sorted(params.keys() ^ self.expected.keys()):
            raise WeightsError(f'parameters: {"unexpected" if key in params else "missing"} {key[:80]!r}, expected '
                               f'those of {name} and no other head')
        for key, array in params.items():
            if array.shape != self.expected[key].shape or array.dtype.kind != 'f':
                raise WeightsError(f'parameters: {key!r} is {array.dtype} of shape {array.shape}, expected that of '
                                   f'{name}: {self.expected[key].shape}')
            if not np.isfinite(array).all():
                raise WeightsError(f'parameters: {key!r} holds numbers that are not finite')
        return flax.traverse_util.unflatten_dict({k: v.astype(np.float32) for k, v in params.items()}, sep='.')

    def probabilities(self, params: list[dict], inputs: Inputs) -> np.ndarray:
        """`[S, N, K]` of S trees of parameters on N rows."""
        return self.trainer.predict(self.trainer.put(stack(params)), inputs)


def flat_params(params: dict) -> dict[str, np.ndarray]:
    """A tree of parameters by names joined with dots, as `Forward.check` takes them."""
    return {k: np.asarray(v) for k, v in flax.traverse_util.flatten_dict(params, sep='.').items()}


def restored(fields: dict[str, Any]) -> ml_collections.ConfigDict:
    """The config of which `config.flat` gave these fields, its plug-ins being imported. Raises ConfigError."""
    out = ml_collections.ConfigDict()
    for field, value in fields.items():
        *path, name = field.split('.')
        node = out
        for part in path:
            if part not in node:
                node[part] = ml_collections.ConfigDict()
            node = node[part]
        node[name] = tuple(value) if isinstance(value, list) else value
    return configs.compose(out)


def predicts_plainly(config) -> bool:
    """Whether the student's objective trains the one network of its model, whose own logits are its answer."""
    name = config.student.loss.name
    aim = Objective(lambda *a: None) if name in LOSSES else built(objectives.bind(name, dict(config.student.loss)))
    return aim.init is objectives.init_params and aim.predict is objectives.predict


def built(bound: objectives.Bound) -> Objective:
    """The five functions of an objective."""
    make = OBJECTIVES[bound.name].fn
    return make(Settings(dict(bound.static))) if inspect.signature(make).parameters else make()
