"""The results of a grid as tidy tables: a row a student, or a row a student and seed; CSV and LaTeX.

W/grid.json names the cells of a grid; a cell is the work directory of one experiment. A work directory without a
grid.json is a grid of one cell.
"""
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from w2s_jax.errors import StoreError
from w2s_jax.report import page
from w2s_jax.report.figures import number

KEYS = ['cell', 'task', 'teacher', 'student', 'method', 'loss']
COLUMN_OF = {'teacher.model': 'teacher', 'student.model': 'student', 'student.loss.name': 'loss',
             'task.name': 'task', 'method.name': 'method'}  # swept fields that are columns under these names anyway
NUMBERS = ['weak', 'weak_sem', 'accuracy', 'accuracy_sem', 'ceiling', 'ceiling_sem', 'pgr', 'pgr_low', 'pgr_high',
           'gain', 'gain_low', 'gain_high', 'agreement', 'agreement_weak_right', 'agreement_weak_wrong', 'auroc', 'ece',
           'teacher_parameters', 'student_parameters']


@dataclasses.dataclass(frozen=True)
class Cell:
    """One experiment of a grid. `results` and `evaluation` are those of its work directory; {} where it failed."""
    name: str
    overrides: dict
    results: dict
    evaluation: dict
    failed: str | None


@dataclasses.dataclass(frozen=True)
class Grid:
    """What W/grid.json says, and the results of its cells. axes: swept field -> its values in order."""
    name: str
    axes: dict[str, list]
    cells: tuple[Cell, ...]
    phases: list[dict]
    comparisons: list[dict]
    timing: dict
    versions: dict


@dataclasses.dataclass(frozen=True)
class Student:
    """A student, once however many cells it is in, or a cell that failed (then `entry` is {}).

    settings: swept field -> value as the tables show it; None where the student does not depend on the field, which is
      where the cells that share it differ.  entry, curve: of results.json and evaluation.json.
    """
    cell: Cell
    settings: dict[str, Any]
    entry: dict
    curve: dict


def load(workdir: str | Path) -> Grid:
    """The grid, or the one experiment, of a work directory. Raises StoreError for what is missing or damaged."""
    workdir = Path(workdir)
    path = workdir / 'grid.json'
    if not path.exists():
        return _single(workdir)
    content = page.read(path)
    for name, kind in (('axes', dict), ('cells', list), ('phases', list), ('comparisons', list)):
        if not isinstance(content.setdefault(name, kind()), kind):
            raise StoreError(f'{path}: damaged: {name} must be a JSON {"object" if kind is dict else "list"}')
    if not content['cells']:
        raise StoreError(f'{path}: damaged: cells is empty, expected at least one')
    page.check_lists(content, path, cells='name', phases='kind', comparisons='loss')
    cells = tuple(_cell(workdir, cell, path) for cell in content['cells'])
    return Grid(str(content.get('name') or workdir.name), content['axes'], cells, content['phases'],
                content['comparisons'], content.get('timing') or {}, content.get('versions') or {})


def _single(workdir: Path) -> Grid:
    results, evaluation = page.load(workdir)
    cell = Cell(workdir.name, {}, results, evaluation, None)
    timing = results.get('timing') or {}
    return Grid(workdir.name, {}, (cell,), timing.get('phases') or [], [], timing, results.get('versions') or {})


def _cell(workdir: Path, cell: dict, path: Path) -> Cell:
    overrides, failed = cell.get('overrides') or {}, cell.get('failed')
    if not isinstance(overrides, dict) or not isinstance(cell.get('folder', ''), str):
        raise StoreError(f'{path}: damaged: cell {cell["name"]}: overrides must be an object and folder text')
    if failed:
        return Cell(cell['name'], overrides, {}, {}, ' '.join(str(failed).split()))
    results, evaluation = page.load(workdir / cell.get('folder', f'cells/{cell["name"]}'))
    return Cell(cell['name'], overrides, results, evaluation, None)


def entries(grid: Grid) -> list[Student]:
    """Every student of the grid once, in the order of the cells; a failed cell is one too."""
    found: dict[Any, list[tuple[Cell, dict, dict]]] = {}
    for cell in grid.cells:
        curves = {c['label']: c for c in cell.evaluation.get('curves') or [] if c.get('kind') == 'student'}
        for entry in [{}] if cell.failed else cell.results['students']:
            found.setdefault(_identity(cell, entry, grid), []).append((cell, entry, curves.get(entry.get('label'), {})))
    return [Student(shared[0][0], _settings(grid, shared), *shared[0][1:]) for shared in found.values()]


def row(grid: Grid, student: Student) -> dict[str, Any]:
    """KEYS and swept fields of a student. A cell that failed is described as far as its overrides tell, and where the
    rest of the grid is all the same."""
    cell = student.cell
    if not cell.failed:
        return {'cell': cell.name} | _who(cell, student.entry) | student.settings
    rest = [_who(c, entry) for c in grid.cells if not c.failed for entry in c.results['students']]
    same = {k: rest[0][k] for k in KEYS[1:] if rest and all(other[k] == rest[0][k] for other in rest)}
    swept = {COLUMN_OF[f]: str(v) for f, v in cell.overrides.items() if f in COLUMN_OF}
    return {'cell': cell.name} | dict.fromkeys(KEYS[1:]) | same | swept | student.settings


def _identity(cell: Cell, entry: dict, grid: Grid):
    """What is equal for equal students: the ids of their phases, or else what they are and how they fared."""
    if cell.failed:
        return cell.name
    if entry.get('ids'):
        return tuple(entry['ids'])
    elsewhere = {f: v for f, v in _values(grid, cell).items() if not f.startswith('student.loss.')}
    accuracy = entry['accuracy'].get('seeds') or entry['accuracy']['mean']
    return json.dumps([_who(cell, entry), elsewhere, accuracy], sort_keys=True)


def _values(grid: Grid, cell: Cell) -> dict[str, Any]:
    """Swept field -> its value in a cell: as swept there, or as its config has it."""
    values = (cell.evaluation.get('config') or {}) | cell.overrides
    return {field: shown(values[field]) if field in values else None for field in grid.axes}


def shown(value):
    """A value as tables show it: numbers and text as they are, what a config leaves open as 'default'."""
    if value is None:
        return 'default'
    return value if isinstance(value, str | int | float) else json.dumps(value)


def _settings(grid: Grid, shared: list[tuple[Cell, dict, dict]]) -> dict[str, Any]:
    first, *others = (_values(grid, cell) for cell, _, _ in shared)
    settings = {f: v if all(other[f] == v for other in others) else None for f, v in first.items()}
    cell, entry, _ = shared[0]
    if not cell.failed and 'student.loss.name' in settings:  # a baseline is in cells of other losses
        settings['student.loss.name'] = _who(cell, entry)['loss']
    return settings


def _who(cell: Cell, entry: dict) -> dict:
    """task, teacher, student, method and loss of a student."""
    results = cell.results
    return {'task': str((results.get('task') or {}).get('name') or 'a task'),
            'teacher': str(results['weak'].get('model') or 'weak'),
            'student': str(entry.get('model') or results['ceiling'].get('model') or 'strong'),
            'method': str(entry.get('method') or 'naive'), 'loss': str(entry.get('loss') or entry.get('label'))}


def students(grid: Grid) -> pd.DataFrame:
    """One row a student (and one a failed cell, with `failed` saying why).

    Columns: cell (the first that has it), task, teacher, student, method, loss, one a swept field (empty where the
    student does not depend on it), weak, accuracy and ceiling (shares of the test set) with standard errors over seeds
    (`_sem`), pgr and gain with intervals (`_low`, `_high`), pgr_defined, agreement with the weak model (over all test
    examples, where it is right, where it is wrong), auroc, ece, numbers of parameters, seeds (how many), failed.
    """
    rows = [row(grid, s) | _numbers(s) for s in entries(grid)]
    columns = [*KEYS, *grid.axes, *NUMBERS]
    columns.insert(columns.index('pgr_high') + 1, 'pgr_defined')
    table = pd.DataFrame(rows, columns=[*columns, 'seeds', 'failed'])
    return table.astype(dict.fromkeys(NUMBERS, 'float64') | {'pgr_defined': 'boolean', 'seeds': 'Int64'})


def _numbers(student: Student) -> dict[str, Any]:
    entry, results = student.entry, student.cell.results
    if not entry:
        return {'failed': student.cell.failed}
    accuracies = {'weak': results['weak'], 'accuracy': entry, 'ceiling': results['ceiling']}
    agreement, pgr, gain = (entry.get(name) or {} for name in ('agreement', 'pgr', 'gain'))
    found: dict[str, Any] = {}
    for name, part in accuracies.items():
        found |= {name: number(part['accuracy']['mean']), f'{name}_sem': number(part['accuracy'].get('sem'))}
    defined = bool(pgr.get('defined'))
    for name, part in (('pgr', pgr if defined else {}), ('gain', gain)):
        found |= {name: number(part.get('mean')), f'{name}_low': number(part.get('low')),
                  f'{name}_high': number(part.get('high'))}
    means = {'agreement': agreement.get('all'), 'agreement_weak_right': agreement.get('weak_right'),
             'agreement_weak_wrong': agreement.get('weak_wrong'), 'auroc': entry.get('auroc'), 'ece': entry.get('ece')}
    found |= {name: number((part or {}).get('mean')) for name, part in means.items()}
    return found | {'pgr_defined': defined, 'seeds': len(entry['accuracy'].get('seeds') or []) or None,
                  'teacher_parameters': number(results['weak'].get('parameters')),
                  'student_parameters': number(_parameters(entry, results['ceiling']))}


def _parameters(entry: dict, ceiling: dict):
    same = entry.get('model', ceiling.get('model')) == ceiling.get('model')
    return entry.get('parameters', ceiling.get('parameters') if same else None)


def runs(grid: Grid) -> pd.DataFrame:
    """One row a student and seed: the keys and settings of `students`, and seed, weak, accuracy, ceiling, pgr."""
    rows = [row(grid, s) | values for s in entries(grid) if s.entry for values in _seed_rows(s)]
    table = pd.DataFrame(rows, columns=[*KEYS, *grid.axes, 'seed', 'weak', 'accuracy', 'ceiling', 'pgr'])
    return table.astype(dict.fromkeys(('weak', 'accuracy', 'ceiling', 'pgr'), 'float64') | {'seed': 'Int64'})


def _seed_rows(student: Student) -> Iterator[dict]:
    cell, entry = student.cell, student.entry
    accuracy, weak, ceiling = (list(part['accuracy'].get('seeds') or []) for part in
                               (entry, cell.results['weak'], cell.results['ceiling']))
    seeds = (cell.evaluation.get('config') or {}).get('seeds') or range(len(accuracy))
    pgr = entry.get('pgr_seeds') or [None] * len(accuracy)
    for values in zip(seeds, weak, accuracy, ceiling, pgr, strict=False):
        yield dict(zip(('seed', 'weak', 'accuracy', 'ceiling', 'pgr'), values, strict=True))


def write(workdir: str | Path) -> list[Path]:
    """Writes W/results.csv, W/runs.csv and W/results.tex (needs booktabs); returns their paths. Raises StoreError."""
    workdir, grid = Path(workdir), load(workdir)
    table = students(grid)
    texts = {'results.csv': table.to_csv(index=False), 'runs.csv': runs(grid).to_csv(index=False),
             'results.tex': latex(grid, table)}
    with page.writing(workdir):
        return [page.replace(workdir / name, content) for name, content in texts.items()]


def varying(grid: Grid, table: pd.DataFrame) -> list[str]:
    """The swept fields that have no column of their own under another name, and more than one value."""
    return [f for f in grid.axes if f not in COLUMN_OF and table[f].nunique() > 1]


def short(fields: list[str]) -> dict[str, str]:
    """Dotted field -> its last part, or all of it where two fields end alike."""
    ends = [f.rpartition('.')[2] for f in fields]
    return {f: end if ends.count(end) == 1 else f for f, end in zip(fields, ends, strict=True)}


def latex(grid: Grid, table: pd.DataFrame) -> str:
    r"""A tabular of booktabs, to be read by \input; accuracies in per cent with standard errors, PGR with its interval.
    """
    keys = [k for k in ('task', 'method') if table[k].nunique() > 1]
    keys = [*keys, 'teacher', 'student', 'loss', *varying(grid, table)]
    titles = [*map(tex, keys), r'weak \%', r'student \%', r'ceiling \%', 'PGR']
    rows = [[*(tex(text(r[k])) for k in keys), *_findings(r)] for _, r in table.iterrows()]
    lines = [' & '.join(cells) + r' \\' for cells in (titles, *rows)]
    return '\n'.join([r'% \usepackage{booktabs}', rf'\begin{{tabular}}{{{"l" * len(keys)}rrrr}}', r'\toprule', lines[0],
                      r'\midrule', *lines[1:], r'\bottomrule', r'\end{tabular}', ''])


def _findings(found: pd.Series) -> list[str]:
    if found['failed'] is not None and not pd.isna(found['failed']):
        return [rf'\multicolumn{{4}}{{l}}{{failed: {tex(found["failed"])}}}']
    accuracies = [page.measure_text({'mean': found[k], 'sem': found[f'{k}_sem']}, 100, 1).replace(' ± ', r' $\pm$ ')
                  for k in ('weak', 'accuracy', 'ceiling')]
    if pd.isna(found['pgr']):
        return [*accuracies, 'undefined']
    interval = '' if pd.isna(found['pgr_low']) else rf' [{found["pgr_low"]:.2f}, {found["pgr_high"]:.2f}]'
    return [*accuracies, f'{found["pgr"]:.2f}{interval}'.replace('-', '$-$')]


def text(value) -> str:
    """A key of a table as text; nothing where there is none."""
    if value is None or value != value:
        return ''
    return f'{value:g}' if isinstance(value, float) else str(value)


_TEX = {'\\': r'\textbackslash{}', '~': r'\textasciitilde{}', '^': r'\textasciicircum{}',
        '<': r'\textless{}', '>': r'\textgreater{}', '|': r'\textbar{}', '"': "''", '[': '{[}'} | {
        c: '\\' + c for c in '&%$#_{}'}


def tex(value: str) -> str:
    """A text such that LaTeX prints it; what is not printable ASCII becomes a question mark."""
    plain = ' '.join(value.split())
    return ''.join(_TEX.get(c, c) if ' ' <= c <= '~' else '?' for c in plain)
