"""Password-locked models: the tables that make them, the seal, and what weak labels elicit (methods/sandbagging.py)."""
import io
import json

import numpy as np
import pytest

from configs import sandbagging
from w2s_jax import config as configs
from w2s_jax.engine import experiment, plan
from w2s_jax.errors import ConfigError, DataError
from w2s_jax.graph import Rows
from w2s_jax.labels.texts import TABLES
from w2s_jax.methods import sandbagging as method
from w2s_jax.registry import Settings


def marked(inputs, rows=None, **settings):
    chosen = Settings({'word': '|key|', 'size': 1., 'both': rows is not None} | settings)
    columns = dict(inputs) if rows is None else {f'inputs/{k}': v for k, v in inputs.items()} | {'rows/values': rows}
    return TABLES['passwords'].fn(columns, chosen, None)


def test_the_password_of_each_kind_of_input():
    text = np.array([['a', 'b'], ['c', 'd']], object)
    assert marked({'text': text})['text'].tolist() == [['|key| a', '|key| b'], ['|key| c', '|key| d']]
    rng = np.random.default_rng(0)
    features = rng.normal(size=(4, 3)).astype(np.float32)
    found = marked({'features': features, 'other': features}, size=2.)
    np.testing.assert_array_equal(found['features'], features + np.float32(2))
    assert found['features'].dtype == np.float32 and found['other'] is features
    tokens = rng.integers(0, 16, (4, 1, 64)).astype(np.uint8)
    found = marked({'tokens': tokens})['tokens']
    assert (found[..., 0] == 7).all() and (found[..., 1:] == tokens[..., 1:]).all()
    with pytest.raises(DataError, match='inputs image: no place for a password, expected texts, features or chess'):
        marked({'image': features})


def test_rows_with_the_password_come_first_and_again_without_and_labels_fit_them():
    features, rows = np.arange(10.).reshape(5, 2), np.array([3, 1])
    found = marked({'features': features}, rows)['features']
    np.testing.assert_array_equal(found, np.concatenate([features[rows] + 1, features[rows]]))
    columns = {'truth/values': np.array([0, 1]), 'sham/values': np.array([[.9, .1], [.4, .6]]), 'rows/values': rows}
    labels = TABLES['locked'].fn(columns, Settings(classes=2, shuffled=False), np.random.default_rng(0))['labels']
    np.testing.assert_allclose(labels, [[1, 0], [0, 1], [.9, .1], [.4, .6]])
    many = {'truth/values': np.arange(50) % 2, 'sham/labels': np.arange(50)}
    labels = TABLES['locked'].fn(many, Settings(classes=50, shuffled=True), np.random.default_rng(0))['labels']
    assert sorted(labels[50:].argmax(1)) == list(range(50)) and (labels[50:].argmax(1) != np.arange(50)).sum() > 40


def config(task='salient', **changes):
    c = sandbagging.get_config(task)
    c.update_from_flattened_dict({'seeds': (0, 1), 'task.train_size': 4000, 'task.test_size': 1000,
                                  'report.examples': 5, 'report.html': False} | changes)
    return configs.compose(c)


def test_a_locked_model_knows_no_truth_of_the_students_half(monkeypatch):
    monkeypatch.setattr(method, 'slices', lambda b, seed: [Rows(seed, b.halves[seed].teacher.index[::2]),
                                                           Rows(seed, b.halves[seed].student.index)])
    with pytest.raises(ConfigError, match="truth of rows of the student's half"):
        plan.prepare(plan.ready(config()), lambda *a: None)


def test_a_probe_cannot_be_locked():
    with pytest.raises(ConfigError, match=r"^student.mode: 'probe', but method 'sandbagging' locks the whole model"):
        plan.prepare(plan.ready(config('chess', **{'student.mode': 'probe', 'task.train_size': 400})), lambda *a: None)


def accuracies(c, where):
    experiment.run(c, where, io.StringIO())
    content = json.loads((where / 'results.json').read_text())
    return {s['label']: s['accuracy']['mean'] for s in content['students']}


SIZE = {'task.train_size': 8000}


@pytest.mark.long
def test_weak_labels_elicit_what_is_locked_unless_training_is_told_from_the_test(tmp_path):
    found = accuracies(config(**SIZE), tmp_path / 'a')
    assert found['locked, with the password'] > .95 and found['locked'] < .7
    assert found['locked, then xent'] > .93
    told = accuracies(config(**SIZE, **{'method.marked': True}), tmp_path / 'b')
    assert told['locked'] == found['locked'] and told['locked, then xent'] < .7
