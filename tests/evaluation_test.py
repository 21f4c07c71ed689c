"""The points of a learning curve at which training might have stopped, and comparisons across cells of a grid."""
import json

import numpy as np
import pytest

from w2s_jax import evaluation, metrics
from w2s_jax.store.artifacts import Store


@pytest.fixture
def artifact(tmp_path):
    """(name, arrays) to an Artifact whose answers are the given classes."""
    def make(name, answers, **arrays):
        top = np.stack([answers, 1 - answers], axis=1).astype(np.int32)
        arrays |= {'test.top': top, 'test.top_probability': np.full(top.shape, .5, np.float32)}
        return Store(tmp_path).save({'kind': 'fit', 'name': name}, {'steps': 3, 'examples': 6, 'rows': 2}, arrays)
    return make


def _section(needs: dict, truth, seeds, targets: dict) -> tuple[evaluation.Answers, dict]:
    """Answers whose targets are `(role, label, seed) -> need`, and the rows of the students."""
    listed = [{'role': role, 'label': label, 'seed': seed, 'row': {'label': label}} for role, label, seed in targets]
    needs |= {'truth/test': truth, **{f'target/{i}': need for i, need in enumerate(targets.values())}}
    rows = {t['label']: t['row'] for t in listed if t['role'] == 'student'}
    return evaluation.Answers({'targets': listed, 'seeds': seeds}, needs), rows


def _answers(rng, truth, rate):
    return np.where(rng.uniform(size=truth.shape) < rate, truth, 1 - truth)


def test_stops_by_hand():
    truth, weak = np.array([0, 1, 1, 0]), np.array([[0, 0, 0, 0]])
    # Right on 2, 4, 3 and 2 of four rows; as the weak model on 4, 2, 3 and 4.
    watched = np.array([[[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]]])
    found = evaluation.stops(np.array([0, 10, 20, 30]), watched == truth, watched == weak[:, None])
    assert found == {'best': {'step': 10, 'accuracy': 1.}, 'weak': {'step': 0, 'accuracy': .5},
                     'final': {'step': 30, 'accuracy': .5}}
    assert set(evaluation.stops(np.array([5]), watched[:, :1] == truth, None)) == {'best', 'final'}


def test_the_weak_stop_uses_no_truth():
    rng = np.random.default_rng(0)
    steps, weak = np.arange(8), rng.integers(0, 2, (3, 1, 50))
    watched = rng.integers(0, 2, (3, 8, 50))
    found = [evaluation.stops(steps, watched == truth, watched == weak)
             for truth in (rng.integers(0, 2, 50), rng.integers(0, 2, 50))]
    assert found[0]['weak']['step'] == found[1]['weak']['step']
    assert found[0]['best']['accuracy'] >= max(found[0]['weak']['accuracy'], found[0]['final']['accuracy'])
    assert found[0]['best']['step'] != found[1]['best']['step']


def test_curves_mark_students_and_the_ceiling(artifact):
    rng, truth = np.random.default_rng(0), np.arange(60) % 2
    targets = {}
    for seed in (0, 1):
        weak = _answers(rng, truth, .7)
        targets['weak', 'weak', seed] = _trained(artifact, f'weak{seed}', weak, weak[:40])
        # First the supervisor's answers, then the truth: overfitting in reverse, so that the stops differ.
        watched = [weak[:40], truth[:40], 1 - truth[:40]]
        targets['student', 'xent', seed] = _trained(artifact, f'student{seed}', truth, *watched)
        targets['ceiling', 'ceiling', seed] = _trained(artifact, f'ceiling{seed}', truth, *watched[::-1])
    found = {c['label']: c for c in evaluation.curves(*_section({}, truth, [0, 1], targets))}
    assert 'stops' not in found['weak'] and set(found['ceiling']['stops']) == {'best', 'final'}
    student = found['xent']['stops']
    assert [student[k]['step'] for k in ('weak', 'best', 'final')] == [0, 1, 2]
    assert student['best']['accuracy'] == 1 and student['final']['accuracy'] == 0
    assert student['weak']['accuracy'] == pytest.approx(found['xent']['accuracy']['mean'][0])
    json.dumps(list(found.values()), allow_nan=False)


def test_curves_say_where_a_rule_stopped_every_seed(artifact):
    truth = np.arange(60) % 2
    targets = {('student', 'xent', seed): _trained(artifact, f'student{seed}', truth, truth[:40], 1 - truth[:40])
               for seed in (0, 1)} | {('ceiling', 'ceiling', seed): _trained(artifact, f'c{seed}', truth, truth[:40])
                                      for seed in (0, 1)}
    for key, step in (('student', 1), ('student', 0)):
        targets[key, 'xent', step].metrics['stopped'] = {'step': 7 + step, 'scores': [.1]}
    targets['ceiling', 'ceiling', 1].metrics['stopped'] = {'step': 3, 'scores': [.1]}
    targets |= {('weak', 'weak', seed): np.eye(2)[truth] for seed in (0, 1)}
    found = {c['label']: c for c in evaluation.curves(*_section({}, truth, [0, 1], targets))}
    assert found['xent']['stopped'] == [7, 8] and 'stopped' not in found['ceiling']  # nor if one seed was not


def _trained(artifact, name, answers, *watched):
    return artifact(name, answers, loss=np.ones(8, np.float32), watched=np.stack(watched).astype(np.int32),
                    watched_steps=np.arange(len(watched)))


def test_weak_labels_that_came_with_the_data_mark_a_stop_too(artifact):
    truth = np.arange(20) % 2
    targets = {('weak', 'weak', 0): np.eye(2)[truth], ('ceiling', 'ceiling', 0): np.eye(2)[truth],
               ('student', 'xent', 0): _trained(artifact, 'student', truth, 1 - truth[:10], truth[:10], 1 - truth[:10])}
    found, = evaluation.curves(*_section({}, truth, [0], targets))
    assert found['stops']['weak'] == {'step': 1, 'accuracy': 1.}


def test_comparisons_are_those_of_paired_seeds(artifact):
    rng, truth = np.random.default_rng(0), np.arange(400) % 2
    runs = {name: np.stack([_answers(rng, truth, rate) for _ in range(3)]) for name, rate in (('a', .9), ('b', .6))}
    needs = {f'{n}{s}': artifact(f'{n}{s}', v) for n, rows in runs.items() for s, v in enumerate(rows)}
    needs['truth'] = truth
    who = {'task': 't', 'teacher': 'small', 'student': 'big', 'settings': {'x': 1}, 'loss': 'a', 'baseline': 'b'}
    pairs = [who | {'a': ['a0', 'a1', 'a2'], 'b': ['b0', 'b1', 'b2']}, who | {'a': ['b0'], 'b': ['b0']},
             who | {'a': ['b0', 'b1', 'b2'], 'b': ['a0', 'a1', 'a2']}]
    first, same, back = evaluation.compare_all({'pairs': pairs, 'resamples': 500}, needs)['comparisons']
    right = [runs[n] == truth for n in 'ab']
    assert first == who | metrics.paired_difference(*right, resamples=500) | {'p': metrics.paired_p(*right)}
    assert first['low'] > .2 and first['p'] < .01
    assert same['p'] == 1 and same['mean'] == same['low'] == 0
    assert back['mean'] == -first['mean'] and back['p'] == pytest.approx(first['p'])
    json.dumps([first, same, back], allow_nan=False)


def test_a_student_is_compared_by_hand():
    """Ten rows: the weak model is right on five, the student on seven, the ceiling on nine."""
    truth = np.arange(10) % 2

    def answers(*wrong):
        says = np.where(np.isin(np.arange(10), wrong), 1 - truth, truth)
        return [{'top': np.stack([says, 1 - says], 1), 'top_probability': np.full((10, 2), .5)}]
    weak, student, ceiling = answers(0, 1, 2, 3, 4), answers(0, 1, 9), answers(9)
    np.testing.assert_array_equal(evaluation.correct(student, truth), [~np.isin(np.arange(10), [0, 1, 9])])
    how = {'group': None, 'resamples': 100}
    found = evaluation.compare(student, weak, ceiling, truth, how)
    assert found['pgr_seeds'] == pytest.approx([.5]) and found['gain']['mean'] == pytest.approx(.2)
    assert {k: v['mean'] for k, v in found['agreement'].items()} == pytest.approx(
        {'all': .6, 'weak_right': .8, 'weak_wrong': .4})
    assert evaluation.compare(student, None, ceiling, truth, how) == {}


def test_labels_are_as_right_as_those_of_their_rows(artifact):
    truth, rows = np.array([0, 1, 1, 0, 1, 0]), np.array([1, 2, 5])
    soft = np.array([[.2, .8], [.7, .3], [.9, .1]])  # right, wrong, right
    needs = {'labels_truth': truth, 'labels/0': soft, 'labels_rows/0': rows, 'labels/1': soft.argmax(-1),
             'labels_rows/1': rows[::-1]}
    assert evaluation.label_quality(needs, [0, 1])['seeds'] == pytest.approx([2 / 3, 0])


def test_labels_that_came_with_the_data_answer_with_the_most_probable_class_first():
    found = evaluation.predictions(np.array([[.2, .5, .3], [.6, .1, .3]]))
    assert found['top'].tolist() == [[1, 2, 0], [0, 2, 1]]
    np.testing.assert_allclose(found['top_probability'], [[.5, .3, .2], [.6, .3, .1]])


def test_students_are_measured_by_the_first_by_themselves_untrained_and_by_the_most_frequent_class(artifact):
    rng, truth, seeds = np.random.default_rng(1), (np.arange(300) % 3 > 0).astype(int), (0, 1, 2)
    targets = {(role, label, s): artifact(f'{label}{s}', _answers(rng, truth, rate))
               for role, label, rate in (('weak', 'weak', .7), ('ceiling', 'ceiling', .95), ('student', 'xent', .8),
                                         ('student', 'mine', .9)) for s in seeds}
    needs = {'zero_shot': artifact('zero', _answers(rng, truth, .75)), 'labels_truth': np.array([1, 1, 0, 1])}
    needs |= {f'labels/{s}': np.eye(2)[[1, 1, 0, 1]] for s in seeds} | {f'labels_rows/{s}': np.arange(4) for s in seeds}
    answers, rows = _section(needs, truth, list(seeds), targets)
    answers.section |= {'resamples': 200, 'diagnostics': [], 'student': None}
    for row in rows.values():
        row['model'] = None
    found = evaluation.measured(answers, rows)
    assert found['majority']['accuracy']['mean'] == pytest.approx(2 / 3) and found['majority']['share_of_pool'] == .75
    first, mine = found['students']
    assert 'versus' not in first and mine['versus']['label'] == 'xent'
    gap = mine['accuracy']['mean'] - first['accuracy']['mean']
    assert mine['versus']['mean'] == pytest.approx(gap) and mine['versus']['low'] < gap < mine['versus']['high']
    beyond = mine['accuracy']['mean'] - found['zero_shot']['accuracy']['mean']
    assert mine['beyond_zero_shot']['mean'] == pytest.approx(beyond)
    for row in (found['weak'], found['zero_shot'], found['ceiling'], found['majority'], *found['students']):
        assert row['accuracy']['low'] < row['accuracy']['mean'] < row['accuracy']['high']
