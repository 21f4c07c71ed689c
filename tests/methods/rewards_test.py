"""Reinforcement learning from weak preferences and on-policy distillation as experiments: plans, and whole runs."""
import io
import json

import numpy as np
import pytest
import tiny
from policy_test import config, pairs, prepared

from w2s_jax import config as configs
from w2s_jax.engine import experiment
from w2s_jax.errors import ConfigError


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('on_policy')
    tiny.folder(folder / 'tiny')
    (folder / 'pairs.jsonl').write_text('\n'.join(map(json.dumps, pairs(80))))
    return folder


def made(folder, method, **changes):
    c = config(folder)
    c.method.name = method
    c = configs.compose(c)
    c.update_from_flattened_dict({'method.steps': 4, 'method.judged': 8, 'seeds': (0,), 'train.epochs': 1,
                                  'method.rounds': 3, 'method.asked': 4, 'method.group': 2, **changes})
    return c


def labelled(plan):
    return {p.label: p for p in plan.phases}


def test_a_policy_never_meets_the_truth(folder):
    phases = labelled(prepared(made(folder, 'rlhf')))
    student = phases['student grpo']
    assert student.needs['reward'] is phases['reward model'] and student.needs['start'] is phases['student sft']
    todo, seen = [student], set()
    while todo:
        phase = todo.pop()
        seen.add((phase.kind, phase.role, phase.sees_truth))
        todo += phase.before()
    assert ('fit', 'teacher', True) in seen and not any(truth for _, role, truth in seen if role != 'teacher')


def test_a_policy_by_the_true_reward_is_an_oracle(folder):
    plan = prepared(made(folder, 'rlhf', **{'method.true_reward': True}))
    rows = {t.label: t.row for t in plan.targets if t.role == 'student'}
    assert rows['grpo, true reward']['oracle'] and 'oracle' not in rows['grpo']


def test_settings_are_those_of_the_algorithm(folder):
    plan = prepared(made(folder, 'rlhf', **{'method.algorithms': ('grpo', 'ppo'), 'method.kl': .3,
                                            'method.policy_rate': 1e-4}))
    for name in ('grpo', 'ppo'):
        hyper = labelled(plan)[f'student {name}'].section['hyper']
        assert hyper['algorithm']['kl'] == .3 and hyper['learning_rate'] == 1e-4
    alone = labelled(prepared(made(folder, 'rlhf')))['student grpo'].section
    assert alone['hyper']['algorithm']['kl'] == .04 and alone['samples'] == 2


def test_what_is_distilled_is_the_weak_model_after_less_before(folder):
    student = labelled(prepared(made(folder, 'on_policy_distillation')))['student distill']
    assert student.needs['after'].needs['start'] is student.needs['before'] and 'reward' not in student.needs


@pytest.mark.parametrize(('changes', 'words'), [
    ({'method.algorithms': ('trpo',)}, r"method\.algorithms: unknown 'trpo', expected one of"),
    ({'method.steps': 0}, r'method\.steps: 0, expected')])
def test_bad_settings_are_one_line(folder, changes, words):
    with pytest.raises(ConfigError, match=words):
        prepared(configs.compose(made(folder, 'rlhf', **changes)))


@pytest.mark.long
@pytest.mark.parametrize(('method', 'changes', 'labels'), [
    ('rlhf', {'method.best_of': 3, 'train.epochs': 4},
     {'reward model', 'sft', 'dpo', 'grpo', 'best of 3, sft', 'best of 3, dpo'}),
    ('on_policy_distillation', {}, {'dpo', 'distilled'})])
def test_a_whole_experiment(folder, tmp_path, method, changes, labels):
    experiment.run(made(folder, method, **changes), tmp_path, io.StringIO())
    found = json.loads((tmp_path / 'results.json').read_text())
    rows = {s['label']: s for s in found['students']}
    assert set(rows) == labels
    for label, row in rows.items():
        assert np.isfinite(row['accuracy']['mean'])
        assert ('preferred' in row['measures']) == (label != 'reward model')
