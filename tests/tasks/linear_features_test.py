"""Features that count alike, models on the first of them, and what that says of simulation (configs/paper)."""
import io
import math

import jax
import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression

from configs.paper import e1_simulation
from w2s_jax import config as configs
from w2s_jax.engine import experiment
from w2s_jax.engine import plan as plans
from w2s_jax.errors import ConfigError
from w2s_jax.tasks import TASKS


def config(**fields):
    c = configs.compose(e1_simulation.get_config())
    c.update_from_flattened_dict({'report.html': False} | {k.replace('__', '.'): v for k, v in fields.items()})
    return c


def planned(c):
    return plans.prepare(configs.validate(c), lambda line: None)


def data(**fields):
    return TASKS['linear_features'].fn(configs.validate(config(**fields)).task)


def test_the_first_features_are_worth_what_the_angle_says():
    dataset = data(task__train_size=20000, task__test_size=20000)
    x, y = dataset.pool.inputs['features'], dataset.pool.truth
    assert x.shape == (20000, 20) and x.dtype == np.float32 and set(np.unique(y)) == {0, 1}
    for k in (5, 10, 20):
        model = LogisticRegression().fit(x[:, :k], y)
        found = model.score(dataset.test.inputs['features'][:, :k], dataset.test.truth)
        assert found == pytest.approx(1 - math.acos(math.sqrt(k / 20)) / math.pi, abs=.012), k
    assert (data().pool.inputs['features'] == data().pool.inputs['features']).all()
    assert not (data(task__seed=1).pool.truth == data().pool.truth).all()


def test_a_model_reads_only_the_first_features_and_is_linear_in_them():
    model = planned(config(teacher__features=3)).models['teacher']
    params = model.init(jax.random.key(0))
    assert model.num_params == 3 * 2 + 2 and not any(np.any(x) for x in jax.tree.leaves(params))
    params = jax.tree.map(lambda x: jax.random.normal(jax.random.key(x.size), x.shape), params)
    x = np.random.default_rng(0).normal(size=(6, 20)).astype(np.float32)
    changed = x.copy()
    changed[:, 3:] = 7
    np.testing.assert_array_equal(*(model.apply(params, {'features': v}) for v in (x, changed)))
    kernel, bias = (np.asarray(params['out'][k]) for k in ('kernel', 'bias'))
    np.testing.assert_allclose(model.apply(params, {'features': x}), x[:, :3] @ kernel + bias, atol=1e-5)


def test_all_features_by_default_and_each_number_an_identity_of_its_own():
    ids = [planned(config(teacher__features=k)).models['teacher'] for k in (3, 4)]
    assert ids[0].identity != ids[1].identity and ids[0].name == 'logistic-3'
    assert planned(config()).models['student'].name == 'logistic-20'


@pytest.mark.parametrize(('fields', 'said'), [
    ({'teacher__features': 21}, "teacher.features: 21, expected at most 20, the features of task 'linear_features'"),
    ({'task__width': 1}, 'task.width: 1, expected a number in [2, 10000]'),
    ({'task__train_size': 3}, 'task.train_size: 3 and task.test_size: 4000, expected at least 4 and 1'),
    ({'task__train_size': 10**8}, 'expected at most 12800000 together, which are made in memory')])
def test_bad_settings_end_in_one_line(fields, said):
    with pytest.raises(ConfigError) as e:
        planned(config(**fields))
    assert said in str(e.value) and '\n' not in str(e.value)


@pytest.mark.long
@pytest.mark.parametrize('features', [5, 10])
def test_a_student_gains_nothing_on_a_teacher_that_it_can_simulate_and_much_on_noise(tmp_path, features):
    """Ten seeds, a sign test each: p = .001 where all ten agree, .01 for nine."""
    found = experiment.run(config(teacher__features=features, task__train_size=6000), tmp_path, io.StringIO())
    weak = np.array(found['weak']['accuracy']['seeds'])
    naive, noise = (next(s for s in found['students'] if s['label'] == label)
                    for label in ('xent', 'random errors xent'))
    gain, more = (np.array(s['accuracy']['seeds']) - weak for s in (naive, noise))
    agrees = np.array(naive['agreement']['all']['seeds'])

    def surely(event):
        return stats.binomtest(int(event.sum()), len(event), alternative='greater').pvalue < .011
    assert surely(more > .1) and surely(agrees > weak + .15) and surely(abs(gain) < .02)
    assert abs(gain.mean()) < .01 and abs(naive['pgr']['mean']) < .05 and noise['pgr']['mean'] > .6
    # The control: who learns noise agrees with the teacher no more than by being right, and that is not all the time.
    other = np.array(noise['agreement']['all']['seeds'])
    assert noise['oracle'] and not surely(other > weak + .15) and surely(other < agrees - .2)
