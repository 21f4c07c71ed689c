"""PHASES: kind -> what it does: `run(phases, inputs, context, folder)`, one result a phase.

The phases of a call share their static section and differ in what is traced (seed, learning rate ...):
they train in one program. A result is `(metrics, arrays, params)`, as the store keeps it.
"""
import dataclasses
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from w2s_jax import evaluation, parallel, train
from w2s_jax.checkpoint import Checkpoint
from w2s_jax.data import Dataset
from w2s_jax.graph import Phase
from w2s_jax.models.zoo import Model
from w2s_jax.store import Artifact

KEPT = 5  # best answers a test row that are stored; all of them for up to five classes


@dataclasses.dataclass(frozen=True)
class Context:
    """What a phase runs in; none of it changes what the phase means.

    models: by name.  execution: the config's `train` section.  log: (label, step, steps, metrics).
    """
    dataset: Dataset
    models: dict[str, Model]
    mesh: jax.sharding.Mesh
    execution: Any
    log: Callable


def best(probabilities: np.ndarray) -> dict[str, np.ndarray]:
    """The KEPT best classes of `[..., K]` with their probabilities, best first; equal ones by number."""
    top = np.argsort(-probabilities, axis=-1, kind='stable')[..., :KEPT]
    return {'top': top.astype(np.int32), 'top_probability': np.take_along_axis(probabilities, top, -1)}


def _trainer(section: dict, context: Context, static: train.Static) -> train.Trainer:
    return train.Trainer(context.models[section['model']], static, context.mesh, context.execution.runs,
                         context.execution.eval_batch_size)


def _hyper(phases: list[Phase]) -> train.Hyper:
    names = [f.name for f in dataclasses.fields(train.Hyper)]
    return train.Hyper(*(np.array([p.section[name] for p in phases], np.float32) for name in names))


def _targets(need) -> np.ndarray:
    return need.arrays['labels'] if isinstance(need, Artifact) else need


def fit(phases: list[Phase], inputs: list[dict], context: Context, folder: pathlib.Path) -> list[tuple]:
    """Trains a model on `rows` of `inputs` towards `targets` and predicts `test`: teacher, student, ceiling."""
    section, began = phases[0].section, time.perf_counter()
    rows = np.stack([i['rows'] for i in inputs])
    execution = context.execution
    steps = train.num_steps(rows.shape[1], section['batch_size'], section['epochs'])
    static = train.Static(section['loss'], steps, section['batch_size'], section['num_classes'],
                          execution.accumulate, section['optimizer'], section['schedule'])
    test = inputs[0]['test']
    watch = {k: v[:section['watch']] for k, v in test.items()}
    runs = train.Runs(inputs[0]['inputs'], rows, np.stack([_targets(i['targets']) for i in inputs]),
                      np.array([p.section['seed'] for p in phases]), _hyper(phases), watch, section['evaluations'])
    trainer, checkpoint = _trainer(section, context, static), Checkpoint(folder / 'checkpoint')
    label = phases[0].label
    try:
        params, history = trainer.fit(runs, checkpoint, execution.checkpoint_every,
                                      lambda *a: context.log(label, *a))
    finally:
        checkpoint.close()
    predicted = trainer.predict(params, test, reduce=best)
    seconds = {'seconds': time.perf_counter() - began, 'compile_seconds': trainer.compile_seconds}
    return [({'steps': steps, 'final_loss': float(history.loss[-1, r]), **seconds},
             {'loss': history.loss[:, r], 'watched': history.watched[:, r], 'watched_steps': history.steps,
              **{k: v[r] for k, v in predicted.items()}},
             train.one_run(params, r)) for r in range(len(phases))]


def label(phases: list[Phase], inputs: list[dict], context: Context, folder: pathlib.Path) -> list[tuple]:
    """The teacher's answers on the rows that the student will learn from: probabilities, or classes if hard."""
    began, section = time.perf_counter(), phases[0].section
    trainer = _trainer(section, context, train.Static('xent', 1, 1, section['num_classes']))
    params = train.stack([i['teacher'].params() for i in inputs])
    out = trainer.predict(params, inputs[0]['inputs'], np.stack([i['rows'] for i in inputs]))
    if section['labels'] == 'hard':
        out = out.argmax(-1).astype(np.int32)
    return [({'seconds': time.perf_counter() - began}, {'labels': labels}, None) for labels in out]


def zero_shot(phases: list[Phase], inputs: list[dict], context: Context, folder: pathlib.Path) -> list[tuple]:
    """What a pretrained model answers on the test set before any fine-tuning."""
    began, section = time.perf_counter(), phases[0].section
    trainer = _trainer(section, context, train.Static('xent', 1, 1, section['num_classes']))
    predicted = trainer.predict(train.stack([context.models[section['model']].load()]), inputs[0]['test'], reduce=best)
    return [({'seconds': time.perf_counter() - began}, {k: v[0] for k, v in predicted.items()}, None)]


def evaluate(phases: list[Phase], inputs: list[dict], context: Context, folder: pathlib.Path) -> list[tuple]:
    """The only phase that reads the truth of the test set."""
    return [(evaluation.evaluate(phase.section, needs, context.dataset.render), None, None)
            for phase, needs in zip(phases, inputs, strict=True)]


PHASES: dict[str, Callable] = {
    'teacher': fit,
    'label': label,
    'student': fit,
    'ceiling': fit,
    'zero_shot': zero_shot,
    'evaluate': evaluate,
}


def run(phases: list[Phase], inputs: list[dict], folder: pathlib.Path, *, context: Context) -> list[tuple]:
    """Runs phases of one group; `graph.execute` calls it."""
    return PHASES[phases[0].kind](phases, inputs, context, folder)


def make_context(config, dataset: Dataset, models: dict[str, Model], log: Callable) -> Context:
    """The context that a config describes, on the devices there are."""
    return Context(dataset, models, parallel.make_mesh(**config.mesh), config.train, log)
