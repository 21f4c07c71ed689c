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
from w2s_jax import graph, paths
from w2s_jax.data import Dataset
from w2s_jax.engine import experiment, results, runner, sweep
from w2s_jax.engine import plan as plans
from w2s_jax.engine.execute import Failure
from w2s_jax.engine.plan import Plan
from w2s_jax.errors import ConfigError
from w2s_jax.graph import Phase
from w2s_jax.methods import METHODS
from w2s_jax.report import page, tables
from w2s_jax.runtime import multihost
from w2s_jax.store import remote
from w2s_jax.store.artifacts import Store, write_json

RAY = ('address', 'resources', 'retries')  # options of ray_executor.run


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
    workdir, cells, config = paths.folder(workdir, '--workdir'), sweep.check(cells), plans.composed(config)
    check_executor(executor, options)
    configured(config, cells)
    if multihost.count() > 1 and (executor != 'local' or '://' in str(store or '')):
        raise ConfigError('--distributed: expected --executor=local, and --store a folder that all hosts share')
    place = remote.open_store(store or workdir / 'store')
    multihost.agree('config', configs.flat(config) | {'cells': json.dumps(cells)} | results.versions())
    if not multihost.is_coordinator():
        runner.follow(plan(config, cells, runner.quiet).plans, place)
        return json.loads((workdir / 'grid.json').read_text())
    with contextlib.closing(experiment.make_log(config, workdir, stream)) as log:
        grid = plan(config, cells, log.line)
        place.clear_parts()
        place.name(workdir, [p.id for p in grid.phases])
        done = runner.finished(grid.phases, place)
        log.line(f'{len(grid.cells)} cells, {len(grid.phases)} phases, {len(done)} of them done')
        with runner.leading(grid.plans, place):
            outcomes = execute(grid, place, log, executor, options)
            if compared := comparisons(grid, outcomes):
                place.name(workdir, [p.id for p in [*grid.phases, *compared]])
                outcomes = runner.execute(grid.plans, place, log, compared)
            found = summary(grid, outcomes, done, compared, time.perf_counter() - began)
            publish(workdir, grid, outcomes, done, found)
        log.line(page.terminal_table(tables.load(workdir)))
        return found


def plan(config, cells: sweep.Sweep, say: Callable = print) -> Grid:
    """Checks all cells and wires their phases; data that cells share is loaded once. Raises UserError."""
    cells, config = sweep.check(cells), plans.composed(config)
    datasets: dict[str, Dataset] = {}
    found = []
    for overrides, (name, one) in zip(cells, configured(config, cells), strict=True):
        with _naming(name):
            found.append(Cell(name, overrides, plans.prepare(one, say, datasets)))
    return Grid(config, found)


def configured(config, cells: sweep.Sweep) -> list[tuple[str, Any]]:
    """The name and the checked config of every cell. Raises ConfigError that names the cell."""
    found = []
    for name, overrides in zip(sweep.names(cells), cells, strict=True):
        with _naming(name):
            found.append((name, configs.validate(sweep.apply(config, overrides))))
    return found


def check_executor(executor: str, options: dict) -> None:
    """Raises ConfigError for an executor, or an option of it, that is not there."""
    if executor not in ('local', 'ray'):
        raise ConfigError(f'executor: {executor!r}, expected local or ray')
    for name in options:
        if executor == 'local' or name not in RAY:
            raise ConfigError(f'{name}: no option of a grid with executor {executor!r}, expected '
                              f'{"none" if executor == "local" else "one of " + ", ".join(RAY)}')


@contextlib.contextmanager
def _naming(cell: str):
    try:
        yield
    except ConfigError as e:
        raise ConfigError(f'cell {cell}: {e}') from None


def execute(grid: Grid, store: Store, log, executor: str, options: dict) -> dict:
    """Runs the phases of a grid here or on a Ray cluster. Returns outcomes by phase id."""
    if executor == 'local':
        return runner.execute(grid.plans, store, log)
    from w2s_jax.engine import ray_executor
    return ray_executor.run(grid, store, log, **options)


def comparisons(grid: Grid, outcomes: dict) -> list[Phase]:
    """Phases, one for each test set, that compare every student with its baseline (see `_rows`)."""
    tests: dict[str, dict] = {}
    for row in _rows(grid, outcomes):
        base, truth = row['baseline'], row['truth']
        found = tests.setdefault(truth.id, {'needs': {'truth': truth} | row['group'], 'pairs': []})
        pair = {**{k: row[k] for k in ('task', 'teacher', 'student', 'settings', 'method', 'loss', 'label')},
                'baseline': base['label'], 'a': row['ids'], 'b': base['ids']}
        if row['ids'] != base['ids'] and not any(p['a'] == pair['a'] and p['b'] == pair['b'] for p in found['pairs']):
            found['pairs'].append(pair)
            found['needs'] |= {p.id: p for p in [*row['phases'], *base['phases']]}
    resamples = grid.config.report.resamples
    return [Phase('compare', {'pairs': t['pairs'], 'resamples': resamples}, t['needs'], 'comparisons', 'compare',
                  True) for t in tests.values() if t['pairs']]


def _rows(grid: Grid, outcomes: dict) -> list[dict]:
    """The students of all cells that came through, each with its `baseline`: of those with the same models and settings
    the one that learns naively with cross-entropy, labels as they are if a cell has these; none without one. Oracles
    are not compared."""
    rows: list[dict] = []
    for cell in grid.cells:
        plan, config = cell.plan, cell.plan.config
        if isinstance(outcomes[plan.target.id], Failure):
            continue
        for label in dict.fromkeys(t.label for t in plan.targets if t.role == 'student' and not t.row.get('oracle')):
            mine = {t.seed: t for t in plan.targets if t.role == 'student' and t.label == label}
            plain = configs.SECTIONS['method']['name'].default
            row, phases = mine[config.seeds[0]].row, [mine[seed].need for seed in config.seeds]
            weak = next(t.row['model'] for t in plan.targets if t.role == 'weak')
            rows.append({
                'task': config.task.name, 'teacher': weak, 'student': plan.models['student'].name,
                'settings': {k: v for k, v in cell.overrides.items() if k not in _COLUMNS},
                'like': {k: v for k, v in cell.overrides.items() if not _of_the_student(k, config)},
                'method': row['method'], 'loss': row['loss'], 'label': label, 'ids': [p.id for p in phases],
                'phases': phases, 'plain': (row['method'] != plain, row['loss'] != 'xent'),
                'transforms': tuple(config.labels.transforms),
                'truth': plan.target.needs['truth/test'],
                'group': {k.partition('/')[0]: v for k, v in plan.target.needs.items() if k == 'group/test'}})
    for row in rows:
        like = [r for r in rows if all(r[k] == row[k] for k in ('task', 'teacher', 'student', 'like'))]
        row['baseline'] = min(like, key=lambda r: (r['plain'], r['transforms'] != (),
                                                   r['transforms'] != row['transforms']))
    return [r for r in rows if not any(r['baseline']['plain'])]


_COLUMNS = ('teacher.model', 'student.model', 'student.loss.name')  # a comparison has them anyway


def _of_the_student(field: str, config) -> bool:
    """Whether a swept field is what students are compared in: method, loss, transforms of labels, and their settings.
    A baseline does not depend on it."""
    own = {f'method.{name}' for entry in METHODS.values() for name in entry.settings}
    label = field.startswith('labels.') and not field.startswith('labels.source')
    return field in _COLUMNS or field == 'method.name' or field in own or label or field.startswith('student.loss.')


def summary(grid: Grid, outcomes: dict, done: set[str], compared: list[Phase], seconds: float) -> dict:
    """The object of grid.json."""
    swept = [c.overrides for c in grid.cells]
    needed = collections.Counter(p.id for plan in grid.plans for p in plan.phases)
    return {
        'name': grid.config.task.name, 'seeds': list(grid.config.seeds), 'axes': sweep.axes(swept),
        'cells': [{'name': c.name, 'overrides': c.overrides, 'folder': f'cells/{c.name}',
                   'failed': _reason(c, outcomes)} for c in grid.cells],
        'phases': [_spent(p, outcomes[p.id]) | {'skipped': p.id in done, 'cells': needed[p.id]} for p in grid.phases],
        'comparisons': [found for p in compared for found in outcomes[p.id].metrics['comparisons']],
        'timing': {'total_seconds': seconds}, 'versions': results.versions()}


def _reason(cell: Cell, outcomes: dict) -> str | None:
    outcome = outcomes[cell.plan.target.id]
    return outcome.reason if isinstance(outcome, Failure) else None


def _spent(phase: Phase, outcome) -> dict:
    """What a phase took: its share of the program that it ran in."""
    measured = {} if isinstance(outcome, Failure) else outcome.metrics
    runs = measured.get('runs', 1)
    share = {k: measured[k] / runs if k in measured else None for k in ('seconds', 'compile_seconds')}
    return {'id': phase.id, 'kind': phase.role or phase.kind, 'name': phase.label, 'model': phase.model or None,
            'seed': phase.seed, **share, 'runs': runs,
            **{k: measured.get(k) for k in ('examples', 'tokens', 'programs')}}


def publish(workdir: pathlib.Path, grid: Grid, outcomes: dict, done: set[str], found: dict) -> None:
    """Writes cells/NAME/{results,evaluation}.json, grid.json, and from these the tables and the report."""
    for cell in grid.cells:
        outcome, folder = outcomes[cell.plan.target.id], workdir / 'cells' / cell.name
        if isinstance(outcome, Failure):
            continue
        folder.mkdir(parents=True, exist_ok=True)
        assembled = results.assemble(cell.plan, outcomes, done, found['timing']['total_seconds'])
        results.write_results(folder, cell.plan.config, assembled, outcome)
    write_json(workdir / 'grid.json', found)
    (page.write if grid.config.report.html else tables.write)(workdir)
