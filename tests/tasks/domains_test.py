"""The task with a spurious sign: what is correlated with what, in which domain, and how far models can tell."""
import numpy as np
import pytest
from scipy.stats import norm
from sections import task

from w2s_jax.errors import ConfigError
from w2s_jax.tasks import TASKS


def load(**fields):
    return TASKS['spurious_domains'].fn(task('spurious_domains', **fields))


def core_and_sign(rows, name):
    """Numbers `[N]` about plus and minus the lengths of the means: of the core, and of the sign."""
    half = rows.inputs[name].shape[1] // 2
    return (rows.inputs[name][:, part].sum(1) / half ** .5 for part in (slice(0, half), slice(half, None)))


def test_every_group_has_a_row_of_each_domain_and_tests_are_the_students_domain():
    dataset = load(train_size=402, test_size=50)
    domain, group = dataset.pool.metadata['domain'], dataset.pool.group
    assert len(dataset.pool) == 400 and np.unique(np.stack([group, domain]), axis=1).shape[1] == 400
    assert (dataset.test.metadata['domain'] == 3).all() and len(np.unique(dataset.test.group)) == 50
    assert dataset.pool.given is None and abs(dataset.pool.truth.mean() - .5) < .1


def test_correlations_and_lengths():
    dataset = load(train_size=80_000, test_size=20_000, attenuation=.1, correlation=-.4)
    for rows in (dataset.pool, dataset.test):
        truth, domain = 2. * rows.truth - 1, rows.metadata['domain']
        for name, core_length, sign_length in (('weak', 1, 2), ('features', 2, 1)):
            core, sign = core_and_sign(rows, name)
            assert (core * truth).mean() == pytest.approx(core_length, abs=.03)
            assert (core - core_length * truth).std() == pytest.approx(1, abs=.02)
            for d in np.unique(domain):
                at = domain == d
                wanted = (.95, .9, 0, -.4)[d] * sign_length
                assert (sign * truth)[at].mean() == pytest.approx(wanted, abs=.06), (name, d)


def test_attenuation_is_how_far_the_student_sees_the_sign():
    for attenuation, length in ((0., 0), (.05, .5), (.2, 2)):
        rows = load(train_size=40_000, attenuation=attenuation).pool
        weak, strong = (list(core_and_sign(rows, name))[1] for name in ('weak', 'features'))
        agree = (np.sign(weak) == np.sign(strong)).mean()
        p, q = norm.cdf(2), norm.cdf(length)
        assert agree == pytest.approx(p * q + (1 - p) * (1 - q), abs=.01)


def test_the_seed_draws_and_test_rows_are_others():
    a, b, c = (load(train_size=400, test_size=400, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a.pool.inputs['weak'], b.pool.inputs['weak'])
    assert not np.array_equal(a.pool.inputs['weak'], c.pool.inputs['weak'])
    assert not np.isin(a.test.inputs['weak'][:, 0], a.pool.inputs['weak'][:, 0]).any()


@pytest.mark.parametrize(('fields', 'said'), [
    ({'attenuation': 1.5}, 'task.attenuation: 1.5, expected a number in [0, 1]'),
    ({'train_size': 3}, 'task.train_size: 3 and task.test_size: 4000, expected at least 4 and 1')])
def test_bad_settings_end_in_one_line(fields, said):
    with pytest.raises(ConfigError) as e:
        from w2s_jax import config as configs
        c = configs.default_config()
        c.task.name = 'spurious_domains'
        c = configs.compose(c)
        c.task.update(fields)
        c.teacher.model = c.student.model = 'linear'
        load(**fields) if 'train_size' in fields else configs.validate(c)
    assert said in str(e.value) and '\n' not in str(e.value)
