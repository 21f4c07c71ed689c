"""What a grid found, for people: a page to send to a colleague, and a table for the terminal.

Everything comes from W/grid.json and the work directories of its cells, so the page can be made again at any time.
"""
import re
from pathlib import Path

import pandas as pd

from w2s_jax import metrics
from w2s_jax.report import figures as plots
from w2s_jax.report import grid_figures, page
from w2s_jax.report.figures import number
from w2s_jax.report.tables import COLUMN_OF, Grid, entries, load, short, shown, students, text, varying

LEVEL = .05
NAMED = 6  # how many comparisons a sentence names
OPEN = 24  # rows of a table that is not folded away
KINDS = {'teacher': 'teachers', 'label': 'weak labels', 'student': 'students', 'ceiling': 'ceilings',
         'zero_shot': 'before fine-tuning', 'tokens': 'tokens of texts', 'features': 'cached features',
         'evaluate': 'evaluations', 'compare': 'comparisons'}


def write(workdir: str | Path) -> Path:
    """Writes W/plots/*.png and then W/report.html, whole or not at all; returns the page's path. Raises StoreError."""
    workdir, grid = Path(workdir), load(workdir)
    with page.writing(workdir):
        (workdir / 'plots').mkdir(exist_ok=True)
        tasks = blocks(grid, students(grid))
        for task, _, figures in tasks:
            for figure in figures:
                name = f'{task}-{figure.name}' if len(tasks) > 1 else figure.name
                plots.save_png(workdir / 'plots' / f'{re.sub("[^a-zA-Z0-9_.-]+", "_", name)}.png',
                               plots.figure(figure.panels, figure.height, columns=min(3, len(figure.panels))))
        return page.replace(workdir / 'report.html', html(grid))


def blocks(grid: Grid, table: pd.DataFrame) -> list[tuple[str, pd.DataFrame, list[grid_figures.Figure]]]:
    """(task, its rows, its figures) of every task; rows whose task is not known come last."""
    tasks = table['task'].fillna('unknown task')
    if tasks.nunique() == 1:
        return [(str(tasks.iloc[0]), table, grid_figures.figures(grid, table))]
    return [(str(task), table[tasks == task], grid_figures.figures(grid, table[tasks == task]))
            for task in dict.fromkeys(tasks)]


def html(grid: Grid) -> str:
    """The page as text: inline styles and plots, no request to anywhere."""
    table, compared = students(grid), adjusted(grid)
    return page.render(
        'grid.html',
        title=f'Weak to strong: {grid.name}',
        headline=headline(grid, table, compared),
        warnings=warnings(grid, table),
        blocks=[{'task': task, **rows_of(grid, rows), **_figures(figures),
                 'best': best(grid, rows, [c for c in compared if rows is table or c.get('task') == task])}
                for task, rows, figures in blocks(grid, table)],
        statement=statement(compared),
        compared=[_compared(c) for c in compared],
        time=time_rows(grid.phases),
        tokens=any(number(p.get('tokens')) for p in grid.phases),
        sharing=sharing(grid),
        axes={f: ', '.join(text(shown(v)) for v in values) for f, values in grid.axes.items()},
        versions=dict(page.flat(grid.versions)),
        many=OPEN,
    )


def headline(grid: Grid, table: pd.DataFrame, compared: list[dict]) -> str:
    """The finding in plain words: how much of the gap is recovered, and whether a loss makes a difference."""
    said = [recovery(rows, f'{task}: ' if table['task'].nunique() > 1 else '')
            for task, rows in table[table['accuracy'].notna()].groupby('task', sort=False)]
    if compared:
        said.append(statement(compared, named=3))
    return ' '.join(said) or 'No cell of this grid has a result.'


def recovery(rows: pd.DataFrame, prefix: str) -> str:
    """How much of the gap the students of a task recover. The one it names is the surest, that of the highest lower end
    of the interval: the highest PGR is often the one with the smallest gap, that is the most noise."""
    found = rows[rows['pgr'].notna()].sort_values(['pgr_low', 'pgr'], ascending=False, kind='stable')
    if found.empty:
        return f'{prefix}The performance gap recovered is undefined for {_all(len(rows))}: no gap between weak and ' \
               'ceiling is beyond its noise.'
    top = found.iloc[0]
    share = f'{100 * top["pgr"]:.0f} %' + ('' if pd.isna(top['pgr_low']) else (
        f' (interval {100 * top["pgr_low"]:.0f} to {100 * top["pgr_high"]:.0f} %)'))
    if len(rows) == 1:
        return f'{prefix}The student recovers {share} of the gap between its weak supervisor and its ceiling.'
    who = f'{grid_figures.labels(found)[0]}, {top["teacher"]} → {top["student"]}'
    return (f'{prefix}{len(found)} of {len(rows)} students have a gap to recover that is beyond its noise; half of '
            f'them recover more than {100 * found["pgr"].median():.0f} % of it. The surest is {who}, with {share}.')


def _all(count: int) -> str:
    return 'the one student' if count == 1 else f'all {count} students'


def warnings(grid: Grid, table: pd.DataFrame) -> list[str]:
    """Cells that failed, students that are worse than their model was before, and what the cells warn of themselves."""
    failed = [c for c in grid.cells if c.failed]
    found = [f'{len(failed)} of {len(grid.cells)} cells failed: ' + '; '.join(
        f'{c.name} ({c.failed})' for c in failed[:3]) + ('; …' if len(failed) > 3 else '')] if failed else []
    worse = [s for s in entries(grid) if (before := s.cell.results.get('zero_shot')) and s.entry
             and s.entry.get('model') == before.get('model')
             and before['accuracy']['mean'] > s.entry['accuracy']['mean']]
    if worse:
        found.append(f'{len(worse)} of {table["accuracy"].notna().sum()} students are right less often than the same '
                     'model before any fine-tuning.')
    if table['seeds'].dropna().eq(1).any():
        found.append('one seed: intervals and p values are over test examples, and say nothing about other seeds.')
    return list(dict.fromkeys([*found, *(w for c in grid.cells for w in page.warnings(c.results))]))


def adjusted(grid: Grid) -> list[dict]:
    """The comparisons with 'holm', their p values adjusted for all comparisons of the grid; those without p left out.
    """
    usable = [c for c in grid.comparisons if number(c.get('p')) is not None and number(c.get('mean')) is not None]
    return [c | {'holm': p} for c, p in zip(usable, metrics.holm([c['p'] for c in usable]), strict=True)]


def statement(compared: list[dict], named: int = NAMED) -> str:
    """One sentence that accounts for how many comparisons there are."""
    if not compared:
        return ''
    hold = sorted((c for c in compared if c['holm'] < LEVEL), key=lambda c: -abs(c['mean']))
    alone = sum(c['p'] < LEVEL for c in compared)
    many = 'Of one comparison' if len(compared) == 1 else f'Of {len(compared)} comparisons'
    if not hold:
        return (f'{many} with a baseline, none holds after Holm\'s correction at {LEVEL:.2f} ({alone} would alone): '
                'these differences may be chance.')
    rest = f'; and {len(hold) - named} more' if len(hold) > named else ''
    return (f'{many} with a baseline, {len(hold)} {"holds" if len(hold) == 1 else "hold"} after Holm\'s correction at '
            f'{LEVEL:.2f}: {"; ".join(map(_said, hold[:named]))}{rest}.')


def _said(c: dict) -> str:
    settings = ''.join(f', {part}' for part in _settings(c))
    return (f'{_who(c)} is {"above" if c["mean"] > 0 else "below"} {c.get("baseline")} for {c.get("teacher")} → '
            f'{c.get("student")}{settings} (by {100 * abs(c["mean"]):.1f} points)')


def _who(c: dict) -> str:
    """The loss of a comparison, and the method where it is not the plain one."""
    return c['loss'] if c.get('method') in (None, 'naive', c['loss']) else f'{c["method"]} · {c["loss"]}'


def _settings(c: dict, but=()) -> list[str]:
    """['alpha 0.25'] of a comparison, but the fields in `but` and those that are named anyway."""
    settings = {k: v for k, v in (c.get('settings') or {}).items() if k not in but and k not in COLUMN_OF}
    names = short(list(settings))
    return [f'{names[k]} {text(shown(v))}' for k, v in settings.items()]


def rows_of(grid: Grid, table: pd.DataFrame) -> dict:
    """{'columns', 'rows'} of the table of students, as text."""
    fields = varying(grid, table)
    keys = ['teacher', 'student', *(['method'] if table['method'].nunique() > 1 else []), 'loss', *fields]
    titles = [short(fields).get(k, k) for k in keys]
    return {'columns': [*titles, 'weak %', 'student %', 'ceiling %', 'PGR', 'gain, points', 'follows weak errors %'],
            'rows': [{'keys': [text(r[k]) or page.DASH for k in keys], **_found(r)} for _, r in table.iterrows()]}


def _found(found: pd.Series) -> dict:
    if not pd.isna(found['failed']):
        return {'failed': found['failed'], 'cells': []}
    accuracies = [page.measure_text({'mean': found[k], 'sem': found[f'{k}_sem']}, 100, 1)
                  for k in ('weak', 'accuracy', 'ceiling')]
    pgr, gain = ({k: found[f'{name}{end}'] for k, end in (('mean', ''), ('low', '_low'), ('high', '_high'))}
                 for name in ('pgr', 'gain'))
    followed = found['agreement_weak_wrong']
    return {'failed': None, 'cells': [
        *accuracies, page.pgr_text(pgr | {'defined': True}) if not pd.isna(found['pgr']) else 'undefined',
        page.gain_text(gain) or page.DASH, page.DASH if pd.isna(followed) else f'{100 * followed:.1f}']}


def best(grid: Grid, table: pd.DataFrame, compared: list[dict]) -> dict:
    """{'columns', 'rows'}: for every teacher and student, and settings that the baseline depends on, the loss that was
    best, and how far above the baseline."""
    if not compared:
        return {'columns': [], 'rows': []}
    baselines = table[table['loss'].isin({c.get('baseline') for c in compared})]
    own = [f for f in varying(grid, table) if baselines[f].notna().any()]
    groups: dict[tuple, list[dict]] = {}
    for c in compared:
        key = c.get('teacher'), c.get('student'), *(shown((c.get('settings') or {}).get(f, '')) for f in own)
        groups.setdefault(key, []).append(c)
    rows = [[*map(text, key), *_best(max(group, key=lambda c: c['mean']), own)] for key, group in groups.items()]
    return {'columns': ['teacher', 'student', *(short(own)[f] for f in own), 'best loss',
                        'above the baseline, points', 'p', 'p after Holm'], 'rows': rows}


def _best(top: dict, own: list[str]) -> list[str]:
    ps = [_p(top['p']), f'{_p(top["holm"])}{" ✓" if top["holm"] < LEVEL else ""}']
    if top['mean'] <= 0:
        return [f'{top.get("baseline")} (the baseline)', f'{_who(top)} is next: {page.gain_text(top)}', *ps]
    return [' · '.join([_who(top), *_settings(top, but=own)]), page.gain_text(top), *ps]


def _p(value: float) -> str:
    return '< .001' if value < .001 else f'{value:.3f}'


def _compared(c: dict) -> list[str]:
    return [str(c.get('task') or ''), f'{c.get("teacher")} → {c.get("student")}', ', '.join(_settings(c)),
            f'{_who(c)} − {c.get("baseline")}', page.gain_text(c), _p(c['p']), _p(c['holm'])]


def time_rows(phases: list[dict]) -> list[dict]:
    """What was spent by kind of phase, and what the cells would have spent each for itself; the sum last."""
    kinds = {kind: [p for p in phases if p['kind'] == kind] for kind in dict.fromkeys(p['kind'] for p in phases)}
    rows = [_time_row(KINDS.get(kind, kind), mine) for kind, mine in kinds.items()]
    rows = [*rows, _time_row('sum', phases)] if len(rows) > 1 else rows
    longest = max((r['alone_seconds'] for r in rows[:len(kinds)]), default=0) or 1
    return [r | {'bar': min(100, 100 * r['alone_seconds'] / longest) if r['kind'] != 'sum' else 0,
                 'filled': 100 * r['seconds'] / r['alone_seconds'] if r['alone_seconds'] else 0} for r in rows]


def _time_row(kind: str, phases: list[dict]) -> dict:
    total = lambda key: sum(number(p.get(key)) or 0 for p in phases)
    seconds, alone = total('seconds'), alone_seconds(phases)
    counts = {k: f'{total(k):,.0f}' if any(number(p.get(k)) is not None for p in phases) else ''
              for k in ('examples', 'tokens')}
    timed = {'spent': seconds, 'compiling': total('compile_seconds'), 'alone': alone}
    return {'kind': kind, 'phases': str(len(phases)), 'programs': f'{programs(phases):.0f}', 'seconds': seconds,
            'alone_seconds': alone, **{k: duration(v) if v else '' for k, v in timed.items()}, **counts}


def programs(phases: list[dict]) -> float:
    """How many programs ran, where each phase says how many runs shared its own."""
    return sum(1 / (number(p.get('runs')) or 1) for p in phases)


def alone_seconds(phases: list[dict]) -> float:
    """The time of all phases if every cell had run its own."""
    return sum((number(p.get('seconds')) or 0) * (number(p.get('cells')) or 1) for p in phases)


def sharing(grid: Grid) -> str:
    """What it saved that cells share phases."""
    spent, alone = sum(number(p.get('seconds')) or 0 for p in grid.phases), alone_seconds(grid.phases)
    if not spent:
        return ''
    before = sum(bool(p.get('skipped')) for p in grid.phases)
    done = f' {before} of the {len(grid.phases)} phases were done before this command.' if before else ''
    saved = (f'Had each of the {len(grid.cells)} cells run all its phases, it would have taken {duration(alone)}; '
             f'with every phase run once it took {duration(spent)}, {100 * (1 - spent / alone):.0f} % less.'
             if len(grid.cells) > 1 else f'All phases together took {duration(spent)}.')
    together = max((number(p.get('runs')) or 1 for p in grid.phases), default=1)
    note = (' Times are shares of the programs that runs trained in together (up to '
            f'{together:.0f} in one), which is a saving of its own that is not counted here.') if together > 1 else ''
    return saved + note + done


def duration(seconds: float) -> str:
    """'1 h 05 min', '3 min 20 s' or '12.5 s'."""
    if seconds < 59.95:
        return f'{seconds:.1f} s'
    minutes, rest = divmod(round(seconds), 60)
    return f'{minutes} min {rest:02d} s' if minutes < 60 else f'{minutes // 60} h {minutes % 60:02d} min'


def _figures(figures: list[grid_figures.Figure]) -> dict:
    """{'before', 'after'}: figures by where they stand, the table of the best losses between them."""
    after = ('agreement', 'curves')
    return {'before': [_figure(f) for f in figures if f.name not in after],
            'after': [_figure(f) for f in figures if f.name in after]}


def _figure(figure: grid_figures.Figure) -> dict:
    left_out = f' {figure.left_out} more are left out here; results.csv has them.' if figure.left_out else ''
    return {'title': figure.title, 'note': figure.note + left_out,
            'svgs': [plots.svg(plots.figure([panel], figure.height)) for panel in figure.panels]}


def terminal_table(grid: Grid) -> str:
    """Aligned plain text: a row a student."""
    table = students(grid)
    made = rows_of(grid, table)
    columns, rows = made['columns'][:-2], []
    for r in made['rows']:
        rows.append([*r['keys'], *(r['cells'][:-2] if r['failed'] is None else [f'failed: {r["failed"]}'])])
    if table['task'].nunique() > 1:
        columns, rows = ['task', *columns], [[text(t), *r] for t, r in zip(table['task'], rows, strict=True)]
    whole = [r for r in (columns, *rows) if len(r) == len(columns)]
    widths = [max(map(len, column)) for column in zip(*whole, strict=True)]
    lines = ['  '.join(map(str.ljust, r, widths)).rstrip() for r in (columns, *rows)]
    return '\n'.join([lines[0], '-' * len(lines[0]), *lines[1:], *filter(None, [statement(adjusted(grid))])])
