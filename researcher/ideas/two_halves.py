"""Students on labels that a first student gave: what the labels' errors have in common is learned, their slips are not."""
from w2s_jax.methods import METHODS


@METHODS.register('two_halves')
def two_halves(b):
    for seed in b.seeds:
        weak, labels = b.weak_labels(seed)
        b.weak(weak, labels)
        rows = b.halves[seed].student
        b.ceiling(b.fit('ceiling', b.student, rows, b.truth))
        first = b.fit('rung', b.student, rows, labels, 'confidence')
        b.students([b.fit('student', b.student, rows, b.label(first, rows), 'xent')])
