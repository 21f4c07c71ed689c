"""The seal on truth: plans that leak it are refused in one line, before anything runs."""
import dataclasses
import io

import numpy as np
import pytest

from configs import salient_concept
from w2s_jax import config as configs
from w2s_jax.engine import experiment, truth
from w2s_jax.engine import plan as plans
from w2s_jax.errors import ConfigError
from w2s_jax.graph import Rows, Source, source
from w2s_jax.labels.sources import SOURCES
from w2s_jax.methods import METHODS
from w2s_jax.methods.parts import Labels
from w2s_jax.objectives import OBJECTIVES, Objective
from w2s_jax.tasks import TASKS


@pytest.fixture(autouse=True)
def _registries():
    kept = [(r, dict(r.entries)) for r in (METHODS, SOURCES, OBJECTIVES, TASKS)]
    yield
    for registry, entries in kept:
        registry.entries.clear()
        registry.entries.update(entries)


def small(**fields):
    c = salient_concept.get_config()
    c.seeds, c.task.train_size, c.task.test_size, c.train.epochs, c.report.html = (0,), 400, 200, 1, False
    c.teacher.model, c.labels.source = 'mlp-4', 'teacher'
    for name, value in fields.items():
        part, field = name.split('__')
        c[part][field] = value
    return c


def refused(config) -> str:
    with pytest.raises(ConfigError) as e:
        plans.prepare(configs.validate(config), lambda line: None)
    assert '\n' not in str(e.value)
    return str(e.value)


def method(fit_student):
    """A method that is naive but for how its student is made: (b, seed, labels) -> phase."""
    @METHODS.register('leaky')
    def leaky(b):
        for seed in b.seeds:
            weak, labels = b.weak_labels(seed)
            b.weak(weak, labels)
            b.ceiling(b.fit('ceiling', b.student, b.halves[seed].student, b.truth))
            b.students([fit_student(b, seed, labels)], label='s')
    return small(method__name='leaky')


@pytest.mark.parametrize('transforms', [(), ('harden', 'smooth')])
def test_a_teacher_of_another_seed_that_saw_the_rows(transforms):
    @METHODS.register('crossed')
    def crossed(b):
        for seed in b.seeds:
            _, half = b.halves[seed]
            other = b.fit('teacher', b.teacher, b.halves[1 - seed].teacher, b.truth)
            labels = b.transformed(b.label(other, half))
            b.weak(other, labels)
            b.ceiling(b.fit('ceiling', b.student, half, b.truth))
            b.students([b.fit('student', b.student, half, labels)], label='s')
    c = configs.compose(small(method__name='crossed', labels__transforms=transforms))
    c.seeds = (0, 1)
    assert "student 's'" in (text := refused(c)) and 'whose truth teacher of seed 1 has learned' in text


def test_a_student_on_the_sealed_truth():
    text = refused(method(lambda b, seed, labels: b.fit('student', b.student, b.halves[seed].student, b.truth)))
    assert text.startswith('student xent: is given the truth (targets)')


def test_a_method_cannot_read_truth():
    def fit(b, seed, labels):
        assert b.dataset.pool.truth is None and b.dataset.test.truth is None
        return b.fit('student', b.student, b.halves[seed].student, source(b.truth[b.halves[seed].student.index].value))
    assert refused(method(fit)).startswith('the truth is sealed')


@pytest.mark.parametrize('dress', [
    lambda t: t, lambda t: 1 - t, lambda t: np.eye(2, dtype=np.float32)[t], lambda t: (t * 3 - 5).astype(np.float32),
    lambda t: np.where(np.arange(2) == t[:, None], .9, .1).astype(np.float32)])
def test_truth_from_elsewhere_is_known_by_its_content(dress):
    """A plug-in that reads the answers itself, and hands them on as if they were labels."""
    secret = TASKS['salient_concept'].fn(configs.validate(small()).task).pool.truth

    def fit(b, seed, labels):
        rows = b.halves[seed].student
        mixed = Rows(seed, np.random.default_rng(0).permutation(rows.index)[:150])
        return b.fit('student', b.student, mixed, source(dress(secret[mixed.index])))
    assert 'targets equals the truth of its rows on all 150 rows' in refused(method(fit))


def test_the_truth_as_a_further_column():
    def fit(b, seed, labels):
        rows = b.halves[seed].student
        return b.fit('student', b.student, rows, labels, columns={'truth': b.truth[rows.index]})
    assert 'is given the truth (columns/truth)' in refused(method(fit))


def test_a_student_called_a_teacher():
    def fit(b, seed, labels):
        return b.fit('teacher', b.student, b.halves[seed].teacher, b.truth)
    assert refused(method(fit)).startswith("student 's': was fitted as a teacher")

    def other(b, seed, labels):
        return b.fit('teacher', b.student, b.halves[seed].student, b.truth)
    METHODS.entries.pop('leaky')
    assert "truth of rows of the student's half" in refused(method(other))


def test_a_student_that_goes_on_from_the_ceiling():
    def fit(b, seed, labels):
        ceiling = b.fit('ceiling', b.student, b.halves[seed].student, b.truth)
        return b.fit('student', b.student, b.halves[seed].student, labels, start=ceiling)
    assert "student 's': comes from ceiling (ceiling)" in refused(method(fit))


def test_a_leaky_label_source():
    @SOURCES.register('leaky', teacher=True)
    def leaky(b, seed):
        weak = b.fit('teacher', b.teacher, b.halves[seed].teacher, b.truth)
        return weak, Labels(b.truth[b.halves[seed].student.index], b.halves[seed].student)
    assert 'is given the truth (targets)' in refused(small(labels__source='leaky'))


def test_a_leaky_objective(tmp_path):
    @OBJECTIVES.register('leaky')
    def leaky():
        def losses(forward, params, batch, state, settings, progress, key):
            return forward(params, batch['inputs'])[:, 0] * batch['truth'], {}
        return Objective(losses)
    config = small()
    config.student.loss.name = 'leaky'
    with pytest.raises(ConfigError, match=r"objective 'leaky': reads column 'truth', expected one of"):
        experiment.run(config, tmp_path, io.StringIO())


def test_an_oracle_may_and_is_marked(tmp_path):
    @METHODS.register('oracle')
    def oracle(b):
        for seed in b.seeds:
            weak, labels = b.weak_labels(seed)
            b.weak(weak, labels)
            ceiling = b.fit('ceiling', b.student, b.halves[seed].student, b.truth)
            b.ceiling(ceiling)
            b.students([ceiling], label='best there is', oracle=True)
    found = experiment.run(small(method__name='oracle'), tmp_path, io.StringIO())
    assert found['students'][0]['oracle'] is True


def test_honest_labels_are_not_refused():
    """A supervisor that is right nearly always, and weak labels in a class each, are no leak."""
    true = np.random.default_rng(0).integers(0, 2, 400)
    almost = true.copy()
    almost[0] = 1 - almost[0]
    assert truth.tells(true, true) and not truth.tells(almost, true)
    assert not truth.tells(np.arange(400), true) and not truth.tells(np.zeros(400), true)
    assert not truth.tells(np.random.default_rng(1).random(400), true)
    several = np.full((400, 3, true.max() + 1), .5)
    assert not truth.tells(several, true)
    several[:, 2] = np.eye(true.max() + 1)[true]
    assert truth.tells(several, true)


def test_every_phase_that_sees_truth_says_so():
    made = plans.prepare(configs.validate(small()), lambda line: None)
    seeing = {p.role for p in made.phases if p.sees_truth}
    assert seeing == {'teacher', 'ceiling', 'evaluate'}
    phase = next(p for p in made.phases if p.role == 'student')
    assert isinstance(phase.needs['rows'], Source)
    with pytest.raises(ConfigError, match='only a teacher, a ceiling'):
        truth.check(dataclasses.replace(phase, needs=phase.needs | {'targets': made.target.needs['truth/test']}), [],
                    made.dataset, {})
