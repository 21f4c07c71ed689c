"""Co-supervised learning: a hierarchy of specialists, of which each row's label is that of the one that the student
agrees with most (Liu and Alahi 2024, arXiv 2402.15505).

The student first learns the labels of one teacher of all rows. Then, level by level, more teachers, each of fewer rows
(of some domains, or of slices), label; of every row the label nearest to what the student thinks is taken, rows whose
label the student finds unlikely are left out, and a student is trained anew on the others.
"""
import numpy as np

from w2s_jax.errors import ConfigError
from w2s_jax.graph import Phase, Rows
from w2s_jax.labels.texts import TABLES
from w2s_jax.methods.ensemble import domains, pooled, sliced, soft, taught
from w2s_jax.methods.parts import Labels, Parts
from w2s_jax.methods.registry import METHODS
from w2s_jax.registry import Setting, Settings


@METHODS.register('cosupervised',
                  levels=Setting((2,), doc='how many specialists there are of each level below the one teacher of all'),
                  domains=Setting((), doc="of the rows' metadata `domain`, in an order in which neighbours belong "
                                  'together; students learn the other domains; (): specialists of slices'),
                  matched=Setting(False, doc='whether temperatures make the teachers of a level equally sure'),
                  top=Setting(1, 0, 10**6, doc="rows are kept as many as have a label among so many of the student's "
                              'likeliest classes; 0: all'))
def cosupervised(b: Parts) -> None:
    """Students learn, level by level, each row's label of the specialist whose answer is nearest to their own."""
    check(b)
    for seed in b.seeds:
        rows, mine = taught(b, seed), own(b, seed)
        general = b.fit('teacher', b.teacher, Rows(seed, mine), b.truth)
        labels = b.label(general, rows, noise=b.config.method.label_noise)
        b.weak(general, labels)
        b.ceiling(b.fit('ceiling', b.student, rows, b.truth))
        levels = [specialists(b, seed, mine, rows, level) for level in range(len(b.settings.levels))]
        for loss in b.losses:
            climb(b, labels, levels, loss)


def check(b: Parts) -> None:
    """Raises ConfigError for settings that do not go together."""
    levels = b.settings.levels
    if not levels or any(isinstance(n, bool) or not isinstance(n, int) or n < 2 for n in levels):
        raise ConfigError(f'method.levels: {tuple(levels)}, expected whole numbers from 2 on, one for each level')
    if b.settings.domains and max(levels) > len(b.settings.domains):
        raise ConfigError(f'method.levels: {tuple(levels)}, expected at most the {len(b.settings.domains)} of '
                          'method.domains')
    if b.config.labels.transforms:
        raise ConfigError(f'labels.transforms: {b.config.labels.transforms}, but rows are chosen level by level, '
                          'expected ()')


def own(b: Parts, seed: int) -> np.ndarray:
    """The rows of the teacher's half that are of its domains."""
    mine = b.halves[seed].teacher.index
    return mine[np.isin(domains(b)[mine], b.settings.domains)] if b.settings.domains else mine


def specialists(b: Parts, seed: int, mine: np.ndarray, rows: Rows, level: int) -> list[Labels]:
    """The labels of the specialists of a level."""
    number = b.settings.levels[level]
    if b.settings.domains:
        parts = [mine[np.isin(domains(b)[mine], part)] for part in np.array_split(b.settings.domains, number)]
    else:
        parts = sliced(b, seed, number, f'method.levels: {number}')
    fits = [b.fit('teacher', b.teacher, Rows(seed, part), b.truth, label=f'specialist {k} of level {level + 1}')
            for k, part in enumerate(parts)]
    return [b.label(fit, rows, noise=b.config.method.label_noise) for fit in fits]


def climb(b: Parts, labels: Labels, levels: list[list[Labels]], loss: str) -> None:
    """A student on the labels of the one teacher, and one for every level, each chosen for by the one before."""
    columns: dict[str, Phase] = {}
    for level, each in enumerate([*levels, []]):
        last = level == len(levels)
        fit = b.fit('student' if last else 'rung', b.student, labels.rows, labels, loss, columns=columns, stopping=True,
                    label=f'student {loss}, level {level}')
        b.students([fit], method='naive' if level == 0 else '', label=f'{loss}, level {level}')
        if not last:
            labels, columns = chosen(b, fit, each)


def chosen(b: Parts, student: Phase, each: list[Labels]) -> tuple[Labels, dict[str, Phase]]:
    """The specialists' labels that are nearest to a student's answers, and the weights of rows."""
    rows = each[0].rows
    says = soft(b.label(student, rows, name='what the student thinks'))
    how = Settings(classes=b.dataset.num_classes, matched=b.settings.matched, hard=b.config.method.labels == 'hard')
    labels = b.table(TABLES['assigned'], how, {'student': says} | pooled(each), 'labels of the nearest specialists',
                     rows.seed)
    if not b.settings.top:
        return Labels(labels, rows), {}
    weights = b.table(TABLES['consistent'], Settings(top=b.settings.top), {'student': says, 'labels': labels},
                      'rows that are learned', rows.seed)
    return Labels(labels, rows), {'weight': weights}
