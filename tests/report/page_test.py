import json
import multiprocessing
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from pages import baited, harmless

from w2s_jax.errors import StoreError
from w2s_jax.report import figures, panels, tables
from w2s_jax.report import page as report

PROCESSES = multiprocessing.get_context('forkserver')
EVIL = '<script>alert("x")</script> & $\\no{$'


def _measure(mean, sem=0.004):
    return {'mean': mean, 'sem': sem, 'seeds': [mean - 0.004, mean, mean + 0.004]}


def _student(label, mean, pgr):
    return {
        'method': 'naive', 'loss': 'logconf', 'alpha': 0.5, 'model': 'big', 'label': label, 'accuracy': _measure(mean),
        'pgr': pgr, 'gain': {'mean': 0.05, 'low': 0.02, 'high': 0.08}, 'measures': {'bregman': {
            'title': 'Bregman gap', 'factor': 100, 'digits': 2} | _measure(0.071)},
        'agreement': {'all': _measure(0.8), 'weak_right': _measure(0.9), 'weak_wrong': _measure(0.456)},
    }


@pytest.fixture
def results():
    return {
        'task': {'name': 'synthetic', 'classes': 2, 'test_examples': 500},
        'weak': {'model': 'small', 'accuracy': _measure(0.612)},
        'ceiling': {'model': 'big', 'accuracy': _measure(0.834)},
        'students': [
            _student('naive', 0.701, {'mean': 0.401, 'low': 0.292, 'high': 0.513, 'defined': True}),
            _student('confident', 0.733, {'mean': 77.7, 'low': None, 'high': None, 'defined': False}),
        ],
        'timing': {'total_seconds': 12.5, 'phases': [{'kind': 'teacher', 'seconds': 3.25, 'seed': 7, 'skipped': True}]},
        'versions': {'jax': '0.0.1'},
    }


@pytest.fixture
def evaluation():
    accuracy = {'step': [0, 50, 100], 'mean': [0.5, 0.6, 0.7], 'sem': None}
    curves = [
        {'label': label, 'kind': kind, 'step': [1, 50, 100], 'progress': [0.01, 0.5, 1.0],
         'loss': {'mean': [2.0, 1.0, 0.5], 'sem': [0.1, 0.1, 0.1]}, 'accuracy': accuracy}
        for label, kind in (('weak', 'teacher'), ('naive', 'student'), ('confident', 'student'), ('ceiling', 'ceiling'))
    ]
    return {'curves': curves, 'examples': [{'html': '<b class="mine">as it is</b>'}], 'config': {'seeds': [0, 1]}}


def _save(workdir, results, evaluation):
    (workdir / 'results.json').write_text(json.dumps(results))
    (workdir / 'evaluation.json').write_text(json.dumps(evaluation))
    return workdir


def _write(workdir, results, evaluation):
    return report.write(_save(workdir, results, evaluation)).read_text(encoding='utf-8')


def _grid(results, evaluation=None, name='one'):
    return tables.Grid(name, {}, (tables.Cell(name, {}, results, evaluation or {}, None),), [], [], {}, {})


def _table(results):
    return report.terminal_table(_grid(results))


def _headline(results):
    return report.headline(_grid(results))


def test_table_holds_every_finding(results):
    lines = _table(results).splitlines()
    assert [line.split()[0] for line in lines[2:]] == ['weak', 'naive', 'confident', 'ceiling']
    assert '61.2 ± 0.4' in lines[2] and '83.4 ± 0.4' in lines[5]
    assert '70.1 ± 0.4' in lines[3] and '0.40 [0.29, 0.51]' in lines[3] and lines[3].endswith('45.6 ± 0.4')
    assert 'undefined (gap within noise)' in lines[4] and '77.7' not in lines[4]


def test_table_is_aligned(results):
    lines = _table(results).splitlines()
    start = lines[0].index('accuracy %')
    assert [line[start:start + 4] for line in lines[2:]] == ['61.2', '70.1', '73.3', '83.4']


def test_one_seed_has_no_error_bar(results):
    results['weak']['accuracy'] = {'mean': 0.612, 'sem': None, 'seeds': [0.612]}
    assert '±' not in _table(results).splitlines()[2]


def test_page_holds_the_same_numbers_and_every_section(tmp_path, results, evaluation):
    page = _write(tmp_path, results, evaluation)
    for text in ('61.2 ± 0.4', '0.40 [0.29, 0.51]', 'undefined (gap within noise)', '45.6 ± 0.4', '+5.0 [+2.0, +8.0]',
                 'logconf, α 0.5', '7.10 ± 0.40', '<th>Bregman gap</th>',
                 '12.5 s', 'teacher, seed 7 (done in an earlier run)', '0.0.1',
                 '<b class="mine">as it is</b>', 'recovers 40 %'):
        assert text in page, text
    assert page.count('<svg') == 5 + page.count('<li><svg')  # the panels, and what is said of curves in their key
    for name in ('accuracy_pgr', 'learning_curves', 'agreement'):
        assert (tmp_path / 'plots' / f'{name}.png').read_bytes().startswith(b'\x89PNG')
    assert not list(tmp_path.glob('.part-*'))


def test_page_asks_nobody_for_anything(tmp_path, results, evaluation):
    page = _write(tmp_path, results, evaluation)
    assert '://' not in page and '@import' not in page
    assert all(target.startswith('#') for target in re.findall(r'(?:src|href)="([^"]*)"', page))
    assert all(target.startswith('#') for target in re.findall(r'url\(([^)]*)\)', page))


def test_labels_and_settings_are_escaped(tmp_path, results, evaluation):
    results['students'][0]['label'] = evaluation['curves'][1]['label'] = EVIL
    results['weak']['model'] = results['task']['name'] = evaluation['config']['path'] = EVIL
    page = _write(tmp_path, results, evaluation)
    assert '<script' not in page and '&lt;script&gt;' in page


def test_a_browser_is_told_to_run_and_ask_for_nothing(tmp_path, results, evaluation):
    page = _write(tmp_path, results, evaluation)
    head = page[:page.index('<title>')]
    policy = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', head)[1]
    rules = dict(part.strip().split(' ', 1) for part in policy.split(';'))
    assert rules['default-src'] == rules['base-uri'] == rules['form-action'] == "'none'"
    assert not rules.keys() & {'script-src', 'script-src-elem', 'script-src-attr'} and rules['img-src'] == 'data:'


def test_nothing_in_a_foreign_work_directory_runs(tmp_path, results, evaluation):
    results['alarms'] = [{'code': 'leak', 'message': 'm', 'student': 'naive'}, {'code': 'x', 'message': 'n'}]
    results['diagnostics'] = {'overlap': {'hard': 'x'}, 'more': ['y']}
    results['task'] |= {'leak': {'warning': 'w'}, 'tokens': [
        {'of': 'pool', 'texts': 9, 'truncated': 9, 'longest': 'long'}]}
    results['students'][0] |= {'settings': {'alpha': 'a'}, 'aux': {'weights': {'values': ['v']}, 'one': {'mean': .5}},
                               'versus': {'label': 'l', 'mean': .1, 'low': 0, 'high': .2, 'p': .01}}
    for entry in (results['weak'], results['ceiling'], *results['students']):
        entry['tests'] = {'shifted': {'accuracy': _measure(.3)}}
    results['students'][0]['stopped'] = {'steps': [50, 100]}
    evaluation['curves'][1] |= {'epochs': [0, 1, 2], 'pgr': [0, .1, .2]}
    evaluation['examples'] = [{'html': '<b>shown</b>'}, {'html': '</div></main>'}]
    page = _write(tmp_path, baited(results), baited(evaluation))
    assert harmless(page) and page.count('&lt;script&gt;') > 20 and '<b>shown</b>' in page
    assert '<script' not in page and '<img src=//' not in page and '<a ' not in page
    assert page.count('</main>') == 1 and page.count('</svg>') == page.count('<svg')
    tables_ = ''.join(path.read_text() for path in tables.write(tmp_path))
    assert 'alert' in tables_


def test_everything_optional_may_be_missing(tmp_path, results):
    for student in results['students']:
        for key in ('agreement', 'gain', 'measures', 'loss', 'alpha', 'method', 'model', 'pgr'):
            del student[key]
    for key in ('task', 'timing', 'versions'):
        del results[key]
    page = _write(tmp_path, results, {})
    assert '70.1 ± 0.4' in page and 'None' not in page
    assert page.count('<svg') == 2  # accuracy and PGR


@pytest.mark.parametrize(('before', 'said'), [(0.70, False), (0.71, True)])
def test_headline_says_when_fine_tuning_did_harm(results, before, said):
    results['zero_shot'] = {'model': 'big', 'accuracy': _measure(before)}
    assert ('not fine-tuned at all, is right more often (71.0 %)' in _headline(results)) == said


def test_a_student_before_fine_tuning_and_none_after(tmp_path, results, evaluation):
    results['zero_shot'] = {'model': 'big', 'accuracy': _measure(0.123)}
    results['students'] = []
    assert '12.3 ± 0.4' in _write(tmp_path, results, evaluation)


def test_numbers_that_are_none_or_not_finite_are_dashes(tmp_path, results, evaluation):
    results['students'][0]['pgr'] = {'mean': float('nan'), 'low': None, 'high': float('inf'), 'defined': True}
    results['students'][0]['agreement']['weak_wrong'] = {'mean': None, 'sem': None, 'seeds': [None]}
    evaluation['curves'][1]['loss'] = {'mean': [2.0, None, 0.5], 'sem': [0.1, None, 0.1]}
    page = _write(tmp_path, results, evaluation)
    assert not re.search(r'\bnan\b|\binf\b', page)


def test_headline_names_the_best_defined_student(results):
    assert 'best of 2 students (naive) recovers 40 %' in _headline(results)
    results['students'] = results['students'][1:]
    assert 'undefined' in _headline(results)


@pytest.mark.parametrize('name', ['results.json', 'evaluation.json'])
@pytest.mark.parametrize('content', [None, '{"weak": ', '[1]', b'\xff\xfe'])
def test_missing_and_damaged_files_are_named(tmp_path, results, evaluation, name, content):
    path = _save(tmp_path, results, evaluation) / name
    path.unlink()
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(StoreError, match=name) as caught:
        report.write(tmp_path)
    assert '\n' not in str(caught.value)
    assert not (tmp_path / 'report.html').exists()


@pytest.mark.parametrize('breakage', [
    lambda r: r.pop('weak'),
    lambda r: r['ceiling'].update(accuracy={'mean': None}),
    lambda r: r.update(zero_shot={'model': 'big'}),
    lambda r: r['students'][1].pop('label'),
    lambda r: r.update(students={'a': 1}),
    lambda r: r['students'][0].update(accuracy=0.5),
])
def test_results_without_the_needed_fields_are_named(tmp_path, results, evaluation, breakage):
    breakage(results)
    with pytest.raises(StoreError, match=r'results\.json: damaged'):
        tables.load(_save(tmp_path, results, evaluation))


@pytest.mark.parametrize('damage', [{'curves': [{'kind': 'student'}]}, {'curves': {'a': 1}}, {'examples': ['<b>']}])
def test_an_evaluation_of_the_wrong_shape_is_named(tmp_path, results, evaluation, damage):
    with pytest.raises(StoreError, match=r'evaluation\.json: damaged'):
        tables.load(_save(tmp_path, results, evaluation | damage))


def test_a_workdir_that_cannot_be_written_is_named(tmp_path, results, evaluation):
    (_save(tmp_path, results, evaluation) / 'plots').write_text('a file where the folder should be')
    with pytest.raises(StoreError, match='plots: cannot write the report'):
        report.write(tmp_path)


def report_often(workdir, times=10):
    """In a process of its own: with a figure that takes no time."""
    panels.figures = lambda grid, table: [panels.Figure('one', 'One', [lambda ax: ax.plot([0, 1])], 1., '')]
    for _ in range(times):
        report.write(workdir)


@pytest.mark.long
def test_processes_may_report_on_one_work_directory_at_once(tmp_path, results, evaluation):
    first = PROCESSES.Process(target=report_often, args=(_save(tmp_path, results, evaluation), 1))
    first.start()
    first.join()
    whole = {path: path.read_bytes() for path in [*tmp_path.glob('*.*'), *tmp_path.glob('plots/*')]}
    assert {path.suffix for path in whole} == {'.json', '.csv', '.tex', '.html', '.png'}
    writers = [PROCESSES.Process(target=report_often, args=(tmp_path,)) for _ in range(2)]
    for writer in writers:
        writer.start()
    while any(w.is_alive() for w in writers):
        assert all(path.read_bytes() == content for path, content in whole.items())
    assert [w.exitcode for w in writers] == [0, 0]
    assert {*tmp_path.glob('*.*'), *tmp_path.glob('plots/*')} == {*whole}  # and nothing aside


def test_thinning_keeps_the_mean_and_the_ends_in_order():
    values = np.arange(1000.0)
    thinned = figures.thin(values.tolist())
    assert len(thinned) == figures.MAX_POINTS
    np.testing.assert_allclose(thinned.mean(), values.mean())
    assert (np.diff(thinned) > 0).all()


def test_pgr_axis_shows_zero_one_and_every_mean_but_not_every_interval():
    rows = pd.DataFrame({'pgr': [3., np.nan], 'pgr_low': [-50., np.nan], 'pgr_high': [60., np.nan]})
    low, high = panels.pgr_limits(rows)
    assert -2 < low < -1 and 3 < high < 4


def test_same_input_same_page(results, evaluation):
    assert report.html(_grid(results, evaluation)) == report.html(_grid(results, evaluation))


def _command(*arguments):
    return subprocess.run([sys.executable, '-m', 'experiments.report', *arguments], capture_output=True, text=True)


@pytest.mark.long
def test_command_prints_the_table_or_one_line(tmp_path, results, evaluation):
    missing = _command(f'--workdir={tmp_path}')
    assert missing.returncode == 2
    assert re.fullmatch(r'error: .*results\.json: not found.*\n', missing.stderr), missing.stderr
    done = _command(f'--workdir={_save(tmp_path, results, evaluation)}')
    assert done.returncode == 0, done.stderr
    assert _table(results) in done.stdout
    assert str(tmp_path / 'report.html') in done.stdout
    unnamed = _command()
    assert unnamed.returncode == 2 and unnamed.stderr.startswith('error: --workdir')


def test_what_makes_the_numbers_doubtful_is_said_first(tmp_path, results, evaluation):
    assert 'warning' not in _table(results)
    assert 'class="warning"' not in _write(tmp_path, results, evaluation)
    tokens = [{'of': 'tokens of the pool', 'texts': 100, 'truncated': 11, 'longest': 64},
              {'of': 'tokens of the test set', 'texts': 100, 'truncated': 10, 'longest': 64}]
    results['task'] |= {'leak': {'warning': f'a letter tells {EVIL}'}, 'tokens': tokens}
    page, table = _write(tmp_path, results, evaluation), _table(results)
    assert page.count('class="warning"') == 2 and EVIL not in page
    assert '11 of 100 texts were cut to 64 tokens' in page and 'a letter tells' in page
    assert table.splitlines()[-1].startswith('warning: tokens of the pool') and 'warning: a letter' in table


def test_alarms_are_said_first(tmp_path, results, evaluation):
    results['alarms'] = [{'code': 'leak', 'message': f'the truth is in the labels {EVIL}'}]
    results['task'] |= {'leak': {'warning': 'a letter tells'}}
    page, table = _write(tmp_path, results, evaluation), _table(results)
    said = re.findall(r'class="warning">Warning: (.*?)</p>', page)
    assert said[0].startswith('the truth is in the labels &lt;script') and said[1:] == ['a letter tells']
    assert page.index('the truth is in the labels') < page.index('<table')
    first = next(line for line in table.splitlines() if line.startswith('warning'))
    assert first.startswith('warning: the truth is in')


def test_what_no_table_knows_is_shown_with_its_own_title(tmp_path, results, evaluation):
    results['weak']['measures'] = {'labels': {'title': 'right labels <b>', 'factor': 100, 'digits': 0, 'mean': .77}}
    results['diagnostics'] = {'overlap': {'hard': .25}, 'codes': [1, 2]}
    results['students'][0]['aux'] = {'teacher weight': {'mean': .7, 'sem': .1}, 'weights': {'values': [.25, .75]}}
    page = _write(tmp_path, results, evaluation)
    assert 'Beyond accuracy' in page and '<th>right labels &lt;b&gt;</th>' in page and '>77</td>' in page
    assert '<td>overlap.hard</td><td>0.25</td>' in page and '<td>codes</td><td>[1, 2]</td>' in page
    learned = page[page.index('What the objectives learned'):]
    assert '>teacher weight</td><td data-label="value">0.700 ± 0.100</td>' in learned
    assert '>0.25, 0.75</td>' in learned


def test_every_test_set_has_a_headline_and_a_table(tmp_path, results, evaluation):
    for entry, mean in ((results['weak'], .11), (results['ceiling'], .55), (results['students'][0], .33)):
        entry['tests'] = {'shifted': {'accuracy': _measure(mean)}}
    pgr = {'mean': .5, 'low': .25, 'high': .75, 'defined': True}
    results['students'][0]['tests']['shifted']['pgr'] = pgr
    page, table = _write(tmp_path, results, evaluation), _table(results)
    assert re.search(r'\(naive\) recovers 40 %.*Test set shifted: The student \(naive\) recovers 50 %', page)
    assert page.index('70.1 ± 0.4') < page.index('<h2>Test set shifted</h2>') < page.index('33.0 ± 0.4')
    main, further = table.split('\n\ntest set shifted\n')
    assert '70.1 ± 0.4' in main and 'confident' in main
    assert [line.split()[0] for line in further.splitlines()[2:]] == ['weak', 'naive', 'ceiling']
    assert '33.0 ± 0.4' in further and '0.50 [0.25, 0.75]' in further and '70.1' not in further
    assert (tmp_path / 'plots' / 'Test_set_shifted-accuracy_pgr.png').exists()


def test_an_oracle_is_marked_and_never_in_the_headline(tmp_path, results, evaluation):
    best = _student('best epoch', .8, {'mean': .95, 'low': .9, 'high': .99, 'defined': True}) | {'oracle': True}
    results['students'].append(best)
    assert 'best of 2 students (naive) recovers 40 %' in _headline(results)
    page = _write(tmp_path, results, evaluation)
    assert page.count('best epoch (oracle)') >= 3 and 'best epoch (oracle)  big' in _table(results)
    results['students'] = [best]
    assert _headline(results) == 'No student has a result.'


def test_two_labels_of_one_loss_are_two_rows(tmp_path, results, evaluation):
    results['students'][1] |= {'label': 'naive, alpha .9', 'settings': {'alpha': .9, 'warmup': None}}
    page = _write(tmp_path, results, evaluation)
    assert 'logconf, alpha 0.9, warmup default' in page and 'naive, alpha .9' in _table(results)
