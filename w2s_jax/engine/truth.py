"""The seal on truth: what a plan may not do, checked before anything runs."""
from collections.abc import Iterable

import numpy as np

from w2s_jax.data import Dataset
from w2s_jax.errors import ConfigError
from w2s_jax.graph import Phase, Rows, Sealed, Source, Truth
from w2s_jax.methods.parts import Halves, Target
from w2s_jax.phases.kinds import KINDS

FEWEST = 20  # rows below which labels may equal the truth by chance
MAKES_TEXTS = ('table', 'generate', 'tokens', 'score', 'features')  # whose rows may be those of the pool


def check(target: Phase, targets: list[Target], dataset: Dataset, halves: dict[int, Halves]) -> None:
    """Raises ConfigError if a plan gives truth to a phase that may not see it, in whatever dress.

    Truth goes to teachers (of their own half), ceilings, the evaluation and comparisons, and to simulated errors. A
    student descends from none of these but teachers, unless it is marked as an oracle, and no source that it or its
    labels come from tells the truth row by row.
    """
    for phase in everyone(target):
        _sealed(phase, halves, dataset)
        if not phase.sees_truth:
            _sources(phase, dataset)
    for found in targets:
        if found.role == 'student' and not found.row.get('oracle') and isinstance(found.need, Phase):
            _descent(found)
        if found.role == 'ceiling' and isinstance(found.need, Phase) and found.need.role != 'ceiling':
            raise ConfigError(f'ceiling: {found.need.label} was fitted as {found.need.role}, expected a ceiling')


def everyone(target: Phase) -> list[Phase]:
    """A phase and all that it needs. Not by their ids: a student on truth has that of the ceiling."""
    found: dict[int, Phase] = {}
    todo = [target]
    while todo:
        phase = todo.pop()
        if id(phase) not in found:
            found[id(phase)] = phase
            todo += phase.before()
    return list(found.values())


def _sealed(phase: Phase, halves: dict[int, Halves], dataset: Dataset) -> None:
    given = [name for name, need in phase.needs.items() if isinstance(need, Sealed)]
    allowed = KINDS[phase.kind].measures or (phase.kind == 'fit' and phase.role in ('teacher', 'ceiling')) or (
        phase.kind == 'table' and phase.role == 'teacher')  # true examples in a teacher's prompt
    if given and not (phase.sees_truth and allowed):
        raise ConfigError(f'{phase.label}: is given the truth ({given[0]}), which only a teacher, a ceiling and the '
                          'evaluation may see')
    if given and phase.role == 'teacher':
        rows, seed = phase.needs.get('rows'), phase.seed
        mine = rows.value if isinstance(rows, Source) else np.arange(0)
        if seed in halves and np.isin(mine, halves[seed].student.index).any():
            raise ConfigError(f"{phase.label}: a teacher is given the truth of rows of the student's half, expected "
                              'rows of its own')
        if not all(_is_of(phase.needs[name], mine, dataset) for name in given):
            raise ConfigError(f'{phase.label}: a teacher is given truth ({given[0]}) that is not of its rows, expected '
                              "that of `rows` of the teacher's half")


def _is_of(need: Sealed, rows: np.ndarray, dataset: Dataset) -> bool:
    """Whether sealed truth is that of these rows of the pool, and there are some."""
    truth = dataset.pool.truth
    if truth is None or not isinstance(rows, np.ndarray) or not len(rows):
        return False
    return need.id == Truth(truth)[rows].id


def _descent(found: Target) -> None:
    assert isinstance(found.need, Phase)
    for phase in everyone(found.need):
        if phase.sees_truth and not (phase.kind in ('fit', 'table') and phase.role == 'teacher'):
            raise ConfigError(f'student {found.label!r}: comes from {phase.label} ({phase.role}), which saw the truth '
                              'of its rows or of the test set; an oracle must be marked as one')
        if phase.kind == 'fit' and not phase.sees_truth:
            _apart(found, phase)
    if found.need.role == 'teacher':
        raise ConfigError(f'student {found.label!r}: was fitted as a teacher, on truth')


def _apart(found: Target, learner: Phase) -> None:
    """No row that a student learns is one of whose truth a teacher behind it has learned, also one of another seed."""
    mine = learned(learner)
    for teacher in everyone(learner):
        if teacher.role == 'teacher' and teacher.sees_truth and np.isin(mine, learned(teacher)).any():
            raise ConfigError(f'student {found.label!r}: {learner.label} learns rows whose truth {teacher.label} of '
                              f'seed {teacher.seed} has learned, expected rows that its teachers have not seen')


def learned(phase: Phase) -> np.ndarray:
    """The rows of the pool that a phase learns from, or chooses from; of texts that were made of some rows, those."""
    rows = phase.needs.get('rows')
    if rows is None:
        made = [learned(p) for p in phase.before() if p.kind in MAKES_TEXTS]
        return np.unique(np.concatenate([np.arange(0), *made]))
    if isinstance(rows, Phase):  # a filter, of the rows that it was given, or those of the filter before
        return learned(rows) if 'rows' in rows.needs else learned(rows.needs['labels'])
    return rows.value if isinstance(rows, Source) else np.arange(0)


def _sources(phase: Phase, dataset: Dataset) -> None:
    rows = phase.needs.get('rows')
    for name, need in phase.needs.items():
        if not isinstance(need, Source) or not isinstance(need.value, np.ndarray) or name in ('rows', 'group'):
            continue
        for whose, truth in _truths(need.value, rows, dataset):
            if tells(need.value, truth):
                raise ConfigError(f'{phase.label}: {name} equals the truth of {whose} on all {len(truth)} rows, which '
                                  'only a teacher, a ceiling and the evaluation may see')


def _truths(value: np.ndarray, rows, dataset: Dataset) -> Iterable[tuple[str, np.ndarray]]:
    """The truths that an array could be about: of the rows beside it, the pool, a test set; (whose, `[n]`)."""
    index = rows.value if isinstance(rows, Source) else rows.index if isinstance(rows, Rows) else None
    pool = dataset.pool.truth
    parts = {'its rows': None if index is None or pool is None else pool[index], 'the pool': pool,
             **{f'the test set {k!r}': v.truth for k, v in dataset.tests.items()}}
    return [(whose, truth) for whose, truth in parts.items() if truth is not None and len(truth) == len(value)]


def tells(value: np.ndarray, truth: np.ndarray) -> bool:
    """Whether an array `[n]` or `[n, K]`, or one of `[n, T, K]`, gives the class of every row: classes, one-hot or soft
    labels, or any other names for the classes, one each."""
    if value.ndim == 3:
        return any(tells(value[:, t], truth) for t in range(value.shape[1]))
    if len(truth) < FEWEST or value.dtype == object or value.ndim > 2:
        return False
    said = value.argmax(-1) if value.ndim == 2 else value
    classes, names = len(np.unique(truth)), len(np.unique(said))
    if classes < 2 or classes != names:
        return False
    return len(np.unique(np.stack([said.astype(np.float64), truth.astype(np.float64)]), axis=1).T) == classes
