"""An experiment that is ready to run: its data, its models and its graph of phases; nothing is run."""
import dataclasses
import functools
import importlib
import json
import pathlib
import sys
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

from w2s_jax import config as configs
from w2s_jax import data, graph
from w2s_jax.data import Dataset
from w2s_jax.engine import truth
from w2s_jax.errors import ConfigError, Preempted, UserError
from w2s_jax.graph import Truth
from w2s_jax.labels.sources import SOURCES
from w2s_jax.methods import METHODS
from w2s_jax.methods.parts import Parts, Target
from w2s_jax.models import zoo
from w2s_jax.models.modes import Model
from w2s_jax.runtime import process
from w2s_jax.tasks import TASKS
from w2s_jax.text import one_line

_plugins: set[str] = set()  # modules that were imported as such


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """target: the evaluate phase, which needs all others.  targets: the models that it measures."""
    config: Any
    dataset: Dataset
    models: dict[str, Model]
    target: graph.Phase
    targets: list[Target]

    @functools.cached_property
    def phases(self) -> list[graph.Phase]:
        """All phases, each once, after what it needs."""
        return graph.order([self.target])


def ready(config):
    """A config with its plug-ins imported, composed and checked. Raises ConfigError."""
    return configs.validate(composed(config))


def composed(config):
    """A config with its plug-ins imported and all of its fields. Raises ConfigError."""
    configs.check_kind(config)
    load_plugins(config)
    return configs.compose(config)


def prepare(config, say: Callable = print, datasets: dict | None = None) -> Plan:
    """Loads the data and the models of a config and wires its phases; nothing is run.

    datasets: those that are loaded already, by their section of the config; filled up.
    """
    process.check_devices()
    datasets = {} if datasets is None else datasets
    key = json.dumps(configs.flat(config.task), sort_keys=True)
    if key not in datasets:
        datasets[key] = TASKS[config.task.name].fn(config.task, say)
        process.return_freed_memory()
    dataset = datasets[key]
    check_sizes(config, dataset)
    models = load_models(config, dataset)
    sealed = {'pool': Truth(dataset.pool.truth), **{k: Truth(v.truth) for k, v in dataset.tests.items()}}
    parts = Parts(config, dataset.without_truth(), models, sealed)
    wire(config.method.name, parts)
    target = parts.evaluation()
    truth.check(target, parts.targets, dataset, parts.halves)
    return Plan(config, dataset, models, target, parts.targets)


def check_sizes(config, dataset: Dataset) -> None:
    """Raises ConfigError if a half of the pool has not the rows of one batch, before any model is loaded."""
    if configs.chosen(config, 'optimizer')[0].options.get('exact'):
        return
    batch, share, group = config.train.batch_size, config.method.share, dataset.pool.group
    halves = [[len(rows) for rows in data.halves(group, share, seed)] for seed in config.seeds]
    teacher, student = (min(sizes) for sizes in zip(*halves, strict=True))
    learns = {'student': student}
    if SOURCES[config.labels.source].options.get('teacher'):
        learns['teacher'] = teacher
    learns = {role: n - (max(int(n * share), 1) if (share := configs.holdout(config, role)) else 0)
              for role, n in learns.items()}
    role = min(learns, key=learns.__getitem__)
    if batch > learns[role]:
        largest = int(np.unique(group, return_counts=True)[1].max())
        raise ConfigError(
            f'train.batch_size: {batch}, expected at most {learns[role]}, the rows that the {role} learns from: of '
            f'{len(group) + len(dataset.test)} rows {len(dataset.test)} are the test set, {teacher} the half of the '
            f'teacher and {student} of the student' + (f' (in groups of up to {largest})' if largest > 1 else '')
            + f'; set train.batch_size={max(1, learns[role] // 4)}, or bring more rows')


def wire(name: str, parts: Parts) -> None:
    """Lets a method wire its phases. Raises ConfigError for a method that does not say who is measured."""
    METHODS[name].fn(parts)
    for role in ('weak', 'ceiling', 'student'):
        seeds = {t.seed for t in parts.targets if t.role == role}
        if missing := [s for s in parts.seeds if s not in seeds]:
            raise ConfigError(f'method {name!r}: no {role} for seed {missing[0]}, expected b.{role}'
                              f'{"s" if role == "student" else ""}(...) for every seed')


def load_plugins(config) -> None:
    """Imports the modules that register more. Raises ConfigError for one that cannot be imported."""
    names = config.get('plugins', ())
    if not isinstance(names, tuple | list | str) or not all(isinstance(n, str) and n for n in names):
        raise ConfigError(f'plugins: {names!r}, expected a tuple of names of modules')
    for name in (names,) if isinstance(names, str) and names else names:
        try:
            importlib.import_module(name)
            _plugins.add(name)
        except UserError as e:
            raise ConfigError(f'plugins: {name}: {e}') from None
        except (KeyboardInterrupt, Preempted):
            raise
        except BaseException as e:  # a module may raise anything, or call sys.exit
            raise ConfigError(f'plugins: cannot import {name!r} ({type(e).__name__}: {one_line(e)})') from None


def blamed(error: BaseException) -> str | None:
    """`my_loss.py, line 12, in squared: TypeError: ...` of what a plug-in raised; None if none did."""
    ours = pathlib.Path(__file__).parents[1]
    outside = {str(f) for name in _plugins if (f := getattr(sys.modules.get(name), '__file__', None))
               and ours not in pathlib.Path(f).parents}
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename in outside]
    if not frames:
        return None
    last = frames[-1]
    return f'{last.filename}, line {last.lineno}, in {last.name}: {type(error).__name__}: {one_line(error)[:300]}'


def load_models(config, dataset: Dataset) -> dict[str, Model]:
    """The models of the config by role; no teacher if the label source needs none."""
    roles = ['teacher', 'student'] if SOURCES[config.labels.source].options.get('teacher') else ['student']
    if len(roles) == 1 and dataset.pool.given is None:
        raise ConfigError(f'labels.source: {config.labels.source!r}, but task {dataset.name!r} brings no weak labels')
    return {role: zoo.get(config[role], role, dataset, config.train) for role in roles} | more_models(config, dataset)


def more_models(config, dataset: Dataset) -> dict[str, Model]:
    """The models that the method names by role, with the settings of the teacher (roles `teachers/K`) or the student;
    equal ones are one."""
    found: dict[tuple[str, str], Model] = {}
    wanted = {role: ('teacher' if role.startswith('teachers/') else 'student', name)
              for role, name in configs.method_models(config).items()}
    for role, (whose, name) in wanted.items():
        if (whose, name) in found:
            continue
        part = config[whose].copy_and_resolve_references()
        part.model = name
        try:
            found[whose, name] = zoo.get(part, whose, dataset, config.train)
        except ConfigError as e:
            raise ConfigError(f'method.{role.partition("/")[0]}: {name!r} with the settings of {whose} cannot be used '
                              f'({e})') from None
    return {role: found[one] for role, one in wanted.items()}
