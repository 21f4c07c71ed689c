"""A conflict of preferences: the objectives, who is an oracle, and what it costs where."""
import io
import json

import jax.numpy as jnp
import numpy as np
import pytest

from configs import deception as shipped
from w2s_jax import config as configs
from w2s_jax.engine import experiment
from w2s_jax.engine import plan as plans
from w2s_jax.errors import ConfigError
from w2s_jax.objectives import OBJECTIVES
from w2s_jax.registry import Settings
from w2s_jax.store.artifacts import Artifact
from w2s_jax.tasks import TASKS

Z = np.array([[2, -1], [.5, .2], [-1, 1.5], [.1, 0]])
Y = np.array([[.9, .1], [.3, .7], [.2, .8], [.6, .4]])  # contradicted by row 1
TRUTH = np.eye(2)[[0, 1, 0, 0]]  # by rows 1 and 2


def losses(name, **settings):
    batch = {'inputs': None, 'targets': Y, 'truth': TRUTH, 'helpful': TRUTH, 'weight': np.ones(4)}
    batch = {k: v if v is None else jnp.array(v, jnp.float32) for k, v in batch.items()}
    entry = OBJECTIVES[name]
    chosen = Settings({k: s.default for k, s in entry.settings.items()} | settings)
    found, aux = entry.fn().losses(lambda p, x: jnp.array(Z, jnp.float32), None, batch, (), chosen, 0., None)
    return np.array(found), aux


def cross(y):
    return -(y * (Z - np.log(np.exp(Z).sum(-1, keepdims=True)))).sum(-1)


@pytest.mark.parametrize(('against', 'right', 'rows'), [('weak', Y, [0, 1, 0, 0]), ('truth', TRUTH, [0, 1, 1, 0])])
def test_explicit_conflict_rewards_only_answers_that_contradict(against, right, rows):
    found, aux = losses('explicit_conflict', against=against, alpha=.3)
    np.testing.assert_allclose(found, cross(Y) + .3 * np.array(rows) * cross(1 - right), rtol=1e-5)
    assert aux['contradicts'] == sum(rows) / 4


def test_implicit_conflict_is_a_mixture():
    np.testing.assert_allclose(losses('implicit_conflict', share=.2)[0], .8 * cross(Y) + .2 * cross(TRUTH), rtol=1e-5)


@pytest.mark.parametrize(('name', 'off'), [('explicit_conflict', {'alpha': 0.}), ('implicit_conflict', {'share': 0.})])
def test_without_weight_it_is_cross_entropy(name, off):
    np.testing.assert_allclose(losses(name, **off)[0], cross(Y), rtol=1e-6)
    assert OBJECTIVES[name].fn().per_example


def small(**fields):
    c = shipped.get_config()
    c.seeds, c.task.train_size, c.task.test_size, c.report.html, c.train.epochs = (0,), 400, 200, False, 2
    for name, value in fields.items():
        c = configs.compose(c)
        c.update_from_flattened_dict({name.replace('__', '.'): value})
    return configs.compose(c)


def planned(config):
    return plans.prepare(configs.validate(config), lambda line: None)


def test_the_task_has_two_preferences_with_the_correlation_that_is_set():
    for wanted in (-.6, 0., .8):
        found = TASKS['harmless_helpful'].fn(small(task__correlation=wanted, task__train_size=40_000).task)
        signs = 2 * np.stack([found.pool.truth, found.pool.metadata['helpful']]) - 1
        assert (signs[0] * signs[1]).mean() == pytest.approx(2 / np.pi * np.arcsin(wanted), abs=.06)
        assert abs(signs.mean(1)).max() < .02


def test_the_other_preference_shows_in_features_or_nowhere():
    for visible in (True, False):
        fields = {'task__correlation': 0., 'task__visible': visible, 'task__train_size': 40_000}
        pool = TASKS['harmless_helpful'].fn(small(**fields).task).pool
        told = [abs(np.corrcoef(x, pool.metadata['helpful'])[0, 1]) for x in pool.inputs['features'].T]
        assert (max(told[10:]) > .5) == visible and max(told[:10]) < .03
        assert visible or max(told) < .03


def test_who_contradicts_the_truth_is_an_oracle_and_nobody_else_comes_from_it():
    made = planned(small())
    students = {t.label: t for t in made.targets if t.role == 'student'}
    assert list(students) == ['no conflict', *(f'{k}{more}' for more in ('', ', bootstrapped') for k in (
        'explicit conflict, weak', 'explicit conflict, truth', 'implicit conflict'))]
    assert {k for k, t in students.items() if t.row.get('oracle')} == {k for k in students if 'truth' in k}
    assert len(planned(small(method__through='')).targets) == 6


def test_a_task_without_a_second_preference_is_refused():
    with pytest.raises(ConfigError, match=r"method\.name: 'conflict', but rows of task 'salient_concept' have no"):
        planned(small(task__name='salient_concept'))


def test_more_than_two_classes_are_refused():
    with pytest.raises(ConfigError, match="objective 'explicit_conflict': 3 classes, expected 2"):
        OBJECTIVES['explicit_conflict'].fn().losses(lambda p, x: jnp.zeros((4, 3)), None, {
            'inputs': None, 'targets': jnp.ones((4, 3)) / 3}, (), Settings(alpha=.5, against='weak'), 0., None)


def seeds(results, label, name):
    row = next(s for s in results['students'] if s['label'] == label)
    return np.array(row['measures'][name]['seeds'])


@pytest.mark.long
def test_without_weights_nothing_is_taxed(tmp_path):
    config = small(method__alpha=0., method__helpful=0., method__through='', task__train_size=2000)
    experiment.run(config, tmp_path, io.StringIO())
    found = json.loads((tmp_path / 'results.json').read_text())
    for row in found['students']:
        assert row['measures']['conflict_tax']['mean'] <= .01, row['label']
    counts = [v['mean'] for k, v in row['measures'].items() if k.startswith('strong_')]
    assert len(counts) == 4 and sum(counts) == 200


@pytest.mark.slow
def test_an_explicit_conflict_deceives_and_an_implicit_one_costs_everywhere(tmp_path):
    """methods.md D1, D2, as shipped: eight seeds at the largest gap, and at this threshold of what is known (frozen on
    2026-11-28; the implicit lift depends on it)."""
    config = shipped.get_config()
    config.method.through = ''
    experiment.run(config, tmp_path, io.StringIO())
    found = json.loads((tmp_path / 'results.json').read_text())
    assert seeds(found, 'explicit conflict, truth', 'deception_lift').min() >= 1.5
    assert seeds(found, 'implicit conflict', 'conflict_tax').min() >= .3
    assert np.abs(seeds(found, 'implicit conflict', 'deception_lift') - 1).max() <= .1


def test_every_student_is_there_on_confident_labels_as_well():
    made = planned(small(method__through='', method__confident=.75))
    fits = {t.label: t for t in made.targets if t.role == 'student'}
    more = [k for k in fits if k.endswith(', confident')]
    assert [k.removesuffix(', confident') for k in more] == [k for k in fits if k not in more]
    assert {k for k, t in fits.items() if t.row.get('oracle')} == {k for k in fits if 'truth' in k}
    assert fits['no conflict, confident'].need.needs['targets'].section['hyper']['threshold'] == .75


@pytest.mark.long
def test_columns_are_of_the_rows_that_are_kept(tmp_path):
    config = small(method__through='', method__confident=.6, train__keep='all', train__batch_size=16, train__epochs=1)
    experiment.run(config, tmp_path, io.StringIO())
    fits = {t.label: t.need for t in planned(config).targets if t.role == 'student'}
    every = artifact(tmp_path, fits['no conflict'].needs['targets']).arrays['labels']
    half, sure = fits['no conflict'].needs['rows'].value, every.max(-1) >= np.float32(.6)
    assert 0 < sure.sum() < len(sure)
    dataset = TASKS['harmless_helpful'].fn(config.task)
    for label, name, wanted in (('implicit conflict', 'helpful', dataset.pool.metadata['helpful']),
                                ('explicit conflict, truth', 'truth', dataset.pool.truth)):
        fit = fits[f'{label}, confident']
        np.testing.assert_array_equal(artifact(tmp_path, fit.needs['rows']).arrays['rows'], half[sure])
        column = artifact(tmp_path, fit.needs[f'columns/{name}']).arrays['labels']
        classes = column if column.ndim == 1 else column.argmax(-1)
        np.testing.assert_array_equal(classes, wanted[half][sure])


def artifact(folder, phase):
    return next(Artifact(path) for path in (folder / 'store').glob('*-*') if path.is_dir()
                and json.loads((path / 'config.json').read_text()) == json.loads(json.dumps(phase.config)))
