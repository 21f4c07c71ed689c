"""Students on the answers of a first one, trained with the confidence loss, in place of the labels."""
from w2s_jax.methods import METHODS


@METHODS.register('self_labelled')
def self_labelled(b):
    for seed in b.seeds:
        weak, labels = b.weak_labels(seed)
        b.weak(weak, labels)
        rows = b.halves[seed].student
        b.ceiling(b.fit('ceiling', b.student, rows, b.truth))
        first = b.fit('rung', b.student, rows, labels, 'confidence')
        b.students([b.fit('student', b.student, rows, b.label(first, rows), 'xent')])
