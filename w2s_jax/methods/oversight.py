"""Debate to weak-to-strong (Lang, Huang, Li 2025, arXiv 2501.13124): a weak judge hears strong agents before it labels.

The student's model, as it is, argues for either answer of every text. The teacher learns the truth of its half from
texts with what was said of them, and labels the student's half so; students learn these labels from the plain texts.
With `consultancy` it hears one side of each text, drawn with even odds (Kenton et al. 2024, arXiv 2407.04622), with
`direct` nobody: that is method `naive`.
"""
from w2s_jax.errors import ConfigError
from w2s_jax.graph import Phase
from w2s_jax.labels import transcripts
from w2s_jax.labels.texts import TABLES
from w2s_jax.methods import written
from w2s_jax.methods.parts import Parts
from w2s_jax.methods.registry import METHODS
from w2s_jax.registry import Setting, Settings

WRITING = {k: v for k, v in written.SETTINGS.items() if k not in ('samples', 'prompts', 'judged', 'cut')}


def checked(settings: Settings) -> dict[str, str]:
    """No models of its own. Raises ConfigError for words or a template that are none."""
    transcripts.check('method', settings, 2)
    return {}


@METHODS.register('oversight', models=checked, **WRITING,
                  cut=Setting(('\n',), doc='strings that end a speech'),
                  words=Setting(('no', 'yes'), doc='how the two classes are called, in their order'),
                  template=Setting(transcripts.REQUEST, doc='what an agent goes on from, of {text} and {answer}'),
                  protocol=Setting('debate', choices=(*transcripts.PROTOCOLS, 'direct'),
                                   doc='who is heard: both sides, one that is drawn, or nobody'),
                  rounds=Setting(1, 1, 20, doc='speeches for either answer; none sees another of its round'),
                  own_texts=Setting(False, doc='whether agents speak anew for every seed'))
def oversight(b: Parts) -> None:
    """Students of the labels of a teacher that reads a debate, or a consultancy, beside each text."""
    transcripts.check('method', b.settings, b.dataset.num_classes)
    texts = b.dataset.pool.inputs.get('text')
    if texts is None or texts.shape[1] != 1:
        raise ConfigError(f"method.name: 'oversight' on task {b.dataset.name!r}, expected one text a row")
    for seed in b.seeds:
        half, names = b.halves[seed], ('inputs', *b.dataset.tests) if b.settings.protocol != 'direct' else ()
        tests = {name: heard(b, name, seed) for name in names}
        pool = tests.pop('inputs', None)
        for name, rows in tests.items():
            b.show(name, rows)
        judge = b.fit('teacher', b.teacher, half.teacher, b.truth, inputs=pool, tests=tests, label='judge')
        labels = b.transformed(b.label(judge, half.student, noise=b.config.method.label_noise, inputs=pool))
        b.weak(judge, labels)
        b.ceiling(b.fit('ceiling', b.student, half.student, b.truth))
        b.students(b.fit('student', b.student, half.student, labels, loss) for loss in b.losses)


def heard(b: Parts, name: str, seed: int) -> Phase:
    """The texts of the pool ('inputs') or of a test set, with what agents say of them."""
    said: dict[str, Phase] = {}
    how = b.settings
    drawn, title = seed if how.own_texts else 0, 'pool' if name == 'inputs' else name
    for i in range(how.rounds):
        asked = b.table(TABLES['requests'], Settings(words=how.words, template=how.template),
                        {'texts': b.raw[name]} | said, f'requests of round {i + 1}, {title}')
        speaker = written.Writer(b.student)
        said[f'said{i}'] = written.write(b, speaker, asked, drawn, f'speeches of round {i + 1}, {title}', samples=1)
    return b.table(TABLES['transcripts'], Settings(words=how.words, protocol=how.protocol, swapped=False),
                   {'texts': b.raw[name]} | said, f'transcripts of the {title}', drawn)
