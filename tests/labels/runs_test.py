"""Transforms in a run: composed, swept, and what results.json says of them."""
import io
import json
import types

import numpy as np
import pytest
import tiny
from words import own, sentences

from w2s_jax import config as configs
from w2s_jax.engine import experiment, grid, sweep
from w2s_jax.errors import ConfigError
from w2s_jax.labels import changes
from w2s_jax.store.artifacts import Artifact


def config(*transforms):
    c = configs.default_config()
    c.task.name, c.student.model, c.labels.source = 'salient_concept', 'mlp-32', 'column'
    c.task.train_size, c.task.test_size, c.seeds, c.method.baselines = 800, 400, (0, 1), ()
    c.train.epochs, c.optimizer.learning_rate, c.report.html = 1, 5e-3, False
    c.labels.transforms = transforms
    return c


def test_two_filters_and_a_transform_in_a_run(tmp_path):
    results = experiment.run(config('smooth', 'probe', 'knn'), tmp_path, out := io.StringIO())
    found = results['weak']['transformed']
    smooth, probe, knn = found['steps']
    assert [step['name'] for step in found['steps']] == ['smooth', 'probe', 'knn']
    assert smooth['rows']['mean'] == 1 and smooth['dropped'] is None and smooth['before'] == found['before']
    assert knn['kept']['mean'] == found['kept']['mean'] and knn['before'] == probe['kept']
    np.testing.assert_allclose(np.multiply(probe['rows']['seeds'], knn['rows']['seeds']), found['rows']['seeds'])
    left = probe['rows']['seeds'][1]
    assert f'labels, probe: seed 1: {400 * left:.0f} of 400 rows kept; classes per cent ' in out.getvalue()
    assert found['before']['mean'] == pytest.approx(.75, abs=.05)
    assert found['kept']['mean'] == results['weak']['labels']['mean'] > .9 > found['before']['mean']
    share, kept, dropped, before = (np.array(found[k]['seeds']) for k in ('rows', 'kept', 'dropped', 'before'))
    np.testing.assert_allclose(share * kept + (1 - share) * dropped, before)
    assert dropped.max() < .6 and found['relabelled']['mean'] == 0
    assert found['relabelled_before'] is found['relabelled_after'] is None
    trained = [Artifact(tmp_path / 'store' / f'fit-{i}') for i in results['students'][0]['ids']]
    rows = [one.metrics['rows'] / 400 for one in trained]
    assert rows == found['rows']['seeds'] and max(rows) < .8
    steps = {phase['name']: phase for phase in results['timing']['phases']}
    assert {'labels, smooth', 'labels, probe', 'labels, knn'} <= steps.keys()


@pytest.mark.long
def test_a_traced_setting_of_one_of_two_transforms_sweeps(tmp_path):
    cells = sweep.values('labels.small_loss.share', [.6, .8, 1.])
    found = grid.run(config('temperature', 'small_loss'), cells, tmp_path / 'grid', io.StringIO())
    assert not any(cell['failed'] for cell in found['cells'])
    assert len([p for p in found['phases'] if p['name'] == 'labels, small_loss']) == 6
    kept = [Artifact(path).metrics for path in sorted((tmp_path / 'grid' / 'store').glob('transform-*'))]
    assert sorted(m['rows'] - m['dropped'] for m in kept) == sorted([240, 240, 320, 320, 400, 400, 400, 400])
    assert all(np.isclose(sum(m['shares'][k]), 1) for m in kept for k in ('before', 'after'))


def test_a_run_without_transforms_says_nothing_of_them(tmp_path):
    assert 'transformed' not in experiment.run(config(), tmp_path, io.StringIO())['weak']


def test_a_transform_named_twice(tmp_path):
    with pytest.raises(ConfigError, match=r"^labels.transforms: \('noise', 'noise'\), expected each once"):
        experiment.run(config('noise', 'noise'), tmp_path, io.StringIO())


def test_changes_by_hand():
    """Rows 3, 5, 7, 9 of the pool: one dropped, which was wrong; one relabelled, now right; two as they were."""
    kept = {'labels': np.array([[.1, .9], [.8, .2], [.6, .4]]), 'rows': np.array([3, 5, 9])}
    truth = np.full(10, 7)
    truth[[3, 5, 7, 9]] = [1, 0, 1, 1]
    needs = {'labels_truth': truth, 'labels/0': types.SimpleNamespace(arrays=kept),
             'labels_before_rows/0': np.array([3, 5, 7, 9]),
             'labels_before/0': np.array([[.2, .8], [.3, .7], [.9, .1], [.7, .3]])}
    found = changes.transformed(needs, [0])['transformed']
    shares = {k: [one['mean'] for one in found.pop(f'classes_{k}')] for k in ('before', 'after')}
    assert found.pop('steps') == []
    assert {k: v and v['mean'] for k, v in found.items()} == pytest.approx({
        'before': .25, 'rows': .75, 'kept': 1 / 3, 'dropped': 0, 'relabelled': 1 / 3, 'relabelled_before': 0,
        'relabelled_after': 1})
    assert shares == {'before': [.5, .5], 'after': pytest.approx([2 / 3, 1 / 3])}
    assert changes.transformed({}, [0]) == {}


def test_every_transform_is_told_by_itself():
    """The first drops row 5, which was right, the second gives row 7 another answer, and drops row 9."""
    labels = [(np.array([1, 0, 0, 1]), np.array([3, 5, 7, 9])), (np.array([1, 0, 1]), np.array([3, 7, 9])),
              (np.array([1, 1]), np.array([3, 7]))]
    first, second, last = (types.SimpleNamespace(arrays={'labels': a, 'rows': rows}) for a, rows in labels)
    truth = np.full(10, 7)
    truth[[3, 5, 7, 9]] = [1, 0, 1, 0]
    needs = {'labels_truth': truth, 'labels/0': last, 'labels_before/0': first, 'labels_after/a/0': second,
             'labels_after/b/0': last}
    found = changes.transformed(needs, [0], ('a', 'b'))['transformed']
    one, two = found['steps']
    assert (one['name'], two['name']) == ('a', 'b')
    told = lambda step, *names: [step[k] and step[k]['mean'] for k in names]
    assert told(one, 'rows', 'before', 'kept', 'dropped', 'relabelled') == pytest.approx([.75, .5, 1 / 3, 1, 0])
    assert told(two, 'rows', 'before', 'kept', 'dropped', 'relabelled') == pytest.approx([2 / 3, 1 / 3, .5, 0, .5])
    assert told(found, 'rows', 'before', 'kept', 'dropped', 'relabelled') == pytest.approx([.5, .5, .5, .5, .5])
    assert [c['mean'] for c in two['classes_after']] == [0, 1]


def test_contrasts_of_texts_with_either_answer(tmp_path):
    """The student's frozen model reads every text with both words behind it, and labels come from that alone."""
    tiny.folder(tmp_path / 'tiny')
    (tmp_path / 'rows.jsonl').write_text('\n'.join(map(json.dumps, sentences(200))))
    c = configs.compose(own(tmp_path / 'tiny', tmp_path / 'rows.jsonl', **{
        'labels.transforms': ('ccs',), 'student.mode': 'probe'}))
    c.labels.ccs.words = ('bad', 'good')
    results = experiment.run(c, tmp_path / 'run', io.StringIO())
    assert results['weak']['transformed']['rows']['mean'] == 1
    made = [Artifact(path).arrays['text'] for path in sorted((tmp_path / 'run' / 'store').glob('table-*'))]
    assert len(made) == 1 and made[0].shape[1] == 2
    assert all(row[0].endswith('Answer: bad') and row[1].endswith('Answer: good') for row in made[0])
    c.labels.ccs.template = 'no text'
    with pytest.raises(ConfigError, match=r"^labels.ccs.template: 'no text', expected {text} once"):
        experiment.run(c, tmp_path / 'other', io.StringIO())


def test_contrasts_need_texts(tmp_path):
    with pytest.raises(ConfigError, match=r"^labels.transforms: 'ccs' on task 'salient_concept', expected one text"):
        experiment.run(config('ccs'), tmp_path, io.StringIO())
