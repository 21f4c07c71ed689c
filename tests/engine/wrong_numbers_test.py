"""Numbers that were wrong without a word, once. (Stale results: tests/plugins; leaked truth: truth_test.py.)"""
import io

import numpy as np
import pytest

from configs import salient_concept
from w2s_jax import config as configs
from w2s_jax.engine import experiment
from w2s_jax.engine import plan as plans
from w2s_jax.errors import ConfigError
from w2s_jax.graph import Phase, Source
from w2s_jax.phases import context
from w2s_jax.tasks.chess import puzzles


def test_phases_that_differ_in_what_is_not_traced_do_not_merge():
    """A static setting that has the name of one that another kind traces."""
    def phase(static, traced):
        return Phase('fit', {'temperature': static, 'hyper': {'seed': 0, 'temperature': traced}},
                     {'inputs': Source('x', [])}, '')
    assert phase(1., .5).group == phase(1., .7).group != phase(2., .5).group


@pytest.mark.skipif(not puzzles.PUZZLES.exists(), reason=f'{puzzles.PUZZLES} is not there')
def test_one_rung_in_two_dtypes_is_two_models():
    config = configs.default_config()
    config.task.train_size, config.task.test_size, config.seeds = 200, 50, (0,)
    config.teacher.model = config.student.model = 'chess-xs'
    config.student.dtype = 'bfloat16'
    made = plans.prepare(configs.validate(config), lambda line: None)
    found = {p.role: context.model_of(p.section, made.models) for p in made.phases if p.role in ('teacher', 'student')}
    assert found == {role: made.models[role] for role in ('teacher', 'student')}
    assert found['teacher'].identity != found['student'].identity
    unknown = {'model': found['student'].identity | {'mode': 'other'}}
    with pytest.raises(ConfigError, match=r"^model 'chess-xs': not among"):
        context.model_of(unknown, made.models)


def test_a_loss_that_is_not_the_student_s_own_has_its_defaults_and_not_zero():
    config = salient_concept.get_config()
    config.method.baselines, config.student.loss.name = ('confidence',), 'xent'
    made = plans.prepare(configs.validate(config), lambda line: None)
    losses = {p.section['objective']['name']: p.section['hyper']['loss'] for p in made.phases if p.role == 'student'}
    assert losses == {'confidence': {'alpha': .5, 'alpha_warmup': .2}, 'xent': {}}


def test_labels_of_one_run_are_unique(tmp_path):
    config = salient_concept.get_config()
    config.method.baselines, config.student.loss.name = ('xent', 'xent'), 'xent'
    config.seeds, config.task.train_size, config.task.test_size = (0,), 200, 100
    config.train.epochs, config.report.html = 1, False
    found = experiment.run(config, tmp_path, io.StringIO())
    assert [s['label'] for s in found['students']] == ['xent']
    assert np.isfinite(found['students'][0]['accuracy']['mean'])
