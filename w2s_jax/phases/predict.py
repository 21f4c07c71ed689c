"""Kind `predict`: what a trained or pretrained model says, as labels of rows or as answers on test sets."""
import pathlib
import time

import jax
import numpy as np

from w2s_jax import metrics
from w2s_jax.graph import Phase
from w2s_jax.labels.transforms import altered
from w2s_jax.phases import context as common
from w2s_jax.phases.context import Context
from w2s_jax.runtime import sharding
from w2s_jax.train.trainer import stack


def run(phases: list[Phase], inputs: list[dict], context: Context, folder: pathlib.Path) -> list[tuple]:
    """Labels, if the needs say of which rows; else answers on the test sets."""
    return (label if 'rows' in inputs[0] else zero_shot)(phases, inputs, context)


def label(phases: list[Phase], inputs: list[dict], context: Context) -> list[tuple]:
    """A model's answers on the rows that a student will learn from: probabilities, or classes if hard. `prior`, if they
    are calibrated: the mean over the rows, by which they are divided."""
    began, section = time.perf_counter(), phases[0].section
    pool, = common.inputs(inputs[0], 'inputs')
    trainer, rows = common.predictor(section, context, pool), [common.rows(i) for i in inputs]
    if 'model' in inputs[0]:
        out = trainer.predict(trainer.put(stack([i['model'].params() for i in inputs])), pool, np.stack(rows))
    else:
        params = untrained(trainer, context)
        out = np.concatenate([trainer.predict(params, pool, one[None]) for one in rows])
    measured = {'seconds': time.perf_counter() - began, 'runs': len(phases), 'examples': out.shape[1]}
    if not section.get('calibrated'):
        return [(measured, {'labels': worded(labels, p.section)}, None) for p, labels in zip(phases, out, strict=True)]
    return [(measured, {'labels': worded(calibrated(labels, prior), p.section), 'prior': prior}, None)
            for p, labels, prior in zip(phases, out, out.mean(1), strict=True)]


def calibrated(probabilities: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """`[..., K]` divided by how likely each answer is on the whole, `[K]`, and by their sum (arXiv 2309.17249)."""
    found = probabilities / np.maximum(prior, 1e-6)
    return (found / found.sum(-1, keepdims=True)).astype(np.float32)


def untrained(trainer, context: Context):
    """The parameters of a pretrained model, with a leading axis of one run."""
    model = trainer.model  # its adapters, if it has any, change nothing yet
    init = jax.jit(lambda pretrained: sharding.constrain(context.mesh, model.init(jax.random.key(0), pretrained)))
    return jax.tree.map(lambda x: x[None], init(model.load(trainer.shardings)))


def worded(labels: np.ndarray, section: dict) -> np.ndarray:
    """Probabilities `[n, K]` as a section wants them: altered, and of hard labels the classes `[n]` int32."""
    hyper = section['hyper']
    labels = altered(labels, hyper['temperature'], hyper['noise'], hyper['seed'])
    return labels.argmax(-1).astype(np.int32) if section['labels'] == 'hard' else labels


def zero_shot(phases: list[Phase], inputs: list[dict], context: Context) -> list[tuple]:
    """What a pretrained model answers on the test sets before any fine-tuning, or one that learned elsewhere (the need
    `model`); as likely on the whole as `prior` says, where there is one. The test sets of phases of one group are the
    same."""
    began, section, names = time.perf_counter(), phases[0].section, common.tests(inputs[0])
    tests = [common.arrays(inputs[0][name]) for name in names]
    trainer = common.predictor(section, context, *tests)
    if 'model' in inputs[0]:
        params = trainer.put(stack([i['model'].params() for i in inputs]))
    else:
        params = untrained(trainer, context)
    priors = [i['prior'].arrays['prior'] if 'prior' in i else None for i in inputs]
    reduce = metrics.best if priors[0] is None else np.asarray
    found = [trainer.predict(params, test, reduce=reduce) for test in tests]
    out = []
    for i, prior in enumerate(priors):
        run = i if 'model' in inputs[0] else 0
        answers = found if prior is None else [metrics.best(calibrated(f, prior)) for f in found]
        arrays = {f'{name.removeprefix("predict/")}.{k}': v[run]
                  for name, one in zip(names, answers, strict=True) for k, v in one.items()}
        out.append(({'seconds': time.perf_counter() - began}, arrays, None))
    return out
