"""The figures of a grid's report. Each is a list of panels, and a panel draws one matplotlib axes (as in plots.py).

`table` is what `grid_tables.students` returns, of one task. A *variant* is a loss with its settings: what a student
differs in beside teacher and size. Nothing is averaged over settings: what differs in them has panels of its own.
"""
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from w2s_jax.report import figures as plots
from w2s_jax.report.tables import Grid, Student, entries, short, text, varying

MOST = 12  # panels a figure
MOST_CURVES = 24
MARKERS = 'oD^vP*X'
STOPS = {'best': ('^', '▲ best, by an oracle that knows the truth'), 'final': ('o', '● final'),
         'weak': ('D', '◆ where it agrees most with the weak model, which takes no truth')}
SLANTED: dict[str, Any] = {'rotation': 35, 'ha': 'right', 'rotation_mode': 'anchor'}
DIVERGING = 'PuOr'  # told apart with every kind of colour vision


@dataclasses.dataclass(frozen=True)
class Figure:
    """panels: functions that draw on an axes.  height: of a panel, inches.  left_out: how many panels were."""
    name: str
    title: str
    panels: list[Callable]
    height: float
    note: str
    left_out: int = 0


def figures(grid: Grid, table: pd.DataFrame) -> list[Figure]:
    """All figures of one task that there is something to show in. `table` has its rows as `students` numbered them."""
    found = entries(grid)
    of = [(found[i].cell.results.get('ceiling') or {}).get('model') for i in table.index]
    fields, table = varying(grid, table), table.assign(label=labels(table), ceiling_of=of)
    good = table[table['accuracy'].notna()]
    known = table[table[['teacher', 'student', 'loss']].notna().all(axis=1)]
    if good.empty:
        return []
    one = good['teacher'].nunique() == good['student'].nunique() == 1
    made = [_overview(good, fields)] if one else [_sizes(grid, good, fields), _heat_maps(grid, known, fields)]
    made += [_axis(good, field, fields) for field in fields]
    return [f for f in (*made, _agreements(good, fields), _curves(grid, good, fields)) if f.panels]


def _limited(name: str, title: str, panels: list[Callable], height: float, note: str, most: int = MOST) -> Figure:
    return Figure(name, title, panels[:most], height, note, max(0, len(panels) - most))


def labels(table: pd.DataFrame) -> list[str]:
    """The loss of each row, with the method where there are several: 'confidence', 'bootstrap · confidence'."""
    keys = ['method', 'loss'] if table['method'].nunique() > 1 else ['loss']
    return [' · '.join(filter(None, (text(r[k]) for k in keys))) for _, r in table.iterrows()]


def variants(table: pd.DataFrame, fields: list[str]) -> dict[str, pd.DataFrame]:
    """Variant ('confidence · alpha 0.25') -> its rows, in the order of the table."""
    names = short(fields)
    found = [' · '.join([r['label'], *(f'{names[f]} {value}' for f in fields if (value := text(r[f])))])
             for _, r in table.iterrows()]
    return {name: table[[other == name for other in found]] for name in dict.fromkeys(found)}


def _sizes(grid: Grid, table: pd.DataFrame, fields: list[str]) -> Figure:
    xs = positions(grid, table)
    styles = _styles(table['teacher'])
    limits = _limits(table, ('weak', 'accuracy', 'ceiling'))
    panels = [_panel(size_panel, rows, name, xs, styles, limits) for name, rows in variants(table, fields).items()]
    return _limited('sizes', 'Accuracy against the size of the student', panels, 4.4,
                    'One line a teacher; dotted in its colour: the teacher itself. Green: the same students trained on '
                    'ground truth. Bands: standard errors over seeds.')


def _panel(draw: Callable, *arguments) -> Callable:
    return lambda ax: draw(ax, *arguments)


def positions(grid: Grid, table: pd.DataFrame) -> dict[str, float]:
    """Student model -> x: its number of parameters where all are known and differ, else its place in the order."""
    known = table.groupby('student', sort=False)['student_parameters'].first()
    if known.notna().all() and (known > 0).all() and known.nunique() == len(known) > 1:
        return known.sort_values().to_dict()
    return {name: float(place) for place, name in enumerate(in_order(grid, table, 'student'))}


def in_order(grid: Grid, table: pd.DataFrame, column: str) -> list[str]:
    """The models of a column ('teacher' or 'student') in the order of the sweep."""
    swept = [str(v) for v in grid.axes.get(f'{column}.model', [])]
    found = dict.fromkeys(table[column].dropna())
    return [*(m for m in swept if m in found), *(m for m in found if m not in swept)]


def size_panel(ax, rows: pd.DataFrame, title: str, xs: dict[str, float], styles: dict, limits) -> None:
    """Test accuracy of a variant against the student's size: a line a teacher, the ceiling, the teachers themselves."""
    ceilings = rows[rows['student'] == rows['ceiling_of']]  # a rung of a chain is measured by another model's ceiling
    _line(ax, ceilings, 'student', 'ceiling', xs, {'color': plots.CEILING, 'marker': 's'}, 'ceiling')
    for teacher, style in styles.items():
        mine = rows[rows['teacher'] == teacher]
        _line(ax, mine, 'student', 'accuracy', xs, style, f'taught by {teacher}')
        for weak in dict.fromkeys(mine['weak']):
            ax.axhline(100 * weak, color=style['color'], linewidth=1.3, linestyle=':')
    slanted = _model_axis(ax, xs)
    ax.set(title=title, ylabel='test accuracy, %', ylim=limits)
    plots.legend(ax, below=8 if slanted else 6)


def _line(ax, rows: pd.DataFrame, x: str, y: str, xs: dict, style: dict, label: str) -> None:
    """A line with a band of one standard error, in per cent, broken where a value of `xs` has no row; error bars where
    there is but one point."""
    if rows.empty:
        return
    found = rows.drop_duplicates(x).set_index(x)[[y, f'{y}_sem']].reindex(list(xs))
    at, mean, sem = np.array([*xs.values()]), 100 * found[y].to_numpy(), 100 * found[f'{y}_sem'].fillna(0).to_numpy()
    ax.plot(at, mean, label=label, linewidth=1.6, markersize=5, **style)
    ax.fill_between(at, mean - sem, mean + sem, color=style['color'], alpha=.15, linewidth=0)
    if len(rows) == 1:
        ax.errorbar(at, mean, yerr=sem, color=style['color'], capsize=3)


def _model_axis(ax, xs: dict[str, float]) -> bool:
    """Names models on the x axis, with their sizes where there is room. Returns whether the names are slanted."""
    parameters = max(xs.values()) > len(xs)
    if parameters:
        ax.set_xscale('log')
        ax.minorticks_off()
    gaps = np.diff(np.log10([*xs.values()]) if parameters else [*xs.values()])
    close = len(xs) > 4 or (len(gaps) > 0 and min(gaps) < .2 * sum(gaps))
    names = [plots.shortened(name, 14) for name in xs]
    if parameters and not close:
        names = [f'{name}\n{amount(x)}' for name, x in zip(names, xs.values(), strict=True)]
    ax.set_xticks(list(xs.values()), names, **SLANTED if close else {})
    ax.set_xlabel('student, by number of parameters' if parameters else 'student')
    ax.margins(x=.08)
    return close


def amount(value: float) -> str:
    """'1.5 M' of 1 500 000."""
    for size, name in ((1e9, ' G'), (1e6, ' M'), (1e3, ' k')):
        if value >= size:
            return f'{value / size:.3g}{name}'
    return f'{value:.3g}'


def _styles(values) -> dict[str, dict]:
    """Value -> colour, dashes and marker, told apart by each alone as far as there are so many."""
    names = dict.fromkeys(values)
    return {name: {'color': colour, 'linestyle': dashes, 'marker': MARKERS[i % len(MARKERS)]}
            for i, (name, (colour, dashes)) in enumerate(zip(names, plots.student_styles(), strict=False))}


def _limits(table: pd.DataFrame, columns) -> tuple[float, float]:
    """What panels that are to be compared show, in per cent."""
    sems = [table[f'{c}_sem'].fillna(0) for c in columns]
    low = 100 * min((table[c] - s).min() for c, s in zip(columns, sems, strict=True))
    high = 100 * max((table[c] + s).max() for c, s in zip(columns, sems, strict=True))
    margin = .06 * (high - low) or 1
    return low - margin, high + margin


def _overview(table: pd.DataFrame, fields: list[str]) -> Figure:
    panel = _panel(overview_panel, list(variants(table, fields).items())[:40])
    return Figure('accuracy', 'Who was how good', [panel], 1.6 + .42 * min(40, len(table)),
                  'Dots: students with standard errors over seeds. Bars: their weak supervisor and their ceiling.',
                  max(0, len(table) - 40))


def overview_panel(ax, found: list[tuple[str, pd.DataFrame]]) -> None:
    """A row a variant: the student between its supervisor and its ceiling."""
    rows = [r for _, rows in found for _, r in rows.iterrows()]
    for name, colour in (('weak', plots.WEAK), ('ceiling', plots.CEILING)):
        ax.plot([100 * r[name] for r in rows], range(len(rows)), '|', color=colour, markersize=14, markeredgewidth=2,
                label=name)
    ax.errorbar([100 * r['accuracy'] for r in rows], range(len(rows)), fmt='o', color=plots.STUDENTS[0],
                label='student', xerr=[0 if math.isnan(r['accuracy_sem']) else 100 * r['accuracy_sem'] for r in rows],
                capsize=3)
    plots.name_rows(ax, [name for name, rows in found for _ in range(len(rows))])
    ax.set(title='Test accuracy', xlabel='% of test examples')
    ax.margins(x=.1)
    plots.legend(ax, columns=3)


def _heat_maps(grid: Grid, table: pd.DataFrame, fields: list[str]) -> Figure:
    models = [in_order(grid, table, column) for column in ('teacher', 'student')]
    panels = [_panel(heat_panel, rows, name, *models) for name, rows in variants(table, fields).items()]
    return _limited('pgr', 'Performance gap recovered', panels, 1.5 + .62 * len(models[0]),
                    '0: as good as the weak supervisor, 1: as good as the ceiling; below, the interval. Hatched: '
                    'undefined, as the gap between weak and ceiling is within its noise, or the cell failed.')


def heat_panel(ax, rows: pd.DataFrame, title: str, teachers: list[str], students: list[str]) -> None:
    """PGR of a variant, teachers down and students across. A colour only where it is defined, a word where not."""
    cells = {(r['teacher'], r['student']): r for _, r in rows.iterrows()}
    for y, teacher in enumerate(teachers):
        for x, student in enumerate(students):
            _heat_cell(ax, x, y, cells.get((teacher, student)), len(students) <= 4)
    ax.set_xticks(range(len(students)), [plots.shortened(s, 14) for s in students],
                  **SLANTED if len(students) > 4 else {})
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
    """Whether settings are those of `key`, where they are any."""
    return all(b in ('', a) for a, b in zip(key, other, strict=True))


def _axis(table: pd.DataFrame, field: str, fields: list[str]) -> Figure:
    others, name = [f for f in fields if f != field], short(fields)[field]
    styles, limits = _styles(table['label']), _limits(table, ('weak', 'accuracy', 'ceiling'))
    xs = _axis_positions(table[field])
    panels = [_panel(axis_panel, rows, title, field, name, xs, styles, limits) for title, rows in facets(table, others)]
    return _limited(f'axis_{name}', f'Accuracy against {name}', panels, 4.4,
                    'Green: the ceiling. Orange: the weak supervisor. A line across: a loss that does not depend on '
                    f'{name}. Bands: standard errors over seeds.')


def _axis_positions(values: pd.Series) -> dict[Any, float]:
    """Value -> x: itself where all are numbers, else its place."""
    found = dict.fromkeys(values.dropna())
    if all(plots.number(v) is not None for v in found):
        return {v: float(v) for v in sorted(found)}
    return {v: float(place) for place, v in enumerate(found)}


def axis_panel(ax, rows: pd.DataFrame, title: str, field: str, name: str, xs: dict, styles: dict, limits) -> None:
    """Test accuracy against a swept field: a line a loss, with the weak model and the ceiling."""
    there = rows[rows[field].notna()]
    for column, colour in (('ceiling', plots.CEILING), ('weak', plots.WEAK)):
        _line(ax, there.drop_duplicates([field, column]), field, column, xs, {'color': colour, 'marker': '.'}, column)
    for label, mine in rows.groupby('label', sort=False):
        _line(ax, mine[mine[field].notna()], field, 'accuracy', xs, styles[label], label)
        for flat in mine.loc[mine[field].isna(), 'accuracy']:
            ax.axhline(100 * flat, color=styles[label]['color'], linestyle='--', linewidth=1.3, label=label)
    numeric = all(plots.number(v) is not None for v in xs)
    if numeric and min(xs.values()) > 0 and max(xs.values()) > 10 * min(xs.values()):
        ax.set_xscale('log')
        ax.minorticks_off()
    if not numeric or len(xs) <= 8:
        ax.set_xticks(list(xs.values()), [plots.shortened(text(v), 14) for v in xs],
                      **SLANTED if len(xs) > 4 else {})
    ax.set(title=title, xlabel=name, ylabel='test accuracy, %', ylim=limits)
    plots.legend(ax, below=7 if len(xs) > 4 else 4.5)


def _agreements(table: pd.DataFrame, fields: list[str]) -> Figure:
    there = table[table['agreement_weak_right'].notna() | table['agreement_weak_wrong'].notna()]
    found = variants(there, fields)
    panels = [_panel(agreement_panel, rows, name) for name, rows in found.items()]
    most = max(map(len, found.values()), default=0)
    return _limited('agreement', 'Whom the students followed', panels, 1.6 + .34 * most,
                    'How often a student says what its supervisor says. One that only imitates agrees everywhere; one '
                    'that generalises agrees less where the supervisor is wrong.')


def agreement_panel(ax, rows: pd.DataFrame, title: str) -> None:
    """Agreement of a variant with its supervisor where that is right and where it is wrong, a row a pair of models."""
    for y, (_, found) in enumerate(rows.iterrows()):
        ax.plot([100 * found['agreement_weak_wrong'], 100 * found['agreement_weak_right']], [y, y], color=plots.RULE,
                linewidth=2, zorder=1)
    for subset, label, marker, colour in (('right', 'weak is right', 's', plots.CEILING),
                                          ('wrong', 'weak is wrong', 'D', plots.WEAK)):
        ax.plot(100 * rows[f'agreement_weak_{subset}'], range(len(rows)), marker, color=colour, markersize=5.5,
                label=label)
    plots.name_rows(ax, [f'{r["teacher"]} → {r["student"]}' for _, r in rows.iterrows()], width=28)
    ax.set(title=title, xlabel='agreement, % of such test examples', xlim=(-2, 102))
    plots.legend(ax, columns=2)


def _curves(grid: Grid, table: pd.DataFrame, fields: list[str]) -> Figure:
    curves = {i: s for i, s in enumerate(entries(grid)) if i in table.index and s.curve}
    there = table.loc[list(curves)]
    styles = _styles(table['label'])
    found = facets(there, fields) if curves else ()
    panels = [_panel(curve_panel, rows, title, curves, styles) for title, rows in found]
    return _limited('curves', 'How they got there', panels, 4.2,
                    'Accuracy during training, on the watched part of the test set: '
                    f'{"; ".join(name for _, name in STOPS.values())}. Bands: standard errors over seeds.', MOST_CURVES)


def curve_panel(ax, rows: pd.DataFrame, title: str, curves: dict[int, Student], styles: dict) -> None:
    """Test accuracy during training, a line a loss, with the points where one might have stopped."""
    for index, label in rows['label'].items():
        curve, style = curves[index].curve, styles[label]
        accuracy = curve.get('accuracy') or {}
        progress = plots.progress_of(accuracy, curve)
        plots.draw_curve(ax, progress, accuracy, (style['color'], style['linestyle']), label, scale=100)
        for name, (marker, _) in STOPS.items():
            stop = (curve.get('stops') or {}).get(name)
            if stop and progress:
                x = np.interp(stop['step'], accuracy['step'], progress)
                ax.plot(x, 100 * stop['accuracy'], marker, color=style['color'], markersize=7, zorder=3,
                        markeredgecolor=plots.INK, markeredgewidth=.8)
    ax.set(title=title, xlabel='share of training done', ylabel='accuracy, %', xlim=(-.03, 1.03))
    plots.legend(ax)
