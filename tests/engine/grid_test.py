"""A grid as one graph: what cells share runs once, what breaks down harms nobody, and single runs say the same."""
import io
import json

import numpy as np
import pytest

import w2s_jax
from w2s_jax import config as configs
from w2s_jax import graph
from w2s_jax.engine import cost, estimate, experiment, grid, sweep
from w2s_jax.errors import ConfigError, NonFiniteError
from w2s_jax.phases import kinds as phases
from w2s_jax.report import log, tables
from w2s_jax.store.artifacts import Store

CELLS = sweep.product(sweep.values('teacher.model', ['mlp-4', 'mlp-32']),
                      sweep.values('student.model', ['mlp-32', 'mlp-128']),
                      sweep.values('student.loss.name', ['xent', 'confidence']))


def base(**task):
    c = configs.default_config()
    c.task.name, c.teacher.model, c.student.model = 'salient_concept', 'mlp-4', 'mlp-32'
    c.task.train_size, c.task.test_size, c.train.epochs, c.seeds = 400, 200, 2, (0, 1)
    c.method.baselines, c.optimizer.learning_rate, c.report.html = (), 5e-3, False
    c.task.update(task)
    return c


def run(cells, folder, config=None):
    return grid.run(base() if config is None else config, cells, folder, io.StringIO())


def cell_results(folder, found, **overrides) -> dict:
    name = next(c['folder'] for c in found['cells'] if c['overrides'] == overrides)
    return json.loads((folder / name / 'results.json').read_text())


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    folder, units = tmp_path_factory.mktemp('whole'), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phases, 'run', counting(phases.run, units))
        found = run(CELLS, folder)
    return folder, found, units


def counting(original, units):
    def counted(unit, *args, **kwargs):
        units.append([p.id for p in unit])
        return original(unit, *args, **kwargs)
    return counted


def test_what_cells_share_runs_once(whole):
    _, found, units = whole
    ran = [i for unit in units for i in unit]
    assert len(set(ran)) == len(ran)
    kinds = [p['kind'] for p in found['phases']]
    assert {k: kinds.count(k) for k in kinds} == {'teacher': 4, 'label': 4, 'ceiling': 4, 'student': 16, 'evaluate': 8}
    trained = [p for p in found['phases'] if p['kind'] == 'student']
    assert {p['runs'] for p in trained} == {4} and {p['programs'] for p in trained} == {1}
    teacher = next(p for p in found['phases'] if p['kind'] == 'teacher')
    assert teacher['cells'] == 4 and teacher['seconds'] > 0 and teacher['examples'] == 2 * 192


def test_a_cell_says_what_a_single_experiment_says(whole, tmp_path):
    folder, found, _ = whole
    overrides = CELLS[5]
    alone = experiment.run(sweep.apply(base(), overrides), tmp_path, io.StringIO())
    mine, theirs = ({p.name for p in (f / 'store').glob('*-*')} for f in (tmp_path, folder))
    assert mine and mine <= theirs
    got = cell_results(folder, found, **overrides)
    assert got['task'] == alone['task'] and got['students'][0]['ids'] == alone['students'][0]['ids']
    for who in ('weak', 'ceiling'):
        np.testing.assert_allclose(got[who]['accuracy']['seeds'], alone[who]['accuracy']['seeds'], atol=.011)
    for path in (tmp_path / 'store').glob('fit-*'):
        losses = [np.load(f / 'store' / path.name / 'predictions.npz')['loss'] for f in (tmp_path, folder)]
        np.testing.assert_allclose(*losses, atol=1e-4)


def test_again_nothing_runs_and_more_cells_run_only_what_is_new(whole, monkeypatch):
    folder, found, _ = whole
    units = []
    monkeypatch.setattr(phases, 'run', counting(phases.run, units))
    again = run(CELLS, folder)
    assert units == [] and all(again[k] == found[k] for k in ('axes', 'cells', 'comparisons'))
    more = [*CELLS, {'teacher.model': 'mlp-32', 'student.model': 'mlp-128', 'student.loss.name': 'product'}]
    run(more, folder)
    assert [len(u) for u in units] == [2, 1, 1]  # its students, its evaluation, the comparisons
    run(CELLS, folder)


def test_comparisons_are_with_cross_entropy_in_the_same_cell(whole):
    folder, found, _ = whole
    assert len(found['comparisons']) == 4
    for one in found['comparisons']:
        assert (one['loss'], one['baseline'], one['settings']) == ('confidence', 'xent', {})
        where = {'teacher.model': one['teacher'], 'student.model': one['student']}
        a, b = (cell_results(folder, found, **where, **{'student.loss.name': loss})['students'][0]['accuracy']['mean']
                for loss in ('confidence', 'xent'))
        assert one['mean'] == pytest.approx(a - b)
        assert one['low'] <= one['mean'] <= one['high'] and 0 <= one['p'] <= 1


def compared(folder, found) -> list[tuple]:
    """(transforms, loss, the difference, that of the accuracies in the cells) of each comparison."""
    return [(tuple(c['settings']['labels.transforms']), c['loss'], c['mean']) for c in found['comparisons']]


def test_transforms_are_compared_with_labels_as_they_are(tmp_path):
    found = run(sweep.values('labels.transforms', [(), ('smooth',), ('probe', 'harden')]), tmp_path)
    assert [c[:2] for c in compared(tmp_path, found)] == [(('smooth',), 'xent'), (('probe', 'harden'), 'xent')]
    right = {t: cell_results(tmp_path, found, **{'labels.transforms': list(t)})['students'][0]['accuracy']['mean']
             for t in ((), ('smooth',), ('probe', 'harden'))}
    for transforms, _, difference in compared(tmp_path, found):
        assert difference == pytest.approx(right[transforms] - right[()])


def test_transforms_alone_are_compared_among_losses(tmp_path):
    cells = sweep.product(sweep.values('labels.transforms', [('smooth',), ('harden',)]),
                          sweep.values('student.loss.name', ['xent', 'confidence']))
    found = run(cells, tmp_path)
    assert [c[:2] for c in compared(tmp_path, found)] == [(('smooth',), 'confidence'), (('harden',), 'confidence')]


@pytest.mark.long
def test_a_run_that_breaks_down_is_reported_and_harms_nobody(tmp_path):
    config = base()
    config.optimizer.name, config.optimizer.clip, config.optimizer.learning_rate = 'sgd', 0., 1e-3
    cells = sweep.values('student.learning_rate', [1e-3, 1e3])
    found = run(cells, tmp_path / 'both', config)
    reasons = [c['failed'] for c in found['cells']]
    assert reasons[0] is None and 'loss is nan at step' in reasons[1] and 'mlp-32 ceiling: seed 0' in reasons[1]
    alone = run(cells[:1], tmp_path / 'one', config)
    got, want = (cell_results(tmp_path / name, f, **cells[0]) for name, f in (('both', found), ('one', alone)))
    assert got['students'][0]['accuracy'] == want['students'][0]['accuracy']
    again = run(cells, tmp_path / 'both', config)
    assert all(p['skipped'] for p in again['phases'] if p['kind'] != 'evaluate')
    with pytest.raises(NonFiniteError, match='ceiling: seed 0: loss is nan'):
        experiment.run(sweep.apply(config, cells[1]), tmp_path / 'single', io.StringIO())


def test_traced_fields_train_in_one_program_and_static_ones_do_not(tmp_path):
    cells = sweep.chain(sweep.product(sweep.values('student.learning_rate', [1e-3, 3e-3]),
                                      sweep.values('method.temperature', [.5, 1.])), sweep.values('train.epochs', [3]))
    planned = grid.plan(base(), cells, lambda line: None)
    trained = [g for g in graph.groups(planned.phases) if g[0].role == 'student']
    assert sorted(len(g) for g in trained) == [2, 8]
    assert [p.seed for p in max(trained, key=len)] == [0] * 4 + [1] * 4  # those of a seed share their rows


@pytest.mark.long
def test_a_small_memory_makes_several_programs_with_the_same_results(tmp_path):
    config, cells = base(), sweep.values('student.learning_rate', [1e-3, 2e-3, 3e-3])
    config.train.runs = 'vmap'
    found = run(cells, tmp_path / 'whole', config)
    config.train.memory = 2.5e-4
    parts = run(cells, tmp_path / 'parts', config)
    runs = [[p['runs'] for p in f['phases'] if p['kind'] == 'student'] for f in (found, parts)]
    assert set(runs[0]) == {6} and max(runs[1]) < 6
    for cell in cells:
        accuracies = [cell_results(tmp_path / n, f, **cell)['students'][0]['accuracy']['seeds']
                      for n, f in (('whole', found), ('parts', parts))]
        np.testing.assert_allclose(*accuracies, atol=.011)


def test_a_cell_that_cannot_be_run_is_named_before_anything_runs(tmp_path):
    cells = sweep.values('student.model', ['mlp-32', 'mlp-33'])
    with pytest.raises(ConfigError, match=r"^cell 001-mlp-33: student\.model: unknown 'mlp-33'"):
        run(cells, tmp_path)
    assert not list((tmp_path / 'store').glob('*-*'))


def test_dry_run_says_what_and_runs_nothing(whole, tmp_path):
    text = estimate.dry_run(base(), CELLS, tmp_path)
    assert '8 cells' in text and 'teacher.model (static): mlp-4, mlp-32' in text
    assert ['teacher', '4', '16', '0'] in [line.split() for line in text.splitlines()]
    assert 'mlp-128 student confidence: seeds 0, 1, 4 runs' in text and 'TFLOP' in text
    assert not list((tmp_path / 'store').glob('*-*'))
    done = estimate.dry_run(base(), CELLS, whole[0])
    assert done.count('  done') >= 8 and 'to compute: 0 TFLOP, about 0s' in done


def test_estimated_operations_are_six_a_parameter_and_example_and_two_where_nothing_is_learned(tmp_path):
    plan = grid.plan(base(), CELLS[:1], lambda line: None).plans[0]
    phase = next(p for p in plan.phases if p.role == 'student')
    params, section = 64 * 32 + 32 + 32 * 2 + 2, phase.section
    learned = len(phase.needs['rows'].value) // section['batch_size'] * section['batch_size'] * section['epochs']
    tests = len(plan.dataset.test)
    looks = (section['evaluations'] or 4) * min(tests, section['watch']) + tests
    assert plan.models['student'].num_params == params
    assert cost.operations(phase, plan.models, 1.) == params * (6 * learned + 2 * looks)


@pytest.mark.long
def test_seeds_may_be_swept(tmp_path):
    found = run(sweep.values('seeds', [(0,), (1, 2)]), tmp_path)
    assert [c['failed'] for c in found['cells']] == [None, None]
    table = tables.students(tables.load(tmp_path))
    assert table['config.seeds'].tolist() == ['[0]', '[1, 2]'] and table['seeds'].tolist() == [1, 2]


def test_what_is_left_follows_what_phases_took(tmp_path):
    planned = grid.plan(base(), CELLS, lambda line: None)
    found = cost.Cost(planned.plans, Store(tmp_path / 'store'))
    found.before = (1e9, 0.0, 'as it is said')
    whole = sum(found.work.values())
    assert found.remaining() == '' and found.seconds()[0] == pytest.approx(whole / 1e9)
    first, *rest = [p for p in planned.phases if found.work[p.id]]
    found.done([first], 1000 * whole / 1e9, {})  # far slower than was thought
    left = found.seconds()[0]
    assert left > 10 * whole / 1e9 and found.remaining().endswith(f'{log.duration(left)} left in all')
    found.done(rest, 1.0, {})
    assert found.remaining() == '' and not found.left


def test_what_a_store_names_is_the_grid(whole):
    folder, found, _ = whole
    named = [json.loads(p.read_text()) for p in (folder / 'store' / 'named').glob('*.json')]
    assert {p['id'] for p in found['phases']} <= set(named[0]['ids'])
    assert Store(folder / 'store').begun()


def test_the_python_api_gives_tables(whole, tmp_path):
    folder, found, _ = whole
    results = w2s_jax.grid(base(), CELLS, folder, io.StringIO())
    assert len(results.students) == 8 and len(results.runs) == 16 and results.raw['axes'] == found['axes']
    assert list(results.students) == (folder / 'results.csv').read_text().splitlines()[0].split(',')
    assert list(results.runs) == (folder / 'runs.csv').read_text().splitlines()[0].split(',')
    single = w2s_jax.run(sweep.apply(base(), CELLS[1]), tmp_path, io.StringIO())
    assert set(single.students) <= set(results.students) | set(single.students)
    assert single.students['accuracy'].tolist() == [pytest.approx(single.raw['students'][0]['accuracy']['mean'])]
