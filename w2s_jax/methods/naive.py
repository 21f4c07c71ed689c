"""Weak-to-strong fine-tuning (arXiv 2312.09390, section 3), naive or with any loss in cross-entropy's place.

The teacher learns the truth of its half of the pool and labels the other half; students learn those
labels; the ceiling is the student's model on the truth of that other half. A seed draws the halves, the
new parameters and the order of the data, so that students of one seed differ in their loss alone.
"""
import dataclasses
from typing import Any

import numpy as np

from w2s_jax import losses
from w2s_jax.data import Dataset, Examples, Inputs, fingerprint, split_groups
from w2s_jax.graph import Phase, Source
from w2s_jax.models.modes import Model
from w2s_jax.models.zoo import GIVEN

_PART = {'inputs': 'pool', 'test': 'test set'}
_PLAIN = {'temperature': 1.0, 'label_noise': 0.0}  # what is plain is not named, so that it has one id

Needs = dict[str, Phase | Source]


@dataclasses.dataclass(frozen=True, eq=False)
class Setting:
    """What every method starts from.

    models: by role, 'student' and maybe 'teacher', 'rung/0' ...  inputs: by role, the pool ('inputs') and the test
    set ('test') as that model takes them.  halves: by seed, the pool's rows for the teacher and for the student.
    """
    config: Any
    dataset: Dataset
    models: dict[str, Model]
    raw: dict[str, Source]
    inputs: dict[str, Needs]
    halves: dict[int, tuple[np.ndarray, np.ndarray]]


def graph(config, dataset: Dataset, models: dict[str, Model]) -> Phase:
    """The evaluate phase, whose needs are all the others. `models` maps 'teacher' and 'student'."""
    s = setting(config, dataset, models)
    needs, names = test_needs(s), loss_names(config)
    for seed in s.halves:
        needs |= seed_needs(s, seed)
        needs |= {f'student/{loss}/{seed}': student(s, loss, seed, needs[f'labels/{seed}']) for loss in names}
    return evaluation(s, needs, [student_row(s, config.method.name, loss, loss) for loss in names])


def setting(config, dataset: Dataset, models: dict[str, Model]) -> Setting:
    """Inputs for every model and halves for every seed."""
    raw = {'inputs': _inputs(dataset.pool.inputs), 'test': _inputs(dataset.test.inputs)}
    return Setting(config, dataset, models, raw,
                   {role: prepared(config, dataset, model, raw) for role, model in models.items()},
                   {seed: trimmed_halves(dataset.pool.group, config.method.share, seed) for seed in config.seeds})


def test_needs(s: Setting) -> Needs:
    """What evaluation needs of any method: the test set, and what the student's model says before training."""
    test = s.dataset.test
    needs: Needs = {'truth': source(test.truth), 'test': s.raw['test'],
                    **{f'extra/{k}': source(v) for k, v in test.extras.items()}}
    if s.models['student'].answers:
        needs['zero_shot'] = Phase('zero_shot', _model_section(s.models['student'], s.dataset),
                                   {'test': s.inputs['student']['test']}, 'zero-shot')
    return needs


def seed_needs(s: Setting, seed: int) -> Needs:
    """What evaluation needs of any method and seed: the weak model, its labels of the student's half, the ceiling."""
    rows = s.halves[seed][1]
    weak, truth = supervisor(s, seed), source(s.dataset.pool.truth[rows])
    return {f'weak/{seed}': weak, f'labels/{seed}': supervisor_labels(s, seed, weak, rows),
            f'labels_truth/{seed}': truth,
            f'ceiling/{seed}': fit(s, 'ceiling', 'student', 'xent', seed, rows, truth, 'ceiling')}


def supervisor(s: Setting, seed: int) -> Phase | Source:
    """Who answers the test set as the weak model: the teacher, or the labels that came with it."""
    if s.config.teacher.model == GIVEN:
        return source(given(s.dataset.test))
    rows, loss = s.halves[seed][0], s.config.teacher.loss
    section = _fit_section(s.config, 'teacher', s.models['teacher'], s.dataset, seed) | _loss(s.config, loss.name, loss)
    return Phase('teacher', section, s.inputs['teacher'] | {'rows': source(rows),
                                                            'targets': source(s.dataset.pool.truth[rows])}, 'teacher')


def supervisor_labels(s: Setting, seed: int, weak: Phase | Source, rows: np.ndarray) -> Phase | Source:
    """The weak labels of `rows` of the pool, spoiled by `method.label_noise`."""
    if isinstance(weak, Source):
        return source(given(s.dataset.pool)[rows])
    return labels(s, 'teacher', seed, weak, rows, 'labels', s.config.method.label_noise)


def labels(s: Setting, role: str, seed: int, model: Phase, rows: np.ndarray, label: str, noise: float = 0.0) -> Phase:
    """What the trained `model` of a role answers on `rows` of the pool, as `method.labels` and temperature say."""
    method = s.config.method
    named = {'temperature': 1.0 if method.labels == 'hard' else method.temperature, 'label_noise': noise}
    section = _model_section(s.models[role], s.dataset) | {'labels': method.labels, 'seed': seed}
    return Phase('label', section | {k: v for k, v in named.items() if v != _PLAIN[k]},
                 {'inputs': s.inputs[role]['inputs'], 'rows': source(rows), 'teacher': model}, label)


def student(s: Setting, loss: str, seed: int, targets: Phase | Source) -> Phase:
    """The student's model on weak labels of its half."""
    return fit(s, 'student', 'student', loss, seed, s.halves[seed][1], targets, f'student {loss}')


def fit(s: Setting, kind: str, role: str, loss: str, seed: int, rows: np.ndarray, targets: Phase | Source,
        label: str) -> Phase:
    """The model of a role trained with `loss` on `rows` of the pool towards `targets`, as the config's student is."""
    section = _fit_section(s.config, 'student', s.models[role], s.dataset, seed) | _loss(s.config, loss)
    return Phase(kind, section, s.inputs[role] | {'rows': source(rows), 'targets': targets}, label)


def student_row(s: Setting, method: str, label: str, loss: str, role: str = 'student') -> dict:
    """What results.json says of the models `student/LABEL/SEED` before they are measured."""
    return {'method': method, 'label': label, 'model': s.models[role].name, **_loss(s.config, loss)}


def evaluation(s: Setting, needs: Needs, rows: list[dict]) -> Phase:
    """The phase that measures the students of `rows` (`student_row`)."""
    report = s.config.report
    teacher, student = s.models['teacher'].name if 'teacher' in s.models else GIVEN, s.models['student'].name
    return Phase('evaluate', {'seeds': list(s.config.seeds), 'teacher': teacher, 'ceiling': student,
                              'students': rows, 'examples': report.examples, 'resamples': report.resamples},
                 needs, f'evaluation of {student} taught by {teacher}')


def prepared(config, dataset: Dataset, model: Model, raw: dict[str, Source]) -> Needs:
    """The pool and the test set as a model takes them: as they are, or tokens, or (probe) cached features."""
    needs: Needs = dict(raw)
    if model.tokenizer is not None:
        section = {'tokenizer': model.tokenizer.fingerprint, 'truncate': config.task.truncate or dataset.truncate,
                   'max_length': min(config.task.max_length, model.max_length)}
        needs = {k: Phase('tokens', section, {'inputs': v}, f'tokens of the {_PART[k]}') for k, v in needs.items()}
    if model.featurize is not None:
        needs = {k: Phase('features', _model_section(model, dataset), {'inputs': v},
                          f'{model.name}: features of the {_PART[k]}') for k, v in needs.items()}
    return needs


def trimmed_halves(group: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The pool's rows for the teacher and for the student, `[n]` and `[m]`, the same n and m for every seed.

    Whole groups do not cut exactly at `share`; a few rows are left out so that seeds stack in one program.
    """
    a, b = split_groups(group, share, seed)
    largest = int(np.unique(group, return_counts=True)[1].max())
    if largest == 1:
        return a, b
    sizes = (int(len(group) * part - largest / 2) for part in (share, 1 - share))
    rng = np.random.default_rng((seed, 1))
    a, b = (np.sort(rng.permutation(rows)[:max(1, size)]) for rows, size in zip((a, b), sizes, strict=True))
    return a, b


def loss_names(config) -> list[str]:
    """The students' losses: the baselines' and the student's own, each once."""
    return list(dict.fromkeys([*config.method.baselines, config.student.loss.name]))


def given(examples: Examples) -> np.ndarray:
    """The labels that came with the data; `experiment.load_models` has seen to it that there are some."""
    assert examples.given is not None
    return examples.given


def _loss(config, name: str, part=None) -> dict:
    """The loss part of a section; what the config leaves open, or says of another loss, is the default."""
    part = part or config.student.loss
    configured = part if name == part.name else {}
    values = {k: configured.get(k) for k in ('alpha', 'alpha_warmup')}
    defaults = losses.DEFAULTS.get(name, {})
    return {'loss': name} | {k: defaults.get(k, 0.0) if v is None else v for k, v in values.items()}


def _model_section(model: Model, dataset: Dataset) -> dict:
    return {**model.identity, 'num_classes': dataset.num_classes}


def _fit_section(config, role: str, model: Model, dataset: Dataset, seed: int) -> dict:
    part, optimizer = config[role], config.optimizer
    return _model_section(model, dataset) | {
        'seed': seed, 'optimizer': optimizer.name, 'schedule': optimizer.schedule,
        'learning_rate': next(rate for rate in (part.learning_rate, optimizer.learning_rate, model.learning_rate)
                              if rate is not None),
        **{k: optimizer[k] for k in ('weight_decay', 'beta2', 'clip', 'warmup')},
        'epochs': config.train.epochs if part.epochs is None else part.epochs,
        **{k: config.train[k] for k in ('batch_size', 'evaluations', 'watch', 'window')}}


def source(value: np.ndarray) -> Source:
    """An array as phases need it."""
    return Source(fingerprint(value), value)


def _inputs(inputs: Inputs) -> Source:
    return Source(fingerprint(*(inputs[k] for k in sorted(inputs))), inputs)
