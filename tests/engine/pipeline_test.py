"""The whole pipeline on the salient concept (methods.md T2), where the answers are known."""
import dataclasses
import functools
import io
import json

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import salient_concept
from w2s_jax import config as configs
from w2s_jax import data, graph
from w2s_jax.engine import execute as execution
from w2s_jax.engine import experiment
from w2s_jax.engine import plan as plans
from w2s_jax.errors import StoreError
from w2s_jax.phases import kinds
from w2s_jax.phases.context import make_context
from w2s_jax.store.artifacts import Store
from w2s_jax.tasks import TASKS, synthetic
from w2s_jax.train import memory
from w2s_jax.train import trainer as train


def run(config, folder):
    config.report.html = False
    return experiment.run(config, folder, io.StringIO())


def small(**task) -> ConfigDict:
    c = salient_concept.get_config()
    c.seeds = (0, 1)
    c.task.train_size, c.task.test_size, c.train.epochs = 800, 400, 2
    c.task.update(task)
    return configs.compose(c)


@pytest.fixture(scope='module')
def short(tmp_path_factory):
    return run(salient_concept.get_config(), tmp_path_factory.mktemp('short'))


@pytest.fixture(scope='module')
def long(tmp_path_factory):
    return run(salient_concept.get_config('long'), tmp_path_factory.mktemp('long'))


def students_of(folder):
    ids = [i for s in json.loads((folder / 'results.json').read_text())['students'] for i in s['ids']]
    return [folder / 'store' / f'fit-{i}' / 'predictions.npz' for i in ids]


def student(results, label):
    return next(s for s in results['students'] if s['label'] == label)


def test_after_four_epochs_the_naive_student_recovers_most_of_the_gap_on_every_seed(short):
    recovered = student(short, 'xent')['pgr_seeds']
    assert len(recovered) == 8 and min(recovered) >= .8


@pytest.mark.long
def test_after_twenty_epochs_the_confidence_loss_keeps_what_naive_training_loses(long):
    naive, confident = (np.array(student(long, name)['pgr_seeds']) for name in ('xent', 'confidence'))
    assert student(long, 'confidence')['alpha'] == .75
    assert naive.max() < .2  # at its teacher's level
    assert (confident - naive).min() >= .4
    wrong = {name: student(long, name)['agreement']['weak_wrong']['mean'] for name in ('xent', 'confidence')}
    assert wrong['confidence'] < wrong['xent'] - .15  # the mechanism: it copies fewer of the errors


def test_where_memory_is_short_no_step_is_dispatched_ahead_and_no_number_changes(tmp_path, monkeypatch):
    waits, seen = train.Trainer.wait, set()

    def wait(trainer, pending):
        seen.add(trainer.ahead)
        waits(trainer, pending)
    monkeypatch.setattr(train.Trainer, 'wait', wait)
    run(small(), tmp_path / 'plenty')
    assert seen == {1}
    monkeypatch.setattr(memory, 'PLACES', 10 ** 12)
    run(small(), tmp_path / 'scarce')
    assert seen == {0, 1}
    losses = [[np.load(f)['loss'] for f in students_of(tmp_path / name)]
              for name in ('plenty', 'scarce')]
    assert len(losses[0]) == 2
    np.testing.assert_array_equal(*losses)


def test_numbers_come_with_intervals(short):
    row = student(short, 'xent')
    assert row['pgr']['defined'] and row['pgr']['low'] < row['pgr']['mean'] < row['pgr']['high']
    assert row['accuracy']['sem'] > 0 and len(row['accuracy']['seeds']) == 8


@pytest.mark.long
def test_permuted_weak_labels_recover_nothing(tmp_path, monkeypatch):
    def permuted(task, log):
        dataset = synthetic.load(task, log)
        given = np.random.default_rng(0).permutation(dataset.pool.given)
        return dataclasses.replace(dataset, pool=dataclasses.replace(dataset.pool, given=given))
    entry = dataclasses.replace(TASKS['salient_concept'], fn=permuted)
    monkeypatch.setitem(TASKS.entries, 'salient_concept', entry)
    results = run(salient_concept.get_config(), tmp_path)
    assert max(student(results, 'xent')['pgr_seeds']) <= 0


def plan(config, dataset):
    key = json.dumps(configs.flat(config.task), sort_keys=True)
    config = configs.validate(config)
    made = plans.prepare(config, lambda line: None, {key: dataset})
    context = make_context(config, made.models, lambda *a: None)
    return made, functools.partial(kinds.run, context=context)


def phases_of(made, role):
    return {(t.label, t.seed): t.need for t in made.targets if t.role == role}


def students(made, artifacts):
    return {name: artifacts[need.id] for name, need in phases_of(made, 'student').items()}


def test_the_hidden_truth_does_not_reach_the_student(tmp_path):
    """Permuting the truth of the student's halves and of the test set leaves ids and parameters bit-identical."""
    config = small()
    dataset = synthetic.load(config.task)
    shuffle = np.random.default_rng(0).permutation
    other = dataclasses.replace(
        dataset, pool=dataclasses.replace(dataset.pool, truth=shuffle(dataset.pool.truth)),
        tests={'test': dataclasses.replace(dataset.test, truth=shuffle(dataset.test.truth))})
    found = []
    for name, each in (('a', dataset), ('b', other)):
        target, execute = plan(config, each)
        artifacts = execution.execute([target.target], Store(tmp_path / name), execute, lambda *a: None)
        found.append((target, students(target, artifacts), artifacts))
    (target, before, all_before), (other_target, after, all_after) = found
    for name in before:
        assert before[name].path.name == after[name].path.name
        for file in ('params/model.safetensors', 'predictions.npz'):
            assert (before[name].path / file).read_bytes() == (after[name].path / file).read_bytes()
    both = (target, all_before), (other_target, all_after)
    ceilings = [a[phases_of(t, 'ceiling')['ceiling', 0].id].path for t, a in both]
    assert ceilings[0].name != ceilings[1].name  # the truth was permuted indeed, and the ceiling does see it
    assert len({(c / 'params/model.safetensors').read_bytes() for c in ceilings}) == 2


def test_what_a_student_receives_holds_no_truth(tmp_path):
    config = small()
    dataset = synthetic.load(config.task)
    made, _ = plan(config, dataset)
    secret = {data.fingerprint(x.truth) for x in (dataset.test, dataset.pool)} | {
        data.fingerprint(dataset.pool.truth[need.needs['rows'].value]) for need in phases_of(made, 'ceiling').values()}
    for phase in made.phases:
        sees = {need.id for need in phase.needs.values() if not isinstance(need, graph.Phase)}
        if phase.role in ('student', 'label', 'zero_shot'):
            assert not sees & secret and not any(isinstance(n, graph.Sealed) for n in phase.needs.values())
        if phase.role in ('teacher', 'ceiling'):
            assert data.fingerprint(dataset.test.truth) not in sees
    assert secret & {n.id for n in made.target.needs.values()}  # evaluate reads it


def test_a_second_run_trains_nothing_and_says_the_same(tmp_path):
    first = run(small(), tmp_path)
    stamps = {f: f.stat().st_mtime_ns for f in (tmp_path / 'store').glob('*-*/**/*') if f.is_file()}
    second = run(small(), tmp_path)
    assert stamps and stamps == {f: f.stat().st_mtime_ns for f in (tmp_path / 'store').glob('*-*/**/*') if f.is_file()}
    for results in (first, second):
        results.pop('timing')
    assert first == second


def test_a_work_directory_keeps_its_config_but_not_its_machine(tmp_path):
    first = run(small(), tmp_path)
    other = small()
    other.train.eval_batch_size, other.train.checkpoint_every, other.mesh.data = 64, 7, jax.device_count()
    assert run(other, tmp_path)['students'] == first['students']
    other.train.epochs = 3
    with pytest.raises(StoreError, match=r'train\.epochs is 2 there, 3 here'):
        run(other, tmp_path)


def test_adding_a_seed_trains_only_that_seed(tmp_path):
    ran = []
    for seeds in ((0,), (0, 1)):
        config = small()
        config.seeds = seeds
        target, execute = plan(config, synthetic.load(config.task))

        def record(unit, inputs, folder, execute=execute):
            ran.append([p.seed for p in unit])
            return execute(unit, inputs, folder)
        execution.execute([target.target], Store(tmp_path), record, lambda *a: None)
    assert ran == [[0], [0], [None], [1], [1], [None]]


def test_a_loss_from_outside_the_package(tmp_path, monkeypatch):
    """The README's example: a file of one's own, named in the config."""
    (tmp_path / 'my_loss.py').write_text(README_LOSS)
    monkeypatch.syspath_prepend(tmp_path)
    config = small()
    config.plugins = ('my_loss',)
    config.student.loss.name, config.train.epochs = 'squared', 8
    results = run(config, tmp_path / 'w')
    assert [s['label'] for s in results['students']] == ['xent', 'squared']
    assert student(results, 'squared')['accuracy']['mean'] > .7
    del configs.LOSSES.entries['squared']


def readme_loss() -> str:
    """The first Python block of the README that adds a loss."""
    import pathlib
    text = (pathlib.Path(__file__).parents[2] / 'README.md').read_text()
    return next(block.split('```')[0] for block in text.split('```python\n')[1:] if 'LOSSES.register' in block)


README_LOSS = readme_loss()
