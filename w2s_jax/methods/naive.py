"""Weak-to-strong fine-tuning (arXiv 2312.09390, section 3), naive or with any loss in cross-entropy's place.

The teacher learns the truth of its half of the pool and labels the other half; students learn those
labels; the ceiling is the student's model on the truth of that other half. A seed draws the halves, the
new parameters and the order of the data, so that students of one seed differ in their loss alone.
"""
import numpy as np

from w2s_jax import losses
from w2s_jax.data import Dataset, Inputs, fingerprint, split_groups
from w2s_jax.graph import Phase, Source
from w2s_jax.models.modes import Model
from w2s_jax.models.zoo import GIVEN

_PART = {'inputs': 'pool', 'test': 'test set'}


def graph(config, dataset: Dataset, models: dict[str, Model]) -> Phase:
    """The evaluate phase, whose needs are all the others. `models` maps 'teacher' and 'student'."""
    raw = {'inputs': _inputs(dataset.pool.inputs), 'test': _inputs(dataset.test.inputs)}
    shared = {role: prepared(config, dataset, model, raw) for role, model in models.items()}
    halves = {seed: trimmed_halves(dataset.pool.group, config.method.share, seed) for seed in config.seeds}
    students = {name: _loss(config, name) for name in _loss_names(config)}
    needs: dict[str, Phase | Source] = {
        'truth': _source(dataset.test.truth), 'test': raw['test'],
        **{f'extra/{k}': _source(v) for k, v in dataset.test.extras.items()}}
    if models['student'].answers:
        needs['zero_shot'] = Phase('zero_shot', _model_section(models['student'], dataset),
                                   {'test': shared['student']['test']}, 'zero-shot')
    for seed, (rows_a, rows_b) in halves.items():
        weak, labels = _supervision(config, dataset, models, shared.get('teacher'), seed, rows_a, rows_b)
        truth_b = _source(dataset.pool.truth[rows_b])
        on_b = shared['student'] | {'rows': _source(rows_b)}
        needs |= {f'weak/{seed}': weak, f'labels/{seed}': labels, f'labels_truth/{seed}': truth_b}
        part = _fit_section(config, 'student', models['student'], dataset, seed)
        needs[f'ceiling/{seed}'] = Phase('ceiling', part | _loss(config, 'xent'),
                                         on_b | {'targets': truth_b}, 'ceiling')
        for name, loss in students.items():
            needs[f'student/{name}/{seed}'] = Phase('student', part | loss, on_b | {'targets': labels},
                                                    f'student {name}')
    return Phase('evaluate', _evaluation_section(config, students, models), needs, 'evaluation')


def prepared(config, dataset: Dataset, model: Model, raw: dict[str, Source]) -> dict[str, Phase | Source]:
    """The pool and the test set as a model takes them: as they are, or tokens, or (probe) cached features."""
    needs: dict[str, Phase | Source] = dict(raw)
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


def _supervision(config, dataset, models, shared, seed, rows_a, rows_b):
    """(who answers the test set as the weak model, the weak labels of the student's half)."""
    if config.teacher.model == GIVEN:
        return _source(dataset.test.given), _source(dataset.pool.given[rows_b])
    section = _fit_section(config, 'teacher', models['teacher'], dataset, seed)
    section |= _loss(config, config.teacher.loss.name, config.teacher.loss)
    teacher = Phase('teacher', section, shared | {'rows': _source(rows_a),
                                                  'targets': _source(dataset.pool.truth[rows_a])}, 'teacher')
    labels = Phase('label', _model_section(models['teacher'], dataset) | {'labels': config.method.labels, 'seed': seed},
                   {'inputs': shared['inputs'], 'rows': _source(rows_b), 'teacher': teacher}, 'labels')
    return teacher, labels


def _loss_names(config) -> list[str]:
    return list(dict.fromkeys([*config.method.baselines, config.student.loss.name]))


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


def _evaluation_section(config, students: dict[str, dict], models: dict[str, Model]) -> dict:
    rows = [{'method': config.method.name, 'label': name, 'model': models['student'].name, **loss}
            for name, loss in students.items()]
    teacher = models['teacher'].name if 'teacher' in models else GIVEN
    return {'seeds': list(config.seeds), 'teacher': teacher, 'ceiling': models['student'].name,
            'students': rows, 'examples': config.report.examples, 'resamples': config.report.resamples}


def _source(value: np.ndarray) -> Source:
    return Source(fingerprint(value), value)


def _inputs(inputs: Inputs) -> Source:
    return Source(fingerprint(*(inputs[k] for k in sorted(inputs))), inputs)
