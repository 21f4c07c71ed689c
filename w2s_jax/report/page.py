"""What was found, for people: a page that needs no other file, and a table for the terminal.

Everything comes from the files of the work directory of a grid, or of an experiment, which is a grid of one cell; so
both can be made again at any time.
"""
import json
import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from w2s_jax.diagnostics.alarms import ALARMS
from w2s_jax.report import figures, panels, tables
from w2s_jax.report.comparisons import adjusted, best, comparisons, paired, statement
from w2s_jax.report.markup import cleaned
from w2s_jax.report.reading import MAIN, Grid, models, number, on, test_sets
from w2s_jax.report.tables import (
    ALARMED,
    DASH,
    FOLLOWS,
    GAIN,
    accuracy_text,
    interval_text,
    measure_text,
    pgr_text,
    students,
    text,
)
from w2s_jax.store import files

TEMPLATES = Path(__file__).parent / 'templates'
OPEN = 24  # rows of a table that is not folded away
TOO_MANY = .1  # the share of truncated texts above which the report warns
KINDS = {'teacher': 'teachers', 'label': 'weak labels', 'student': 'students', 'ceiling': 'ceilings',
         'zero_shot': 'before fine-tuning', 'tokens': 'tokens of texts', 'features': 'cached features',
         'score': 'likelihoods of texts', 'generate': 'written texts', 'verdict': 'judged texts',
         'evaluate': 'evaluations', 'compare': 'comparisons'}


def write(workdir: str | Path) -> Path:
    """Writes W/plots/*.png, the tables (`tables.write`) and then W/report.html, each whole or not at all; returns the
    page's path. Raises StoreError."""
    workdir, grid = Path(workdir), tables.load(workdir)
    with tables.writing(workdir):
        (workdir / 'plots').mkdir(exist_ok=True)
        for name, view, rows in blocks(grid):
            for f in panels.figures(view, rows):
                path = re.sub('[^a-zA-Z0-9_.-]+', '_', f'{name}-{f.name}' if name else f.name)
                files.write(workdir / 'plots' / f'{path}.png',
                            figures.png(figures.figure(f.panels, f.height, min(3, len(f.panels)), f.key)))
        tables.write(workdir)
        return files.write(workdir / 'report.html', html(grid).encode())


def blocks(grid: Grid) -> list[tuple[str, Grid, pd.DataFrame]]:
    """(name, the grid as the test set sees it, rows) of every task on every test set; the name is empty if there is but
    one, and for the main test set that of the task."""
    views = [(test, view, students(view)) for test in test_sets(grid) for view in [on(grid, test)]]
    tasks = list(dict.fromkeys(t for _, _, table in views for t in table['task'].fillna('unknown task')))
    found = []
    for test, view, table in views:
        for task in tasks or ['']:
            parts = [str(task)] * (len(tasks) > 1) + [f'Test set {test}'] * (test != MAIN)
            rows = table[table['task'].fillna('unknown task') == task]
            found += [(' · '.join(parts), view, rows)] if len(rows) or not tasks else []
    return found


def html(grid: Grid) -> str:
    """The page as text: inline styles and plots, no request to anywhere. Everything is escaped but the examples, which
    are written anew (markup.py)."""
    import jinja2
    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined,
                                     trim_blocks=True, lstrip_blocks=True)
    name = _shared(c.results.get('task') for c in grid.cells).get('name', 'a task') if grid.alone else grid.name
    return environment.get_template('page.html').render(
        grid=grid, title=f'Weak to strong: {name}', headline=headline(grid), warnings=warnings(grid),
        blocks=[{'name': name, 'table': main_table(view, rows),
                 'figures': [_figure(f) for f in panels.figures(view, rows)]} for name, view, rows in blocks(grid)],
        statement=statement(adjusted(grid)), best=best(grid), compared=comparisons(grid),
        learned=learned(grid), lengths=lengths(grid),
        examples=[cleaned(e['html']) for e in grid.cells[0].evaluation.get('examples') or []] if grid.alone else [],
        time=time_table(grid), sharing=sharing(grid), pairs=_pairs(grid), many=OPEN)


def _figure(figure: panels.Figure) -> dict:
    left_out = f' {figure.left_out} more are left out here; results.csv has them.' if figure.left_out else ''
    return {'title': figure.title, 'note': figure.note + left_out,
            'key': [(said, figures.swatch(look)) for said, look in figure.key],
            'svgs': [figures.svg(figures.figure([panel], figure.height)) for panel in figure.panels]}


def _pairs(grid: Grid) -> dict[str, dict[str, str]]:
    """Title -> (key -> value): what is shown of the input, of several cells what they share."""
    diagnostics = {c.name: c.results.get('diagnostics') or {} for c in grid.cells if c.results.get('diagnostics')}
    found = diagnostics.get(grid.cells[0].name, {}) if grid.alone else diagnostics
    data = _shared(c.results.get('task') for c in grid.cells if not c.failed)
    return {'Diagnostics': dict(flat(found)), 'Data': {k: v for k, v in data.items() if k != 'name'},
            'What was swept': {f: ', '.join(text(tables.shown(v)) for v in values) for f, values in grid.axes.items()},
            'Versions': dict(flat(grid.versions)),
            'Configuration': _shared(c.evaluation.get('config') for c in grid.cells if not c.failed)}


def _shared(trees: Iterable) -> dict[str, str]:
    first, *others = [dict(flat(tree)) for tree in trees] or [{}]
    return {k: v for k, v in first.items() if all(other.get(k) == v for other in others)}


def flat(tree, prefix=''):
    """(dotted key, value as text) of a tree of dicts, sorted as it comes."""
    for key, value in (tree if isinstance(tree, dict) else {}).items():
        if isinstance(value, dict):
            yield from flat(value, f'{prefix}{key}.')
        else:
            yield f'{prefix}{key}', value if isinstance(value, str) else json.dumps(value)


def headline(grid: Grid) -> str:
    """The finding in plain words: how much of the gap is recovered, and whether a student is better than its baseline.
    """
    said = [recovery(rows, grid.alone, f'{name}: ' if name else '')
            for name, _, rows in blocks(grid)]
    return ' '.join(filter(None, [*said, statement(adjusted(grid), named=3)])) or 'No student has a result.'


def recovery(rows: pd.DataFrame, alone: bool = False, prefix: str = '') -> str:
    """How much of the gap the students of a task recover, oracles left out.

    The one it names is the surest, that of the highest lower end of the interval: the highest PGR is often the one with
    the smallest gap, that is the most noise.
    """
    rows = rows[rows['accuracy'].notna() & ~rows['oracle'].fillna(False)]
    found = rows[rows['pgr'].notna()].sort_values(['pgr_low', 'pgr'], ascending=False, kind='stable')
    if rows.empty:
        return ''
    if found.empty:
        who = 'the one student' if len(rows) == 1 else f'all {len(rows)} students'
        return f'{prefix}The performance gap recovered is undefined for {who}: no gap between weak and ceiling is ' \
               'beyond its noise.'
    top, name = found.iloc[0], panels.labels(found)[0]
    share = f'{100 * top["pgr"]:.0f} %' + ('' if pd.isna(top['pgr_low']) else (
        f' (interval {100 * top["pgr_low"]:.0f} to {100 * top["pgr_high"]:.0f} %)'))
    harm = '' if pd.isna(top['zero_shot']) else (
        f' But the same model, not fine-tuned at all, is right more often ({100 * top["zero_shot"]:.1f} %).'
        if top['zero_shot'] > top['accuracy'] else
        f' The same model, not fine-tuned at all, is right in {100 * top["zero_shot"]:.1f} %.')
    if alone or len(rows) == 1:
        who = 'The student' if len(rows) == 1 else f'The best of {len(rows)} students'
        return (f'{prefix}{who} ({name}) recovers {share} of the gap between its weak supervisor and the same model '
                f'trained on ground truth.{harm}')
    return (f'{prefix}{len(found)} of {len(rows)} students have a gap to recover that is beyond its noise; half of '
            f'them recover more than {100 * found["pgr"].median():.0f} % of it. The surest is {name}, '
            f'{top["teacher"]} → {top["student"]}, with {share}.{harm}')


def warnings(grid: Grid) -> list[str]:
    """Alarms; cells that failed; students worse than their model was before; what makes the data doubtful; notes of
    diagnostics."""
    table, failed = students(on(grid, MAIN)), [c for c in grid.cells if c.failed]
    raised: dict[str, list[str]] = {}
    for cell in grid.cells:
        for alarm in (a for a in cell.results.get('alarms') or [] if not a.get('accepted')):
            if alarm.get('code') == 'one_seed' or (alarm.get('code') == 'below_zero_shot' and not grid.alone):
                continue  # counted below
            said = alarm['message'] if grid.alone else ALARMS.get(alarm.get('code', ''), alarm['message'])
            if cell.name not in raised.setdefault(said, []):
                raised[said].append(cell.name)
    if grid.alone:
        raised = {said: [c.name for c in grid.cells] for said in _together(raised, tables.entries(grid))}
    found = [message if len(names) == len(grid.cells) else
             f'{message} ({", ".join(names[:3])}{", …" * (len(names) > 3)})' for message, names in raised.items()]
    if failed:
        found.append(f'{len(failed)} of {len(grid.cells)} cells failed: ' + '; '.join(
            f'{c.name} ({c.failed})' for c in failed[:3]) + '; …' * (len(failed) > 3))
    if (worse := (table['zero_shot'] > table['accuracy']).sum()) and not grid.alone:
        found.append(f'{worse} of {table["accuracy"].notna().sum()} students are right less often than the same model '
                     'before any fine-tuning.')
    if table['seeds'].dropna().eq(1).any():
        found.append('one seed: intervals and p values are over test examples, and say nothing about other seeds.')
    doubts = (w for c in grid.cells for w in _doubts(c.results.get('task') or {}))
    entries = tables.entries(on(grid, MAIN))
    notes = (f'{s.entry.get("label")}: {text}' for s in entries for text in (s.entry.get('notes') or {}).values())
    return list(dict.fromkeys([*found, *(w for w in doubts if w not in raised), *_together(notes, entries)]))


def _together(messages: Iterable[str], entries: list) -> list[str]:
    """Messages 'LABEL: text' with one text become one, that names the students."""
    labels = sorted({str(s.entry.get('label')) for s in entries}, key=len, reverse=True)
    texts: dict[str, list[str]] = {}
    for message in dict.fromkeys(messages):
        label = next((name for name in labels if message.startswith(f'{name}: ')), None)
        text = message if label is None else message[len(label) + 2:]
        texts.setdefault(text, []).extend([] if label is None else [label])
    named = lambda who: f'{", ".join(who[:3])}{f" and {len(who) - 3} more" * (len(who) > 3)}: ' if who else ''
    return [named(who) + text for text, who in texts.items()]


def _doubts(task: dict) -> list[str]:
    """Labels that the surface of the texts tells, texts cut short."""
    cut = [t for t in task.get('tokens') or [] if t['truncated'] > TOO_MANY * t['texts']]
    return [*filter(None, [(task.get('leak') or {}).get('warning')]), *(
        f'{t["of"]}: {t["truncated"]} of {t["texts"]} texts were cut to {t["longest"]} tokens (task.max_length)'
        for t in cut)]


def terminal_table(grid: Grid) -> str:
    """Aligned plain text: of an experiment one row per model, of a grid one per student; one block per test set."""
    lines: list[str] = []
    for test in test_sets(grid):
        view = on(grid, test)
        made = main_table(view, students(view))
        hidden = [GAIN] if grid.alone else [GAIN, FOLLOWS]
        lines += ['', f'test set {test}'] * (test != MAIN)
        lines += aligned([*made.keys, *(k for k in made.found if k not in hidden)], made.rows)
    said = '\n'.join(lines)
    marks = [f'{ALARMED.strip()}: a warning below concerns it'] if f']{ALARMED}' in said else []
    return '\n'.join([said, *marks, *paired(grid), *(f'warning: {w}' for w in warnings(grid)),
                      *filter(None, [statement(adjusted(grid))])])


def aligned(columns: list[str], rows: list[dict[str, str]]) -> list[str]:
    """A table as lines, a rule below the first; a row that failed ends with the reason."""
    texts = [columns, *([r[c] for c in columns if c in r] + [r.get('failed', '')] * ('failed' in r) for r in rows)]
    texts = [[' '.join(cell.split()) for cell in row] for row in texts]
    widths = [max(map(len, c)) for c in zip(*(t for t in texts if len(t) == len(columns)), strict=True)]
    head, *body = ['  '.join(map(str.ljust, row, widths)).rstrip() for row in texts]
    return [head, '-' * max(map(len, [head, *body])), *body]


def main_table(grid: Grid, table: pd.DataFrame) -> tables.Text:
    """All models of an experiment, or one row per student of a grid beside the models that it is measured by."""
    if not grid.alone:
        return tables.as_text(grid, table)
    there = [m for m in models(grid.cells[0].results) if m[2].get('accuracy')]
    extra = tables.described(m[2].get('measures') or {} for m in there)
    looks = figures.styles(label for role, label, _ in there if role == 'student')
    return tables.Text(['', 'model'], ['accuracy %', 'PGR', GAIN, FOLLOWS], [*extra], [
        _model(entry, label, figures.COLOURS.get(role) or looks[label]['color'], extra, ', '.join(
            tables.concerning(grid.cells[0].results, label)) if role == 'student' else '')
        for role, label, entry in there])


def _model(entry: dict, label: str, colour: str, extra: dict, alarms: str = '') -> dict[str, str]:
    """A row of the table of an experiment; `dot` and `detail` are for the page."""
    settings = entry.get('settings') or ({'α': entry['alpha']} if entry.get('alpha') else {})
    model, measures = str(entry.get('model') or ''), entry.get('measures') or {}
    says = ', '.join([str(entry.get('loss') or ''), *(f'{k} {text(tables.shown(v))}' for k, v in settings.items())])
    return {'': tables.marked(label, entry.get('oracle')), 'model': model or DASH,
            'dot': figures.PAGE_COLOURS.get(colour, colour), 'detail': ' · '.join(filter(None, (model, says))),
            'accuracy %': accuracy_text(entry['accuracy']),
            'PGR': pgr_text(entry['pgr'], alarms) if 'pgr' in entry else '',
            GAIN: interval_text(entry['gain'], 100, '+.1f') if entry.get('gain') else '',
            FOLLOWS: measure_text(entry['agreement'].get('weak_wrong'), 100, 1) if entry.get('agreement') else '',
            **{k: measure_text(measures[name], *look) for k, (name, look) in extra.items() if name in measures}}


def lengths(grid: Grid, most: int = 7) -> list[dict[str, str]]:
    """PGR of each student after so many epochs, by the final weak model and ceiling, and where a rule stopped it."""
    table, found = students(on(grid, MAIN)), tables.entries(on(grid, MAIN))
    names = panels.variants(table.assign(who=panels.labels(table)), tables.varying(grid, table))
    rows = []
    for who, (i, r) in zip(names, table.iterrows(), strict=True):
        curve = found[i].curve
        if not (epochs := curve.get('epochs')) or not curve.get('pgr'):
            continue
        points = sorted({round(at * (len(epochs) - 1) / max(min(most, len(epochs)) - 1, 1)) for at in range(most)})
        steps = (found[i].entry.get('stopped') or {}).get('steps') or []
        stopped = [epochs[curve['accuracy']['step'].index(s)] for s in steps if s in curve['accuracy']['step']]
        rows.append({'student': who, 'models': f'{r["teacher"]} → {r["student"]}', 'epochs: PGR': ', '.join(
            f'{epochs[at]:.2g}: {DASH if (pgr := number(curve["pgr"][at])) is None else f"{pgr:.2f}"}'
            for at in points if at < len(epochs)),
            'a rule stopped its seeds at': ', '.join(f'{e:.2g}' for e in stopped) or DASH})
    return rows


def learned(grid: Grid) -> list[dict[str, str]]:
    """The final values of what objectives logged, a row for each student and name."""
    table, found = students(on(grid, MAIN)), tables.entries(on(grid, MAIN))
    names = panels.variants(table.assign(who=panels.labels(table)), tables.varying(grid, table))
    return [{'student': who, 'models': f'{r["teacher"]} → {r["student"]}', 'what': name, 'value': measure_text(
                value, digits=3) if 'mean' in value else ', '.join(text(v) for v in value.get('values') or [])}
            for who, (i, r) in zip(names, table.iterrows(), strict=True)
            for name, value in (found[i].entry.get('aux') or {}).items()]


def time_table(grid: Grid) -> list[dict[str, str]]:
    """What every phase of an experiment took; of a grid every kind of phase, and what cells would have spent alone."""
    if not grid.phases:
        return []
    spent, many = phase_times(grid), len(grid.cells) > 1 or bool(grid.axes)
    rows = spent.groupby('kind' if many else 'name', sort=False).sum(numeric_only=True)
    if many:
        rows.loc['sum'] = rows.sum()
    elif total := number(grid.timing.get('total_seconds')):
        rows.loc['this run', 'seconds'] = total
    columns = {'time': rows['seconds'].map(duration), 'of which compiling': rows['compile_seconds'].map(duration)}
    if many:
        counts = {'phases': 'phases', 'programs': 'programs', 'examples': 'examples seen', 'tokens': 'tokens seen'}
        columns |= {'each cell alone': rows['alone'].map(duration)} | {
            title: rows[k].map('{:,.0f}'.format) for k, title in counts.items() if rows[k].any()}
    return [{'': str(name), **row} for name, row in pd.DataFrame(columns).iterrows()]


def phase_times(grid: Grid) -> pd.DataFrame:
    """One row per phase: kind and name as text, what it took as numbers; phases say how many runs a program had."""
    told = ('seconds', 'compile_seconds', 'examples', 'tokens')
    return pd.DataFrame([{
        'kind': KINDS.get(p['kind'], p['kind']), 'name': _phase(p), 'phases': 1,
        **{k: number(p.get(k)) or 0 for k in told},
        'alone': (number(p.get('seconds')) or 0) * (number(p.get('cells')) or 1),
        'programs': 1 / (number(p.get('runs')) or 1)} for p in grid.phases])


def _phase(phase: dict) -> str:
    seed = '' if phase.get('seed') is None else f', seed {phase["seed"]}'
    return f'{phase.get("name") or phase["kind"]}{seed}{" (done in an earlier run)" if phase.get("skipped") else ""}'


def sharing(grid: Grid) -> str:
    """What it saved that cells share phases."""
    if not grid.phases or len(grid.cells) == 1:
        return ''
    spent, alone = phase_times(grid)[['seconds', 'alone']].sum()
    before = sum(bool(p.get('skipped')) for p in grid.phases)
    together = max(number(p.get('runs')) or 1 for p in grid.phases)
    return (f'Had each of the {len(grid.cells)} cells run all its phases, it would have taken {duration(alone)}; '
            f'with every phase run once it took {duration(spent)}, {100 * (1 - spent / (alone or 1)):.0f} % less.'
            + (' Times are shares of the programs that runs trained in together (up to '
               f'{together:.0f} in one), which is a saving of its own that is not counted here.') * (together > 1)
            + f' {before} of the {len(grid.phases)} phases were done before this command.' * bool(before))


def duration(seconds: float) -> str:
    """'1 h 05 min', '3 min 20 s' or '12.5 s'; nothing of nothing."""
    if not seconds >= 59.95:
        return f'{seconds:.1f} s' if seconds > 0 else ''
    minutes, rest = divmod(round(seconds), 60)
    return f'{minutes} min {rest:02d} s' if minutes < 60 else f'{minutes // 60} h {minutes % 60:02d} min'
