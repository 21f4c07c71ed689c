"""One experiment: a config and a work directory in, results out. Running it again does only what is missing."""
import contextlib
import dataclasses
import functools
import importlib
import json
import pathlib
import platform
import time
from collections.abc import Callable, Iterable
from importlib import metadata
from typing import Any

from w2s_jax import config as configs
from w2s_jax import graph
from w2s_jax.data import Dataset
from w2s_jax.errors import ConfigError, NonFiniteError, StoreError
from w2s_jax.methods import METHODS
from w2s_jax.models import zoo
from w2s_jax.models.modes import Model
from w2s_jax.phases import kinds as phases
from w2s_jax.report import page, sinks
from w2s_jax.report.log import Log
from w2s_jax.runtime import multihost, process
from w2s_jax.store.artifacts import Artifact, Store, alone, write_json
from w2s_jax.tasks import TASKS

PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """An experiment that is ready to run. target: the evaluate phase, which needs all others."""
    config: Any
    dataset: Dataset
    models: dict[str, Model]
    target: graph.Phase

    @functools.cached_property
    def phases(self) -> list[graph.Phase]:
        """All phases, each once, after what it needs."""
        return graph.order([self.target])


def run(config, workdir: str | pathlib.Path, stream=None) -> dict:
    """Runs every phase of `config` that `workdir` does not hold yet, and writes results, tables and report.

    Returns: the object of `results.json`. Raises UserError (errors.py) for what the user can mend.
    """
    began = time.perf_counter()
    load_plugins(config)
    configs.validate(config)
    workdir = pathlib.Path(workdir).expanduser().absolute()
    multihost.agree('config', configs.flat(config) | versions())
    if not multihost.is_coordinator():
        follow([prepare(config, quiet)], Store(workdir / 'store'))
        return json.loads((workdir / 'results.json').read_text())
    store = Store(workdir / 'store')
    with alone(workdir):
        claim(workdir, store, config)
        with contextlib.closing(make_log(config, workdir, stream)) as log:
            plan = prepare(config, log.line)
            store.clear_parts()
            store.name(workdir, [p.id for p in plan.phases])
            done = finished(plan.phases, store)
            with leading([plan], store):
                fates = execute([plan], store, log)
                results = assemble(plan, fates, done, time.perf_counter() - began)
                publish(workdir, config, results, fates[plan.target.id], fresh=plan.target.id not in done)
            log.line(page.terminal_table(results))
            return results


def prepare(config, say: Callable = print, datasets: dict | None = None) -> Plan:
    """Loads the data and the models of a config and wires its phases; nothing is run.

    datasets: those that are loaded already, by their section of the config; filled up.
    """
    datasets = {} if datasets is None else datasets
    key = json.dumps(configs.flat(config.task), sort_keys=True)
    if key not in datasets:
        datasets[key] = TASKS[config.task.name](config.task, say)
        process.return_freed_memory()
    models = load_models(config, datasets[key])
    return Plan(config, datasets[key], models, METHODS[config.method.name](config, datasets[key], models))


def make_log(config, workdir: pathlib.Path, stream=None) -> Log:
    """The log of a work directory, with the sinks that the config names."""
    return Log(workdir / 'metrics.jsonl', stream, sinks=sinks.openers(config.report.sinks, workdir))


def finished(phases: Iterable[graph.Phase], store: Store) -> set[str]:
    """The ids of the phases that the store has."""
    return {p.id for p in phases if store.find(p.kind, p.id)}


def execute(plans: list[Plan], store: Store, log: Log, more: Iterable[graph.Phase] = ()) -> dict:
    """Runs what is missing of all plans, and of `more` phases. Returns fates by phase id, as `graph.execute`."""
    phases_of = Runner(plans, log.progress)
    return graph.execute([*(p.target for p in plans), *more], store, phases_of.run, log.line, phases_of.room)


def quiet(*args) -> None:
    """What hosts say that do not lead."""


@contextlib.contextmanager
def leading(plans: list[Plan], store: Store):
    """A block in which the first host runs phases, and the others follow (`follow`)."""
    _agree(plans, store)
    yield
    multihost.tell(None)


def follow(plans: list[Plan], store: Store) -> None:
    """What hosts do that do not lead: their part of every phase that computes on devices. Raises ConfigError where they
    see other data, models or another folder than the first."""
    _agree(plans, store)
    graph.follow([p.target for p in plans], store, Runner(plans, quiet).part)


def _agree(plans: list[Plan], store: Store) -> None:
    multihost.share(store.folder)
    multihost.agree('phases (data or models)', {f'{p.id} ({p.label})': True for plan in plans for p in plan.phases})


class Runner:
    """Runs phases of any of several plans, each in the context of a plan that has it."""

    def __init__(self, plans: list[Plan], log: Callable):
        contexts = [(p, phases.make_context(p.config, p.dataset, p.models, log)) for p in plans]
        self.contexts = {phase.id: context for plan, context in reversed(contexts) for phase in plan.phases}
        self.any = contexts[0][1]

    def run(self, unit: list[graph.Phase], inputs: list[dict], folder: pathlib.Path) -> list[tuple]:
        """As `phases.run`, on all hosts together."""
        if unit[0].kind in phases.ON_DEVICES:
            multihost.tell({'unit': [p.id for p in unit], 'folder': str(folder)})
        return self.part(unit, inputs, folder)

    def part(self, unit: list[graph.Phase], inputs: list[dict], folder: pathlib.Path) -> list[tuple]:
        """As `phases.run`, this host's part."""
        return phases.run(unit, inputs, folder, context=self.contexts.get(unit[0].id, self.any))

    def room(self, unit: list[graph.Phase], inputs: list[dict]) -> int:
        """As `phases.room`."""
        return phases.room(unit, inputs, context=self.contexts.get(unit[0].id, self.any))


def load_plugins(config) -> None:
    """Imports the modules that add to the tables. Raises ConfigError where one cannot be imported."""
    for name in config.get('plugins', ()):
        try:
            importlib.import_module(name)
        except Exception as e:  # a module may raise anything
            reason = f'{type(e).__name__}: {" ".join(str(e).split())}'
            raise ConfigError(f'plugins: cannot import {name!r} ({reason})') from None


def load_models(config, dataset: Dataset) -> dict[str, Model]:
    """The models of the config by role; no teacher where the weak labels come with the data."""
    roles = ['teacher', 'student']
    if config.teacher.model == zoo.GIVEN:
        if dataset.pool.given is None or dataset.test.given is None:
            raise ConfigError(f"teacher.model: 'given', but task {dataset.name!r} brings no weak labels")
        roles = ['student']
    return {role: zoo.get(config[role], role, dataset, config.train) for role in roles} | load_rungs(config, dataset)


def load_rungs(config, dataset: Dataset) -> dict[str, Model]:
    """The models of `method.chain` as 'rung/0' ..., with the student's settings; equal names share one."""
    found = {}
    for name in dict.fromkeys(config.method.chain):
        part = config.student.copy_and_resolve_references()
        part.model = name
        try:
            found[name] = zoo.get(part, 'student', dataset, config.train)
        except ConfigError as e:
            raise ConfigError(f'method.chain: {name!r} with the settings of student cannot be used ({e})') from None
    return {f'rung/{k}': found[name] for k, name in enumerate(config.method.chain)}


def claim(workdir: pathlib.Path, store: Store, config) -> None:
    """Makes the work directory this config's. Raises StoreError where work of another one is in it."""
    path, mine = workdir / 'config.json', configs.flat(config)
    if not path.exists() or not store.begun():
        write_json(path, mine)
        return
    try:
        default = configs.flat(configs.default_config())  # of fields that are newer than the work directory
        theirs = default | dict(json.loads(path.read_text()))
    except (OSError, TypeError, ValueError):
        raise StoreError(f'{path}: unreadable; delete the work directory or choose another --workdir') from None
    for field in sorted(mine.keys() | theirs.keys()):
        if mine.get(field) != theirs.get(field) and not field.startswith(configs.EXECUTION):
            raise StoreError(f'{workdir}: belongs to another config ({field} is {theirs.get(field)!r} there, '
                             f'{mine.get(field)!r} here); choose another --workdir')


def assemble(plan: Plan, fates: dict, done: set, seconds: float) -> dict:
    """The object of results.json. Raises NonFiniteError where a run that the evaluation needs broke down."""
    config, dataset, target = plan.config, plan.dataset, plan.target
    if isinstance(failure := fates[target.id], graph.Failure):
        raise NonFiniteError(failure.reason)
    measured = fates[target.id].metrics['results']
    task = {'name': dataset.name, **dataset.notes, 'classes': dataset.num_classes, **sizes(target, config.seeds[0]),
            'pool_examples': len(dataset.pool), 'test_examples': len(dataset.test)}
    timed = [(p, fates[p.id].metrics) for p in plan.phases if p is not target]
    tokens = [{'of': p.label} | {k: m[k] for k in ('texts', 'truncated', 'tokens', 'longest')}
              for p, m in timed if p.kind == 'tokens']
    if tokens:
        task['tokens'] = tokens
    return {'task': task, **annotated(measured, plan),
            'timing': {'total_seconds': seconds, 'phases': [
                {'kind': p.kind, 'name': p.label, 'seed': p.section.get('seed'), 'skipped': p.id in done,
                 **{k: m[k] for k in ('seconds', 'compile_seconds', 'programs', 'runs') if k in m}} for p, m in timed]},
            'versions': versions()}


def annotated(measured: dict, plan: Plan) -> dict:
    """The measured part of the results with the size of every model, and the ids of the phases behind a student."""
    size = {m.name: m.num_params for m in plan.models.values()}

    def entry(row):
        behind = [plan.target.needs.get(f'student/{row.get("label")}/{s}') for s in plan.config.seeds]
        ids = [need.id for need in behind if need is not None]
        return row | {'parameters': size.get(row['model'])} | ({'ids': ids} if ids else {})
    return {k: [entry(r) for r in v] if k == 'students' else entry(v) for k, v in measured.items()}


def versions() -> dict[str, str]:
    """Of Python, of this package and of those that decide numbers."""
    return {'python': platform.python_version(), 'w2s_jax': metadata.version('w2s_jax'),
            **{name: metadata.version(name) for name in PACKAGES}}


def sizes(target: graph.Phase, seed: int) -> dict[str, int]:
    """How many examples the teacher (none where labels were given) and the student learn from."""
    trained = {'teacher_examples': target.needs[f'weak/{seed}'], 'student_examples': target.needs[f'ceiling/{seed}']}
    rows = {k: p.needs['rows'] for k, p in trained.items() if isinstance(p, graph.Phase)}
    return {k: len(r.value) for k, r in rows.items() if isinstance(r, graph.Source)}


def publish(workdir: pathlib.Path, config, results: dict, artifact: Artifact, fresh: bool) -> None:
    """Writes results.json, evaluation.json and, where it is not there for these results, the report."""
    write_results(workdir, config, results, artifact)
    if config.report.html and (fresh or not (workdir / 'report.html').exists()):
        page.write(workdir)


def write_results(folder: pathlib.Path, config, results: dict, artifact: Artifact) -> None:
    """results.json and evaluation.json, from which a report is made."""
    write_json(folder / 'results.json', results)
    write_json(folder / 'evaluation.json',
               {k: artifact.metrics[k] for k in ('curves', 'examples')} | {'config': configs.flat(config)})
