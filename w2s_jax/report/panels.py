"""The figures of a report, and the panels that they are made of; a panel draws one matplotlib axes (figures.py).

`table` is what `tables.students` returns, of one task and test set. A *variant* is a student with its settings: what it
differs in beside teacher and size. Nothing is averaged over settings: what differs in them has panels of its own.
"""
import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from w2s_jax.report import agreements, curves, series
from w2s_jax.report import figures as plots
from w2s_jax.report.against import against_panel
from w2s_jax.report.agreements import SUBSETS
from w2s_jax.report.reading import Grid, models, number
from w2s_jax.report.tables import Student, entries, marked, short, text, varying

MOST, MOST_CURVES, MOST_ROWS = 12, 24, 40  # panels of a figure, and rows of a panel
FINAL = ('weak', 'ceiling')  # whose last accuracies stand beside curves
DIVERGING = 'PuOr'  # told apart with every kind of colour vision


@dataclasses.dataclass(frozen=True)
class Figure:
    """panels: functions that draw on an axes.  height: of a panel, inches.  left_out: how many panels were.  key: of
    all panels, if they have none of their own."""
    name: str
    title: str
    panels: list[Callable]
    height: float
    note: str
    left_out: int = 0
    key: plots.Key = ()


def figures(grid: Grid, table: pd.DataFrame) -> list[Figure]:
    """All figures of one task that there is something to show in. `table` has its rows as `students` numbered them."""
    found, fields = entries(grid), varying(grid, table)
    table = table.assign(who=labels(table), ceiling_of=[
        (found[i].cell.results.get('ceiling') or {}).get('model') for i in table.index])
    table['variant'] = variants(table, fields)
    good = table[table['accuracy'].notna()]
    known = table[table[['teacher', 'student', 'label']].notna().all(axis=1)]
    if good.empty and not grid.alone:
        return []
    one = grid.alone or good['teacher'].nunique() == good['student'].nunique() == 1
    made = [_overview(grid, good, found)] if one else [_sizes(grid, good), _heat_maps(grid, known)]
    made += [_axis(good, field, fields) for field in fields]
    made += [_agreements(good, one), *_agreements_against(grid, good, fields), *_series(good, found),
             _curves(grid, good, fields, found)]
    return [f for f in made if f.panels]


def _limited(name: str, title: str, panels: Sequence[Callable], height: float, note: str, most: int = MOST) -> Figure:
    return Figure(name, title, [*panels[:most]], height, note, max(0, len(panels) - most))


def labels(table: pd.DataFrame) -> list[str]:
    """What each student is called: its label, with the method if labels alone do not tell them apart."""
    alone = len(table.drop_duplicates(['method', 'label'])) == table['label'].nunique(dropna=False)
    keys = ['label'] if alone else ['method', 'label']
    return [marked(' · '.join(filter(None, (text(r[k]) for k in keys))), r['oracle']) for _, r in table.iterrows()]


def variants(table: pd.DataFrame, fields: list[str]) -> list[str]:
    """The variant of each row: 'confidence · alpha 0.25'."""
    names = short(fields)
    return [' · '.join([r['who'], *(f'{names[f]} {value}' for f in fields if (value := text(r[f])))])
            for _, r in table.iterrows()]


def _overview(grid: Grid, table: pd.DataFrame, found: list[Student]) -> Figure:
    styles = plots.styles(table['who'])
    shown = [(r['variant'], styles[r['who']]['color'], r) for _, r in table.iloc[:MOST_ROWS].iterrows()]
    people = [(name, colour, found[r.name].entry['accuracy']) for name, colour, r in shown]
    bars = {role: (plots.COLOURS[role], [100 * r[role] for _, _, r in shown])
            for role in ('weak', 'zero_shot', 'ceiling')}
    if grid.alone:
        colours, bars = {name: colour for name, colour, _ in shown}, {}
        people = [(name, plots.COLOURS.get(role) or colours.get(name, plots.INK), entry['accuracy'])
                  for role, label, entry in models(grid.cells[0].results)
                  if entry.get('accuracy') and _near(entry, table)
                  for name in [marked(label, entry.get('oracle'))]]
    panels: list[Callable] = [partial(accuracy_panel, people=people, bars=bars)]
    return Figure('accuracy_pgr', 'Who was how good', panels + [partial(pgr_panel, rows=shown)] * bool(shown),
                  1.6 + .46 * len(people),
                  'Large dots: means over seeds, with standard errors (accuracy) and intervals (PGR). Faint dots: '
                  'single seeds.', len(table) - len(shown))


def _near(entry: dict, table: pd.DataFrame) -> bool:
    """Whether a model is good enough to share an axis with the others: the most frequent of many classes is not."""
    return 2 * entry['accuracy']['mean'] > table['weak'].fillna(0).min()


def accuracy_panel(ax, people: list[tuple[str, str, dict]], bars: dict[str, tuple[str, list[float]]]) -> None:
    """Test accuracy: the mean of the seeds, its standard error, and each seed as a faint dot.

    Args:
      people: (name, colour, accuracy) of every row.  bars: name -> colour and per cent of what stands beside each row.
    """
    for name, (colour, values) in bars.items():
        if not all(map(math.isnan, values)):
            ax.plot(values, range(len(people)), '|', color=colour, markersize=14, markeredgewidth=2, label=name)
    for y, (_, colour, accuracy) in enumerate(people):
        seeds = [100 * v for v in map(number, accuracy.get('seeds') or []) if v is not None]
        mean, sem = 100 * accuracy['mean'], 100 * (number(accuracy.get('sem')) or 0)
        ax.plot(seeds, [y] * len(seeds), 'o', color=colour, alpha=.3, markersize=4, markeredgewidth=0)
        ax.errorbar(mean, y, xerr=sem or None, color=colour, capsize=3)
        _dot(ax, mean, y, colour, f'{mean:.1f}')
    plots.name_rows(ax, [name for name, _, _ in people])
    ax.margins(x=.12)
    ax.set(title='Test accuracy', xlabel='% of test examples')
    plots.legend(ax, columns=3)


def _dot(ax, x: float, y: int, colour: str, said: str) -> None:
    ax.plot(x, y, 'o', color=colour, markersize=6)
    ax.annotate(said, (x, y), (0, 7), textcoords='offset points', ha='center', fontsize=8.5)


def pgr_panel(ax, rows: list[tuple[str, str, pd.Series]]) -> None:
    """Performance gap recovered with its interval, of (name, colour, row): 0 is the weak model, 1 the ceiling."""
    for y, (_, colour, found) in enumerate(rows):
        if math.isnan(found['pgr']):
            ax.annotate('undefined: gap within noise', (.5, y), ha='center', va='center', fontsize=8.5, style='italic')
            continue
        ax.plot([found['pgr_low'], found['pgr_high']], [y, y], color=colour, linewidth=1.6, marker='|', markersize=7)
        _dot(ax, found['pgr'], y, colour, f'{found["pgr"]:.2f}')
    for x, colour in ((0, plots.WEAK), (1, plots.CEILING)):
        ax.axvline(x, color=colour, linewidth=1.2)
    plots.name_rows(ax, [name for name, _, _ in rows])
    ax.set_xlim(*pgr_limits(pd.DataFrame([found for _, _, found in rows])))
    ax.set(title='Performance gap recovered', xlabel='0 = weak, 1 = ceiling')


def pgr_limits(rows: pd.DataFrame) -> tuple[float, float]:
    """From 0 to 1 and as much more as the intervals need, but an interval may run out of [-1, 2] if no mean does."""
    ends = rows[['pgr_low', 'pgr_high']].clip(-1, 2).to_numpy(float).ravel()
    low, high = (f([*bound, *ends, *rows['pgr']]) for f, bound in ((np.nanmin, [0.]), (np.nanmax, [1.])))
    return low - .1 * (high - low), high + .1 * (high - low)


def _sizes(grid: Grid, table: pd.DataFrame) -> Figure:
    xs = positions(grid, table)
    draw = partial(against_panel, x='student', xs=xs, by='teacher', styles=plots.styles(table['teacher']),
                   limits=_limits(table), name='student' + ', by number of parameters' * (max(xs.values()) > 99))
    return _limited('sizes', 'Accuracy against the size of the student',
                    [partial(draw, rows=rows, title=name) for name, rows in table.groupby('variant', sort=False)], 4.4,
                    'One line per teacher; dotted in its colour: the teacher itself. Green: the same students trained'
                    ' on ground truth. Bands: standard errors over seeds.')


def _axis(table: pd.DataFrame, field: str, fields: list[str]) -> Figure:
    others, name = [f for f in fields if f != field], short(fields)[field]
    draw = partial(against_panel, x=field, xs=places(table, field), by='who',
                   styles=plots.styles(table['who']), limits=_limits(table), name=name)
    return _limited(f'axis_{name}', f'Accuracy against {name}',
                    [partial(draw, rows=rows, title=title) for title, rows in facets(table, others)], 4.4,
                    'Green: the ceiling. Orange: the weak supervisor. A line across: a student that does not depend on '
                    f'{name}. Bands: standard errors over seeds.')


def places(table: pd.DataFrame, field: str) -> dict[Any, float]:
    """The values of a swept field -> x: numbers as they are, others in the order of the sweep."""
    found = dict.fromkeys(table[field].dropna())
    if all(number(v) is not None for v in found):
        return {v: float(v) for v in sorted(found)}
    return {v: float(place) for place, v in enumerate(found)}


def positions(grid: Grid, table: pd.DataFrame) -> dict[str, float]:
    """Student model -> x: its number of parameters if all are known and differ, else its place in the order."""
    known = table.groupby('student', sort=False)['student_parameters'].first()
    if known.notna().all() and (known > 0).all() and known.nunique() == len(known) > 1:
        return known.sort_values().to_dict()
    return {name: float(place) for place, name in enumerate(in_order(grid, table, 'student'))}


def in_order(grid: Grid, table: pd.DataFrame, column: str) -> list[str]:
    """The models of a column ('teacher' or 'student') in the order of the sweep."""
    swept = [str(v) for v in grid.axes.get(f'{column}.model', [])]
    found = dict.fromkeys(table[column].dropna())
    return [*(m for m in swept if m in found), *(m for m in found if m not in swept)]


def _limits(table: pd.DataFrame) -> tuple[float, float]:
    """What panels that are to be compared show, in per cent."""
    columns = ('weak', 'accuracy', 'ceiling')
    low, high = (100 * f([f(table[c] + sign * table[f'{c}_sem'].fillna(0)) for c in columns])
                 for f, sign in ((np.nanmin, -1), (np.nanmax, 1)))
    margin = .06 * (high - low) or 1
    return low - margin, high + margin


def _heat_maps(grid: Grid, table: pd.DataFrame) -> Figure:
    teachers, pupils = (in_order(grid, table, column) for column in ('teacher', 'student'))
    panels = [partial(heat_panel, rows=rows, title=name, teachers=teachers, students=pupils)
              for name, rows in table.groupby('variant', sort=False)]
    return _limited('pgr', 'Performance gap recovered', panels, 1.5 + .62 * len(teachers),
                    '0: as good as the weak supervisor, 1: as good as the ceiling; below, the interval. Hatched: '
                    'undefined, as the gap between weak and ceiling is within its noise, or the cell failed.')


def heat_panel(ax, rows: pd.DataFrame, title: str, teachers: list[str], students: list[str]) -> None:
    """PGR of a variant, teachers down and students across. A colour only if it is defined, a word if not."""
    cells = {(r['teacher'], r['student']): r for _, r in rows.iterrows()}
    for y, teacher in enumerate(teachers):
        for x, student in enumerate(students):
            _heat_cell(ax, x, y, cells.get((teacher, student)), len(students) <= 4)
    ax.set_xticks(range(len(students)), [plots.shortened(s, 14) for s in students],
                  **plots.SLANTED if len(students) > 4 else {})
    ax.set_yticks(range(len(teachers)), [plots.shortened(t, 14) for t in teachers])
    ax.set(title=title, xlabel='student', ylabel='teacher', xlim=(-.5, len(students) - .5),
           ylim=(len(teachers) - .5, -.5))
    ax.grid(visible=False)


def _heat_cell(ax, x: int, y: int, found, interval: bool) -> None:
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    box: dict[str, Any] = {'xy': (x - .48, y - .46), 'width': .96, 'height': .92, 'linewidth': 0}
    if found is None or math.isnan(found['pgr']):
        word = 'not run' if found is None else 'undefined' if pd.isna(found['failed']) else 'failed'
        if found is not None:
            ax.add_patch(Rectangle(**box | {'linewidth': .6}, facecolor='none', edgecolor=plots.RULE, hatch='///'))
        ax.text(x, y, word, ha='center', va='center', fontsize=8.5, style='italic')
        return
    colour = colormaps[DIVERGING](.5 + .5 * np.clip(found['pgr'], -1, 1))
    ink = '#ffffff' if np.dot(colour[:3], (.299, .587, .114)) < .5 else '#101010'
    ax.add_patch(Rectangle(**box, facecolor=colour))
    shown = interval and not math.isnan(found['pgr_low'])
    ax.text(x, y - .13 * shown, f'{found["pgr"]:.2f}', ha='center', va='center', color=ink, fontsize=10.5)
    if shown:
        ax.text(x, y + .2, f'[{found["pgr_low"]:.2f}, {found["pgr_high"]:.2f}]', ha='center', va='center', color=ink,
                fontsize=7.5)


def facets(table: pd.DataFrame, fields: list[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    """(title, rows) of every teacher, student and combination of `fields`; rows that do not depend on a field are in
    each of its facets."""
    names = short(fields)
    for (teacher, student), pair in table.groupby(['teacher', 'student'], sort=False):
        keys = [tuple(text(r[f]) for f in fields) for _, r in pair.iterrows()]
        for key in dict.fromkeys(keys):
            if not any(other != key and _covers(other, key) for other in keys):
                settings = [f'{names[f]} {value}' for f, value in zip(fields, key, strict=True) if value]
                yield ' · '.join([f'{teacher} → {student}', *settings]), pair[[_covers(key, other) for other in keys]]


def _covers(key: tuple, other: tuple) -> bool:
    """Whether settings are those of `key`, if they are any."""
    return all(b in ('', a) for a, b in zip(key, other, strict=True))


def _agreements(table: pd.DataFrame, one: bool) -> Figure:
    there = table[table[[*SUBSETS]].notna().any(axis=1)]
    parts = [('Agreement with the weak model', there)] if one else [*there.groupby('variant', sort=False)]
    panels = [partial(agreements.agreement_panel, title=title, rows=rows[:MOST_ROWS], names=[*(
        rows['variant'] if one else rows['teacher'] + ' → ' + rows['student'])][:MOST_ROWS])
        for title, rows in parts if len(rows)]
    most = max((len(rows[:MOST_ROWS]) for _, rows in parts), default=0)
    return _limited('agreement', 'Whom the students followed', panels, 1.9 + .38 * most,
                    'How often a student says what its supervisor says. One that only imitates agrees everywhere; one '
                    'that generalises agrees less if the supervisor is wrong.')


def _agreements_against(grid: Grid, table: pd.DataFrame, fields: list[str]) -> Iterator[Figure]:
    """Against the size of the student, if there are several, and against every swept number."""
    there = table[table[[*SUBSETS]].notna().any(axis=1)]
    note = ('Agreement with the supervisor on examples that it gets right, and wrong: a student that imitates its '
            'errors agrees in both. Dotted, if error_structure was asked for: the ceiling, which has not seen it. '
            'Dashed: a student that does not depend on what is swept. Bands: standard errors over seeds.')
    if there['student'].nunique() > 1:
        xs = positions(grid, there)
        draw = partial(agreements.against_panel, x='student', xs=xs,
                       name='student' + ', by number of parameters' * (max(xs.values()) > 99))
        yield _limited('agreement_sizes', 'Agreement against the size of the student', [
            partial(draw, rows=rows, title=f'{name} · taught by {teacher}')
            for (name, teacher), rows in there.groupby(['variant', 'teacher'], sort=False)], 4.4, note)
    for field in fields:
        if all(number(v) is not None for v in there[field].dropna()):
            name, others = short(fields)[field], [f for f in fields if f != field]
            draw = partial(agreements.against_panel, x=field, xs=places(there, field), name=name)
            yield _limited(f'agreement_{name}', f'Agreement against {name}', [
                partial(draw, rows=mine, title=f'{who} · {title}') for title, rows in facets(there, others)
                for who, mine in rows.groupby('who', sort=False)], 4.4, note)


def _series(table: pd.DataFrame, found: list[Student]) -> Iterator[Figure]:
    """What diagnostics have drawn, a figure for each title and a panel for each student."""
    made: dict[str, list[Callable]] = {}
    alone = len(table[['teacher', 'student']].drop_duplicates()) == 1
    for i, r in table.iterrows():
        models = '' if alone else f'{r["teacher"]} → {r["student"]} · '
        for title, lines in series.titles(found[i].entry).items():
            made.setdefault(title, []).append(partial(series.series_panel, title=f'{models}{r["variant"]}',
                                                      lines=lines))
    for title, panels in made.items():
        yield _limited(re.sub('[^a-z0-9]+', '_', title.lower()).strip('_') or 'series', title, panels, 4.2,
                       'Means over seeds, with bands of a standard error.')


def _curves(grid: Grid, table: pd.DataFrame, fields: list[str], found: list[Student]) -> Figure:
    there = table.loc[[i for i in table.index if found[i].curve]]
    parts = [('Test accuracy during training', there)] if grid.alone else [*facets(there, fields)] if len(there) else []
    styles = plots.styles(table['who'])
    shown = [(title, lines, [(role, v) for role in FINAL for v in rows[role].dropna().unique()])
             for title, rows in parts if (lines := _lines(grid, rows, found, styles))]
    every, finals = [line for _, lines, _ in shown for line in lines], [f for _, _, ends in shown for f in ends]
    limits = curves.limits(every, (v for _, v in finals))
    panels: list[Callable] = [partial(curves.curve_panel, title=title, lines=lines, finals=ends, limits=limits)
                              for title, lines, ends in shown]
    losses = [partial(curves.loss_panel, lines=lines) for _, lines, _ in shown] if grid.alone else []
    made = _limited('learning_curves', 'How they got there', losses + panels, 3.6,
                    'Losses of different kinds cannot be compared with each other. ' * bool(losses) +
                    'Each curve of accuracy ends at the number of the tables, which is of all test rows; on the way it '
                    'is measured on the watched part of them. Where a rule chose what was kept, the curve ends at the '
                    'mean of the steps that it chose, and is faint from there on. Dotted: ends of epochs. Bands: '
                    'standard errors over seeds.', MOST_CURVES)
    return dataclasses.replace(made, key=curves.key(every, [r for r in FINAL if r in dict(finals)]))


def _lines(grid: Grid, rows: pd.DataFrame, found: list[Student], styles: dict) -> list[curves.Line]:
    """The models beside the students of `rows`, and these."""
    cell = found[rows.index[0]].cell if len(rows) else grid.cells[0]
    look = lambda who: {k: styles[who][k] for k in ('color', 'linestyle')}
    return curves.beside(cell) + [curves.Line(who, look(who), found[i].curve, found[i].entry)
                                  for i, who in rows['who'].items()]
