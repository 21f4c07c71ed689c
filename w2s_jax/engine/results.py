"""From what became of the phases to the files that a work directory is read by."""
import pathlib
import platform
from importlib import metadata

import numpy as np

from w2s_jax import config as configs
from w2s_jax import graph
from w2s_jax.data import Dataset
from w2s_jax.diagnostics import alarms
from w2s_jax.engine.execute import Failure
from w2s_jax.engine.plan import Plan
from w2s_jax.errors import NonFiniteError
from w2s_jax.report import page, tables
from w2s_jax.store.artifacts import Artifact, write_json

PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')
MOST_SHARES = 100


def assemble(plan: Plan, outcomes: dict, done: set, seconds: float) -> dict:
    """The object of results.json. Raises NonFiniteError if a run that the evaluation needs diverged."""
    dataset, target = plan.dataset, plan.target
    if isinstance(failure := outcomes[target.id], Failure):
        raise NonFiniteError(failure.reason)
    measured = annotated(outcomes[target.id].metrics['results'], plan)
    task = {'name': dataset.name, **dataset.notes, 'classes': dataset.num_classes, **sizes(plan, outcomes),
            'pool_examples': len(dataset.pool), 'test_examples': len(dataset.test), **shares(dataset)}
    timed = [(p, outcomes[p.id].metrics) for p in plan.phases if p is not target]
    tokens = [{'of': p.label} | {k: m[k] for k in ('texts', 'truncated', 'tokens', 'longest')}
              for p, m in timed if p.kind == 'tokens']
    if tokens:
        task['tokens'] = tokens
    return {'task': task, **measured,
            'timing': {'total_seconds': seconds, 'phases': [
                {'kind': p.role or p.kind, 'name': p.label, 'seed': p.seed, 'skipped': p.id in done,
                 **{k: m[k] for k in ('seconds', 'compile_seconds', 'programs', 'runs') if k in m}} for p, m in timed]},
            'alarms': alarms.raised(task, measured, outcomes[target.id].metrics['curves'], plan.config.report.accept),
            'versions': versions()}


def shares(dataset: Dataset) -> dict:
    """`class_shares` of the pool and the test set, a list of K numbers each; nothing of more than MOST_SHARES
    classes."""
    if dataset.num_classes > MOST_SHARES:
        return {}
    counts = {name: np.bincount(np.asarray(part.truth), minlength=dataset.num_classes)
              for name, part in (('pool', dataset.pool), ('test', dataset.test))}
    return {'class_shares': {name: (count / count.sum()).tolist() for name, count in counts.items()}}


def annotated(measured: dict, plan: Plan) -> dict:
    """The measured part of the results with the size of every model, and the ids of the phases behind it."""
    size = {m.name: m.num_params for m in plan.models.values()}

    def entry(role, row):
        label = row.get('label', role)
        ids = [t.need.id for t in plan.targets if t.role == role and t.label == label]
        return row | ({'parameters': size.get(row['model'])} if 'model' in row else {}) | ({'ids': ids} if ids else {})
    return {k: [entry('student', r) for r in v] if k == 'students' else entry(k, v) for k, v in measured.items()}


def versions() -> dict[str, str]:
    """Of Python, of this package and of those that decide numbers."""
    return {'python': platform.python_version(), 'w2s_jax': metadata.version('w2s_jax'),
            **{name: metadata.version(name) for name in PACKAGES}}


def sizes(plan: Plan, outcomes: dict) -> dict[str, int]:
    """How many examples the teacher (none if labels were given) and the student learn from, in the first seed."""
    found = {}
    for name, role in (('teacher_examples', 'weak'), ('student_examples', 'student')):
        need = next(t.need for t in plan.targets if t.role == role)
        if isinstance(need, graph.Phase) and need.kind == 'fit' and 'rows' in outcomes[need.id].metrics:
            found[name] = outcomes[need.id].metrics['rows']
    return found


def publish(workdir: pathlib.Path, config, results: dict, artifact: Artifact, fresh: bool) -> None:
    """Writes results.json, evaluation.json and, where they are not there for these results, the tables and the report.
    """
    write_results(workdir, config, results, artifact)
    write, last = (page.write, 'report.html') if config.report.html else (tables.write, 'results.csv')
    if fresh or not (workdir / last).exists():
        write(workdir)


def write_results(folder: pathlib.Path, config, results: dict, artifact: Artifact) -> None:
    """results.json and evaluation.json, from which a report is made."""
    write_json(folder / 'results.json', results)
    write_json(folder / 'evaluation.json',
               {k: artifact.metrics[k] for k in ('curves', 'examples')} | {'config': configs.flat(config)})
