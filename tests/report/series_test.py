"""Lines that diagnostics measured, and agreement against what was swept, as a report draws them."""
import json

import numpy as np
import pages
import pytest
import synthetic_grid

from w2s_jax.errors import StoreError
from w2s_jax.report import curves, page, panels, tables

LOSSES = {'student.loss.name': ['xent', 'confidence']}
SIZES = {'student.model': ['chess-s', 'chess-l', 'chess-m'], 'student.loss.name': ['xent', 'confidence']}


def line(name, y, **more):
    return {'line': name, 'figure': 'Reliability', 'axes': ['sure', 'right'], 'diagonal': True, 'x': [50, 60, 70],
            'y': y, 'sem': [1, None, 2]} | more


def written(tmp_path, series, axes=LOSSES):
    synthetic_grid.write(tmp_path, axes=axes)
    for path in (tmp_path / 'cells').glob('*/results.json'):
        pages.edit(path, lambda r: [s.update(series=series) for s in r['students']])
    return tables.load(tmp_path)


def drawn(grid):
    return {f.name: f for f in panels.figures(grid, tables.students(grid))}


def test_lines_of_one_figure_share_a_panel_and_missing_points_are_left_out(tmp_path):
    grid = written(tmp_path, {'a': line('student', [40, 50, 90]), 'b': line('weak', [None, 20, 30]),
                              'c': line('else', [1, 2, 3], figure='Other', diagonal=False)})
    figures = drawn(grid)
    assert len(figures['reliability'].panels) == len(figures['other'].panels) == 2  # one a student
    ax, lines = pages.lines(figures['reliability'], 0)
    assert lines.keys() == {'student', 'weak', 'as sure as right'}
    assert np.array_equal(lines['student'], [[50, 60, 70], [40, 50, 90]])
    assert np.array_equal(lines['weak'], [[60, 70], [20, 30]])
    assert np.array_equal(lines['as sure as right'][0], lines['as sure as right'][1])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ('sure', 'right')
    _, lines = pages.lines(figures['other'], 0)
    assert lines.keys() == {'else'}


def test_a_page_has_the_figure_from_files_alone_and_none_without_points(tmp_path):
    grid = written(tmp_path, {'a': line('student', [40, 50, 90])})
    text = page.html(grid)
    assert '>Reliability</h' in text and pages.harmless(text)
    page.write(tmp_path)
    assert (tmp_path / 'plots' / 'reliability.png').read_bytes().startswith(b'\x89PNG')
    (tmp_path / 'b').mkdir()
    assert 'reliability' not in drawn(written(tmp_path / 'b', {'a': line('student', [None] * 3)}))


def test_what_users_name_is_escaped(tmp_path):
    grid = written(tmp_path, {'a': line(f'one{pages.BAIT}', [1, 2, 3], figure=f'A{pages.BAIT}', axes=[pages.BAIT] * 2)})
    text = page.html(grid)
    assert pages.harmless(text)


@pytest.mark.parametrize(('change', 'said'), [
    ({'x': 3}, r'series\.a\.x must be a list'), ({'y': ['z', 1, 1]}, r'series\.a\.y\.0 must be a number'),
    ({'line': 3}, r'series\.a\.line must be text')])
def test_damaged_lines_are_named(tmp_path, change, said):
    with pytest.raises(StoreError, match=said):
        written(tmp_path, {'a': line('student', [1, 2, 3]) | change})


def test_series_that_are_no_objects_are_named(tmp_path):
    with pytest.raises(StoreError, match=r'students\.xent\.series must be an object of objects'):
        written(tmp_path, {'a': [1]})


def agreeing(tmp_path, axes, field, values):
    """A grid in which agreement where weak is wrong depends on a field alone."""
    synthetic_grid.write(tmp_path, axes=axes)
    for path in (tmp_path / 'cells').glob('*/results.json'):
        value = json.loads((path.parent / 'evaluation.json').read_text())['config'][field]
        pages.edit(path, lambda r, value=value: [s['agreement'].update(weak_wrong={
            'mean': values[value], 'sem': .01, 'seeds': [values[value]] * 3}) for s in r['students']])
    return drawn(tables.load(tmp_path))


def test_agreement_against_the_size_of_the_student(tmp_path):
    figure = agreeing(tmp_path, SIZES, 'student.model', {'chess-s': .7, 'chess-m': .5, 'chess-l': .3})[
        'agreement_sizes']
    assert len(figure.panels) == 2  # one a loss
    _, lines = pages.lines(figure, 0)
    x, y = lines['weak is wrong']
    assert list(x) == [synthetic_grid.SIZES[m] for m in ('chess-s', 'chess-m', 'chess-l')]
    assert y == pytest.approx([70, 50, 30])
    assert lines['weak is right'][1] == pytest.approx([80] * 3) and lines['all examples'][1] == pytest.approx([60] * 3)


def test_the_ceiling_is_drawn_as_a_control_where_it_was_measured(tmp_path):
    synthetic_grid.write(tmp_path, axes={'student.width': [16, 64]})
    for at, value in enumerate([.3, .2]):
        pages.edit(tmp_path / 'cells' / f'{at:03d}' / 'results.json', lambda r, value=value: [
            s['measures'].update(inheritance_ceiling={'mean': value, 'sem': .01, 'title': 'a title'})
            for s in r['students']])
    _, lines = pages.lines(drawn(tables.load(tmp_path))['agreement_width'], 0)
    assert lines['weak is wrong: ceiling'][1] == pytest.approx([30, 20])


def test_agreement_against_a_swept_number(tmp_path):
    axes = {'student.width': [256, 16, 64]}
    figures = agreeing(tmp_path, axes, 'student.width', {16: .9, 64: .6, 256: .2})
    assert 'agreement_sizes' not in figures
    _, lines = pages.lines(figures['agreement_width'], 0)
    x, y = lines['weak is wrong']
    assert 'weak is wrong: ceiling' not in lines and list(x) == [16, 64, 256] and y == pytest.approx([90, 60, 20])


def test_agreement_against_words_is_not_drawn(tmp_path):
    assert not [name for name in agreeing(tmp_path, {'optimizer.schedule': ['a', 'b']}, 'optimizer.schedule',
                                          {'a': .5, 'b': .6}) if name.startswith('agreement_')]


def curve(epochs, kind='student'):
    return curves.Line('a', {}, {'kind': kind, 'epochs': epochs}, {})


def test_ends_of_epochs():
    assert curves.bounds([curve([1, 4]), curve([1, 4]), curve([9], 'ceiling')]) == [.25, .5, .75]
    assert curves.bounds([curve([.5, 2.5])]) == pytest.approx([.4, .8])
    assert not curves.bounds([curve([1, 4]), curve([1, 5])])  # they would differ
    assert not curves.bounds([curve([1])]) and not curves.bounds([curve([9999])]) and not curves.bounds([curve([])])
    assert not curves.bounds([curve(None)])
