"""What was found, as tidy tables: one row per student and test set, or per student, test set and seed; CSV and LaTeX.

W/grid.json names the cells of a grid; a cell is the work directory of one experiment. A work directory without a
grid.json is a grid of one cell.
"""
import contextlib
import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from w2s_jax.errors import StoreError
from w2s_jax.report.reading import BESIDE, Cell, Grid, load, number, on, test_sets
from w2s_jax.store import files

DASH, UNDEFINED = '–', 'undefined (gap within noise)'
GAIN, FOLLOWS, MAJORITY = 'gain, points', 'follows weak errors %', 'majority %'
ZERO_PGR, BEST_PGR = 'zero-shot PGR', 'PGR to the best ceiling (chosen on the test set)'
ALARMED = ' !'  # behind a PGR that an alarm concerns
FORMULA = ('=', '+', '-', '@', '\t', '\r')  # how texts begin that a spreadsheet runs
KEYS = ['cell', 'task', 'teacher', 'student', 'method', 'loss', 'label']
COLUMN_OF = {'teacher.model': 'teacher', 'student.model': 'student', 'student.loss.name': 'loss',
             'task.name': 'task', 'method.name': 'method'}  # swept fields that are columns under these names anyway
ACCURACIES = ['weak', 'zero_shot', 'accuracy', 'ceiling']
NUMBERS = ['majority', *(f'{name}{end}' for name in ACCURACIES for end in ('', '_sem', '_low', '_high')),
           'pgr', 'pgr_low', 'pgr_high', 'pgr_best', 'zero_shot_pgr', 'gain', 'gain_low', 'gain_high',
           *(f'{name}{end}' for name in ('agreement', 'agreement_weak_right', 'agreement_weak_wrong')
             for end in ('', '_sem'))]
LAST = ['teacher_parameters', 'student_parameters']
RESERVED = {*KEYS, *NUMBERS, *LAST, 'test', 'oracle', 'pgr_defined', 'seeds', 'alarms', 'failed'}


@dataclasses.dataclass(frozen=True)
class Student:
    """A student, once however many cells it is in, or a cell that failed (then `entry` is {}).

    settings: swept field -> value as the tables show it; None if the student does not depend on the field, which is
      where the cells that share it differ.  entry, curve: of results.json and evaluation.json.
    """
    cell: Cell
    settings: dict[str, Any]
    entry: dict
    curve: dict


def entries(grid: Grid) -> list[Student]:
    """Every student of the grid once, in the order of the cells; a failed cell is one too."""
    found: dict[Any, list[tuple[Cell, dict, dict]]] = {}
    for cell in grid.cells:
        curves = {c['label']: c for c in cell.evaluation.get('curves') or [] if c.get('kind') == 'student'}
        for entry in [{}] if cell.failed else cell.results['students']:
            found.setdefault(_identity(cell, entry, grid), []).append((cell, entry, curves.get(entry.get('label'), {})))
    return [Student(shared[0][0], _settings(grid, shared), *shared[0][1:]) for shared in found.values()]


def _identity(cell: Cell, entry: dict, grid: Grid):
    """What is equal for equal students: label and ids of their phases, or else what they are and how they fared."""
    if cell.failed:
        return cell.name
    if entry.get('ids'):
        return entry['label'], *entry['ids']
    elsewhere = {f: v for f, v in _values(grid, cell).items() if not f.startswith('student.loss.')}
    accuracy = entry['accuracy'].get('seeds') or entry['accuracy']['mean']
    return json.dumps([_who(cell, entry), elsewhere, accuracy], sort_keys=True)


def _values(grid: Grid, cell: Cell) -> dict[str, Any]:
    """Swept field -> its value in a cell: as swept there, or as its config has it."""
    values = (cell.evaluation.get('config') or {}) | cell.overrides
    return {column(field): shown(values[field]) if field in values else None for field in grid.axes}


def column(field: str) -> str:
    """The column of a swept field: its name, `config.seeds` for one that another column has."""
    return f'config.{field}' if field in RESERVED else field


def shown(value):
    """A value as tables show it: numbers and text as they are, names in a row, what a config leaves open as 'default'.
    """
    if value is None:
        return 'default'
    if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        return ', '.join(value) or 'none'
    return value if isinstance(value, str | int | float) else json.dumps(value)


def _settings(grid: Grid, shared: list[tuple[Cell, dict, dict]]) -> dict[str, Any]:
    first, *others = (_values(grid, cell) for cell, _, _ in shared)
    settings = {f: v if all(other[f] == v for other in others) else None for f, v in first.items()}
    cell, entry, _ = shared[0]
    if not cell.failed and 'student.loss.name' in settings:  # a baseline is in cells of other losses
        settings['student.loss.name'] = _who(cell, entry)['loss']
    return settings


def _who(cell: Cell, entry: dict) -> dict[str, Any]:
    """KEYS of a student, without the cell."""
    results = cell.results
    return {'task': str((results.get('task') or {}).get('name') or 'a task'),
            'teacher': str(results['weak'].get('model') or 'weak'),
            'student': str(entry.get('model') or results['ceiling'].get('model') or 'strong'),
            'method': str(entry.get('method') or 'naive'), 'loss': str(entry.get('loss') or entry['label']),
            'label': entry['label']}


def row(grid: Grid, student: Student) -> dict[str, Any]:
    """KEYS, test set and swept fields of a student. A cell that failed is described as far as its overrides tell, and
    where the rest of the grid is all the same."""
    cell = student.cell
    found = {'cell': cell.name, 'test': grid.test, **student.settings}
    if not cell.failed:
        return found | _who(cell, student.entry) | {'oracle': bool(student.entry.get('oracle'))}
    rest = [_who(c, entry) for c in grid.cells if not c.failed for entry in c.results['students']]
    same = {k: rest[0][k] for k in KEYS[1:] if rest and all(other[k] == rest[0][k] for other in rest)}
    swept = {COLUMN_OF[f]: str(v) for f, v in cell.overrides.items() if f in COLUMN_OF}
    named = {'label': swept['loss']} if 'loss' in swept else {}
    return found | dict.fromkeys(KEYS[1:]) | same | swept | named


def students(grid: Grid) -> pd.DataFrame:
    """One row per student and test set (and one per failed cell, with `failed` saying why).

    Columns: cell (the first that has it), task, teacher, student, method, loss, label, oracle (chosen by truth), test
    (the test set), one per swept field (empty if the student does not depend on it), weak, zero_shot (of the same
    model), accuracy and ceiling (shares of the test set) with standard errors over seeds (`_sem`) and intervals over
    seeds and examples (`_low`, `_high`), majority (of always the most frequent class), pgr and gain with intervals,
    pgr_best (against the best ceiling of that model in the grid, which the test set chose), zero_shot_pgr, pgr_defined,
    alarms (codes that concern the student and were not accepted), agreement with the weak model (over all test
    examples, if it is right, if it is wrong), auroc, ece and whatever else was measured, numbers of parameters, seeds
    (how many), failed. The rows of a test set are in the order of `entries`.
    """
    views = [on(grid, name) for name in test_sets(grid)]
    rows = [row(view, s) | _numbers(s) for view in views for s in entries(view)]
    more = dict.fromkeys(['auroc', 'ece', *(name for s in entries(grid) for name in measures(s))])
    numbers = [*NUMBERS, *(f'{name}{end}' for name in more for end in ('', '_sem')), *LAST]
    columns = [*KEYS, 'oracle', 'test', *map(column, grid.axes), *numbers]
    columns.insert(columns.index('pgr_high') + 1, 'pgr_defined')
    table = pd.DataFrame(rows, columns=[*columns, 'seeds', 'alarms', 'failed'])
    best = table.groupby(['task', 'student', 'test'], dropna=False)['ceiling'].transform('max')
    gap = (best - table['weak']).astype('float64')
    table['pgr_best'] = (table['accuracy'] - table['weak']) / gap.where((gap > 0) & table['pgr'].notna())
    return table.astype(dict.fromkeys(numbers, 'float64') | {
        'oracle': 'boolean', 'pgr_defined': 'boolean', 'seeds': 'Int64'})


def measures(student: Student) -> dict[str, dict]:
    """Column -> measure of a student, and as weak_NAME ... what was measured of the models beside it alone."""
    mine, results = student.entry.get('measures') or {}, student.cell.results
    beside = {f'{role}_{name}': m | {'title': f'{title(name, m)}: {role.replace("_", "-")}'} for role in BESIDE
              for name, m in ((results.get(role) or {}).get('measures') or {}).items() if name not in mine}
    return {f'measure_{name}' if name in RESERVED or '.' in name else name: m for name, m in (mine | beside).items()}


def title(name: str, measure: dict) -> str:
    """What a measure is called."""
    return str(measure.get('title') or name)


def _numbers(student: Student) -> dict[str, Any]:
    entry, results = student.entry, student.cell.results
    if not entry:
        return {'failed': student.cell.failed}
    weak, ceiling, before = results['weak'], results['ceiling'], results.get('zero_shot') or {}
    agreement, pgr = entry.get('agreement') or {}, entry.get('pgr') or {}
    defined, same = bool(pgr.get('defined')), before.get('model') == entry.get('model', ceiling.get('model'))
    means = {'weak': weak.get('accuracy'), 'zero_shot': before.get('accuracy') if same else None,
             'accuracy': entry['accuracy'], 'ceiling': ceiling.get('accuracy'), 'agreement': agreement.get('all'),
             'agreement_weak_right': agreement.get('weak_right'), 'agreement_weak_wrong': agreement.get('weak_wrong')}
    found: dict[str, Any] = {}
    for name, part in (means | measures(student)).items():
        found |= _spread(name, part, 'sem', *(('low', 'high') if name in ACCURACIES else ()))
    found |= {'majority': number(((results.get('majority') or {}).get('accuracy') or {}).get('mean')),
              'zero_shot_pgr': number((before.get('pgr') or {}).get('mean')) if same else None,
              'alarms': ', '.join(concerning(results, entry.get('label'))) or None}
    found |= _spread('pgr', pgr if defined else {}, 'low', 'high') | _spread('gain', entry.get('gain'), 'low', 'high')
    return found | {'pgr_defined': defined, 'seeds': len(entry['accuracy'].get('seeds') or []) or None,
                    'teacher_parameters': number(weak.get('parameters')),
                    'student_parameters': number(_parameters(entry, ceiling))}


def concerning(results: dict, label) -> list[str]:
    """The codes of alarms that make a student's PGR doubtful, and that the user has not accepted."""
    return list(dict.fromkeys(a.get('code', '') for a in results.get('alarms') or []
                              if a.get('student') in (None, label) and not a.get('accepted')))


def _spread(name: str, part: dict | None, *ends: str) -> dict[str, float | None]:
    part = part or {}
    return {name: number(part.get('mean')), **{f'{name}_{end}': number(part.get(end)) for end in ends}}


def _parameters(entry: dict, ceiling: dict):
    same = entry.get('model', ceiling.get('model')) == ceiling.get('model')
    return entry.get('parameters', ceiling.get('parameters') if same else None)


def runs(grid: Grid) -> pd.DataFrame:
    """One row per student, test set and seed: the keys and settings of `students`, and seed, weak, accuracy, ceiling,
    pgr."""
    rows = [row(view, s) | values for view in (on(grid, name) for name in test_sets(grid))
            for s in entries(view) if s.entry for values in _seed_rows(s)]
    found = ['weak', 'accuracy', 'ceiling', 'pgr']
    table = pd.DataFrame(rows, columns=[*KEYS, 'oracle', 'test', *map(column, grid.axes), 'seed', *found])
    return table.astype(dict.fromkeys(found, 'float64') | {'seed': 'Int64', 'oracle': 'boolean'})


def _seed_rows(student: Student) -> Iterator[dict]:
    results, entry = student.cell.results, student.entry
    weak, accuracy, ceiling = (list((part.get('accuracy') or {}).get('seeds') or [])
                               for part in (results['weak'], entry, results['ceiling']))
    seeds = (student.cell.evaluation.get('config') or {}).get('seeds') or range(len(accuracy))
    pgr = entry.get('pgr_seeds') or [None] * len(accuracy)
    for values in zip(seeds, weak, accuracy, ceiling, pgr, strict=False):
        yield dict(zip(('seed', 'weak', 'accuracy', 'ceiling', 'pgr'), values, strict=True))


def write(workdir: str | Path) -> list[Path]:
    """Writes W/results.csv, W/runs.csv and W/results.tex (needs booktabs); returns their paths. Raises StoreError."""
    workdir, grid = Path(workdir), load(workdir)
    table = students(grid)
    texts = {'results.csv': comma_separated(table), 'runs.csv': comma_separated(runs(grid)),
             'results.tex': latex(as_text(grid, table))}
    with writing(workdir):
        return [files.write(workdir / name, content.encode()) for name, content in texts.items()]


def comma_separated(table: pd.DataFrame) -> str:
    """A table as CSV in which a spreadsheet finds no formulas: texts that it would take for one, names of columns too,
    have an apostrophe before them. Numbers are as they are."""
    plain = lambda cell: f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell
    return table.map(plain).rename(columns=plain).to_csv(index=False)


@contextlib.contextmanager
def writing(workdir: str | Path) -> Iterator[None]:
    """Makes a StoreError of what the file system objects to in the block."""
    try:
        yield
    except OSError as error:
        raise StoreError(f'{error.filename or workdir}: cannot write the report: {error.strerror}') from error


def varying(grid: Grid, table: pd.DataFrame) -> list[str]:
    """The swept fields that have no column of their own under another name, and more than one value."""
    return [f for f in map(column, grid.axes) if f not in COLUMN_OF and table[f].nunique() > 1]


def short(fields: list[str]) -> dict[str, str]:
    """Dotted field -> its last part, of one that names something the part before; or all of it if two end alike."""
    ends = [f.removesuffix('.name').rpartition('.')[2] for f in fields]
    return {f: end if ends.count(end) == 1 else f for f, end in zip(fields, ends, strict=True)}


class Text(NamedTuple):
    """A table as text.  keys, found, extra: its columns, those of `measures` last.  rows: column -> text, with 'failed'
    in place of what a cell that failed has not."""
    keys: list[str]
    found: list[str]
    extra: list[str]
    rows: list[dict[str, str]]


def as_text(grid: Grid, table: pd.DataFrame) -> Text:
    """One row per student, with what tells the students apart (an oracle is marked) and what was found.

    Labels have a column if any differs from the loss.
    """
    fields, extra = varying(grid, table), described(m for s in entries(grid) for m in [measures(s)])
    labelled = (table['label'] != table['loss'])[table['label'].notna()].any()
    keys = [*(k for k in ('test', 'task') if table[k].nunique() > 1), 'teacher', 'student',
            *(['method'] if table['method'].nunique() > 1 else []), 'loss', *(['label'] if labelled else []), *fields]
    means = {'weak %': 'weak', 'zero-shot %': 'zero_shot', 'student %': 'accuracy', 'ceiling %': 'ceiling'}
    rows = []
    for r in table.to_dict('records'):
        row = {short(fields).get(k, k): text(r[k]) or DASH for k in keys}
        last = 'label' if labelled else 'loss'
        row[last] = marked(row[last], r['oracle'])
        spread = lambda name, *ends: {'mean': r[name], **{end: r[f'{name}_{end}'] for end in ends}}  # noqa: B023
        found = {k: accuracy_text(spread(v, 'sem', 'low', 'high')) for k, v in means.items()} | {
            FOLLOWS: measure_text(spread('agreement_weak_wrong', 'sem'), 100, 1), MAJORITY: measure_text(
                {'mean': r['majority']}, 100, 1), ZERO_PGR: measure_text({'mean': r['zero_shot_pgr']}, digits=2),
            BEST_PGR: measure_text({'mean': r['pgr_best']}, digits=2)} | {
            k: measure_text(spread(name, 'sem'), *look) for k, (name, look) in extra.items()} | {
            'PGR': pgr_text(spread('pgr', 'low', 'high') | {'defined': True}, r['alarms']),
            GAIN: interval_text(spread('gain', 'low', 'high'), 100, '+.1f')}
        rows.append(row | (found if pd.isna(r['failed']) else {'failed': f'failed: {r["failed"]}'}))
    before = ['zero-shot %', ZERO_PGR] if table['zero_shot'].notna().any() else []
    base = [MAJORITY] if table['majority'].notna().any() else []
    more = [BEST_PGR] if ((table['pgr_best'] - table['pgr']).abs() > .005).any() else []
    return Text([short(fields).get(k, k) for k in keys],
                [*base, 'weak %', *before, 'student %', 'ceiling %', 'PGR', *more, GAIN, FOLLOWS], [*extra], rows)


def marked(label: str, oracle: Any) -> str:
    """A label that says whether its student was chosen by truth."""
    return f'{label} (oracle)' if oracle is True else label


def described(found: Iterable[dict[str, dict]]) -> dict[str, tuple[str, tuple[float, int]]]:
    """Title -> (name, (factor, digits)) of measures, as they say it of themselves."""
    known = {name: m for part in found for name, m in part.items()}
    titles = [title(name, m) for name, m in known.items()]
    return {t if titles.count(t) == 1 else f'{t} ({name})': (name, (
        number(m.get('factor')) or 1, int(min(max(m['digits'], 0), 9)) if isinstance(m.get('digits'), int) else 3))
        for t, (name, m) in zip(titles, known.items(), strict=True)}


def latex(made: Text) -> str:
    r"""A tabular of booktabs, to be read by \input; accuracies in per cent with standard errors, PGR with its interval.
    """
    found = [*(k for k in made.found if k not in (GAIN, FOLLOWS, ZERO_PGR)), *made.extra]
    rows = [[tex(r[k]) for k in made.keys] + (
        [rf'\multicolumn{{{len(found)}}}{{l}}{{{tex(r["failed"])}}}'] if 'failed' in r else
        [r[k].replace('-', '$-$').replace(' ± ', r' $\pm$ ').replace(DASH, '--') for k in found]) for r in made.rows]
    head, *lines = [' & '.join(cells) + r' \\' for cells in ([*map(tex, [*made.keys, *found])], *rows)]
    return '\n'.join([r'% \usepackage{booktabs}', rf'\begin{{tabular}}{{{"l" * len(made.keys)}{"r" * len(found)}}}',
                      r'\toprule', head, r'\midrule', *lines, r'\bottomrule', r'\end{tabular}', ''])


def pgr_text(pgr: dict | None, alarms: Any = '') -> str:
    """'0.54 [0.40, 0.67]' of {'mean', 'low', 'high', 'defined'}, marked if there are alarms, or that it is undefined.
    """
    said = interval_text(pgr) if pgr and pgr.get('defined') else DASH
    return UNDEFINED if said == DASH else said + (ALARMED if isinstance(alarms, str) and alarms else '')


def accuracy_text(accuracy: dict | None) -> str:
    """'61.2 [58.9, 63.4]' per cent, with the interval over seeds and examples; of results without one the standard
    error over seeds."""
    known = number((accuracy or {}).get('low')) is not None
    return interval_text(accuracy, 100, '.1f') if known else measure_text(accuracy, 100, 1)


def measure_text(measure: dict | None, factor: float = 1, digits: int = 3) -> str:
    """'61.2 ± 0.4' of {'mean', 'sem'} times `factor`; without a standard error if there is but one seed."""
    mean, sem = (number((measure or {}).get(k)) for k in ('mean', 'sem'))
    if mean is None:
        return DASH
    return f'{factor * mean:.{digits}f}' + (f' ± {factor * sem:.{digits}f}' if sem is not None else '')


def interval_text(part: dict | None, factor: float = 1, form: str = '.2f') -> str:
    """'0.54 [0.40, 0.67]' of {'mean', 'low', 'high'}."""
    mean, low, high = (number((part or {}).get(k)) for k in ('mean', 'low', 'high'))
    if mean is None:
        return DASH
    both = f' [{factor * low:{form}}, {factor * high:{form}}]' if low is not None and high is not None else ''
    return f'{factor * mean:{form}}{both}'


def text(value) -> str:
    """A key of a table as text; nothing if there is none."""
    if value is None or value != value:
        return ''
    return f'{value:g}' if isinstance(value, float) else str(value)


_TEX = {'\\': r'\textbackslash{}', '~': r'\textasciitilde{}', '^': r'\textasciicircum{}',
        '<': r'\textless{}', '>': r'\textgreater{}', '|': r'\textbar{}', '"': "''", '[': '{[}', '*': '{*}'} | {
        c: '\\' + c for c in '&%$#_{}'}


def tex(value: str) -> str:
    """A text such that LaTeX prints it; what is not printable ASCII becomes a question mark."""
    plain = ' '.join(value.split())
    return ''.join(_TEX.get(c, c) if ' ' <= c <= '~' else '?' for c in plain)
