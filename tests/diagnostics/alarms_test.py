"""Alarms: each is raised by what it is about, and by nothing else."""
import pytest

from w2s_jax import config as configs
from w2s_jax.diagnostics import alarms
from w2s_jax.errors import ConfigError


def accuracy(mean, half=.02, seeds=3):
    return {'mean': mean, 'low': mean - half, 'high': mean + half, 'seeds': [mean] * seeds}


def results(**changes):
    """Those of an experiment without anything doubtful, with changes to its accuracies."""
    means = {'weak': .6, 'student': .7, 'ceiling': .8, 'majority': .5, 'share': .5, 'zero_shot': .55, 'seeds': 3}
    means |= changes
    student = {'label': 'xent', 'model': 'm', 'accuracy': accuracy(means['student'], seeds=means['seeds']),
               'pgr': {'defined': changes.get('defined', True)}} | changes.get('more', {})
    return {'weak': {'accuracy': accuracy(means['weak'])}, 'ceiling': {'accuracy': accuracy(means['ceiling'])},
            'majority': {'accuracy': accuracy(means['majority']), 'share_of_pool': means['share']},
            'zero_shot': {'model': 'm', 'accuracy': accuracy(means['zero_shot'])},
            'students': [student, student | {'label': 'rung 1: m', 'parameters': 10, 'supervisor': ''}]}


def curve(best, final):
    return {'label': 'xent', 'kind': 'student', 'stops': {'best': {'accuracy': best}, 'final': {'accuracy': final}}}


CHAIN = {'supervisor': 'rung 1: m', 'parameters': 9}
CASES = [
    ('leak', {}, {'leak': {'warning': 'the first word tells'}}, []),
    ('undefined_gap', {'defined': False}, {}, []),
    ('ceiling_below_teacher', {'ceiling': .58}, {}, []),
    ('ceiling_at_majority', {'ceiling': .91, 'weak': .95, 'majority': .9, 'student': .93}, {}, []),
    ('weak_at_majority', {'weak': .51}, {}, []),
    ('below_zero_shot', {'zero_shot': .75}, {}, []),
    ('below_supervisor', {'more': {'tests': {'books': {'gain': {'mean': -.05, 'low': -.08, 'high': -.01}}}}}, {}, []),
    ('shrinks', {'more': CHAIN}, {}, []),
    ('fell', {}, {}, [curve(.75, .7)]),
    ('unbalanced', {'share': .7}, {}, []),
    ('one_seed', {'seeds': 1}, {}, []),
]


def codes(changes, task, curves, accept=()):
    found = alarms.raised({'classes': 2} | task, results(**changes), curves, accept)
    return {a['code'] for a in found if not a['accepted']}


def test_nothing_is_raised_without_a_reason():
    assert codes({}, {}, [curve(.71, .7)]) == set()


def test_a_student_that_may_be_as_good_elsewhere():
    unsure = {'tests': {'books': {'gain': {'mean': -.05, 'low': -.11, 'high': .01}}, 'games': {'accuracy': {}}}}
    assert alarms.raised({'classes': 2}, results(more=unsure), [curve(.7, .7)]) == []



@pytest.mark.parametrize(('code', 'changes', 'task', 'curves'), CASES, ids=[c[0] for c in CASES])
def test_an_alarm_is_raised_until_it_is_accepted(code, changes, task, curves):
    assert code in codes(changes, task, curves)
    assert code not in codes(changes, task, curves, (code,))


def test_every_alarm_is_tried():
    assert {c[0] for c in CASES} == set(alarms.ALARMS)


@pytest.mark.parametrize('parameters', [10, 11, None])
def test_a_chain_that_grows_or_keeps_its_size_does_not_shrink(parameters):
    assert codes({'more': CHAIN | {'parameters': parameters}}, {}, []) == set()


def test_a_student_that_a_rule_has_stopped_has_not_fallen():
    assert codes({'more': {'stopped': {'steps': [3]}}}, {}, [curve(.75, .7)]) == set()


def test_only_codes_that_there_are_can_be_accepted():
    c = configs.default_config()
    c.report.accept = ('leek',)
    with pytest.raises(ConfigError, match=r"report.accept: unknown 'leek'.*did you mean 'leak'"):
        configs.validate(c)
