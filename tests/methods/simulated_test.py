"""Students of simulated errors: as right as the weak labels to the row, oracles, and refused as anything else."""
import dataclasses
import io
import json

import numpy as np
import pytest
import tiny
from words import own, sentences

from configs import salient_concept
from w2s_jax import config as configs
from w2s_jax.engine import experiment
from w2s_jax.engine import plan as plans
from w2s_jax.errors import ConfigError
from w2s_jax.methods import METHODS
from w2s_jax.methods import simulated as methods
from w2s_jax.report import comparisons, tables
from w2s_jax.store.artifacts import Artifact
from w2s_jax.tasks import TASKS


@pytest.fixture(autouse=True)
def _methods():
    kept = dict(METHODS.entries)
    yield
    METHODS.entries.clear()
    METHODS.entries.update(kept)


def small(**fields):
    c = salient_concept.get_config()
    c.seeds, c.task.train_size, c.task.test_size, c.train.epochs, c.report.html = (0, 1), 800, 400, 3, False
    c.teacher.model, c.labels.source, c.method.name, c.method.baselines = 'mlp-4', 'teacher', 'simulated', ()
    c.optimizer.learning_rate, c.student.model = 5e-3, 'mlp-32'
    c = configs.compose(c)
    c.update_from_flattened_dict({k.replace('__', '.'): v for k, v in fields.items()})
    return c


def planned(config):
    return plans.prepare(configs.validate(config), lambda line: None)


def simulated(folder) -> dict[tuple[str, int], Artifact]:
    """(structure, seed) -> the simulated labels of a work directory."""
    found = {}
    for path in (folder / 'store').glob('simulate_errors-*'):
        section = json.loads((path / 'config.json').read_text())['section']
        found[section['structure']['name'], section['hyper']['seed']] = Artifact(path)
    return found


@pytest.mark.parametrize('transforms', [pytest.param((), marks=pytest.mark.long), ('confident',)])
def test_labels_are_as_right_as_the_weak_ones_to_the_row(tmp_path, transforms):
    config = small(labels__transforms=transforms)
    found = experiment.run(config, tmp_path, io.StringIO())
    truth = TASKS['salient_concept'].fn(configs.validate(config).task).pool.truth
    weak = found['weak']['labels']['seeds']
    made = simulated(tmp_path)
    assert made.keys() == {(n, s) for n in ('random', 'ceiling_unsure', 'ceiling_sure') for s in (0, 1)}
    for (_, seed), artifact in made.items():
        labels, rows = artifact.arrays['labels'], artifact.arrays['rows']
        assert len(np.unique(rows)) == len(rows)
        assert (labels == truth[rows]).mean() == pytest.approx(weak[seed], abs=1e-9) == artifact.metrics['accuracy']
    assert (len(rows) < 400) == bool(transforms)
    by_label = {s['label']: s for s in found['students']}
    assert list(by_label) == ['xent', 'weak errors xent', 'random errors xent', 'ceiling_unsure errors xent',
                              'ceiling_sure errors xent']
    oracle = {label for label, s in by_label.items() if s.get('oracle')}
    assert oracle == set(by_label) - {'xent', 'weak errors xent'}
    assert all('versus' not in by_label[label] for label in oracle)


@pytest.mark.long
def test_what_errors_are_decides_what_is_recovered(tmp_path):
    """Labels of one accuracy: errors on a strong model's surest answers are learned, random ones are averaged out; and
    only the weak model's own make a student whose errors go along with the weak model's."""
    config = small(seeds=(0, 1, 2), task__train_size=4000, task__test_size=1000, train__epochs=5,
                   optimizer__learning_rate=1e-3, student__model='mlp-128', labels__source='column',
                   report__diagnostics=('error_structure',))
    found = experiment.run(config, tmp_path, io.StringIO())
    students = {s['label'].removesuffix(' errors xent'): s for s in found['students']}
    accuracy = {name: s['accuracy']['mean'] for name, s in students.items()}
    follows = {name: s['measures']['kappa_imitation']['mean'] for name, s in students.items()}
    labels = found['weak']['labels']['mean']
    assert accuracy['random'] > labels + .1 and accuracy['ceiling_unsure'] > labels + .1
    assert accuracy['ceiling_sure'] < accuracy['random'] - .1
    others = max(abs(follows[n]) for n in ('random', 'ceiling_unsure', 'ceiling_sure'))
    assert others < .03 and follows['weak'] > others + .02 and follows['xent'] > others + .05


def test_hard_rows_are_chosen_by_a_ceiling_that_has_not_seen_them(tmp_path):
    made = planned(small(seeds=(0,)))
    phase = next(p for p in made.phases if p.kind == 'simulate_errors' and 'ceiling' in p.needs)
    judge = phase.needs['ceiling']
    fitted = judge.needs['model']
    assert fitted.role == 'ceiling' and fitted.keep and judge.section['labels'] == 'soft'
    assert not np.isin(fitted.needs['rows'].value, judge.needs['rows'].value).any()
    hard = planned(small(seeds=(0,), method__labels='hard', method__temperature=2.))
    assert judge.section in [p.section for p in hard.phases if p.kind == 'predict']


@pytest.mark.long
def test_the_same_again_and_other_rows_with_another_seed(tmp_path):
    a, b = (tmp_path / name for name in 'ab')
    for folder in (a, b):
        experiment.run(small(method__errors=('random',), train__epochs=1), folder, io.StringIO())
    first, second = simulated(a), simulated(b)
    for key in first:
        np.testing.assert_array_equal(first[key].arrays['labels'], second[key].arrays['labels'])
    one, other = (first['random', s] for s in (0, 1))
    assert not np.array_equal(one.arrays['labels'], other.arrays['labels'])


def leaky(change):
    """A method whose student learns simulated labels without being called an oracle; change: (b, labels) -> fit."""
    @METHODS.register('leaky')
    def method(b):
        from w2s_jax.labels.errors import STRUCTURES
        for seed in b.seeds:
            weak, labels = b.weak_labels(seed)
            b.weak(weak, labels)
            b.ceiling(b.fit('ceiling', b.student, b.halves[seed].student, b.truth))
            b.students([change(b, methods.with_errors(b, STRUCTURES['random'], labels, None))], label='s')
    with pytest.raises(ConfigError) as e:
        planned(small(method__name='leaky'))
    assert '\n' not in str(e.value)
    return str(e.value)


def test_an_ordinary_student_cannot_learn_simulated_labels():
    said = "student 's': comes from random errors (simulate_errors), which saw the truth"
    assert said in leaky(lambda b, labels: b.fit('student', b.student, labels.rows, labels))


def test_nor_through_a_model_between():
    def between(b, labels):
        rung = b.fit('rung', b.student, labels.rows, labels)
        return b.fit('student', b.student, labels.rows, b.label(rung, labels.rows))
    assert 'which saw the truth' in leaky(between)


def test_nor_through_a_transform_or_start():
    from w2s_jax.labels.transforms import TRANSFORMS
    from w2s_jax.registry import Settings
    assert 'which saw the truth' in leaky(lambda b, labels: b.fit(
        'student', b.student, labels.rows, b.transform(TRANSFORMS['harden'], Settings(), labels)))
    METHODS.entries.pop('leaky')

    def start(b, labels):
        begun = b.fit('first', b.student, labels.rows, labels)
        return b.fit('student', b.student, labels.rows, b.weak_labels(labels.rows.seed)[1], start=begun)
    assert 'which saw the truth' in leaky(start)


def test_nor_if_the_errors_call_themselves_a_teacher():
    """Of the student's rows a teacher is given no truth; without rows the descent tells that this is none."""
    def disguised(b, labels, **needs):
        need = dataclasses.replace(labels.need, role='teacher', needs=labels.need.needs | needs)
        return b.fit('student', b.student, labels.rows, dataclasses.replace(labels, need=need))
    assert "a teacher is given the truth of rows of the student's half" in leaky(disguised)
    METHODS.entries.pop('leaky')
    said = leaky(lambda b, labels: disguised(b, labels, rows=b.halves[labels.rows.seed].teacher.source))
    assert 'random errors: a teacher is given truth (truth) that is not of its rows' in said


def test_a_kind_that_does_not_say_that_it_sees_truth_gets_none():
    def unmarked(b, labels):
        need = dataclasses.replace(labels.need, sees_truth=False)
        return b.fit('student', b.student, labels.rows, dataclasses.replace(labels, need=need))
    assert 'is given the truth (truth)' in leaky(unmarked)

    def other(b, labels):
        need = dataclasses.replace(labels.need, kind='transform')
        return b.fit('student', b.student, labels.rows, dataclasses.replace(labels, need=need))
    METHODS.entries.pop('leaky')
    assert 'is given the truth (truth)' in leaky(other)


@pytest.mark.parametrize(('errors', 'said'), [
    (('longest',), "method.errors: 'longest' needs texts, but the rows of task 'salient_concept' have features"),
    (('shortest',), "'shortest' needs texts"),
    (('randon',), "method.errors: unknown 'randon', expected one of"),
    (('random', 'random'), "student 'random errors xent' of seed 0 is there twice")])
def test_bad_settings_end_in_one_line(errors, said):
    with pytest.raises(ConfigError) as e:
        planned(small(method__errors=errors))
    assert said in str(e.value) and '\n' not in str(e.value)


@pytest.mark.long
def test_lengths_of_texts(tmp_path):
    tiny.folder(tmp_path / 'tiny')
    texts = sentences(160)
    (tmp_path / 'rows.jsonl').write_text('\n'.join(map(json.dumps, texts)))
    c = own(tmp_path / 'tiny', tmp_path / 'rows.jsonl', **{'method.name': 'simulated'})
    c = configs.compose(c)
    c.update_from_flattened_dict({'method.errors': ('longest', 'shortest'), 'seeds': (0,), 'method.baselines': (),
                                  'student.loss.name': 'xent', 'train.epochs': 1, 'report.html': False})
    made = planned(c)
    experiment.run(c, tmp_path / 'w', io.StringIO())
    found, pool = simulated(tmp_path / 'w'), made.dataset.pool
    for name, sign in (('longest', 1), ('shortest', -1)):
        labels, rows = (found[name, 0].arrays[k] for k in ('labels', 'rows'))
        wrong = labels != TASKS[made.config.task.name].fn(made.config.task).pool.truth[rows]
        length = sign * np.array([len(pool.inputs['text'][int(r)][0]) for r in rows])
        assert wrong.any() and not wrong.all() and length[wrong].min() >= length[~wrong].max()


@pytest.mark.long
def test_oracles_are_in_no_comparison(tmp_path):
    experiment.run(small(train__epochs=1), tmp_path, io.StringIO())
    table = tables.students(tables.load(tmp_path))
    assert table.set_index('label')['oracle'].fillna(False).tolist() == [False, False, True, True, True]
    assert not [c for c in comparisons.adjusted(tables.load(tmp_path)) if c.get('oracle') and c['holm'] is not None]
