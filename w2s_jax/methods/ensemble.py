"""Several teachers: their labels as one (methods.md E1), or a mixture whose weights are learned (E2: RAVEN, Jeon et al.
2025, arXiv 2510.21332).

Teachers are of other models, learn other rows of the teacher's half (slices, domains), or draw other parameters and
orders of the same. Models between teacher and student may teach with them, once they have learned their labels (rungs).
The ensemble is the weak model: what it answers on the test sets is combined as its labels are. One teacher alone is the
teacher of `naive`, to the id.
"""
import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from w2s_jax.errors import ConfigError
from w2s_jax.graph import Phase, Rows, Source, source
from w2s_jax.labels.ensembles import COMBINERS
from w2s_jax.labels.texts import TABLES
from w2s_jax.losses import LOSSES
from w2s_jax.methods.bootstrap import equal_slices
from w2s_jax.methods.inputs import loss_of
from w2s_jax.methods.parts import Labels, Parts
from w2s_jax.methods.registry import METHODS
from w2s_jax.models.modes import Model
from w2s_jax.registry import Setting, Settings

WEIGHTED = 'weighted_teachers'
TEACHERS: dict[str, Any] = {
    'teachers': Setting((), doc='models, with the settings of teacher; (): teacher.model alone'),
    'draws': Setting(1, 1, 1000, doc='teachers of each model, of other seeds on the same rows'),
    'slices': Setting(1, 1, 1000, doc="of equal size of the teacher's half, a teacher for each"),
    'domains': Setting((), doc="of the rows' metadata `domain`, a teacher for each; students learn the other domains"),
    'matched': Setting(False, doc='whether temperatures make teachers equally sure in the mean'),
    'rungs': Setting((), doc='models between teacher and student, with its settings: each learns the weak labels and '
                     'then teaches beside the teachers'),
    'alone': Setting(False, doc='whether each teacher has a student of its own as well')}


@dataclasses.dataclass(frozen=True, eq=False)
class Teacher:
    """One of the ensemble. rows: that it learns.  seed: of its parameters and its order."""
    model: Model
    rows: np.ndarray
    seed: int


@dataclasses.dataclass(frozen=True, eq=False)
class Said:
    """What the teachers of a seed say. labels: of each.  fits: their phases, none of labels that are data.  name: of
    all together, '' if it has one.  boosts: the phase with their votes."""
    labels: list[Labels]
    fits: list[Phase]
    name: str
    boosts: Phase | None = None

    @property
    def pooled(self) -> dict[str, Any]:
        """Probabilities of the student's rows, and votes, as needs of a table."""
        return pooled(self.labels) | ({'boosts': self.boosts} if self.boosts else {})


def models(settings: Settings) -> dict[str, str]:
    """The teachers and the rungs by role, if the method names any."""
    return {f'{role}/{k}': name for role in ('teachers', 'rungs') for k, name in enumerate(settings[role])}


@METHODS.register('ensemble', models=models, **TEACHERS,
                  combine=Setting('uniform', doc='of `w2s list combiners`: how several labels become one'))
def ensemble(b: Parts) -> None:
    """Students learn labels that several teachers make together."""
    wire(b, b.settings.combine, b.losses)


@METHODS.register('raven', models=models, **TEACHERS, each_epoch=Setting(
    False, doc='whether weights go back to their start before every epoch, in place of student.loss.resets'))
def raven(b: Parts) -> None:
    """Students learn a mixture of several teachers' labels, by weights that they learn as well, beside even weights."""
    wire(b, 'uniform', list(dict.fromkeys([*b.losses, WEIGHTED])))


def wire(b: Parts, combine: str, losses: Sequence[str]) -> None:
    """The phases of all seeds. Objectives, which may learn weights, get the column `teachers` `[n, T, K]`."""
    entry = COMBINERS.get_entry(combine, 'method.combine')
    check(b, bool(entry.options.get('boosts')), losses)
    for seed in b.seeds:
        rows = taught(b, seed)
        said = given(b, rows) if 'teacher' not in b.models else asked(b, seed, rows, bool(entry.options.get('boosts')))
        labels = b.transformed(combined(b, entry, said, rows))
        b.weak(answers(b, entry, said, seed), labels, said.name)
        b.ceiling(b.fit('ceiling', b.student, rows, b.truth))
        every, labels = joined(b, entry, said, labels) if b.settings.rungs else (said, labels)
        b.students(learner(b, every, labels, loss) for loss in losses)
        for k, one in enumerate(said.labels if b.settings.alone else []):
            own = Labels(one.need, rows)
            b.students([b.fit('student', b.student, rows, own, label=f'student of teacher {k}')],
                       label=f'teacher {k} alone')


def joined(b: Parts, entry, said: Said, labels: Labels) -> tuple[Said, Labels]:
    """Rungs learn the teachers' labels as one, and label beside them: all of them, and all labels as one."""
    fits = [b.fit('rung', b.models[f'rungs/{k}'], labels.rows, labels, label=f'rung {k}: {name}')
            for k, name in enumerate(b.settings.rungs)]
    for fit in fits:
        b.students([fit], method='rung', label=fit.label)
    each = [b.label(fit, labels.rows, name=f'labels of rung {k}') for k, fit in enumerate(fits)]
    every = dataclasses.replace(said, labels=[*said.labels, *each])
    return every, b.transformed(combined(b, entry, every, labels.rows))


def learner(b: Parts, said: Said, labels: Labels, loss: str) -> Phase:
    """A student of a loss, which reads labels alone, or of an objective, which reads each teacher's as well."""
    rows = labels.rows
    columns: dict[str, Phase] = {}
    values: dict[str, Any] = {}
    if loss not in LOSSES:
        columns['teachers'] = stacked(b, said, rows)
    if loss == WEIGHTED:
        columns |= started(b, said, rows)
        values |= {'resets': epochs(b) - 1} if b.settings.get('each_epoch') else {}
    return b.fit('student', b.student, rows, labels, loss, columns=columns, values=values)


def epochs(b: Parts) -> int:
    """That a student learns for."""
    own = b.config.student.epochs
    return b.config.train.epochs if own is None else own


def started(b: Parts, said: Said, rows: Rows) -> dict[str, Phase]:
    """The weights that a student begins with, as a column, if they are not even."""
    aim = loss_of(b.config, 'student', WEIGHTED)[1]
    if aim.start == 'uniform':
        return {}
    how = settings(b, start=aim.start, rows=aim.weights == 'rows')
    return {'start': b.table(TABLES['started'], how, pool_of(said), f'weights by {aim.start}', rows.seed)}


def check(b: Parts, boosts: bool, losses: Sequence[str]) -> None:
    """Raises ConfigError for settings that do not go together."""
    s = b.settings
    if 'teacher' not in b.models and (s.teachers or s.draws > 1 or s.slices > 1 or s.domains or boosts):
        raise ConfigError(f'labels.source: {b.config.labels.source!r} brings the teachers\' labels, expected the other '
                          "settings of method at their defaults, and no 'adaboost', which trains teachers")
    if s.slices > 1 and s.domains:
        raise ConfigError(f'method.slices: {s.slices}, but method.domains cuts the rows, expected 1')
    if boosts and (s.slices > 1 or s.domains or s.rungs):
        raise ConfigError("method.combine: 'adaboost' trains all teachers on the same rows of truth, expected "
                          'method.slices=1, method.domains=() and method.rungs=()')
    if b.config.labels.transforms and any(loss not in LOSSES for loss in losses):
        raise ConfigError(f'labels.transforms: {b.config.labels.transforms}, but what is learned beside losses is the '
                          "teachers' own labels, expected ()")


def domains(b: Parts) -> np.ndarray:
    """`[N]`: the domain of each row of the pool. Raises ConfigError if the task has none, or not those that it should.
    """
    found = b.dataset.pool.metadata.get('domain')
    if found is None:
        raise ConfigError(f'method.domains: {b.settings.domains}, but rows of task {b.dataset.name!r} have no domain, '
                          'expected ()')
    if missing := [d for d in b.settings.domains if d not in found]:
        raise ConfigError(f'method.domains: {missing[0]!r} is none, expected some of '
                          f'{", ".join(map(repr, np.unique(found).tolist()[:20]))}')
    return found


def taught(b: Parts, seed: int) -> Rows:
    """The rows that students learn: of the domains of no teacher, or all of their half if each has one."""
    half = b.halves[seed].student
    if not b.settings.domains:
        return half
    rest = ~np.isin(domains(b)[half.index], b.settings.domains)
    return Rows(seed, half.index[rest]) if rest.any() else half


def teachers(b: Parts, seed: int) -> list[Teacher]:
    """All teachers of a seed; the first model on the first rows with the seed itself comes first."""
    every = [b.models[f'teachers/{k}'] for k in range(len(b.settings.teachers))] or [b.teacher]
    seeds = [seed, *other_seeds(seed, b.settings.draws - 1, b.seeds)]
    return [Teacher(model, rows, one) for model, rows, one in itertools.product(every, cut(b, seed), seeds)]


def cut(b: Parts, seed: int) -> list[np.ndarray]:
    """The rows of the teacher's half by domain, in equal slices, or all."""
    mine = b.halves[seed].teacher.index
    if b.settings.domains:
        return [mine[domains(b)[mine] == d] for d in b.settings.domains]
    number = b.settings.slices
    return [mine] if number == 1 else sliced(b, seed, number, f'method.slices: {number}')


def sliced(b: Parts, seed: int, number: int, field: str) -> list[np.ndarray]:
    """The rows of the teacher's half in so many equal slices. Raises ConfigError, naming the field, for too many."""
    mine, group = b.halves[seed].teacher.index, b.dataset.pool.group
    try:
        largest = int(np.unique(group, return_counts=True)[1].max())
        return [mine[part] for part in equal_slices(group[mine], number, seed, largest)]
    except ConfigError:
        raise ConfigError(f"{field}, but the teacher's half has {len(mine)} rows, expected fewer") from None


def other_seeds(seed: int, number: int, taken: Sequence[int]) -> list[int]:
    """So many seeds that follow from one, none of those taken."""
    drawn = np.random.SeedSequence((seed, 4)).generate_state(number + len(taken) + 1).tolist()
    return [s for s in dict.fromkeys(drawn) if s not in taken][:number]


def plain(b: Parts, found: list[Teacher]) -> list[Phase]:
    """Each teacher on the truth of its rows."""
    return [b.fit('teacher', one.model, Rows(one.seed, one.rows), b.truth, label=titled(found, k))
            for k, one in enumerate(found)]


def boosted(b: Parts, found: list[Teacher]) -> tuple[list[Phase], Phase]:
    """Teachers that learn the same rows one after the other, each by weights that the errors of those before it make,
    and the phase that says how much each counts."""
    fits: list[Phase] = []
    weights = None
    for k, one in enumerate(found):
        rows = Rows(one.seed, one.rows)
        fits.append(b.fit('teacher', one.model, rows, b.truth, label=titled(found, k),
                          columns={} if weights is None else {'weight': weights}))
        weights = errors(b, fits, Rows(found[0].seed, one.rows))
    assert weights is not None, 'there is a teacher'
    return fits, weights


def errors(b: Parts, fits: list[Phase], rows: Rows) -> Phase:
    """Weights of rows by the errors of teachers on their truth, which is that of the teacher's half."""
    needs: dict[str, Any] = {'rows': rows.source, 'truth': b.truth[rows.index]}
    needs |= pooled([b.label(fit, rows, name='answers on its own rows') for fit in fits])
    made = b.table(TABLES['boosted'], Settings(classes=b.dataset.num_classes), needs, f'errors of {len(fits)} teachers',
                   rows.seed)
    return dataclasses.replace(made, role='teacher', sees_truth=True)


def soft(labels: Labels) -> Phase | Source:
    """What a teacher answers as probabilities, whatever `method.labels` says of those that students learn."""
    if isinstance(labels.need, Source):
        return labels.need
    return dataclasses.replace(labels.need, section=labels.need.section | {'labels': 'soft'})


def titled(found: list[Teacher], k: int) -> str:
    """What a teacher is called; '' for the only one."""
    return f'teacher {k}' if len(found) > 1 else ''


def named(found: list[Teacher]) -> str:
    """`3 of mlp-4`, `mlp-4 + mlp-32`; '' for one teacher, which has a name."""
    names = list(dict.fromkeys(one.model.name for one in found))
    if len(found) == 1:
        return ''
    return ' + '.join(names) if len(names) == len(found) else f'{len(found)} of {" + ".join(names)}'


def settings(b: Parts, **more) -> Settings:
    """Of a table that mixes labels."""
    return Settings(classes=b.dataset.num_classes, matched=b.settings.matched, **more)


def asked(b: Parts, seed: int, rows: Rows, boosts: bool) -> Said:
    """Teachers that are trained, and their labels of rows."""
    found = teachers(b, seed)
    fits, votes = boosted(b, found) if boosts else (plain(b, found), None)
    each = [b.label(fit, Rows(one.seed, rows.index), noise=b.config.method.label_noise)
            for fit, one in zip(fits, found, strict=True)]
    return Said(each, fits, named(found), votes)


def given(b: Parts, rows: Rows) -> Said:
    """Labels that come with the data, of one teacher or several."""
    columns = b.dataset.pool.given
    if columns is None or columns.ndim == 2:
        return Said([b.column(rows)], [], 'given')
    number = columns.shape[1]
    return Said([Labels(source(columns[rows.index, k]), rows) for k in range(number)], [], f'{number} given')


def combined(b: Parts, entry, said: Said, rows: Rows) -> Labels:
    """The labels of all teachers as one; of one teacher its own."""
    if len(said.labels) == 1:
        return dataclasses.replace(said.labels[0], rows=rows)
    how = settings(b, combine=entry.name, code=entry.version, hard=b.config.method.labels == 'hard')
    return Labels(b.table(TABLES['combined'], how, said.pooled, 'labels of the ensemble', rows.seed), rows)


def stacked(b: Parts, said: Said, rows: Rows) -> Phase:
    """All teachers' labels beside each other; hard ones if labels are."""
    return b.table(TABLES['stacked'], settings(b), pool_of(said), "the teachers' labels", rows.seed)


def pool_of(said: Said) -> dict[str, Any]:
    """The labels that students learn of each teacher, as needs of a table."""
    return {f'pool/{k}': labels.need for k, labels in enumerate(said.labels)}


def pooled(each: list[Labels]) -> dict[str, Any]:
    """The teachers' probabilities as needs of a table."""
    return {f'pool/{k}': soft(labels) for k, labels in enumerate(each)}


def answers(b: Parts, entry, said: Said, seed: int) -> Phase | Source:
    """Who answers the test sets as the weak model: all teachers together, or the only one."""
    if len(said.labels) == 1:
        return said.fits[0] if said.fits else b.given_answers()
    needs = said.pooled | {f'{test}/{k}': of_test(b, said, test, k)
                           for test in b.dataset.tests for k in range(len(said.labels))}
    how = settings(b, combine=entry.name, code=entry.version, tests=list(b.dataset.tests))
    return b.table(TABLES['combined_answers'], how, needs, 'answers of the ensemble', seed)


def of_test(b: Parts, said: Said, test: str, k: int) -> Phase | Source:
    """A teacher's probabilities of the rows of a test set. Raises ConfigError for labels that do not come with it."""
    rows = b.dataset.tests[test]
    if not said.fits:
        if rows.given is None:
            raise ConfigError(f'labels.source: {b.config.labels.source!r}, but the test set {test!r} of task '
                              f'{b.dataset.name!r} brings no weak labels')
        return source(rows.given[:, k])
    need, inputs = soft(said.labels[k]), b.prepared(b.model_of(said.fits[k]), test)
    assert isinstance(need, Phase)
    section = need.section | {'hyper': need.section['hyper'] | {'noise': 0.}}
    needs = need.needs | {'inputs': inputs, 'rows': source(np.arange(len(rows)))}
    return dataclasses.replace(need, section=section, label=f'answers of teacher {k}',
                               needs=needs | scaled(need.needs['inputs'], inputs))


def scaled(pool, inputs) -> dict[str, Any]:
    """Cached features of a test set are scaled as those of the pool are."""
    return {'scale': pool} if isinstance(inputs, Phase) and inputs.kind == 'features' else {}
