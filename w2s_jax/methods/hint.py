"""Students that are told the weak label (arXiv 2312.09390, appendix E.3): imitation made trivial.

Every text of the student, in training and in the test sets, ends with what the weak model says of it. Nothing of truth
is in that; a student that can do no more than imitate is now as good as its supervisor, and not better. Beside it
stands the plain student. The ceiling is the plain one, without hints.
"""
from w2s_jax.errors import ConfigError
from w2s_jax.graph import Phase, source
from w2s_jax.labels.texts import TABLES
from w2s_jax.methods.parts import Labels, Parts
from w2s_jax.methods.registry import METHODS
from w2s_jax.registry import Setting, Settings


@METHODS.register('hint', words=Setting((), doc='what classes are called in the hint, in order; (): their numbers'))
def hint(b: Parts) -> None:
    """Students whose texts end with "I think this is {weak label}. What do you think?", beside plain students."""
    if 'text' not in b.dataset.pool.inputs:
        raise ConfigError(f"method.name: 'hint' needs texts, but the rows of task {b.dataset.name!r} have "
                          f'{", ".join(b.dataset.pool.inputs)}')
    if b.settings.words and len(b.settings.words) != b.dataset.num_classes:
        raise ConfigError(f'method.words: {len(b.settings.words)} words, expected {b.dataset.num_classes}, one for '
                          'each class')
    for seed in b.seeds:
        weak, labels = b.weak_labels(seed)
        b.weak(weak, labels)
        half = b.halves[seed].student
        b.ceiling(b.fit('ceiling', b.student, half, b.truth))
        pool, tests = hinted(b, labels), {name: hinted_test(b, name, weak) for name in b.dataset.tests}
        for loss in b.losses:
            b.students([b.fit('student', b.student, half, labels, loss)], method='naive', label=loss)
            b.students([b.fit('student', b.student, half, labels, loss, label=f'student hint {loss}', inputs=pool,
                              tests=tests)], label=f'hint {loss}')


def hinted(b: Parts, labels: Labels) -> Phase:
    """The texts of the pool with the labels that the student learns."""
    needs = {'texts': b.raw['inputs'], 'labels': labels.need} | ({} if labels.kept else {'rows': labels.rows.source})
    return b.table(TABLES['hints'], Settings(test='', words=b.settings.words), needs,
                   f'texts with hints of seed {labels.rows.seed}')


def hinted_test(b: Parts, name: str, weak) -> Phase:
    """The texts of a test set with the weak model's answers. Raises ConfigError if it has none there."""
    given = b.dataset.tests[name].given
    if not isinstance(weak, Phase) and given is None:
        raise ConfigError(f"method.name: 'hint' needs weak labels of test set {name!r}, but task {b.dataset.name!r} "
                          'brings none')
    needs = {'texts': b.raw[name], 'weak': weak if isinstance(weak, Phase) else source(given)}
    return b.table(TABLES['hints'], Settings(test=name, words=b.settings.words), needs, f'{name} with hints')
