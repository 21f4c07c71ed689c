"""Weak labels of one preference, and a reward for something else (Yang et al. 2024, arXiv 2406.11431).

Beside a student that learns the weak labels alone there are ones that are also rewarded for contradicting them, or the
truth (explicit), and one that also learns what people say of another preference (implicit); and the same again by
either published mitigation, on confident labels alone or on those of a model in between. What they lose against the
first, and where, the diagnostic `deception` measures.
"""
import numpy as np

from w2s_jax.errors import ConfigError
from w2s_jax.graph import Phase, Rows, Source, source
from w2s_jax.labels.errors import STRUCTURES
from w2s_jax.labels.texts import TABLES
from w2s_jax.labels.transforms import TRANSFORMS
from w2s_jax.methods.parts import Labels, Parts
from w2s_jax.methods.registry import METHODS
from w2s_jax.registry import Setting, Settings

EXPLICIT, IMPLICIT = 'explicit_conflict', 'implicit_conflict'


def models(settings: Settings) -> dict[str, str]:
    """The rung in between, if there is one."""
    return {'through/0': settings.through} if settings.through else {}


@METHODS.register('conflict', models=models,
                  alpha=Setting(.5, 0, 1, doc='of explicit conflict: the reward for contradicting; 0: none'),
                  helpful=Setting(.5, 0, 1, doc='of implicit conflict: the weight of the other preference; 0: none'),
                  confident=Setting(0., 0, 1, doc='the probability from which labels are learned by further students '
                                    '(the other published mitigation, there .75); 0: none'),
                  through=Setting('', doc='a model in between, whose student labels once more (bootstrapping, the '
                                          "published mitigation); '': none"))
def conflict(b: Parts) -> None:
    """Students learn weak labels alone, or against a reward for contradicting them, or beside another preference."""
    helpful = b.dataset.pool.metadata.get('helpful')
    if helpful is None:
        raise ConfigError(f'method.name: {b.config.method.name!r}, but rows of task {b.dataset.name!r} have no second '
                          "preference `helpful`, expected task.name='harmless_helpful'")
    for seed in b.seeds:
        weak, labels = b.weak_labels(seed)
        b.weak(weak, labels)
        half = b.halves[seed].student
        b.ceiling(b.fit('ceiling', b.student, half, b.truth))
        b.students([b.fit('student', b.student, half, labels)], label='no conflict')
        other = source(np.eye(2, dtype=np.float32)[helpful[half.index]])
        students(b, labels, other, '')
        if b.settings.confident:
            sure = b.transform(TRANSFORMS['confident'], threshold(b.settings.confident), labels)
            b.students([b.fit('student', b.student, half, sure)], label='no conflict, confident')
            students(b, sure, other, ', confident')
        if b.settings.through:
            rung = b.fit('rung', b.models['through/0'], half, labels)
            students(b, b.label(rung, half), other, ', bootstrapped')


def students(b: Parts, labels: Labels, helpful: Source, more: str) -> None:
    """Those in conflict, on labels of some supervisor. Where the truth is contradicted, as published, they are oracles:
    they have seen it."""
    s, rows = b.settings, labels.rows
    for against in ('weak', 'truth'):
        columns = {'truth': aligned(b, told(b, rows), labels)} if against == 'truth' else {}
        fit = b.fit('student', b.student, rows, labels, EXPLICIT, columns=columns,
                    values={'alpha': s.alpha, 'against': against})
        b.students([fit], label=f'explicit conflict, {against}{more}', oracle=against == 'truth')
    b.students([b.fit('student', b.student, rows, labels, IMPLICIT, values={'share': s.helpful},
                      columns={'helpful': aligned(b, helpful, labels)})], label=f'implicit conflict{more}')


def threshold(least: float) -> Settings:
    """The settings of the filter that keeps labels from a probability up."""
    return Settings({k: s.default for k, s in TRANSFORMS['confident'].settings.items()} | {'threshold': least})


def aligned(b: Parts, column: Phase | Source, labels: Labels) -> Phase | Source:
    """A column of the rows that labels are of; of those that are left, if a transform has dropped some."""
    if not labels.kept:
        return column
    needs = {'column': column, 'of': labels.rows.source, 'kept': labels.need}
    return b.table(TABLES['kept'], Settings(), needs, 'a column of the kept rows', labels.rows.seed)


def told(b: Parts, rows: Rows) -> Phase:
    """The truth of rows: labels simulated from it with as many errors as it has itself, none."""
    section = {'structure': STRUCTURES['random'].identity({}), 'num_classes': b.dataset.num_classes,
               'hyper': {'seed': rows.seed}}
    needs = {'labels': b.truth[rows.index], 'rows': rows.source, 'truth': b.truth[None]}
    return Phase('simulate_errors', section, needs, 'what is contradicted', 'simulate_errors', True)
