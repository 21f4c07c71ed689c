"""Adversarial weak-to-strong training with its ablation (methods.md D4; Dong et al., NeurIPS 2025, rOR5IZcwJx)."""
from typing import Any

from w2s_jax import config as configs
from w2s_jax.errors import ConfigError
from w2s_jax.graph import Phase, Source
from w2s_jax.labels import doubt
from w2s_jax.labels.texts import TABLES
from w2s_jax.methods.ensemble import soft
from w2s_jax.methods.parts import Labels, Parts
from w2s_jax.methods.registry import METHODS
from w2s_jax.methods.robust import check_features
from w2s_jax.registry import Setting, Settings

AIM = 'adv_w2s'
VARIANTS = {'adversarial confidence': {'eur': False, 'iar': False}, 'with EUR': {'eur': True, 'iar': False},
            'with IAR': {'eur': False, 'iar': True}, 'Adv-W2S': {'eur': True, 'iar': True}}


@METHODS.register('adversarial',
                  ceiling=Setting('adversarial', choices=('adversarial', 'plain'), doc='how the strong model learns '
                                  'the truth; a plain one has no robustness that students could recover'),
                  ablation=Setting(True, doc="whether there is also a student without each part of the objective, and "
                                             'one that learns on random noise of the same size'))
def adversarial(b: Parts) -> None:
    """Students learn weak labels on their own adversaries, beside others that learn on noise or on the rows."""
    values = check(b)
    variants = VARIANTS if b.settings.ablation else {'Adv-W2S': {k: values[k] for k in ('eur', 'iar')}}
    plain = [loss for loss in b.losses if loss not in (AIM, 'noise')]
    for seed in b.seeds:
        weak, labels = b.weak_labels(seed)
        half = b.halves[seed].student
        b.weak(weak, labels)
        b.ceiling(ceiling(b, half, values))
        b.students(b.fit('student', b.student, half, labels, loss) for loss in plain)
        if b.settings.ablation or 'noise' in b.losses:
            b.students([b.fit('student', b.student, half, labels, 'noise', values={'eps': values['eps']})])
        columns = {'doubt': doubts(b, labels, seed), 'inverse': inverses(b, weak, labels, values)}
        for name, parts in variants.items():
            mine = {k: v for k, v in columns.items() if parts['eur' if k == 'doubt' else 'iar']}
            fit = b.fit('student', b.student, half, labels, AIM, values=values | parts, columns=mine)
            b.students([fit], label=name)


def check(b: Parts) -> Settings:
    """The settings of the objective. Raises ConfigError for what does not go together."""
    aim, values = configs.chosen(b.config, 'student.loss')
    if aim.name != AIM:
        raise ConfigError(f'student.loss.name: {aim.name!r}, but method.name {b.config.method.name!r} trains '
                          f'with another, expected {AIM!r}')
    check_features(b, b.student, 'student.model')
    if 'teacher' not in b.models:
        raise ConfigError(f'labels.source: {b.config.labels.source!r}, but inverse adversaries are of a teacher that '
                          "is trained, expected 'teacher'")
    check_features(b, b.teacher, 'teacher.model')
    if b.config.labels.transforms:
        raise ConfigError(f"labels.transforms: {b.config.labels.transforms}, but the teacher's doubts are of all its "
                          'own labels, expected ()')
    return values


def ceiling(b: Parts, half, values: Settings) -> Phase:
    """The strong model on truth: on its own adversaries, or on rows as they are."""
    if b.settings.ceiling == 'plain':
        return b.fit('ceiling', b.student, half, b.truth)
    return b.fit('ceiling', b.student, half, b.truth, AIM, values=values | {'eur': False, 'iar': False, 'alpha': 0.})


def doubts(b: Parts, labels: Labels, seed: int) -> Phase:
    """`[n]`: how much the student's own answer counts."""
    return b.table(TABLES[doubt.NAME], Settings(), {'labels': soft(labels)}, "the teacher's doubts", seed)


def inverses(b: Parts, weak: Any, labels: Labels, values: Settings) -> Phase:
    """`[n, K]`: what the teacher says of its inverse adversaries, which no student has a part in."""
    assert isinstance(weak, Phase), 'a teacher that is trained'
    made = soft(labels)
    assert not isinstance(made, Source), 'a teacher labels'
    section = {k: made.section[k] for k in ('model', 'num_classes', 'objective')}
    hyper = {'seed': labels.rows.seed, **{k: values[k] for k in ('eps', 'step')}}
    return Phase('inverse', section | {'inverse': {'steps': values.steps}, 'hyper': hyper},
                 {'inputs': b.raw['inputs'], 'rows': labels.rows.source, 'model': weak},
                 "the teacher's inverse adversaries", 'label')
