"""Tables of grids and of single experiments, from folders that synthetic_grid.py makes up."""
import csv
import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import synthetic_grid

from w2s_jax import config as configs
from w2s_jax import metrics
from w2s_jax.errors import StoreError
from w2s_jax.labels.sources import SOURCES
from w2s_jax.losses import LOSSES
from w2s_jax.methods import METHODS
from w2s_jax.report import page, tables
from w2s_jax.tasks import TASKS
from w2s_jax.train.optimizers import OPTIMIZERS

ALPHAS = {'student.loss.name': ['xent', 'confidence'], 'student.loss.alpha': [.25, .75]}
RATES = {'student.loss.name': ['xent', 'confidence'], 'optimizer.learning_rate': [1e-4, 1e-3]}


def _students(workdir, **options):
    grid = tables.load(synthetic_grid.write(workdir, **options))
    return grid, tables.students(grid)


def _edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_each_student_is_there_once(tmp_path):
    grid, table = _students(tmp_path)
    assert len(grid.cells) == 18 and len(table) == 18
    assert not table.duplicated(['teacher', 'student', 'loss']).any()
    # The students of cross-entropy are in the cells of both losses, 27 rows in all.
    assert sum(len(c.results['students']) for c in grid.cells) == 27
    assert (table['student.loss.name'] == table['loss']).all() and (table['teacher.model'] == table['teacher']).all()


@pytest.mark.parametrize('ids', [True, False])
def test_a_student_that_cells_share_names_no_setting_that_it_does_not_depend_on(tmp_path, ids):
    _, table = _students(tmp_path, axes=ALPHAS, ids=ids)
    assert table['loss'].tolist() == ['xent', 'confidence', 'confidence']
    assert table['student.loss.alpha'].isna().tolist() == [True, False, False]
    assert table['student.loss.alpha'].tolist()[1:] == [.25, .75]


@pytest.mark.parametrize('ids', [True, False])
def test_students_of_other_settings_are_not_shared(tmp_path, ids):
    _, table = _students(tmp_path, axes=RATES, ids=ids)
    assert sorted(zip(table['loss'], table['optimizer.learning_rate'], strict=True)) == [
        ('confidence', 1e-4), ('confidence', 1e-3), ('xent', 1e-4), ('xent', 1e-3)]


def test_numbers_are_those_of_the_cells(tmp_path):
    grid, table = _students(tmp_path, axes=ALPHAS)
    for _, found in table.iterrows():
        results = next(c.results for c in grid.cells if c.name == found['cell'])
        entry = next(s for s in results['students'] if s['label'] == found['loss'])
        assert found['accuracy'] == entry['accuracy']['mean'] and found['accuracy_sem'] == entry['accuracy']['sem']
        assert found['weak'] == results['weak']['accuracy']['mean']
        assert found['ceiling'] == results['ceiling']['accuracy']['mean']
        gain = [entry['gain'][k] for k in ('mean', 'low', 'high')]
        assert [found[k] for k in ('gain', 'gain_low', 'gain_high')] == gain
        assert [found[k] for k in ('pgr', 'pgr_low', 'pgr_high')] == [entry['pgr'][k] for k in ('mean', 'low', 'high')]
        assert found['agreement_weak_wrong'] == entry['agreement']['weak_wrong']['mean']
        assert np.isnan(found['auroc']) and found['ece'] == pytest.approx(.11)
        assert found['student_parameters'] == 12_000_000 and found['seeds'] == 3


def test_rows_of_seeds_average_to_the_students(tmp_path):
    grid, table = _students(tmp_path, axes=RATES, seeds=(3, 5, 8))
    rows = tables.runs(grid)
    assert rows['seed'].tolist() == [3, 5, 8] * 4
    keys = ['loss', 'optimizer.learning_rate']
    means = rows.groupby(keys)[['weak', 'accuracy', 'ceiling']].mean()
    pd.testing.assert_frame_equal(means, table.set_index(keys)[['weak', 'accuracy', 'ceiling']].sort_index())
    for _, row in rows.iterrows():
        assert row['pgr'] == pytest.approx(metrics.pgr(row['weak'], row['accuracy'], row['ceiling']))


def test_an_undefined_pgr_is_empty_even_where_a_number_was_stored(tmp_path):
    _, table = _students(tmp_path)
    undefined = table[table['teacher'].eq('chess-m') & table['student'].eq('chess-xs')]
    assert len(undefined) == 2 and undefined['pgr'].isna().all() and not undefined['pgr_defined'].any()
    _edit(tmp_path / 'cells' / '000' / 'results.json',
          lambda r: r['students'][0]['pgr'].update(mean=77., defined=False))
    assert np.isnan(tables.students(tables.load(tmp_path))['pgr'][0])


def test_a_failed_cell_keeps_a_row_with_the_reason(tmp_path):
    grid, table = _students(tmp_path, failed=(3, 4))
    # The cross-entropy student of cell 4 is in cell 5 too.
    assert len(table) == 18 + 1
    found = table[table['failed'].notna()]
    assert found['loss'].tolist() == ['confidence', 'xent'] and found['teacher'].tolist() == ['chess-xs'] * 2
    assert found['task'].tolist() == ['chess'] * 2  # as in all other cells
    assert found['accuracy'].isna().all() and found['failed'].str.startswith('NonFiniteError').all()
    assert not tables.runs(grid)['accuracy'].isna().any()


def test_a_grid_that_failed_altogether_has_a_table(tmp_path):
    _, table = _students(tmp_path, axes=ALPHAS, failed=(0, 1, 2, 3))
    assert len(table) == 4 and table['accuracy'].isna().all()


def every_field() -> dict:
    """Dotted field -> two values of it, of all fields that any config has."""
    found = {}
    for names in ({}, *({'task.name': t} for t in TASKS), *({'student.loss.name': n} for n in LOSSES),
                  *({'method.name': m} for m in METHODS), *({'optimizer.name': o} for o in OPTIMIZERS),
                  *({'labels.source': o} for o in SOURCES)):
        config = configs.default_config()
        config.update_from_flattened_dict(names)
        for field, setting in configs.settings(configs.compose(config)).items():
            found[field] = [setting.default, another(setting.default)]
    return found


def another(value):
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return value + 1
    if str(value).startswith('chess-'):
        return 'chess-l'
    return [*value, 'x'] if isinstance(value, tuple | list) else f'{value}x'


FIELDS = every_field()


@pytest.mark.long
@pytest.mark.parametrize('field', FIELDS)
def test_whatever_is_swept_has_a_column(tmp_path, field):
    grid, table = _students(tmp_path, axes={field: FIELDS[field]}, seeds=(0, 1), test=30)
    assert table.columns.is_unique and len(tables.as_text(grid, table).rows) == len(table) >= 1
    for path in tables.write(tmp_path):
        assert path.stat().st_size
    assert tables.column(field) in pd.read_csv(tmp_path / 'results.csv').columns
    assert page.terminal_table(grid)


def test_swept_seeds_have_a_column_beside_their_number(tmp_path):
    _, table = _students(tmp_path, axes={'seeds': [[0], [1, 2]]})
    assert table['config.seeds'].tolist() == ['[0]', '[1, 2]'] and table['seeds'].tolist() == [3, 3]
    page.write(tmp_path)


def test_an_experiment_has_the_columns_of_a_grid(tmp_path):
    grid, table = _students(tmp_path, axes=RATES)
    alone = tables.load(tmp_path / 'cells' / '003')
    assert not alone.axes and not alone.comparisons
    rows = tables.students(alone)
    assert [c for c in table if c not in grid.axes] == [*rows]
    assert rows['loss'].tolist() == ['xent', 'confidence']
    assert rows['accuracy'][1] == table.query('cell.str.startswith("003")', engine='python')['accuracy'].item()
    assert len(tables.runs(alone)) == 6


def test_what_a_config_leaves_open_is_called_default(tmp_path):
    _, table = _students(tmp_path, axes={'student.loss.name': ['confidence'], 'student.loss.alpha': [None, .75]})
    assert table['student.loss.alpha'].tolist()[1:] == ['default', .75]


def test_models_that_differ_from_the_ceilings_are_named_as_they_are(tmp_path):
    _students(tmp_path, axes={'student.loss.name': ['xent']})
    _edit(tmp_path / 'cells' / '000' / 'results.json', lambda r: r['students'].append(
        r['students'][0] | {'method': 'bootstrap', 'label': 'chain', 'model': 'chess-l', 'ids': ['x', 'y', 'z']}))
    table = tables.students(tables.load(tmp_path))
    assert table['method'].tolist() == ['naive', 'bootstrap'] and table['student'].tolist() == ['chess-m', 'chess-l']


def test_csv_reads_back(tmp_path):
    _, table = _students(tmp_path, axes=RATES, failed=(1,))
    paths = tables.write(tmp_path)
    assert [p.name for p in paths] == ['results.csv', 'runs.csv', 'results.tex'] and not list(tmp_path.glob('.part-*'))
    back = pd.read_csv(paths[0], dtype={'pgr_defined': 'boolean', 'oracle': 'boolean'})
    pd.testing.assert_frame_equal(back, table, check_dtype=False)
    with open(paths[1], newline='') as file:
        rows = [*csv.DictReader(file)]
    assert len(rows) == 3 * table['accuracy'].notna().sum() and rows[0].keys() >= {'seed', 'optimizer.learning_rate'}


@pytest.mark.parametrize('begins', ['=cmd|calc', '+1+1', '-2+3', '@SUM(1)', '\t=1', '\r=1'])
def test_a_spreadsheet_finds_no_formula_in_csv(tmp_path, begins):
    evil = f'{begins},"x"'
    synthetic_grid.write(tmp_path, axes={'student.loss.name': ['xent', evil]})
    _edit(tmp_path / 'grid.json', lambda g: [c['overrides'].update({evil: evil}) for c in g['cells']]
          and g['axes'].update({evil: [evil]}))
    _edit(tmp_path / 'cells' / '000' / 'results.json', lambda r: (
        r['weak'].update(model=evil), r['students'][0].update(label=evil, gain={'mean': -.25}, measures={
            f'{evil}, too': {'mean': -.5}})))
    for path in tables.write(tmp_path)[:2]:
        with open(path, newline='') as file:
            rows = [*csv.reader(file)]
        cells = [cell for row in rows for cell in row]
        assert not [c for c in cells if c.startswith(('=', '+', '@', '\t', '\r'))]
        assert all(float(c) < 0 for c in cells if c.startswith('-'))  # numbers are as they were
        assert f"'{evil}" in rows[0] and sum(c == f"'{evil}" for row in rows[1:] for c in row) >= 3
    assert ',-0.25,' in (tmp_path / 'results.csv').read_text()


EVIL = r'* a_b & 100% $x$ #1 {c} ~^ \input{x} <é> [y] "z"'


def test_latex_is_well_formed_whatever_the_names(tmp_path):
    _students(tmp_path, axes={'student.loss.name': ['xent', 'confidence']})
    for cell in ('000', '001'):
        _edit(tmp_path / 'cells' / cell / 'results.json', lambda r: r['weak'].update(model=EVIL))
    table = (tables.write(tmp_path)[2]).read_text()
    lines = [line for line in table.splitlines() if line.endswith(r'\\')]
    columns = re.search(r'begin\{tabular\}\{(\w+)\}', table)[1]
    bare = re.compile(r'(?<!\\)(?:\\\\)*&')
    assert [len(bare.findall(line)) for line in lines] == [len(columns) - 1] * len(lines) and len(lines) == 3
    assert table.isascii() and r'\input' not in table
    assert not re.search(r'(?<!\\)[#_^~]', table) and not re.search(r'\\\\\s*[*[]', table)
    assert len(re.findall(r'(?<!\\)\{', table)) == len(re.findall(r'(?<!\\)\}', table))
    assert set(re.findall(r'\\([a-zA-Z]+)', table)) <= {
        'usepackage', 'begin', 'end', 'toprule', 'midrule', 'bottomrule', 'pm', 'textbackslash', 'textasciitilde',
        'textasciicircum', 'textless', 'textgreater'}


def test_latex_says_what_failed_and_what_is_undefined(tmp_path):
    synthetic_grid.write(tmp_path, failed=(3,))
    table = (tables.write(tmp_path)[2]).read_text()
    assert table.count(r'\multicolumn{5}{l}{failed: NonFiniteError') == 1 and '& undefined' in table


@pytest.mark.parametrize(('damage', 'said'), [
    (lambda g: g.update(cells=[]), 'cells is empty'),
    (lambda g: g.update(cells={'a': 1}), 'cells must be a JSON list'),
    (lambda g: g['cells'][0].pop('name'), 'cells must be a list of objects with a text name'),
    (lambda g: g['cells'][0].update(overrides=[1]), 'overrides must be an object'),
    (lambda g: g.update(axes=[]), 'axes must be a JSON object'),
    (lambda g: g['phases'].append(7), 'phases must be a list of objects'),
    (lambda g: g['cells'][0].update(folder='cells/nowhere'), r'nowhere/results\.json: not found'),
])
def test_a_damaged_grid_is_named_in_one_line(tmp_path, damage, said):
    synthetic_grid.write(tmp_path, axes=RATES)
    _edit(tmp_path / 'grid.json', damage)
    with pytest.raises(StoreError, match=said) as caught:
        tables.write(tmp_path)
    assert '\n' not in str(caught.value) and not (tmp_path / 'results.csv').exists()


def test_a_folder_of_nothing_is_named(tmp_path):
    with pytest.raises(StoreError, match=r'results\.json: not found'):
        tables.load(tmp_path)


def _student(label, loss='confidence', mean=.3, **more):
    """A student of results.json whose measured numbers all equal those of others of that mean."""
    return {'method': 'naive', 'label': label, 'loss': loss, 'model': 'chess-m', 'accuracy': {
        'mean': mean, 'sem': .01, 'seeds': [mean - .01, mean, mean + .01]}, 'pgr': {
            'mean': .5, 'low': .4, 'high': .6, 'defined': True}, **more}


def _alone(tmp_path, *students, **more):
    synthetic_grid.write(tmp_path, axes={'student.loss.name': ['xent']})
    folder = tmp_path / 'cells' / '000'
    _edit(folder / 'results.json', lambda r: r.update(students=[*students], **more))
    return folder


@pytest.mark.parametrize('ids', [{}, {'ids': ['a', 'b', 'c']}])
def test_two_labels_of_one_loss_are_two_rows(tmp_path, ids):
    folder = _alone(tmp_path, _student('confidence', **ids), _student('confidence, alpha .9', **ids))
    paths = tables.write(folder)
    for path, rows in zip(paths[:2], (1, 3), strict=True):
        table = pd.read_csv(path)
        assert table['label'].tolist() == ['confidence'] * rows + ['confidence, alpha .9'] * rows
        assert set(table['loss']) == {'confidence'}
    assert 'loss & label &' in paths[2].read_text() and '& confidence, alpha .9 &' in paths[2].read_text()
    plain = tables.write(_alone(tmp_path / 'plain', _student('confidence')))[2].read_text()
    assert 'label' not in plain


def test_measures_of_an_unknown_plugin_are_columns(tmp_path):
    title = {'title': 'Bregman gap', 'factor': 100, 'digits': 2}
    folder = _alone(tmp_path, _student('a', measures={'bregman': title | {'mean': .123, 'sem': .004}, 'pgr': title | {
        'mean': 7., 'sem': None}}), _student('b'))
    _edit(folder / 'results.json', lambda r: r['weak'].update(measures={'labels': {'mean': .8, 'sem': None}}))
    paths = tables.write(folder)
    table = pd.read_csv(paths[0])
    assert table['bregman'][0] == .123 and table['bregman_sem'][0] == .004 and np.isnan(table['bregman'][1])
    assert table['pgr'].tolist() == [.5, .5] and table['measure_pgr'][0] == 7  # no measure takes a column's place
    assert table['weak_labels'].tolist() == [.8, .8]
    assert 'Bregman gap' in paths[2].read_text() and r'12.30 $\pm$ 0.40' in paths[2].read_text()


@pytest.mark.parametrize(('digits', 'said'), [(-3, '0'), (10**9, '0.123000000'), ('2', '0.123'), (True, '0.1')])
def test_digits_that_make_no_sense_break_nothing(tmp_path, digits, said):
    folder = _alone(tmp_path, _student('a', measures={'far': {'mean': .123, 'digits': digits}}))
    assert f'& {said} ' in tables.write(folder)[2].read_text()


def test_a_row_for_every_test_set(tmp_path):
    shifted = {'accuracy': {'mean': .2, 'sem': .01, 'seeds': [.19, .2, .21]}, 'pgr': {'mean': .1, 'defined': True}}
    folder = _alone(tmp_path, _student('a', tests={'shifted': shifted, 'test': shifted}, gain={'mean': .3}, measures={
        'far': {'mean': 1., 'test': 'shifted'}, 'near': {'mean': 2.}}), _student('b'))
    _edit(folder / 'results.json', lambda r: [r[k].update(tests={'shifted': {'accuracy': {
        'mean': m, 'seeds': [m] * 3}}}) for k, m in (('weak', .15), ('ceiling', .4))])
    grid = tables.load(folder)
    table = tables.students(grid)
    assert [*zip(table['label'], table['test'], strict=True)] == [('a', 'test'), ('b', 'test'), ('a', 'shifted')]
    there = table.iloc[2]
    assert there[['weak', 'accuracy', 'ceiling', 'pgr']].tolist() == [.15, .2, .4, .1] and np.isnan(there['gain'])
    assert there['far'] == 1 and np.isnan(there['near']) and table['near'][0] == 2 and np.isnan(table['far'][0])
    assert tables.runs(grid).groupby('test')['accuracy'].mean().to_dict() == pytest.approx({'test': .3, 'shifted': .2})
    pd.testing.assert_frame_equal(tables.students(tables.on(grid, 'shifted')).dropna(axis=1, how='all'),
                                  table[2:].reset_index(drop=True).dropna(axis=1, how='all'))


def test_an_oracle_is_marked(tmp_path):
    paths = tables.write(_alone(tmp_path, _student('a'), _student('best epoch', oracle=True)))
    assert pd.read_csv(paths[0])['oracle'].tolist() == [False, True]
    assert 'best epoch (oracle)' in paths[2].read_text() and 'a (oracle)' not in paths[2].read_text()


def test_old_files_have_the_columns_of_new_ones(tmp_path):
    _, table = _students(tmp_path, axes={'student.loss.name': ['xent']})
    _edit(tmp_path / 'cells' / '000' / 'results.json', lambda r: r['students'][0].pop('measures'))
    old = tables.students(tables.load(tmp_path))
    assert [*old] == [*table] and np.isnan(old['ece'][0])


@pytest.mark.parametrize('damage', [
    lambda r: r['students'][0].update(measures=[1]), lambda r: r['weak'].update(measures={'a': 1}),
    lambda r: r['students'][0].update(tests={'shifted': {}}), lambda r: r['students'][0].update(aux={'a': 3}),
    lambda r: r.update(alarms=['leak']), lambda r: r.update(alarms=[{'code': 'leak'}]),
])
def test_new_fields_of_another_shape_are_named_in_one_line(tmp_path, damage):
    folder = _alone(tmp_path, _student('a'))
    _edit(folder / 'results.json', damage)
    with pytest.raises(StoreError, match=r'results\.json: damaged') as caught:
        tables.load(folder)
    assert '\n' not in str(caught.value)


def test_the_report_imports_no_jax():
    code = 'import sys; from w2s_jax.report import page; print([m for m in sys.modules if m.startswith(("jax", ' \
           '"w2s_jax.train", "w2s_jax.engine", "w2s_jax.config", "w2s_jax.methods"))])'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout == '[]\n'


def test_titles_of_swept_fields():
    assert tables.short(['student.stopping.name', 'optimizer.name', 'student.learning_rate']) == {
        'student.stopping.name': 'stopping', 'optimizer.name': 'optimizer', 'student.learning_rate': 'learning_rate'}
    assert tables.short(['student.lora.rank', 'teacher.lora.rank']) == {
        f'{role}.lora.rank': f'{role}.lora.rank' for role in ('student', 'teacher')}
