"""Co-supervised learning: the graph of a hierarchy, who sees truth, and that specialists help where they differ."""
import io
import json

import numpy as np
import pytest

from configs import raven as shipped
from configs import salient_concept
from w2s_jax import config as configs
from w2s_jax.engine import experiment
from w2s_jax.engine import plan as plans
from w2s_jax.errors import ConfigError
from w2s_jax.labels import specialists
from w2s_jax.store.artifacts import Artifact


def small(start=salient_concept.get_config, **fields):
    c = start()
    c.seeds, c.task.train_size, c.task.test_size, c.train.epochs, c.report.html = (0,), 400, 200, 1, False
    c.teacher.model, c.student.model, c.labels.source = 'mlp-4', 'mlp-32', 'teacher'
    c.method.name, c.method.baselines, c.train.keep = 'cosupervised', (), 'all'
    return changed(c, **fields)


def changed(c, **fields):
    for name, value in fields.items():
        c = configs.compose(c)
        c.update_from_flattened_dict({name.replace('__', '.'): value})
    return configs.compose(c)


def spurious(**fields):
    c = shipped.get_config('cosupervised')
    c.seeds, c.report.html = (0, 1, 2), False
    return changed(c, **fields)


def planned(config):
    return plans.prepare(configs.validate(config), lambda line: None)


def students(made):
    return {t.label: t.need for t in made.targets if t.role == 'student'}


def artifact(folder, phase):
    return next(Artifact(path) for path in (folder / 'store').glob('*-*') if path.is_dir()
                and json.loads((path / 'config.json').read_text()) == json.loads(json.dumps(phase.config)))


def test_every_level_is_chosen_by_the_student_before_it(tmp_path):
    config = small(method__levels=(2,), method__label_noise=.05)
    experiment.run(config, tmp_path, io.StringIO())
    first, last = students(planned(config)).values()
    assert (first.role, last.role) == ('rung', 'student') and not last.sees_truth
    table = last.needs['targets']
    said = {k: artifact(tmp_path, need).arrays['labels'] for k, need in table.needs.items()}
    each = np.stack([said['pool/0'], said['pool/1']])
    who = specialists.nearest(each, said['student'])
    assert 0 < who.mean() < 1
    labels = artifact(tmp_path, table).arrays['labels']
    np.testing.assert_array_equal(labels, each[who, np.arange(len(who))])
    weights = artifact(tmp_path, last.needs['columns/weight']).arrays['labels']
    np.testing.assert_array_equal(weights, specialists.consistent(labels, said['student'], 1))
    assert table.needs['student'].needs['model'].id == first.id


def test_the_one_teacher_and_the_first_student_are_those_of_naive():
    made, naive = planned(small()), planned(small(method__name='naive'))
    for role in ('weak', 'ceiling'):
        mine, theirs = ([t.need.id for t in one.targets if t.role == role] for one in (made, naive))
        assert mine == theirs
    assert students(made)['xent, level 0'].id == students(naive)['xent'].id


def test_specialists_learn_neighbouring_domains_or_slices():
    made = planned(spurious())
    domain = np.arange(16000) % 4
    seen = {tuple(np.unique(domain[p.needs['rows'].value])) for t in made.targets for p in found(t.need)
            if p.role == 'teacher'}
    assert seen == {(0, 1, 2), (0, 1), (2,), (0,), (1,)}
    assert set(domain[students(made)['xent, level 2'].needs['rows'].value]) == {3}
    slices = [p.needs['rows'].value for t in planned(small(method__levels=(3,))).targets for p in found(t.need)
              if p.label.startswith('specialist')]
    assert {len(s) for s in slices} == {66} and len(np.unique(np.concatenate(slices))) == 198


def found(phase, seen=None):
    seen = {} if seen is None else seen
    for need in phase.needs.values():
        if hasattr(need, 'needs'):
            found(need, seen)
    seen[phase.id] = phase
    return seen.values()


def test_without_a_filter_every_row_is_learned():
    assert 'columns/weight' in students(planned(small()))['xent, level 1'].needs
    assert 'columns/weight' not in students(planned(small(method__top=0)))['xent, level 1'].needs


@pytest.mark.parametrize(('fields', 'said'), [
    ({'method__levels': ()}, r'method.levels: \(\), expected whole numbers from 2 on, one for each level'),
    ({'method__levels': (2, 1)}, r'method.levels: \(2, 1\), expected whole numbers from 2 on'),
    ({'method__levels': (300,)}, "method.levels: 300, but the teacher's half has 200 rows, expected fewer"),
    ({'labels__transforms': ('harden',)}, r"labels.transforms: \('harden',\), but rows are chosen level by level"),
    ({'method__domains': (0, 1)}, "method.domains: .* rows of task 'salient_concept' have no domain")])
def test_bad_settings_end_in_one_line(fields, said):
    with pytest.raises(ConfigError, match=said):
        planned(small(**fields))


@pytest.mark.long
def test_specialists_and_the_filter_help_on_domains(tmp_path):
    config = spurious()
    config.seeds = (0, 1)
    found = experiment.run(config, tmp_path, io.StringIO())
    first, *later = (np.array(s['accuracy']['seeds']) for s in found['students'])
    assert len(later) == 2 and min((one - first).min() for one in later) > .005
