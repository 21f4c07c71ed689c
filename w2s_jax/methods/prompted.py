"""Prompted models (arXiv 2312.09390, section 5.2.1): no training, the answer of the likelier text.

A causal model reads every text once with each answer behind it; the likelihoods of these are the answers' logits, less
what each answer gets on the whole (batch calibration, arXiv 2309.17249). Few-shot: examples stand before the text,
labelled by the weak model (for the student) or by the truth of the teacher's half (for the teacher).
"""
from typing import Any, NamedTuple

from w2s_jax.errors import ConfigError
from w2s_jax.graph import Phase
from w2s_jax.labels.prompts import TEMPLATE, check_template
from w2s_jax.labels.texts import TABLES
from w2s_jax.methods.parts import Labels, Parts
from w2s_jax.methods.registry import METHODS
from w2s_jax.models.modes import Model
from w2s_jax.registry import Setting, Settings


class Shown(NamedTuple):
    """What examples are taken from. labels: of rows `rows` of the pool."""
    labels: Any
    rows: Any


def checked(settings: Settings) -> dict[str, str]:
    """No models of its own. Raises ConfigError for a template that is none."""
    check_template('method', settings)
    return {}


@METHODS.register('prompted', models=checked,
                  words=Setting(('no', 'yes'), doc='how the classes are called, in their order'),
                  template=Setting(TEMPLATE, doc='of {text} and {answer}'),
                  shots=Setting(4, 0, 1000, doc='examples before the text; 0: none are shown'),
                  calibrated=Setting(True, doc='whether every answer is as likely on the whole as the others'),
                  teacher=Setting(False, doc='whether the teacher is prompted, too, with true examples of its half'))
def prompted(b: Parts) -> None:
    """The student's model prompted with no examples and with weakly labelled ones, beside fine-tuned students."""
    check(b)
    for seed in b.seeds:
        half = b.halves[seed].student
        weak, labels = supervisor(b, seed)
        b.weak(weak, labels)
        b.ceiling(b.fit('ceiling', b.student, half, b.truth))
        b.students((b.fit('student', b.student, half, labels, loss) for loss in b.losses), method='naive')
        b.students([answers(b, b.student, seed)], label='zero-shot prompt')
        if b.settings.shots:
            shown = Shown(labels.need, labels.need if labels.kept else labels.rows.source)
            b.students([answers(b, b.student, seed, shown)], label=f'{b.settings.shots} weak examples')


def check(b: Parts) -> None:
    """Raises ConfigError if the classes have not as many words, or a model cannot be prompted."""
    if len(b.settings.words) != b.dataset.num_classes or len(set(b.settings.words)) != len(b.settings.words):
        raise ConfigError(f'method.words: {b.settings.words}, expected {b.dataset.num_classes} different words, one '
                          'for each class')
    for model in [b.student, *([b.teacher] if b.settings.teacher else [])]:
        if model.prompted is None or b.dataset.pool.inputs['text'].shape[1] != 1:
            raise ConfigError(f"method 'prompted': {model.name!r} on task {b.dataset.name!r}, expected a causal "
                              'language model and one text a row')


def prompted_model(model: Model) -> Model:
    """The model that answers by likelihoods."""
    assert model.prompted is not None, 'check() was called'
    return model.prompted()


def supervisor(b: Parts, seed: int) -> tuple[Any, Labels]:
    """The weak model and its labels of the student's half: the config's, or a prompted teacher's."""
    if not b.settings.teacher:
        return b.weak_labels(seed)
    mine = b.halves[seed].teacher
    shown = Shown(b.truth[mine.index], mine.source) if b.settings.shots else None
    weak = answers(b, b.teacher, seed, shown, 'teacher')
    return weak, b.transformed(labelled(b, b.teacher, seed, shown, 'teacher'))


def asked(b: Parts, model: Model, name: str, seed: int, shown: Shown | None, role: str) -> Phase:
    """Token ids of the prompts of the pool ('inputs') or of a test set."""
    needs: dict[str, Any] = {'texts': b.raw[name]}
    if shown is not None:
        needs |= {'pool': b.raw['inputs'], 'labels': shown.labels, 'rows': shown.rows}
    settings = Settings(words=list(b.settings.words), template=b.settings.template,
                        shots=b.settings.shots if shown is not None else 0)
    made = b.table(TABLES['prompts'], settings, needs, f'prompts of the {name}', seed if shown is not None else 0)
    made = Phase(made.kind, made.section, made.needs, made.label, role, role == 'teacher')
    return b.whole_tokens(model, made)


def labelled(b: Parts, model: Model, seed: int, shown: Shown | None, role: str = 'prompted') -> Labels:
    """The prompted model's labels of the student's half."""
    whole, half, method = prompted_model(model), b.halves[seed].student, b.config.method
    hyper = {'seed': seed, 'temperature': 1. if method.labels == 'hard' else method.temperature,
             'noise': method.label_noise}
    section = {'model': whole.identity, 'num_classes': b.dataset.num_classes, 'labels': method.labels,
               'calibrated': b.settings.calibrated, 'hyper': hyper}
    needs = {'inputs': asked(b, whole, 'inputs', seed, shown, role), 'rows': half.source}
    return Labels(Phase('predict', section, needs, f'{model.name} prompted: labels', role), half)


def answers(b: Parts, model: Model, seed: int, shown: Shown | None = None, role: str = 'prompted') -> Phase:
    """What the prompted model answers on the test sets, calibrated on the student's half."""
    whole = prompted_model(model)
    section = {'model': whole.identity, 'num_classes': b.dataset.num_classes, 'hyper': {'seed': seed}}
    needs: dict[str, Any] = {f'predict/{k}': asked(b, whole, k, seed, shown, role) for k in b.dataset.tests}
    if b.settings.calibrated:
        needs['prior'] = labelled(b, model, seed, shown, role).need
    return Phase('predict', section, needs, f'{model.name} prompted', role)
