"""The quickstart, shrunk: the command of the README, on the built-in ladder, without python-chess."""
import json
import os
import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.long
ROOT = pathlib.Path(__file__).parents[2]
BLOCKED = "import sys; sys.modules['chess'] = None; import runpy; sys.argv[0] = 'run'; "
ACCURACY = {'mean', 'sem', 'seeds', 'low', 'high'}


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp('quickstart') / 'w'
    code = BLOCKED + "runpy.run_module('experiments.run', run_name='__main__')"
    command = [sys.executable, '-c', code, '--config=configs/quickstart.py', f'--workdir={folder}',
               '--config.seeds=(0, 1)', '--config.task.train_size=160', '--config.task.test_size=80',
               '--config.student.model=chess-s', '--config.train.epochs=1']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True,
                          env=os.environ | {'JAX_PLATFORMS': 'cpu'}, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_results_have_the_documented_shape(workdir):
    results = json.loads((workdir / 'results.json').read_text())
    assert results.keys() >= {'task', 'weak', 'ceiling', 'students', 'timing', 'versions'}
    assert results['task']['name'] == 'chess' and results['task']['test_examples'] == 80
    for part in (results['weak'], results['ceiling'], *results['students']):
        assert part['accuracy'].keys() == ACCURACY and len(part['accuracy']['seeds']) == 2
        assert 0 <= part['legal']['mean'] <= 1
    assert [s['loss'] for s in results['students']] == ['xent', 'confidence']
    for student in results['students']:
        assert student.keys() >= {'method', 'model', 'pgr', 'agreement'}
        assert student['pgr'].keys() == {'mean', 'low', 'high', 'defined'}
        assert student['agreement'].keys() == {'all', 'weak_right', 'weak_wrong'}
    phases = results['timing']['phases']
    assert sorted({(p['kind'], p['name']) for p in phases}) == [
        ('ceiling', 'ceiling'), ('label', 'labels'), ('student', 'student confidence'), ('student', 'student xent'),
        ('teacher', 'teacher'), ('zero_shot', 'zero-shot')]
    assert len(phases) == 2 * 5 + 1


def test_all_seeds_of_a_phase_trained_in_one_program(workdir):
    records = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    assert {r['phase'] for r in records} == {f'{name}: seeds 0, 1' for name in (
        'chess-xs teacher', 'chess-s ceiling', 'chess-s student xent', 'chess-s student confidence')}
    assert all(len(r['loss']) == 2 for r in records)


def test_the_page_shows_boards_and_asks_for_nothing(workdir):
    page = (workdir / 'report.html').read_text()
    assert 'class="board' in page or "class='board" in page or 'board' in page
    assert '♔' in page or '♚' in page
    assert 'src="http' not in page and 'href="http' not in page
    assert sorted(p.name for p in (workdir / 'plots').iterdir()) == [
        'accuracy_pgr.png', 'agreement.png', 'learning_curves.png']


def test_artifacts_are_whole_and_nothing_is_left_over(workdir):
    folders = sorted(p.name for p in (workdir / 'store').iterdir())
    assert not any(f.startswith('.part') for f in folders) and not list((workdir / 'store' / 'pending').iterdir())
    for artifact in (workdir / 'store').glob('*-*'):
        assert (artifact / 'DONE').exists() and (artifact / 'config.json').exists()
