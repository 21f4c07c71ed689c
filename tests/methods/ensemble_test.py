"""Several teachers: one alone is naive to the id, more are combined, and weights find the best one or the worst."""
import dataclasses
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
from w2s_jax.labels import ensembles
from w2s_jax.methods import METHODS
from w2s_jax.methods import ensemble as methods
from w2s_jax.store.artifacts import Artifact
from w2s_jax.tasks import TASKS


@pytest.fixture(autouse=True)
def _methods():
    kept = dict(METHODS.entries)
    yield
    METHODS.entries.clear()
    METHODS.entries.update(kept)


def small(name='ensemble', **fields):
    """Perceptrons on the salient concept, by default four teachers of two models and two draws."""
    c = salient_concept.get_config()
    c.seeds, c.task.train_size, c.task.test_size, c.train.epochs, c.report.html = (0, 1), 400, 200, 2, False
    c.teacher.model, c.student.model, c.labels.source = 'mlp-4', 'mlp-32', 'teacher'
    c.method.name, c.method.baselines = name, ()
    return changed(c, **fields)


def spurious(**fields):
    """The shipped experiment, smaller."""
    c = shipped.get_config()
    c.seeds, c.task.train_size, c.task.test_size, c.train.epochs, c.report.html = (0, 1), 1600, 400, 4, False
    c.method.alone = False
    return changed(c, **fields)


def changed(c, **fields):
    for name, value in fields.items():  # in order: a method's name brings its fields
        c = configs.compose(c)
        c.update_from_flattened_dict({name.replace('__', '.'): value})
    return c


def planned(config):
    return plans.prepare(configs.validate(config), lambda line: None)


def run(config, folder):
    return experiment.run(config, folder, io.StringIO())


def of(made, role, label=None):
    return [t.need for t in made.targets if t.role == role and label in (None, t.label)]


def artifact(folder, phase):
    return next(Artifact(path) for path in (folder / 'store').glob('*-*') if path.is_dir()
                and json.loads((path / 'config.json').read_text()) == json.loads(json.dumps(phase.config)))


def weights_of(row):
    """`[S][T]`: what a student's teachers weighed in the end."""
    return row['aux']['teacher_weights']['seeds']


def student(results, label):
    return next(s for s in results['students'] if s['label'] == label)


@pytest.mark.parametrize('labels', ['soft', 'hard'])
@pytest.mark.parametrize('combine', ensembles.COMBINERS)
def test_one_teacher_is_naive_to_the_id(combine, labels):
    naive = planned(small('naive', method__labels=labels, method__label_noise=.1))
    mine = planned(small('ensemble', method__labels=labels, method__label_noise=.1, method__combine=combine))
    for role in ('weak', 'ceiling', 'student'):
        assert [p.id for p in of(naive, role)] == [p.id for p in of(mine, role)]
    assert mine.target.needs['labels/0'].id == naive.target.needs['labels/0'].id


@pytest.mark.long
def test_weights_of_one_teacher_train_the_naive_student_to_the_bit(tmp_path):
    results = run(small('raven', method__baselines=('xent',), train__keep='all',
                        student__loss__name='weighted_teachers', student__loss__easy=.5), tmp_path)
    one, other = (student(results, name) for name in ('xent', 'weighted_teachers'))
    assert one['accuracy'] == other['accuracy'] and weights_of(other) == [[1.], [1.]]
    made = planned(small('raven', method__baselines=('xent',), student__loss__name='weighted_teachers',
                         student__loss__easy=.5))
    for a, b in zip(of(made, 'student', 'xent'), of(made, 'student', 'weighted_teachers'), strict=True):
        a, b = (artifact(tmp_path, p) for p in (a, b))
        np.testing.assert_array_equal(a.arrays['test.top_probability'], b.arrays['test.top_probability'])
        np.testing.assert_array_equal(a.arrays['loss'], b.arrays['loss'])


@pytest.mark.parametrize(('start', 'weights'), [('kl', 'global'), ('random', 'rows')])
def test_weights_that_stay_are_their_start(tmp_path, start, weights):
    fields = {'method__draws': 2, 'student__loss__name': 'weighted_teachers', 'student__loss__start': start,
              'student__loss__rate': 0., 'student__loss__weights': weights, 'train__epochs': 1, 'seeds': (0,),
              'train__keep': 'all'}
    row = student(run(small('raven', **fields), tmp_path), 'weighted_teachers')
    fit = of(planned(small('raven', **fields)), 'student', 'weighted_teachers')[0]
    told, taught = (artifact(tmp_path, fit.needs[f'columns/{name}']).arrays['labels'] for name in ('start', 'teachers'))
    by_hand = ensembles.starts(taught.swapaxes(0, 1), start, weights == 'rows', np.random.default_rng((0, 3)))
    np.testing.assert_allclose(told, by_hand, atol=1e-6)
    assert (np.ptp(told, axis=0).max() > .01) == (weights == 'rows') and abs(told.mean(0)[0] - .5) > 1e-3
    if weights == 'global':
        np.testing.assert_allclose(weights_of(row)[0], told[0], atol=1e-5)
    else:
        assert row['aux']['teacher_weights']['seeds'][0] != [.5, .5]


def test_weights_that_go_back_each_epoch():
    made = planned(small('raven', method__each_epoch=True, train__epochs=3, student__loss__name='weighted_teachers'))
    assert of(made, 'student', 'weighted_teachers')[0].section['hyper']['loss']['resets'] == 2
    made = planned(small('raven', method__each_epoch=True, student__epochs=5, student__loss__name='weighted_teachers'))
    assert of(made, 'student', 'weighted_teachers')[0].section['hyper']['loss']['resets'] == 4


def test_even_weights_that_stay_are_the_uniform_ensemble(tmp_path):
    results = run(small('raven', method__baselines=('xent',), method__draws=2, student__loss__name='weighted_teachers',
                        student__loss__easy=0., student__loss__rate=0.), tmp_path)
    made = planned(small('raven', method__baselines=('xent',), method__draws=2,
                         student__loss__name='weighted_teachers', student__loss__easy=0., student__loss__rate=0.))
    for a, b in zip(of(made, 'student', 'xent'), of(made, 'student', 'weighted_teachers'), strict=True):
        a, b = (artifact(tmp_path, p) for p in (a, b))
        np.testing.assert_allclose(a.arrays['loss'], b.arrays['loss'], atol=1e-5)
    assert weights_of(student(results, 'weighted_teachers')) == [[.5, .5], [.5, .5]]


def test_teachers_are_every_model_on_every_slice_with_every_draw():
    made = planned(small(method__teachers=('mlp-4', 'mlp-32'), method__slices=3, method__draws=2, seeds=(0,)))
    fits = [p for p in made.phases if p.role == 'teacher']
    assert len(fits) == 12 == len({p.id for p in fits})
    assert [p.model for p in fits] == ['mlp-4'] * 6 + ['mlp-32'] * 6
    rows = {p.needs['rows'].id: p.needs['rows'].value for p in fits}
    assert len(rows) == 3 and len({len(r) for r in rows.values()}) == 1
    every = np.concatenate(list(rows.values()))
    assert len(np.unique(every)) == len(every) == 198
    assert not np.isin(every, of(made, 'ceiling')[0].needs['rows'].value).any()
    assert len({p.seed for p in fits}) == 2 and 0 in {p.seed for p in fits}
    assert next(t.row['model'] for t in made.targets if t.role == 'weak') == '12 of mlp-4 + mlp-32'


def test_teachers_have_the_settings_of_teacher():
    c = spurious(method__domains=(), method__teachers=('linear',))
    assert planned(c).models['teachers/0'].identity == planned(c).models['teacher'].identity
    assert planned(c).models['teachers/0'].identity != planned(c).models['student'].identity
    assert [p.id for p in of(planned(c), 'weak')] == [p.id for p in of(planned(spurious(method__domains=())), 'weak')]


def test_domains():
    made = planned(spurious())
    domain = made.dataset.pool.metadata['domain']
    for p in (p for p in made.phases if p.role == 'teacher'):
        assert len(np.unique(domain[p.needs['rows'].value])) == 1 and len(p.needs['rows'].value) == 200
    for role in ('student', 'ceiling'):
        assert all(set(domain[p.needs['rows'].value]) == {3} for p in of(made, role))
    every = planned(spurious(method__domains=(0, 1, 2, 3)))
    assert set(domain[of(every, 'ceiling')[0].needs['rows'].value]) == {0, 1, 2, 3}


def test_rungs_learn_the_weak_labels_and_then_teach_beside_them(tmp_path):
    fields = {'method__draws': 2, 'method__rungs': ('mlp-32', 'mlp-128'), 'seeds': (0,), 'train__epochs': 1,
              'train__keep': 'all'}
    results = run(small('raven', **fields), tmp_path)
    made, plain = planned(small('raven', **fields)), planned(small('raven', **(fields | {'method__rungs': ()})))
    for role in ('weak', 'ceiling'):
        assert [p.id for p in of(made, role)] == [p.id for p in of(plain, role)]
    rungs = [of(made, 'student', f'rung {k}: mlp-{w}')[0] for k, w in enumerate((32, 128))]
    assert all(r.role == 'rung' and not r.sees_truth for r in rungs)
    assert [r.needs['targets'].id for r in rungs] == [plain.target.needs['labels/0'].id] * 2
    weights = weights_of(student(results, 'weighted_teachers'))[0]
    assert len(weights) == 4 and sum(weights) == pytest.approx(1, abs=1e-5)
    fit = of(made, 'student', 'xent')[0]
    each = artifact(tmp_path, of(made, 'student', 'weighted_teachers')[0].needs['columns/teachers']).arrays['labels']
    np.testing.assert_allclose(artifact(tmp_path, fit.needs['targets']).arrays['labels'], each.mean(1), atol=1e-6)
    told = artifact(tmp_path, rungs[0].needs['targets']).arrays['labels']
    np.testing.assert_allclose(told, each[:, :2].mean(1), atol=1e-6)
    assert np.abs(each[:, 2:] - told[:, None]).max() > 1e-3


def test_every_teacher_is_trained_once_for_all_methods():
    """Four methods, three teachers, five seeds, as the cells of a grid."""
    ids, labels = [], []
    for name, fields in (('ensemble', {'method.combine': 'uniform'}), ('ensemble', {'method.combine': 'vote'}),
                         ('ensemble', {'method.combine': 'confidence'}), ('raven', {})):
        made = planned(small(name, seeds=(0, 1, 2, 3, 4), **{'method.draws': 3}, **fields))
        ids.append({p.id for p in made.phases if p.role == 'teacher' and p.kind == 'fit'})
        labels.append({p.id for p in made.phases if p.kind == 'predict' and p.role == 'label'})
    assert [len(i) for i in ids] == [15] * 4 and len(set.union(*ids)) == 15
    assert set.intersection(*labels)


@pytest.mark.parametrize('combine', ['uniform', 'vote'])
def test_the_weak_model_answers_as_its_labels_are_made(tmp_path, combine):
    config = spurious(method__name='ensemble', method__combine=combine, method__matched=False,
                      student__loss__name='xent', method__baselines=(), seeds=(0,))
    results, made = run(config, tmp_path), planned(config)
    said = []
    for p in (p for p in made.phases if p.role == 'teacher'):
        found = artifact(tmp_path, p).arrays
        one = np.zeros((400, 2), np.float32)
        np.put_along_axis(one, found['test.top'], found['test.top_probability'], -1)
        said.append(one)
    wanted = ensembles.COMBINERS[combine].fn(np.stack(said), np.ones(3))
    mine = artifact(tmp_path, of(made, 'weak')[0]).arrays
    np.testing.assert_allclose(mine['test.top_probability'], -np.sort(-wanted, -1), atol=1e-5)
    truth = TASKS['spurious_domains'].fn(config.task).test.truth
    assert results['weak']['accuracy']['mean'] == pytest.approx((wanted.argmax(-1) == truth).mean(), abs=.003)
    assert results['weak']['model'] == '3 of linear' and 'teacher_examples' not in results['task']


def test_boosted_teachers_learn_what_those_before_them_got_wrong(tmp_path):
    config = small(method__combine='adaboost', method__draws=3, seeds=(0,))
    run(config, tmp_path)
    made = planned(config)
    fits = [p for p in made.phases if p.kind == 'fit' and p.role == 'teacher']
    tables = [p for p in made.phases if p.kind == 'table' and p.section['table']['name'] == 'boosted']
    assert len(tables) == 3 and all(p.role == 'teacher' and p.sees_truth for p in tables)
    rows = fits[0].needs['rows'].value
    truth = TASKS['salient_concept'].fn(configs.validate(config).task).pool.truth[rows]
    last = next(p for p in tables if sum(k.startswith('pool/') for k in p.needs) == 3)
    wrong = [artifact(tmp_path, last.needs[f'pool/{k}']).arrays['labels'].argmax(-1) != truth for k in range(3)]
    weights, votes = ensembles.samme(np.stack(wrong), 2)
    found = artifact(tmp_path, last).arrays
    np.testing.assert_allclose(found['labels'], weights, rtol=1e-6)
    np.testing.assert_allclose(found['votes'], votes)
    assert [('columns/weight' in p.needs) for p in fits].count(False) == 1
    assert fits[-1].needs['columns/weight'].id in {p.id for p in tables}


def test_boosting_sees_the_truth_of_the_teachers_half_alone(monkeypatch):
    def stolen(b, fits, rows):
        made = honest(b, fits, rows)
        theirs = b.halves[rows.seed].student
        needs = made.needs | {'rows': theirs.source, 'truth': b.truth[theirs.index]}
        return dataclasses.replace(made, needs=needs)
    honest = methods.errors
    monkeypatch.setattr(methods, 'errors', stolen)
    with pytest.raises(ConfigError, match="a teacher is given the truth of rows of the student's half"):
        planned(small(method__combine='adaboost', method__draws=2))


@pytest.fixture
def brought():
    """A task whose rows bring the labels of two teachers, right on 90 and 70 % of them."""
    @TASKS.register('brought', **TASKS['salient_concept'].settings)
    def load(task, log=print):
        whole = TASKS['salient_concept'].fn(task)
        return dataclasses.replace(whole, name='brought', pool=labelled(whole.pool), tests={
            k: labelled(v) for k, v in whole.tests.items()})

    def labelled(rows):
        rng = np.random.default_rng(len(rows))
        wrong = rng.random((len(rows), 2)) > [.9, .7]
        return dataclasses.replace(rows, given=np.eye(2, dtype=np.float32)[rows.truth[:, None] ^ wrong] * .8 + .1)
    yield
    TASKS.entries.pop('brought')


def bringing(**fields):
    c = small(labels__source='column', **fields)
    c.task.name = 'brought'
    return configs.compose(c)


def test_labels_that_come_with_the_data(tmp_path, brought):
    config = bringing(method__alone=True)
    results, made = run(config, tmp_path), planned(config)
    found = TASKS['brought'].fn(configs.validate(config).task)
    rows = of(made, 'ceiling')[0].needs['rows'].value
    np.testing.assert_allclose(artifact(tmp_path, made.target.needs['labels/0']).arrays['labels'],
                               found.pool.given[rows].mean(1), atol=1e-6)
    right = (found.test.given.mean(1).argmax(-1) == found.test.truth).mean()
    assert results['weak'] | {'model': '2 given'} == results['weak']
    assert results['weak']['accuracy']['mean'] == pytest.approx(right)
    assert [s['label'] for s in results['students']] == ['xent', 'teacher 0 alone', 'teacher 1 alone']
    assert not [p for p in made.phases if p.role == 'teacher']
    with pytest.raises(ConfigError, match=r"^method.name: 'naive', but task 'brought' brings weak labels of 2 "):
        planned(bringing(method__name='naive'))
    for fields in ({'method__draws': 2}, {'method__combine': 'adaboost'}):
        with pytest.raises(ConfigError, match=r"^labels.source: 'column' brings the teachers' labels, expected"):
            planned(bringing(**fields))


@pytest.mark.parametrize(('fields', 'said'), [
    ({'method__combine': 'unifrom'}, "method.combine: unknown 'unifrom', expected one of adaboost, confidence"),
    ({'method__domains': (0,)}, "method.domains: (0,), but rows of task 'salient_concept' have no domain, "),
    ({'method__slices': 300}, "method.slices: 300, but the teacher's half has 200 rows, expected fewer"),
    ({'method__rungs': ('mlp-32',), 'method__combine': 'adaboost'}, "method.combine: 'adaboost' trains all teachers"),
    ({'method__slices': 2, 'method__combine': 'adaboost'}, "method.combine: 'adaboost' trains all teachers on the"),
    ({'method__teachers': ('mlp-5',)}, "method.teachers: unknown 'mlp-5', expected one of"),
    ({'method__name': 'raven', 'labels__transforms': ('harden',)},
     "labels.transforms: ('harden',), but what is learned beside losses is the teachers' own labels, expected ()"),
    ({'method__name': 'naive', 'student__loss__name': 'weighted_teachers'},
     "objective 'weighted_teachers': learns labels of several teachers, expected method.name='raven'")])
def test_bad_settings_end_in_one_line(tmp_path, fields, said):
    with pytest.raises(ConfigError) as e:
        run(small(**fields), tmp_path)
    assert said in str(e.value) and '\n' not in str(e.value)


def test_domains_that_are_none():
    with pytest.raises(ConfigError, match=r'^method.domains: 7 is none, expected some of 0, 1, 2, 3$'):
        planned(spurious(method__domains=(0, 7)))
    with pytest.raises(ConfigError, match=r'^method.slices: 2, but method.domains cuts the rows, expected 1$'):
        planned(spurious(method__slices=2))


@pytest.mark.long
def test_the_order_of_teachers_is_that_of_their_weights(tmp_path):
    sooner = {'student__loss__freeze': 0., 'student__loss__rate': 1., 'student__learning_rate': .05}
    found = [student(run(spurious(method__domains=d, **sooner), tmp_path / str(i)), 'weighted_teachers')
             for i, d in enumerate([(0, 1, 2), (2, 0, 1)])]
    a, b = (np.array(weights_of(s)) for s in found)
    assert abs(a[0, 0] - a[0, 2]) > .02
    np.testing.assert_allclose(a[:, [2, 0, 1]], b, atol=1e-3)


@pytest.mark.long
def test_weights_find_the_best_teacher_or_the_worst_by_what_the_student_sees(tmp_path):
    """methods.md, E2: at attenuation .05 the best of three teachers in 9 of 10 seeds and .08 above even weights; from
    .15 on the worst, and below even weights, which is what the method does there."""
    gains, picked = {}, {}
    for attenuation in (.05, .2):
        c = shipped.get_config()
        c.report.html, c.method.alone, c.task.attenuation = False, False, attenuation
        results = run(c, tmp_path / str(attenuation))
        learned, even = student(results, 'weighted_teachers'), student(results, 'xent')
        gains[attenuation] = np.array(learned['accuracy']['seeds']) - even['accuracy']['seeds']
        picked[attenuation] = np.array(weights_of(learned)).argmax(-1)
    assert len(gains[.05]) == 10
    assert (picked[.05] == 2).sum() >= 9 and gains[.05].mean() >= .08
    assert (picked[.2] == 0).sum() >= 9 and gains[.2].mean() <= -.08
