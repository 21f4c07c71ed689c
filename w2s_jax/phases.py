"""PHASES: kind -> what it does: `run(phases, inputs, context, folder)`, one result a phase.

The phases of a call share their static section and differ in what is traced (seed, learning rate ...):
they train in one program. A result is `(metrics, arrays, params)`, as the store keeps it.
"""
import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from w2s_jax import data, evaluation, parallel, runtime, train
from w2s_jax.checkpoint import Checkpoint
from w2s_jax.data import Dataset
from w2s_jax.graph import Phase
from w2s_jax.models import tokens as texts
from w2s_jax.models.modes import Model
from w2s_jax.store import Artifact

PART = 16  # batches of features that are saved together
KEPT = 5  # best answers a test row that are stored; all of them for up to five classes


@dataclasses.dataclass(frozen=True)
class Context:
    """What a phase runs in; none of it changes what the phase means.

    models: by role.  execution: the config's `train` section.  log: (label, step, steps, metrics).
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


def _model(section: dict, context: Context) -> Model:
    """The model whose identity a section holds."""
    return next(m for m in context.models.values() if all(section.get(k) == v for k, v in m.identity.items()))


def _arrays(need) -> dict:
    return need.arrays if isinstance(need, Artifact) else need


def _inputs(needs: dict, *names: str) -> list[dict]:
    """What a model takes of each of `names`; cached features less the pool's mean, over its deviation."""
    found = [_arrays(needs[name]) for name in names]
    if 'features' not in found[0] or not isinstance(needs[names[0]], Artifact):
        return found
    pool = found[0]['features']
    mean, deviation = (f(pool, axis=tuple(range(pool.ndim - 1)), dtype=np.float64) for f in (np.mean, np.std))
    scale = 1 / np.maximum(deviation, 1e-6)
    return [{'features': ((x['features'] - mean) * scale).astype(np.float32)} for x in found]


def _shapes(context: Context, *inputs: dict) -> tuple[int, ...]:
    lengths = [x for x in map(data.longest, inputs) if x is not None]
    return data.choose_shapes(np.concatenate(lengths), context.execution.shapes) if lengths else ()


def _trainer(section: dict, context: Context, static: train.Static, *inputs: dict) -> train.Trainer:
    return train.Trainer(_model(section, context), static, context.mesh, context.execution.runs,
                         context.execution.eval_batch_size, _shapes(context, *inputs))


def _hyper(phases: list[Phase]) -> train.Hyper:
    names = [f.name for f in dataclasses.fields(train.Hyper)]
    return train.Hyper(*(np.array([p.section[name] for p in phases], np.float32) for name in names))


def _targets(need) -> np.ndarray:
    return need.arrays['labels'] if isinstance(need, Artifact) else need


def tokens(phases: list[Phase], inputs: list[dict], context: Context, folder: pathlib.Path) -> list[tuple]:
    """The token ids of texts, for every model that has this tokenizer."""
    out = []
    for phase, needs in zip(phases, inputs, strict=True):
        began, section = time.perf_counter(), phase.section
        tokenizer = next(m.tokenizer for m in context.models.values()
                         if m.tokenizer and m.tokenizer.fingerprint == section['tokenizer'])
        arrays, counts = texts.encode(tokenizer, needs['inputs']['text'], section['max_length'], section['truncate'])
        out.append((counts | {'seconds': time.perf_counter() - began}, arrays, None))
    return out


def features(phases: list[Phase], inputs: list[dict], context: Context, folder: pathlib.Path) -> list[tuple]:
    """What a frozen backbone makes of each row, `[N, ...]` float32: computed once, whoever trains a head on it."""
    out = []
    for phase, needs in zip(phases, inputs, strict=True):
        began, rows = time.perf_counter(), _arrays(needs['inputs'])
        computed = featurize(_model(phase.section, context), rows, _shapes(context, rows), context, folder / phase.id,
                             functools.partial(context.log, phase.label))
        out.append(({'seconds': time.perf_counter() - began}, {'features': computed}, None))
    return out


def featurize(model: Model, inputs: dict, shapes: tuple[int, ...], context: Context, folder: pathlib.Path,
              log: Callable) -> np.ndarray:
    """The features of all rows, shortest first, kept in parts in `folder` so that a killed run goes on."""
    n = len(next(iter(inputs.values())))
    lengths = data.longest(inputs)
    order = np.arange(n) if lengths is None else np.argsort(lengths, kind='stable')
    batches = list(data.eval_batches(n, min(context.execution.eval_batch_size, n)))
    assert model.featurize is not None
    step = jax.jit(model.featurize, out_shardings=parallel.replicated(context.mesh))
    frozen = model.frozen(lambda path, shape: parallel.replicated(context.mesh))
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for start in range(0, len(batches), PART):
        path = folder / f'{start}.npy'
        if not path.exists():
            made = [np.asarray(step(frozen, parallel.place_rows(data.trim(data.take(inputs, order[at]), shapes),
                                                                context.mesh)))[:real]
                    for at, real in batches[start:start + PART]]
            with open(path.with_suffix('.part'), 'wb') as file:
                np.save(file, np.concatenate(made))
            path.with_suffix('.part').rename(path)
        parts.append(np.load(path, allow_pickle=False))
        log(min(start + PART, len(batches)), len(batches), {})
    return np.concatenate(parts)[np.argsort(order, kind='stable')]


def fit(phases: list[Phase], inputs: list[dict], context: Context, folder: pathlib.Path) -> list[tuple]:
    """Trains a model on `rows` of `inputs` towards `targets` and predicts `test`: teacher, student, ceiling."""
    section, began = phases[0].section, time.perf_counter()
    rows = np.stack([i['rows'] for i in inputs])
    execution = context.execution
    steps = train.num_steps(rows.shape[1], section['batch_size'], section['epochs'])
    static = train.Static(section['loss'], steps, section['batch_size'], section['num_classes'],
                          execution.accumulate, section['optimizer'], section['schedule'])
    pool, test = _inputs(inputs[0], 'inputs', 'test')
    watch = {k: v[:section['watch']] for k, v in test.items()}
    runs = train.Runs(pool, rows, np.stack([_targets(i['targets']) for i in inputs]),
                      np.array([p.section['seed'] for p in phases]), _hyper(phases), watch, section['evaluations'],
                      section['num_classes'], section['window'])
    trainer, checkpoint = _trainer(section, context, static, pool, test), Checkpoint(folder / 'checkpoint')
    label = phases[0].label
    try:
        params, history = trainer.fit(runs, checkpoint, execution.checkpoint_every,
                                      lambda *a: context.log(label, *a))
    finally:
        checkpoint.close()
    predicted = trainer.predict(params, test, reduce=best)
    measured = {'seconds': time.perf_counter() - began, 'compile_seconds': trainer.compile_seconds,
                'programs': trainer.programs, 'shapes': list(trainer.shapes)}
    return [({'steps': steps, 'final_loss': float(history.loss[-1, r]), **measured},
             {'loss': history.loss[:, r], 'watched': history.watched[:, r], 'watched_steps': history.steps,
              **{k: v[r] for k, v in predicted.items()}},
             train.one_run(params, r) if execution.keep == 'all' or phases[0].kind == 'teacher' else None)
            for r in range(len(phases))]


def label(phases: list[Phase], inputs: list[dict], context: Context, folder: pathlib.Path) -> list[tuple]:
    """The teacher's answers on the rows that the student will learn from: probabilities, or classes if hard."""
    began, section = time.perf_counter(), phases[0].section
    pool, = _inputs(inputs[0], 'inputs')
    trainer = _trainer(section, context, train.Static('xent', 1, 1, section['num_classes']), pool)
    params = train.stack([i['teacher'].params() for i in inputs])
    out = trainer.predict(params, pool, np.stack([i['rows'] for i in inputs]))
    if section['labels'] == 'hard':
        out = out.argmax(-1).astype(np.int32)
    return [({'seconds': time.perf_counter() - began}, {'labels': labels}, None) for labels in out]


def zero_shot(phases: list[Phase], inputs: list[dict], context: Context, folder: pathlib.Path) -> list[tuple]:
    """What a pretrained model answers on the test set before any fine-tuning."""
    began, section = time.perf_counter(), phases[0].section
    test = _arrays(inputs[0]['test'])
    trainer = _trainer(section, context, train.Static('xent', 1, 1, section['num_classes']), test)
    model = trainer.model  # its adapters, where it has any, change nothing yet
    params = model.init(jax.random.key(0), model.load(trainer.shardings))
    predicted = trainer.predict(jax.tree.map(lambda x: x[None], params), test, reduce=best)
    return [({'seconds': time.perf_counter() - began}, {k: v[0] for k, v in predicted.items()}, None)]


def evaluate(phases: list[Phase], inputs: list[dict], context: Context, folder: pathlib.Path) -> list[tuple]:
    """The only phase that reads the truth of the test set."""
    return [(evaluation.evaluate(phase.section, needs, context.dataset.render), None, None)
            for phase, needs in zip(phases, inputs, strict=True)]


PHASES: dict[str, Callable] = {
    'tokens': tokens,
    'features': features,
    'teacher': fit,
    'label': label,
    'student': fit,
    'ceiling': fit,
    'zero_shot': zero_shot,
    'evaluate': evaluate,
}


def run(phases: list[Phase], inputs: list[dict], folder: pathlib.Path, *, context: Context) -> list[tuple]:
    """Runs phases of one group; `graph.execute` calls it."""
    try:
        return PHASES[phases[0].kind](phases, inputs, context, folder)
    finally:
        runtime.return_freed_memory()


def make_context(config, dataset: Dataset, models: dict[str, Model], log: Callable) -> Context:
    """The context that a config describes, on the devices there are."""
    return Context(dataset, models, parallel.make_mesh(**config.mesh), config.train, log)
