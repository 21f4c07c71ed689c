"""Curves of a report: each ends at the number of the table, all on one scale, under one key."""
import itertools

import numpy as np
import pages
import pytest
import synthetic_grid

from w2s_jax.report import curves, panels, tables
from w2s_jax.report import page as report

SMALL = {'student.model': ['chess-s', 'chess-m'], 'student.loss.name': ['xent', 'confidence']}


def _marks(ax):
    """marker -> (x, y) of the single points of a panel."""
    return {line.get_marker(): (line.get_xdata()[0], line.get_ydata()[0]) for line in ax.get_lines()
            if len(line.get_xdata()) == 1}


def _ends(ax):
    """Where the points are that the tables have numbers of."""
    return [tuple(line.get_xydata()[0]) for line in ax.get_lines() if line.get_marker() == 'o']


def test_curves_mark_where_training_might_have_stopped(tmp_path):
    synthetic_grid.write(tmp_path, axes={'student.loss.name': ['xent']})
    grid = tables.load(tmp_path)
    figure = {f.name: f for f in panels.figures(grid, tables.students(grid))}['learning_curves']
    marks = _marks(pages.lines(figure, 1)[0])
    stops = grid.cells[0].evaluation['curves'][0]['stops']
    for name, (marker, _) in curves.STOPS.items():
        assert marks[marker] == pytest.approx((max(.01, stops[name]['step'] / 100), 100 * stops[name]['accuracy']))


def test_every_curve_ends_at_the_number_of_the_table(tmp_path):
    table, figures = pages.figures(tmp_path)
    found = {}
    for at in range(len(figures['learning_curves'].panels)):
        ax, lines = pages.lines(figures['learning_curves'], at)
        pair = (ax.get_title(loc='left') + ax.get_title()).split(' → ')
        found |= {(*pair, name): (x[-1], y[-1]) for name, (x, y) in lines.items() if name in ('xent', 'ceiling')}
    for _, row in table[table['loss'].eq('xent')].iterrows():
        assert found[row['teacher'], row['student'], 'xent'] == pytest.approx((1, 100 * row['accuracy']))
        assert found[row['teacher'], row['student'], 'ceiling'] == pytest.approx((1, 100 * row['ceiling']))


@pytest.mark.parametrize('where', ['curve', 'entry'])  # results of earlier versions have it in the entry alone
def test_a_curve_that_a_rule_stopped_ends_there_at_the_number_of_the_table(tmp_path, where):
    synthetic_grid.write(tmp_path, axes={'student.loss.name': ['xent']})
    name, change = {'curve': ('evaluation', lambda e: e['curves'][0].update(stopped=[20, 60])),
                    'entry': ('results', lambda r: r['students'][0].update(stopped={'steps': [20, 60]}))}[where]
    pages.edit(tmp_path / 'cells' / '000' / f'{name}.json', change)
    grid = tables.load(tmp_path)
    table = tables.students(grid)
    figure = {f.name: f for f in panels.figures(grid, table)}['learning_curves']
    ax, lines = pages.lines(figure, 1)
    x, y = lines['xent']
    end = x[-1], y[-1]
    assert end == pytest.approx((np.interp(40, [1, 50, 100], [.01, .5, 1]), 100 * table['accuracy'].item()))
    assert max(x) == end[0] and end in _ends(ax)
    faint, = (line for line in ax.get_lines() if line.get_alpha() == .4)
    assert max(faint.get_xdata()) == 1 and min(faint.get_xdata()) <= end[0]
    assert f'{end[1]:.1f}' in [t.get_text() for t in ax.texts]


def test_a_curve_of_very_many_points_ends_at_the_number_too(tmp_path):
    synthetic_grid.write(tmp_path, axes={'student.loss.name': ['xent']})
    pages.edit(tmp_path / 'cells' / '000' / 'evaluation.json', lambda e: e['curves'][0].update(
        accuracy={'step': [*range(1, 1001)], 'mean': [.5] * 999 + [.9], 'sem': None}))
    table, figures = (tables.students(grid := tables.load(tmp_path)), panels.figures(grid, tables.students(grid)))
    _, lines = pages.lines({f.name: f for f in figures}['learning_curves'], 1)
    assert (lines['xent'][0][-1], lines['xent'][1][-1]) == pytest.approx((1, 100 * table['accuracy'].item()))


def test_numbers_beside_curves_keep_apart_and_near():
    assert curves.apart([1., 5., 9.], 2) == [1, 5, 9] and curves.apart([], 1) == []
    assert curves.apart([3., 3., 3.], 2) == [1, 3, 5]
    found = curves.apart([0., .1, .2, 5., 5.1], 1)
    assert all(b - a >= 1 - 1e-9 for a, b in itertools.pairwise(found)) and abs(found[3] - 5) < 1


def test_curves_of_all_cells_have_one_scale_and_one_key(tmp_path):
    _, figures = pages.figures(tmp_path)
    figure = figures['learning_curves']
    panels_ = [pages.lines(figure, at)[0] for at in range(len(figure.panels))]
    assert len(panels_) == 9 and len({ax.get_ylim() for ax in panels_}) == 1
    low, high = panels_[0].get_ylim()
    assert all(low < y < high for ax in panels_ for line in ax.get_lines() for y in line.get_ydata())
    assert not any(ax.get_legend() for ax in panels_)
    said = [said for said, _ in figure.key]
    assert len(set(said)) == len(said) and {'ceiling', 'xent', 'confidence', 'weak, final', 'ceiling, final',
                                            curves.END} <= set(said)
    page = report.html(tables.load(tmp_path))
    assert page.count('<ul class="legend">') == 1 and page.count('>xent</text>') < page.count('<svg')
    after = page.index('>How they got there<')
    assert after < page.index('<ul class="legend">') < page.index('<figure', after)
