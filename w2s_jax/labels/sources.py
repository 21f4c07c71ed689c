"""SOURCES: name -> where the weak labels of a seed come from: `fn(b, seed) -> (weak, labels)`.

b: the parts of the method (methods/parts.py).  weak: who answers the test sets as the weak model, a phase, or labels
that came with the data.  labels: its labels of the student's half, what `b.label` or `b.column` returns.
"""
from w2s_jax.registry import Registry

SOURCES = Registry('source', options=('teacher',))  # teacher: whether it needs the teacher's model


@SOURCES.register('teacher', teacher=True)
def teacher(b, seed: int):
    """The teacher, fine-tuned on the truth of its half of the pool (Burns et al. 2023, section 3)."""
    weak = b.fit('teacher', b.teacher, b.halves[seed].teacher, b.truth)
    return weak, b.label(weak, b.halves[seed].student, noise=b.config.method.label_noise)


@SOURCES.register('column', teacher=False)
def column(b, seed: int):
    """Weak labels that come with the data: a task's own, or a column of the user's file."""
    return b.given_answers(), b.column(b.halves[seed].student)
