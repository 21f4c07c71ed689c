"""Weak-to-strong fine-tuning (arXiv 2312.09390, section 3), naive or with any loss in cross-entropy's place.

The teacher learns the truth of its half of the pool and labels the other half; students learn those labels; the
ceiling is the student's model on the truth of that other half. A seed draws the halves, the new parameters and the
order of the data, so that students of one seed differ in their loss alone.
"""
from w2s_jax.methods.parts import Parts
from w2s_jax.methods.registry import METHODS


@METHODS.register('naive')
def naive(b: Parts) -> None:
    """Students learn the weak labels of their half, one student for each loss."""
    for seed in b.seeds:
        weak, labels = b.weak_labels(seed)
        b.weak(weak, labels)
        b.ceiling(b.fit('ceiling', b.student, b.halves[seed].student, b.truth))
        b.students(b.fit('student', b.student, b.halves[seed].student, labels, loss) for loss in b.losses)
