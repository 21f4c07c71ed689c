"""Kind `predict`: what a trained or pretrained model says, as labels of rows or as answers on test sets."""
import pathlib
import time

import jax
import numpy as np

from w2s_jax.graph import Phase
from w2s_jax.labels.transforms import altered
from w2s_jax.phases import context as common
from w2s_jax.phases.context import Context
from w2s_jax.runtime import sharding
from w2s_jax.train.trainer import stack


def run(phases: list[Phase], inputs: list[dict], context: Context, folder: pathlib.Path) -> list[tuple]:
    """Labels, if there is a trained model among the needs; else the answers of a pretrained one."""
    return (label if 'model' in inputs[0] else zero_shot)(phases, inputs, context)


def label(phases: list[Phase], inputs: list[dict], context: Context) -> list[tuple]:
    """A model's answers on the rows that a student will learn from: probabilities, or classes if hard."""
    began, section = time.perf_counter(), phases[0].section
    pool, = common.inputs(inputs[0], 'inputs')
    trainer = common.predictor(section, context, pool)
    params = trainer.put(stack([i['model'].params() for i in inputs]))
    out = trainer.predict(params, pool, np.stack([common.rows(i) for i in inputs]))
    measured = {'seconds': time.perf_counter() - began, 'runs': len(phases), 'examples': out.shape[1]}
    return [(measured, {'labels': worded(labels, p.section)}, None) for p, labels in zip(phases, out, strict=True)]


def worded(labels: np.ndarray, section: dict) -> np.ndarray:
    """Probabilities `[n, K]` as a section wants them: altered, and of hard labels the classes `[n]` int32."""
    hyper = section['hyper']
    labels = altered(labels, hyper['temperature'], hyper['noise'], hyper['seed'])
    return labels.argmax(-1).astype(np.int32) if section['labels'] == 'hard' else labels


def zero_shot(phases: list[Phase], inputs: list[dict], context: Context) -> list[tuple]:
    """What a pretrained model answers on the test sets before any fine-tuning."""
    began, section, names = time.perf_counter(), phases[0].section, common.tests(inputs[0])
    tests = [common.arrays(inputs[0][name]) for name in names]
    trainer = common.predictor(section, context, *tests)
    model = trainer.model  # its adapters, if it has any, change nothing yet
    init = jax.jit(lambda pretrained: sharding.constrain(context.mesh, model.init(jax.random.key(0), pretrained)))
    params = jax.tree.map(lambda x: x[None], init(model.load(trainer.shardings)))
    arrays: dict[str, np.ndarray] = {}
    for name, test in zip(names, tests, strict=True):
        found = trainer.predict(params, test, reduce=common.best)
        arrays |= {f'{name.removeprefix("predict/")}.{k}': v[0] for k, v in found.items()}
    return [({'seconds': time.perf_counter() - began}, arrays, None)]
