"""Simulated errors (arXiv 2312.09390, appendix E.2): labels as right as the weak model's, but wrong on other rows.

Beside the students of the weak labels, as they are and hardened, stand students of hard labels that are wrong on as
many of the same rows: at random, on the longest texts, where a strong model is unsure ... What they recover tells how
much of a result is due to how the weak model errs, and not to how often. The rows are chosen by truth, and so these
students are oracles.

The strong model that says which rows are hard is the student's, trained on the truth of the teacher's half: it has not
seen the rows that it is asked about.
"""
import dataclasses
from typing import Any

from w2s_jax.errors import ConfigError
from w2s_jax.graph import Phase
from w2s_jax.labels.errors import STRUCTURES
from w2s_jax.labels.transforms import TRANSFORMS
from w2s_jax.methods.parts import Labels, Parts
from w2s_jax.methods.registry import METHODS
from w2s_jax.registry import Entry, Setting, Settings


@METHODS.register('simulated', errors=Setting(('random', 'ceiling_unsure', 'ceiling_sure'),
                                              doc='names of `w2s list errors`: which rows are wrong'))
def simulated(b: Parts) -> None:
    """Students of simulated labels, as right as the weak ones but wrong on other rows, beside the plain students."""
    chosen = structures(b)
    for seed in b.seeds:
        weak, labels = b.weak_labels(seed)
        b.weak(weak, labels)
        b.ceiling(b.fit('ceiling', b.student, b.halves[seed].student, b.truth))
        for loss in b.losses:
            b.students([b.fit('student', b.student, b.halves[seed].student, labels, loss)], method='naive', label=loss)
        learn(b, 'weak', b.transform(TRANSFORMS['harden'], Settings(), labels))
        judge = unseen(b, labels) if any(e.options.get('needs') == 'ceiling' for e in chosen) else None
        for entry in chosen:
            learn(b, entry.name, with_errors(b, entry, labels, judge), oracle=True)


def structures(b: Parts) -> list[Entry]:
    """Those that the config names. Raises ConfigError for one that the task has nothing for."""
    found = [STRUCTURES.get_entry(name, 'method.errors') for name in b.settings.errors]
    for entry in found:
        if entry.options.get('needs') == 'text' and 'text' not in b.dataset.pool.inputs:
            raise ConfigError(f'method.errors: {entry.name!r} needs texts, but the rows of task {b.dataset.name!r} '
                              f'have {", ".join(b.dataset.pool.inputs)}, expected texts, or another structure')
    return found


def learn(b: Parts, name: str, labels: Labels, oracle: bool = False) -> None:
    """A student for each loss, of hard labels with the errors of that name."""
    for loss in b.losses:
        label = f'{name} errors {loss}'
        b.students([b.fit('student', b.student, labels.rows, labels, loss, label=f'student {label}')], label=label,
                   oracle=oracle)


def unseen(b: Parts, labels: Labels) -> Phase:
    """The probabilities that the student's model, trained on the truth of the teacher's half, gives to the rows."""
    fitted = b.fit('ceiling', b.student, b.halves[labels.rows.seed].teacher, b.truth, label="ceiling on teacher's half")
    need = b.label(dataclasses.replace(fitted, keep=True), labels.rows, name='answers of the ceiling').need
    assert isinstance(need, Phase)
    soft = need.section | {'labels': 'soft', 'hyper': need.section['hyper'] | {'temperature': 1.}}
    return dataclasses.replace(need, section=soft)


def with_errors(b: Parts, entry: Entry, labels: Labels, judge: Phase | None) -> Labels:
    """Hard labels of the same rows, as many of them wrong."""
    needs: dict[str, Any] = {'labels': labels.need, 'rows': labels.rows.source, 'truth': b.truth[None]}
    needs |= {'inputs': b.raw['inputs']} if entry.options.get('needs') == 'text' else {}
    needs |= {'ceiling': judge} if entry.options.get('needs') == 'ceiling' else {}
    section = {'structure': entry.identity({}), 'num_classes': b.dataset.num_classes,
               'hyper': {'seed': labels.rows.seed}}
    return Labels(Phase('simulate_errors', section, needs, f'{entry.name} errors', 'simulate_errors', True),
                  labels.rows, True)
