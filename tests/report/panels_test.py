"""The page of a grid: what it says, what it leaves out, and that it needs nothing but itself."""
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pages
import pytest
import synthetic_grid
from matplotlib.patches import Rectangle

from w2s_jax.errors import StoreError
from w2s_jax.report import page as report
from w2s_jax.report import panels, tables

EVIL = '<script>alert("x")</script> & $\\no{$'
SMALL = {'student.model': ['chess-s', 'chess-m'], 'student.loss.name': ['xent', 'confidence']}


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """(page, folder) of 2 teachers, 3 students and 2 losses, one of whose cells failed."""
    axes = {'teacher.model': ['chess-xs', 'chess-s'], 'student.model': ['chess-xs', 'chess-s', 'chess-m'],
            'student.loss.name': ['xent', 'confidence']}
    folder = synthetic_grid.write(tmp_path_factory.mktemp('grid'), axes=axes, failed=(3,))
    return report.write(folder).read_text(encoding='utf-8'), folder


def _page(workdir, **options):
    return report.html(tables.load(synthetic_grid.write(workdir, **options)))


def test_page_has_every_section_in_order(whole):
    page, folder = whole
    titles = ['Accuracy against the size of the student', 'Performance gap recovered', 'Whom the students followed',
              'Agreement against the size of the student', 'How they got there', 'Beyond accuracy',
              'Which differences are real', 'Time and tokens']
    at = [page.index(f'>{title}</h') for title in titles]
    assert at == sorted(at) and page.index('<table') < at[0]
    # A panel a loss for accuracy, PGR and agreement, one a loss and teacher for agreement against sizes, and one a pair
    # of models for the curves.
    assert page.count('<svg') == 3 * 2 + 4 + 6 + page.count('<li><svg')
    for name in ('sizes', 'pgr', 'agreement', 'learning_curves'):
        assert (folder / 'plots' / f'{name}.png').read_bytes().startswith(b'\x89PNG')
    assert not list(folder.glob('.part-*'))


def test_page_holds_the_numbers_of_the_table(whole):
    page, folder = whole
    for _, row in tables.students(tables.load(folder)).iterrows():
        if np.isnan(row['accuracy']):
            assert f'failed: {row["failed"]}' in page
        else:
            assert f'>{100 * row["accuracy"]:.1f} ± {100 * row["accuracy_sem"]:.1f}</td>' in page
            assert np.isnan(row['pgr']) or f'{row["pgr"]:.2f} [{row["pgr_low"]:.2f}, {row["pgr_high"]:.2f}]' in page
    assert '1 of 12 cells failed' in page and page.count('>undefined (gap within noise)</td>') == 2


def test_page_asks_nobody_for_anything(whole):
    page, _ = whole
    assert '://' not in page and '@import' not in page
    assert all(target.startswith('#') for target in re.findall(r'(?:src|href)="([^"]*)"', page))
    assert all(target.startswith('#') for target in re.findall(r'url\(([^)]*)\)', page))


def test_drawings_are_well_formed(whole):
    page, _ = whole
    drawings = re.findall(r'<svg.*?</svg>', page, re.DOTALL)
    for drawing in drawings:
        ET.fromstring(drawing.replace('xlink:href', 'href'))
    assert not re.search(r'\bnan\b|\binf\b|None', page)


def test_same_grid_same_page(tmp_path):
    grid = tables.load(synthetic_grid.write(tmp_path, axes=SMALL))
    assert report.html(grid) == report.html(grid)


def test_whatever_users_name_is_escaped(tmp_path):
    synthetic_grid.write(tmp_path, axes=SMALL, failed=(3,))
    for path in (tmp_path / 'cells').glob('*/results.json'):
        pages.edit(path, lambda r: (r['weak'].update(model=EVIL), r['task'].update(name=EVIL),
                               r['students'][0].update(loss=EVIL, label=EVIL, method=EVIL)))
    pages.edit(tmp_path / 'grid.json', lambda g: (
        g.update(name=EVIL, versions={EVIL: EVIL}), g['cells'][3].update(failed=EVIL), g['axes'].update({EVIL: [EVIL]}),
        g['comparisons'][0].update(loss=EVIL, teacher=EVIL, settings={EVIL: EVIL}), g['phases'][0].update(kind=EVIL)))
    page = report.write(tmp_path).read_text()
    assert '<script' not in page and '&lt;script&gt;' in page


@pytest.mark.filterwarnings('ignore:constrained_layout not applied')  # such long names leave no room
def test_nothing_in_a_foreign_grid_runs(tmp_path):
    synthetic_grid.write(tmp_path, axes=SMALL | {'student.loss.alpha': [.25, .75]}, failed=(3,))
    for path in tmp_path.rglob('*.json'):
        path.write_text(json.dumps(pages.baited(json.loads(path.read_text()))))
    page = report.write(tmp_path).read_text()
    assert pages.harmless(page) and page.count('&lt;script&gt;') > 100 and '<script' not in page and '<a ' not in page
    assert page.count('</main>') == 1 and page.count('</svg>') == page.count('<svg')


def test_everything_optional_may_be_missing(tmp_path):
    synthetic_grid.write(tmp_path, axes=SMALL, parameters=False, ids=False)
    for path in (tmp_path / 'cells').glob('*/*.json'):
        pages.edit(path, lambda r: [r.pop(k, None) for k in ('timing', 'versions', 'curves', 'config', 'examples')])
    for path in (tmp_path / 'cells').glob('*/results.json'):
        pages.edit(path, lambda r: [s.pop(k) for s in r['students'] for k in (
            'agreement', 'gain', 'measures', 'method', 'pgr')])
    optional = ('phases', 'comparisons', 'timing', 'versions', 'name')
    pages.edit(tmp_path / 'grid.json', lambda g: [g.pop(k) for k in optional])
    page = report.write(tmp_path).read_text()
    assert 'None' not in page and '>nan' not in page and page.count('<svg') == 4  # accuracy and undefined PGR


def test_one_seed_has_no_error_bars_and_a_warning(tmp_path):
    page = _page(tmp_path, axes={'student.loss.name': ['confidence']}, seeds=(0,))
    assert 'Warning: one seed' in page and '± ' not in page.replace('± its', '')
    assert '>Who was how good<' in page and 'Accuracy against the size' not in page


def test_a_grid_that_failed_altogether_has_a_page(tmp_path):
    page = _page(tmp_path, axes=SMALL, failed=(0, 1, 2, 3))
    assert 'No student has a result.' in page and '4 of 4 cells failed' in page


@pytest.mark.parametrize(('before', 'said'), [(.99, True), (.01, False)])
def test_students_that_fine_tuning_harmed_are_counted(tmp_path, before, said):
    synthetic_grid.write(tmp_path, axes={'student.loss.name': ['xent', 'confidence']})
    for path in (tmp_path / 'cells').glob('*/results.json'):
        pages.edit(path, lambda r: r.update(zero_shot={'model': 'chess-m', 'accuracy': {'mean': before, 'sem': None}}))
    grid = tables.load(tmp_path)
    found = report.warnings(grid)
    assert any('2 of 2 students are right less often' in w for w in found) == said


def test_what_a_diagnostic_says_in_place_of_a_number_is_shown(tmp_path):
    synthetic_grid.write(tmp_path, axes={'student.loss.name': ['xent']})
    for path in (tmp_path / 'cells').glob('*/results.json'):
        pages.edit(path, lambda r: [s.update(notes={'kl': 'a condition is not met'}) for s in r['students']])
    assert 'xent: a condition is not met' in report.warnings(tables.load(tmp_path))


def test_what_is_said_of_several_students_is_said_once(tmp_path):
    names = ['xent', 'confidence', 'kl', 'reverse_kl', 'window']
    synthetic_grid.write(tmp_path, axes={'student.loss.name': names})
    for path in (tmp_path / 'cells').glob('*/results.json'):
        pages.edit(path, lambda r: [s.update(notes={'kl': 'not met', 'of': f'{s["label"]} alone'})
                                    for s in r['students']])
    found = report.warnings(tables.load(tmp_path))
    assert sum('not met' in w for w in found) == 1
    assert any(w.startswith('xent, confidence, kl and 2 more: not met') for w in found)
    assert [w for w in found if w.endswith(' alone')] == [f'{n}: {n} alone' for n in names]


def test_a_line_is_broken_where_a_cell_failed(tmp_path):
    axes = {'student.model': ['chess-xs', 'chess-s', 'chess-m'], 'student.loss.name': ['xent']}
    _, figures = pages.figures(tmp_path, axes=axes | {'student.loss.name': ['xent', 'confidence']}, failed=(3,))
    assert np.isnan(pages.lines(figures['sizes'], 1)[1]['taught by chess-xs'][1]).tolist() == [False, True, False]


def test_a_block_a_task(tmp_path):
    axes = {'task.name': ['chess', 'boolq'], 'student.loss.name': ['xent', 'confidence']}
    folder = synthetic_grid.write(tmp_path, axes=axes)
    page = report.write(folder).read_text()
    assert [page.count(f'<h2>{task}</h2>') for task in ('chess', 'boolq')] == [1, 1]
    assert {p.name for p in (folder / 'plots').iterdir()} == {
        f'{task}-{name}.png' for task in ('chess', 'boolq')
        for name in ('accuracy_pgr', 'agreement', 'learning_curves')}
    best = re.search(r'<table[^>]*>\s*<thead><tr><th>task</th><th>teacher.*?</table>', page, re.DOTALL)
    assert best[0].count('<tr>') == 1 + 2


def test_the_main_figure_has_a_line_a_teacher_over_parameters(tmp_path):
    table, figures = pages.figures(tmp_path)
    ax, lines = pages.lines(figures['sizes'], 1)
    assert ax.get_title(loc='left') + ax.get_title() == 'confidence' and ax.get_xscale() == 'log'
    rows = table[table['loss'].eq('confidence')]
    for teacher, mine in rows.groupby('teacher'):
        x, y = lines[f'taught by {teacher}']
        assert list(x) == sorted(mine['student_parameters'])
        np.testing.assert_allclose(y, 100 * mine.sort_values('student_parameters')['accuracy'])
    np.testing.assert_allclose(lines['ceiling'][1], 100 * rows.drop_duplicates('student')['ceiling'])
    flat = [line.get_ydata()[0] for line in ax.get_lines() if len(set(line.get_ydata())) == 1]
    assert sorted(flat) == pytest.approx(sorted(100 * rows['weak'].unique()))


def test_a_rung_of_a_chain_is_no_student_of_its_own_ceiling(tmp_path):
    synthetic_grid.write(tmp_path, axes={'student.model': ['chess-m', 'chess-l']}, parameters=False)
    pages.edit(tmp_path / 'cells' / '000' / 'results.json', lambda r: (
        r.update(zero_shot={'model': 'chess-m', 'accuracy': {'mean': .9, 'sem': None}}),
        r['students'].append(r['students'][0] | {'method': 'rung', 'label': 'rung', 'model': 'chess-s', 'ids': ['x']})))
    grid = tables.load(tmp_path)
    table = tables.students(grid)
    figure = {f.name: f for f in panels.figures(grid, table)}['sizes']
    drawn = [pages.lines(figure, i) for i in (0, 1)]
    assert [ax.get_title(loc='left') + ax.get_title() for ax, _ in drawn] == ['xent', 'rung']
    assert 'ceiling' in drawn[0][1] and 'ceiling' not in drawn[1][1]
    assert report.warnings(grid)[0].startswith('1 of 3 students')


def test_students_of_unknown_size_stand_in_the_order_of_the_sweep(tmp_path):
    axes = {'student.model': ['chess-m', 'chess-xs', 'chess-s'], 'student.loss.name': ['xent']}
    _, figures = pages.figures(tmp_path, axes=axes, parameters=False)
    ax, _ = pages.lines(figures['sizes'], 0)
    assert [t.get_text() for t in ax.get_xticklabels()] == axes['student.model'] and ax.get_xscale() == 'linear'


def test_the_heat_map_gives_words_not_colours_where_pgr_is_undefined_or_failed(tmp_path):
    table, figures = pages.figures(tmp_path, failed=(3,))
    ax, _ = pages.lines(figures['pgr'], 1)
    words = [t.get_text() for t in ax.texts]
    rows = table[table['loss'].eq('confidence')]
    assert words.count('undefined') == (rows['pgr'].isna() & rows['failed'].isna()).sum() > 0
    assert words.count('failed') == 1
    assert {f'{p:.2f}' for p in rows['pgr'].dropna()} <= set(words)
    hatched = [p for p in ax.patches if isinstance(p, Rectangle) and p.get_hatch()]
    assert len(hatched) == rows['pgr'].isna().sum() and all(p.get_facecolor()[3] == 0 for p in hatched)


def test_other_axes_are_never_averaged_over(tmp_path):
    axes = {'student.loss.name': ['xent', 'confidence'], 'student.loss.alpha': [.25, .75],
            'optimizer.learning_rate': [1e-4, 1e-3, 1e-2]}
    table, figures = pages.figures(tmp_path, axes=axes)
    ax, lines = pages.lines(figures['axis_learning_rate'], 1)
    assert ax.get_xscale() == 'log' and len(figures['axis_learning_rate'].panels) == 2
    mine = table[table['student.loss.alpha'].eq(.75)].sort_values('optimizer.learning_rate')
    np.testing.assert_allclose(lines['confidence'][0], [1e-4, 1e-3, 1e-2])
    np.testing.assert_allclose(lines['confidence'][1], 100 * mine['accuracy'])
    ax, lines = pages.lines(figures['axis_alpha'], 0)
    assert ax.get_xscale() == 'linear' and len(figures['axis_alpha'].panels) == 3
    alone = table[table['loss'].eq('xent') & table['optimizer.learning_rate'].eq(1e-4)]
    np.testing.assert_allclose(lines['xent'][1], 100 * alone['accuracy'].item())  # a line across
    shown = [t.get_text() for t in pages.lines(figures['accuracy_pgr'], 0)[0].get_yticklabels()]
    assert len(shown) == len(table) == 9


def test_panels_beyond_the_most_are_said_to_be_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(panels, 'MOST_CURVES', 2)
    axes = {'teacher.model': ['chess-xs', 'chess-s'], 'student.model': ['chess-s', 'chess-m']}
    _, figures = pages.figures(tmp_path, axes=axes)
    assert len(figures['learning_curves'].panels) == 2 and figures['learning_curves'].left_out == 2
    assert '2 more are left out here' in report.html(tables.load(tmp_path))


def test_the_headline_names_the_surest_student_not_the_noisiest(whole):
    table = tables.students(tables.load(whole[1])).query('accuracy.notna()').copy()
    table[['pgr', 'pgr_low', 'pgr_high']] = np.nan
    assert 'undefined for all 11 students' in report.recovery(table)
    table.loc[table.index[:2], ['pgr', 'pgr_low', 'pgr_high']] = [[.9, -3., 4.], [.4, .3, .5]]
    said = report.recovery(table, prefix='chess: ')
    assert said.startswith('chess: 2 of 11 students') and 'more than 65 %' in said
    assert f'{table["loss"].iloc[1]}, ' in said and 'with 40 % (interval 30 to 50 %)' in said
    assert report.recovery(table[:1]).startswith('The student (xent) recovers 90 %')


def _compared(*ps):
    return [{'task': 't', 'teacher': 'a', 'student': 'b', 'settings': {}, 'loss': f'l{i}', 'baseline': 'xent',
             'mean': .01 * (i + 1), 'low': 0., 'high': .1, 'p': p} for i, p in enumerate(ps)]


def _adjusted(*ps):
    return report.adjusted(tables.Grid('g', {}, (), [], _compared(*ps), {}, {}))


def test_the_statement_counts_how_many_were_compared():
    assert report.statement([]) == ''
    said = report.statement(_adjusted(.001, .03, .04))
    assert said.startswith('Of 3 comparisons with a baseline, 1 holds') and 'l0 is above xent' in said
    assert 'l1' not in said
    said = report.statement(_adjusted(.03, .04, None))
    assert 'Of 2 comparisons' in said and 'none holds' in said and '2 would alone' in said
    said = report.statement(_adjusted(*[1e-6] * 9))
    assert '9 hold' in said and '3 more' in said and said.index('l8') < said.index('l7')


def test_time_is_what_phases_took_and_would_have_taken():
    phases = [{'kind': 'teacher', 'seconds': 100., 'compile_seconds': 10., 'cells': 6, 'runs': 3, 'tokens': 50},
              {'kind': 'student', 'seconds': 50., 'compile_seconds': None, 'cells': 1, 'runs': 1, 'tokens': None,
               'skipped': True}]
    cells = tuple(tables.Cell(str(i), {}, {}, {}, None) for i in range(6))
    grid = tables.Grid('g', {}, cells, phases, [], {}, {})
    rows = {r['']: r for r in report.time_table(grid)}
    assert rows['teachers']['each cell alone'] == '10 min 00 s' and rows['sum']['each cell alone'] == '10 min 50 s'
    assert rows['sum']['time'] == '2 min 30 s' and rows['teachers']['tokens seen'] == '50'
    assert rows['students']['tokens seen'] == '0' and rows['students']['of which compiling'] == ''
    said = report.sharing(grid)
    assert '10 min 50 s' in said and '2 min 30 s' in said and '77 % less' in said and '1 of the 2 phases' in said
    assert report.duration(4000) == '1 h 06 min' and report.duration(59.99) == '1 min 00 s'


def test_terminal_table_is_aligned_and_has_what_failed(whole):
    grid = tables.load(whole[1])
    lines = report.terminal_table(grid).splitlines()
    start = lines[0].index('student %')
    rows = [line for line in lines[2:-1] if 'failed' not in line and not re.search(r' points, p [<.0-9 ]+$', line)]
    assert len(rows) == 11 and all(re.match(r'\d+\.\d ± ', line[start:]) for line in rows)
    assert sum('failed: NonFiniteError' in line for line in lines) == 1 and lines[-1].startswith('Of 5 comparisons')


def test_a_workdir_that_cannot_be_written_is_named(tmp_path):
    (synthetic_grid.write(tmp_path, axes={'student.loss.name': ['xent']}) / 'plots').write_text('a file')
    with pytest.raises(StoreError, match='plots: cannot write the report'):
        report.write(tmp_path)


@pytest.mark.long
def test_command_makes_page_and_tables_of_a_grid(tmp_path):
    synthetic_grid.write(tmp_path, axes={'student.loss.name': ['xent', 'confidence']})
    done = subprocess.run([sys.executable, '-m', 'experiments.report', f'--workdir={tmp_path}'], capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    assert report.terminal_table(tables.load(tmp_path)) in done.stdout
    assert f'report: {tmp_path / "report.html"}' in done.stdout
    assert {p.name for p in tmp_path.glob('*.*')} >= {'results.csv', 'runs.csv', 'results.tex', 'report.html'}


def test_no_comparison_is_dropped_and_each_is_told_apart(tmp_path):
    axes = {'method.name': ['naive', 'ensemble'], 'student.loss.name': ['xent', 'confidence']}
    synthetic_grid.write(tmp_path, axes=axes)
    who = {'task': 'chess', 'teacher': 'chess-xs', 'student': 'chess-m', 'loss': 'confidence', 'baseline': 'xent',
           'low': .0, 'high': .1, 'settings': {}}
    compared = [
        who | {'method': 'naive', 'label': 'confidence', 'settings': {'method.name': 'naive'}, 'mean': .01, 'p': .2},
        who | {'method': 'ensemble', 'label': 'confidence', 'settings': {'method.name': 'ensemble'}, 'mean': .02,
               'p': .01},
        who | {'method': 'naive', 'label': 'confidence, alpha .9', 'mean': .03, 'p': None},
        who | {'method': 'naive', 'label': 'best epoch', 'mean': .09, 'p': 1e-9}]
    pages.edit(tmp_path / 'grid.json', lambda g: g.update(comparisons=compared))
    path = tmp_path / 'cells' / '000' / 'results.json'
    oracle = {'label': 'best epoch', 'oracle': True, 'ids': ['o']}
    pages.edit(path, lambda r: r['students'].append(r['students'][0] | oracle))
    grid = tables.load(tmp_path)
    rows = report.comparisons(grid)
    assert [r['difference'].partition(' − ')[0] for r in rows] == [
        'confidence', 'ensemble · confidence', 'confidence, alpha .9', 'best epoch (oracle)']
    assert [r['p after Holm'] for r in rows] == ['0.200', '0.020 ✓', '–', '–']
    best = [r['best (chosen on the test set)'] for r in report.best(grid)]
    assert best == ['confidence, alpha .9']  # the best but for the oracle
    said = report.headline(grid)
    assert 'Of 2 comparisons' in said and 'ensemble · confidence is above xent' in said and 'best epoch' not in said
    page = report.html(grid)
    assert all(f'>{r["difference"]}</td>' in page for r in rows)
