"""A grid: many experiments as one graph, in which every phase that cells share runs once.

Cells are a config with overrides (sweep.py). Their graphs are laid over each other: phases of equal ids are one, and
those that share a program run in it together (graph.py). Running it again, or on several machines at once on one
work directory, does what is missing; another sweep in the same work directory uses what is there.
"""
import collections
import contextlib
import dataclasses
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

from w2s_jax import config as configs
from w2s_jax import graph
from w2s_jax.data import Dataset
from w2s_jax.engine import experiment, sweep
from w2s_jax.engine.experiment import Plan
from w2s_jax.errors import ConfigError
from w2s_jax.graph import Failure, Phase
from w2s_jax.report import grid_page, tables
from w2s_jax.runtime import multihost
from w2s_jax.store import remote
from w2s_jax.store.artifacts import Store, write_json


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """One experiment of a grid."""
    name: str
    overrides: dict[str, Any]
    plan: Plan


@dataclasses.dataclass(frozen=True, eq=False)
class Grid:
    """All cells, planned; the phases of all of them, each once."""
    config: Any
    cells: list[Cell]

    @property
    def plans(self) -> list[Plan]:
        """The plans of the cells."""
        return [c.plan for c in self.cells]

    @property
    def phases(self) -> list[Phase]:
        """All phases, each once, after what it needs."""
        return graph.order(p.target for p in self.plans)


def run(config, cells: sweep.Sweep, workdir: str | pathlib.Path, stream=None, executor: str = 'local',
        store: str | None = None, **options) -> dict:
    """Runs what is missing of a grid, and writes every cell's results, the tables and the report.

    Args:
      cells: overrides, a dict a cell (see sweep.py).  executor: 'local', or 'ray' with its options (cluster.py).
      store: a folder or URL for the artifacts, which several work directories may share; None: in the workdir.
    Returns: the object of `grid.json`. A cell whose run breaks down says so there, and harms no other.
    Raises UserError for what the user can mend.
    """
    began = time.perf_counter()
    workdir = pathlib.Path(workdir).expanduser().absolute()
    if multihost.count() > 1 and (executor != 'local' or '://' in str(store or '')):
        raise ConfigError('--distributed: expected --executor=local, and --store a folder that all hosts share')
    place = remote.open_store(store or workdir / 'store')
    multihost.agree('config', configs.flat(config) | {'cells': json.dumps(cells)} | experiment.versions())
    if not multihost.is_coordinator():
        experiment.follow(plan(config, cells, experiment.quiet).plans, place)
        return json.loads((workdir / 'grid.json').read_text())
    with contextlib.closing(experiment.make_log(config, workdir, stream)) as log:
        grid = plan(config, cells, log.line)
        place.clear_parts()
        place.name(workdir, [p.id for p in grid.phases])
        done = experiment.finished(grid.phases, place)
        log.line(f'{len(grid.cells)} cells, {len(grid.phases)} phases, {len(done)} of them done')
        with experiment.leading(grid.plans, place):
            fates = execute(grid, place, log, executor, options)
            if compared := comparisons(grid, fates):
                place.name(workdir, [p.id for p in [*grid.phases, *compared]])
                fates = experiment.execute(grid.plans, place, log, compared)
            found = summary(grid, fates, done, compared, time.perf_counter() - began)
            publish(workdir, grid, fates, done, found)
        log.line(grid_page.terminal_table(tables.load(workdir)))
        return found


def plan(config, cells: sweep.Sweep, say: Callable = print) -> Grid:
    """Checks all cells and wires their phases; data that cells share is loaded once. Raises UserError."""
    cells = sweep.check(cells)
    experiment.load_plugins(config)
    made = [sweep.apply(config, overrides) for overrides in cells]
    names, plans = sweep.names(cells), []
    datasets: dict[str, Dataset] = {}
    for name, one in zip(names, made, strict=True):
        with _naming(name):
            configs.validate(one)
    for name, one in zip(names, made, strict=True):
        with _naming(name):
            plans.append(experiment.prepare(one, say, datasets))
    return Grid(config, [Cell(*c) for c in zip(names, cells, plans, strict=True)])


@contextlib.contextmanager
def _naming(cell: str):
    try:
        yield
    except ConfigError as e:
        raise ConfigError(f'cell {cell}: {e}') from None


def execute(grid: Grid, store: Store, log, executor: str, options: dict) -> dict:
    """Runs the phases of a grid here or on a Ray cluster. Returns fates by phase id."""
    if executor == 'local':
        return experiment.execute(grid.plans, store, log)
    from w2s_jax.engine import ray_executor
    return ray_executor.run(grid, store, log, **options)


def comparisons(grid: Grid, fates: dict) -> list[Phase]:
    """Phases, one a test set, that compare every student with its baseline (see `_rows`)."""
    tests: dict[str, dict] = {}
    for row in _rows(grid, fates):
        base, truth = row['baseline'], row['target'].needs['truth']
        found = tests.setdefault(truth.id, {'needs': {'truth': truth}, 'pairs': []})
        pair = {**{k: row[k] for k in ('task', 'teacher', 'student', 'settings', 'method', 'loss')},
                'baseline': base['loss'], 'a': row['ids'], 'b': base['ids']}
        if row['ids'] != base['ids'] and not any(p['a'] == pair['a'] and p['b'] == pair['b'] for p in found['pairs']):
            found['pairs'].append(pair)
            found['needs'] |= {p.id: p for p in [*row['phases'], *base['phases']]}
    resamples = grid.config.report.resamples
    return [Phase('compare', {'pairs': t['pairs'], 'resamples': resamples}, t['needs'], 'comparisons')
            for t in tests.values() if t['pairs']]


def _rows(grid: Grid, fates: dict) -> list[dict]:
    """The students of all cells that came through, each with its `baseline`: of those with the same models and settings
    the one that learns naively with cross-entropy; none without one."""
    rows = []
    for cell in grid.cells:
        target, config = cell.plan.target, cell.plan.config
        if isinstance(fates[target.id], Failure):
            continue
        for row in target.section['students']:
            phases = [target.needs[f'student/{row["label"]}/{s}'] for s in config.seeds]
            rows.append({
                'task': config.task.name, 'teacher': target.section['teacher'], 'student': target.section['ceiling'],
                'settings': {k: v for k, v in cell.overrides.items() if k not in (
                    'teacher.model', 'student.model', 'student.loss.name')},
                'method': row['method'], 'loss': row['label'], 'ids': [p.id for p in phases], 'phases': phases,
                'plain': (row['method'] != 'naive', row['loss'] != 'xent'), 'target': target})
    for row in rows:
        like = [r for r in rows if all(r[k] == row[k] for k in ('task', 'teacher', 'student', 'settings'))]
        row['baseline'] = min(like, key=lambda r: r['plain'])
    return [r for r in rows if not any(r['baseline']['plain'])]


def summary(grid: Grid, fates: dict, done: set[str], compared: list[Phase], seconds: float) -> dict:
    """The object of grid.json."""
    swept = [c.overrides for c in grid.cells]
    needed = collections.Counter(p.id for plan in grid.plans for p in plan.phases)
    return {
        'name': grid.config.task.name, 'seeds': list(grid.config.seeds), 'axes': sweep.axes(swept),
        'cells': [{'name': c.name, 'overrides': c.overrides, 'folder': f'cells/{c.name}', 'failed': _reason(c, fates)}
                  for c in grid.cells],
        'phases': [_spent(p, fates[p.id]) | {'skipped': p.id in done, 'cells': needed[p.id]} for p in grid.phases],
        'comparisons': [found for p in compared for found in fates[p.id].metrics['comparisons']],
        'timing': {'total_seconds': seconds}, 'versions': experiment.versions()}


def _reason(cell: Cell, fates: dict) -> str | None:
    fate = fates[cell.plan.target.id]
    return fate.reason if isinstance(fate, Failure) else None


def _spent(phase: Phase, fate) -> dict:
    """What a phase took: its share of the program that it ran in."""
    measured = {} if isinstance(fate, Failure) else fate.metrics
    runs = measured.get('runs', 1)
    share = {k: measured[k] / runs if k in measured else None for k in ('seconds', 'compile_seconds')}
    return {'id': phase.id, 'kind': phase.kind, 'name': phase.label, 'model': phase.section.get('model'),
            'seed': phase.section.get('seed'), **share, 'runs': runs,
            **{k: measured.get(k) for k in ('examples', 'tokens', 'programs')}}


def publish(workdir: pathlib.Path, grid: Grid, fates: dict, done: set[str], found: dict) -> None:
    """Writes cells/NAME/{results,evaluation}.json, grid.json, and from these the tables and the report."""
    for cell in grid.cells:
        fate, folder = fates[cell.plan.target.id], workdir / 'cells' / cell.name
        if isinstance(fate, Failure):
            continue
        folder.mkdir(parents=True, exist_ok=True)
        results = experiment.assemble(cell.plan, fates, done, found['timing']['total_seconds'])
        experiment.write_results(folder, cell.plan.config, results, fate)
    write_json(workdir / 'grid.json', found)
    tables.write(workdir)
    if grid.config.report.html:
        grid_page.write(workdir)
