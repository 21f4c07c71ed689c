"""One experiment: a config and a work directory in, results out. Running it again does only what is missing."""
import functools
import importlib
import json
import pathlib
import platform
import time
from importlib import metadata

from w2s_jax import config as configs
from w2s_jax import graph, phases, report
from w2s_jax.data import Dataset
from w2s_jax.errors import ConfigError, StoreError
from w2s_jax.log import Log
from w2s_jax.methods import METHODS
from w2s_jax.models import zoo
from w2s_jax.models.modes import Model
from w2s_jax.store import Artifact, Store, alone, write_json
from w2s_jax.tasks import TASKS

PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')


def run(config, workdir: str | pathlib.Path, stream=None) -> dict:
    """Runs every phase of `config` that `workdir` does not hold yet, and writes results, tables and report.

    Returns: the object of `results.json`. Raises UserError (errors.py) for what the user can mend.
    """
    began = time.perf_counter()
    load_plugins(config)
    configs.validate(config)
    workdir = pathlib.Path(workdir).expanduser().absolute()
    store = Store(workdir / 'store')
    with alone(workdir):
        claim(workdir, store, config)
        log = Log(workdir / 'metrics.jsonl', stream)
        dataset = TASKS[config.task.name](config.task, log.line)
        models = load_models(config, dataset)
        store.clear_parts()
        target = METHODS[config.method.name](config, dataset, models)
        context = phases.make_context(config, dataset, models, log.progress)
        done = {p.id for p in graph.order([target]) if store.find(p.kind, p.id)}
        artifacts = graph.execute([target], store, functools.partial(phases.run, context=context), log.line)
        results = assemble(config, dataset, target, artifacts, done, time.perf_counter() - began)
        publish(workdir, config, results, artifacts[target.id], fresh=target.id not in done)
        log.line(report.terminal_table(results))
        return results


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
    return {role: zoo.get(config[role], role, dataset) for role in roles}


def claim(workdir: pathlib.Path, store: Store, config) -> None:
    """Makes the work directory this config's. Raises StoreError where work of another one is in it."""
    path, mine = workdir / 'config.json', json.loads(json.dumps(configs.flat(config)))
    if not path.exists() or not store.begun():
        write_json(path, mine)
        return
    try:
        theirs = dict(json.loads(path.read_text()))
    except (OSError, TypeError, ValueError):
        raise StoreError(f'{path}: unreadable; delete the work directory or choose another --workdir') from None
    for field in sorted(mine.keys() | theirs.keys()):
        if mine.get(field) != theirs.get(field) and not field.startswith(configs.EXECUTION):
            raise StoreError(f'{workdir}: belongs to another config ({field} is {theirs.get(field)!r} there, '
                             f'{mine.get(field)!r} here); choose another --workdir')


def assemble(config, dataset: Dataset, target: graph.Phase, artifacts: dict[str, Artifact], done: set,
             seconds: float) -> dict:
    """The object of results.json."""
    measured = artifacts[target.id].metrics['results']
    task = {'name': dataset.name, **dataset.notes, 'classes': dataset.num_classes, **sizes(target, config.seeds[0]),
            'pool_examples': len(dataset.pool), 'test_examples': len(dataset.test)}
    timed = [(p, artifacts[p.id].metrics) for p in graph.order([target]) if p is not target]
    tokens = [{'of': p.label} | {k: m[k] for k in ('texts', 'truncated', 'tokens', 'longest')}
              for p, m in timed if p.kind == 'tokens']
    if tokens:
        task['tokens'] = tokens
    return {'task': task, **measured,
            'timing': {'total_seconds': seconds, 'phases': [
                {'kind': p.kind, 'name': p.label, 'seed': p.section.get('seed'), 'skipped': p.id in done,
                 **{k: m[k] for k in ('seconds', 'compile_seconds', 'programs') if k in m}} for p, m in timed]},
            'versions': {'python': platform.python_version(), 'w2s_jax': metadata.version('w2s_jax'),
                         **{name: metadata.version(name) for name in PACKAGES}}}


def sizes(target: graph.Phase, seed: int) -> dict[str, int]:
    """How many examples the teacher (none where labels were given) and the student learn from."""
    trained = {'teacher_examples': target.needs[f'weak/{seed}'], 'student_examples': target.needs[f'ceiling/{seed}']}
    rows = {k: p.needs['rows'] for k, p in trained.items() if isinstance(p, graph.Phase)}
    return {k: len(r.value) for k, r in rows.items() if isinstance(r, graph.Source)}


def publish(workdir: pathlib.Path, config, results: dict, artifact: Artifact, fresh: bool) -> None:
    """Writes results.json, evaluation.json and, where it is not there for these results, the report."""
    write_json(workdir / 'results.json', results)
    write_json(workdir / 'evaluation.json',
               {k: artifact.metrics[k] for k in ('curves', 'examples')} | {'config': configs.flat(config)})
    if config.report.html and (fresh or not (workdir / 'report.html').exists()):
        report.write(workdir)
