"""What an experiment or a grid left in its work directory, read and checked.

W/grid.json names the cells of a grid; a cell is the work directory of one experiment, with results.json and
evaluation.json. A work directory without a grid.json is a grid of one cell.
"""
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from w2s_jax.errors import StoreError
from w2s_jax.paths import check_file
from w2s_jax.report import shape

MAIN = 'test'  # the name of the main test set
BESIDE = ('weak', 'zero_shot', 'ceiling', 'majority')  # what stands beside the students
# What each test set has of its own.
ELSEWHERE = ('accuracy', 'pgr', 'pgr_seeds', 'gain', 'versus', 'beyond_zero_shot', 'agreement', 'aux', 'series',
             'notes')


@dataclasses.dataclass(frozen=True)
class Cell:
    """One experiment of a grid. `results` and `evaluation` are those of its work directory; {} if it failed."""
    name: str
    overrides: dict
    results: dict
    evaluation: dict
    failed: str | None


@dataclasses.dataclass(frozen=True)
class Grid:
    """What W/grid.json says, and the results of its cells.

    axes: swept field -> its values in order.  test: the test set that the entries of `results` are of; as loaded, they
      have those of further ones in their `tests`.
    """
    name: str
    axes: dict[str, list]
    cells: tuple[Cell, ...]
    phases: list[dict]
    comparisons: list[dict]
    timing: dict
    versions: dict
    test: str = MAIN

    @property
    def alone(self) -> bool:
        """Whether it is one experiment."""
        return len(self.cells) == 1 and not self.cells[0].failed


def load(workdir: str | Path) -> Grid:
    """The grid, or the one experiment, of a work directory. Raises StoreError for what is missing or damaged."""
    workdir = Path(workdir)
    path = workdir / 'grid.json'
    if not path.exists():
        cell = Cell(workdir.absolute().name, {}, *_experiment(workdir), None)
        timing = cell.results.get('timing') or {}
        return Grid(cell.name, {}, (cell,), timing.get('phases') or [], within(cell.results), timing,
                    cell.results.get('versions') or {})
    content = read(path)
    for name, kind in (('axes', dict), ('cells', list), ('phases', list), ('comparisons', list)):
        if not isinstance(content.setdefault(name, kind()), kind):
            raise StoreError(f'{path}: damaged: {name} must be a JSON {"object" if kind is dict else "list"}')
    if not content['cells']:
        raise StoreError(f'{path}: damaged: cells is empty, expected at least one')
    _check_lists(content, path, cells='name', phases='kind', comparisons='loss')
    shape.check(content, shape.GRID, path)
    cells = tuple(_cell(workdir, cell, path) for cell in content['cells'])
    return Grid(str(content.get('name') or workdir.name), content['axes'], cells, content['phases'],
                content['comparisons'], content.get('timing') or {}, content.get('versions') or {})


def within(results: dict) -> list[dict]:
    """The comparisons of an experiment: each student with the first one."""
    return [{'task': (results.get('task') or {}).get('name'), 'teacher': (results.get('weak') or {}).get('model'),
             'student': s.get('model'), 'settings': {}, 'method': s.get('method'), 'loss': s.get('loss') or s['label'],
             'label': s['label'], 'baseline': s['versus'].get('label'), **{
                 k: s['versus'].get(k) for k in ('mean', 'low', 'high', 'p', 'detectable')}}
            for s in results['students'] if isinstance(s.get('versus'), dict)]


def _cell(workdir: Path, cell: dict, path: Path) -> Cell:
    overrides, failed = cell.get('overrides') or {}, cell.get('failed')
    if not isinstance(overrides, dict) or not isinstance(cell.get('folder', ''), str):
        raise StoreError(f'{path}: damaged: cell {cell["name"]}: overrides must be an object and folder text')
    if failed:
        return Cell(cell['name'], overrides, {}, {}, ' '.join(str(failed).split()))
    return Cell(cell['name'], overrides, *_experiment(workdir / cell.get('folder', f'cells/{cell["name"]}')), None)


def _experiment(workdir: Path) -> tuple[dict, dict]:
    """The objects of results.json and evaluation.json."""
    paths = workdir / 'results.json', workdir / 'evaluation.json'
    results, evaluation = map(read, paths)
    _check_lists(results, paths[0], students='label', alarms='message')
    _check_lists(evaluation, paths[1], curves='label', examples='html')
    results['students'] = results.get('students') or []
    for role, label, entry in models(results):
        _check_entry(entry, f'students.{label}' if role == 'student' else role, paths[0])
    shape.check(results, shape.RESULTS, paths[0])
    shape.check(evaluation, shape.EVALUATION, paths[1])
    return results, evaluation


def read(path: Path) -> dict:
    """The object in a file. Raises StoreError for one that is missing or damaged."""
    check_file(path, StoreError)
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        raise StoreError(f'{path}: not found: the experiment must finish before it can be reported') from None
    except OSError as error:
        raise StoreError(f'{path}: cannot be read: {error.strerror}') from error
    except (ValueError, RecursionError) as error:
        raise StoreError(f'{path}: damaged: expected JSON, but {error}') from error
    if not isinstance(content, dict):
        raise StoreError(f'{path}: damaged: expected a JSON object, found {type(content).__name__}')
    return content


def _check_lists(content: dict, path: Path, **lists: str) -> None:
    """Each of `lists` (name -> key), if it is there, is a list of objects in which the key is text."""
    for name, key in lists.items():
        items = content.get(name) or []
        if not isinstance(items, list) or not all(isinstance(i, dict) and isinstance(i.get(key), str) for i in items):
            raise StoreError(f'{path}: damaged: {name} must be a list of objects with a text {key}')


def _check_entry(entry: Any, name: str, path: Path) -> None:
    """The numbers that no report can do without, and the shape of what may be there."""
    parts = {part: (entry.get(part) or {}) if isinstance(entry, dict) else {}
             for part in ('measures', 'tests', 'aux', 'series')}
    for part, found in parts.items():
        if not isinstance(found, dict) or not all(isinstance(v, dict) for v in found.values()):
            raise StoreError(f'{path}: damaged: {name}.{part} must be an object of objects')
    for where, found in {name: entry, **{f'{name}.tests.{k}': v for k, v in parts['tests'].items()}}.items():
        accuracy = found.get('accuracy') if isinstance(found, dict) else None
        if not isinstance(accuracy, dict) or number(accuracy.get('mean')) is None:
            raise StoreError(f'{path}: damaged: {where}.accuracy.mean must be a number')


def number(value) -> float | None:
    """`value` as a finite float, or None: what a report shows as a dash."""
    try:
        usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return None
    return float(value) if usable else None


def models(results: dict) -> list[tuple[str, str, Any]]:
    """[(role, label, entry)]: the most frequent answer and the student's model before fine-tuning if they were
    measured, weak, students, ceiling."""
    least = [('majority', 'always the most frequent class', results['majority'])] if results.get('majority') else []
    before = [('zero_shot', 'student, zero-shot', results['zero_shot'])] if results.get('zero_shot') else []
    return [*least, ('weak', 'weak', results.get('weak')), *before,
            *(('student', s['label'], s) for s in results['students']), ('ceiling', 'ceiling', results.get('ceiling'))]


def test_sets(grid: Grid) -> list[str]:
    """The names of the test sets that students were measured on, the main one first."""
    found = (name for c in grid.cells if not c.failed for s in c.results['students'] for name in s.get('tests') or {})
    return list(dict.fromkeys([grid.test, *found]))


def on(grid: Grid, test: str) -> Grid:
    """The grid as one test set sees it: entries hold what was measured there; students that were not are left out."""
    if grid.test == test != MAIN:
        return grid
    seen = lambda c: c.evaluation if test == MAIN else {'config': c.evaluation.get('config')}
    cells = tuple(c if c.failed else dataclasses.replace(c, results=_results_on(c.results, test), evaluation=seen(c))
                  for c in grid.cells if test == MAIN or not c.failed)
    return dataclasses.replace(grid, cells=cells, test=test, comparisons=grid.comparisons if test == MAIN else [])


def _results_on(results: dict, test: str) -> dict:
    students = [s for s in results['students'] if test == MAIN or test in (s.get('tests') or {})]
    return results | {role: _entry_on(results[role], test) for role in BESIDE if results.get(role)} | {
        'students': [_entry_on(s, test) for s in students]}


def _entry_on(entry: dict, test: str) -> dict:
    tests = entry.get('tests') or {}
    found = {k: v for k, v in entry.items() if k != 'tests' and (test == MAIN or k not in ELSEWHERE)}
    measures = {k: m for k, m in (entry.get('measures') or {}).items()
                if (m.get('test') if m.get('test') in tests else MAIN) == test}
    return found | ({} if test == MAIN else tests.get(test, {})) | {'measures': measures}
