"""ConG, contrastive weak-to-strong generation (ICML 2026): students learn texts that weak models write in contrast.

A weak model before (0, tuned on preferred texts) and after (1, DPO) its alignment: what the second has learned is
log p1 - log p0, its implicit reward, and drawing from log p1 - (1 - alpha) log p0 within the head of p1 writes texts
with more of it. ConG-S: the strong model is tuned on such texts (SFT); ConG: then preference optimisation (DPO) with
them as preferred to the student's own.
"""
from w2s_jax.graph import Phase
from w2s_jax.methods import written
from w2s_jax.methods.parts import Parts
from w2s_jax.methods.registry import METHODS
from w2s_jax.methods.written import Writer
from w2s_jax.registry import Setting


@METHODS.register('cong', **written.SETTINGS,
                  alpha=Setting(.4, 0, 1, doc='of the contrast; 1: the aligned weak model within its head'),
                  head=Setting(.1, 0, 1, doc='share of the largest probability that a token must have under it'),
                  beta=Setting(.5, 0, 1e4, '(]', doc='of the preference optimisation of students'),
                  weak_beta=Setting(.1, 0, 1e4, '(]', doc='of that of the weak model'),
                  tuning_rate=Setting(None, 0, 1e3, '(]', doc="of SFT; None: the model's own"),
                  preference_rate=Setting(None, 0, 1e3, '(]', doc="of DPO; None: the model's own"),
                  tuning_epochs=Setting(2, 1, 10**6, doc='of SFT'),
                  preference_epochs=Setting(1, 1, 10**6, doc='of DPO'))
def cong(b: Parts) -> None:
    """Weak SFT (texts of the aligned weak model), ConG-S and ConG, beside students of the weak labels; a judge that
    knows the truth says how often it prefers their texts to those of the untuned student."""
    how = b.settings
    for seed in b.seeds:
        before, after = written.aligned(b, seed, how.tuning_rate, how.tuning_epochs, how.preference_rate,
                                        how.preference_epochs, how.weak_beta)
        judged = written.beside(b, seed, after)
        for name, phase in texts(b, seed, before, after).items():
            b.students([phase], label=name, judged=judged.of(phase, name))


def texts(b: Parts, seed: int, before: Phase, after: Phase) -> dict[str, Phase]:
    """Students of what the weak models write, by name."""
    how, (model, _) = b.settings, written.model_of(b, b.student)
    asked = written.prompts(b, b.halves[seed].student)
    plain = written.write(b, Writer(after), asked, seed, 'texts of the aligned weak model')
    contrast = written.write(b, Writer(after, before, how.alpha, how.head), asked, seed, 'contrastive texts')
    found = {}
    for name, mine, other in (('weak SFT', plain, contrast), ('ConG-S', contrast, plain)):
        learned = written.pairs(b, model, asked, mine, other, f'{name}: pairs of seed {seed}')
        found[name] = b.fit('student', b.student, None, learned, 'sft', inputs=learned, seed=seed, stopping=False,
                            label=f'student {name}', rate=how.tuning_rate, epochs=how.tuning_epochs)
    own = written.write(b, Writer(found['ConG-S']), asked, seed, "the student's own texts")
    learned = written.pairs(b, model, asked, contrast, own, f'ConG: pairs of seed {seed}')
    found['ConG'] = b.fit('student', b.student, None, learned, 'dpo', inputs=learned, seed=seed, stopping=False,
                          start=found['ConG-S'], label='student ConG', rate=how.preference_rate,
                          epochs=how.preference_epochs, values={'beta': how.beta})
    return found
