"""PHASES: kind -> what it does: `run(phases, inputs, context, folder)`, one result a phase.

The phases of a call share their static section and differ in what is traced (seed, learning rate ...):
they train in one program. A result is `(metrics, arrays, params)`, as the store keeps it.
"""
import contextlib
import dataclasses
import functools
import itertools
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import scipy.special

from w2s_jax import data, evaluation
from w2s_jax.data import Dataset
from w2s_jax.graph import Phase, describe
from w2s_jax.models import tokens as texts
from w2s_jax.models.modes import COMPILATION, Model
from w2s_jax.runtime import multihost, process, sharding
from w2s_jax.store import arrays as disk
from w2s_jax.store.artifacts import Artifact
from w2s_jax.train import memory, prefetch
from w2s_jax.train import trainer as train
from w2s_jax.train.checkpoint import Checkpoint
from w2s_jax.train.runs import History, Runs, num_steps

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


def model_of(section: dict, models: dict[str, Model]) -> Model:
    """The one of `models` whose identity a section holds."""
    return next(m for m in models.values() if all(section.get(k) == v for k, v in m.identity.items()))


def _model(section: dict, context: Context) -> Model:
    return model_of(section, context.models)


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


def _shapes(section: dict, context: Context, *inputs: dict) -> tuple[int, ...]:
    lengths = [x for x in map(data.longest, inputs) if x is not None]
    model = _model(section, context)
    worth = COMPILATION / (6 * (model.read or model.work or model.num_params))
    return data.choose_shapes(np.concatenate(lengths), context.execution.shapes, worth=worth) if lengths else ()


def _trainer(section: dict, context: Context, static: train.Static, *inputs: dict, how: str = '',
             ahead: int = 1) -> train.Trainer:
    return train.Trainer(_model(section, context), static, context.mesh, how or context.execution.runs,
                         context.execution.eval_batch_size, _shapes(section, context, *inputs),
                         context.execution.driver, ahead)


def _in_memory(section: dict, context: Context, static: train.Static, *inputs: dict, runs: int) -> dict:
    """How so many runs train in the memory that there is: `how` and `ahead` of a Trainer."""
    state, activations = _run_bytes(section, context, static, *inputs)
    size = memory.budget(context.execution.memory)
    fits = multihost.same(runs == 1 or runs <= memory.room(state, activations, True, size))
    how = train.choose_how(context.execution.runs, _model(section, context).num_params, fits)
    return {'how': how, 'ahead': memory.ahead(runs * state, activations * (runs if how == 'vmap' else 1), size)}


def _run_bytes(section: dict, context: Context, static: train.Static, *inputs: dict) -> tuple[int, int]:
    """What one run takes, at the longest of the shapes that its texts are padded to."""
    row = data.trim(data.take(inputs[0], np.zeros(1, int)), _shapes(section, context, *inputs)[-1:])
    batch = {k: jax.ShapeDtypeStruct((static.batch_size, *v.shape[1:]), v.dtype) for k, v in row.items()}
    with sharding.on(context.mesh):
        return memory.run_bytes(_model(section, context), static, batch)


def room(phases: list[Phase], inputs: list[dict], *, context: Context) -> int:
    """How many of these phases fit into one program. Only training is limited: the rest is small beside it."""
    if PHASES[phases[0].kind] is not fit:
        return len(phases)
    static = _static(phases[0].section, inputs[0], context)
    pool, test = _inputs(inputs[0], 'inputs', 'test')
    state, activations = _run_bytes(phases[0].section, context, static, pool, test)
    return memory.room(state, activations, context.execution.runs == 'vmap', memory.budget(context.execution.memory))


def _static(section: dict, needs: dict, context: Context) -> train.Static:
    steps = num_steps(len(needs['rows']), section['batch_size'], section['epochs'])
    return train.Static(section['loss'], steps, section['batch_size'], section['num_classes'],
                        context.execution.accumulate, section['optimizer'], section['schedule'])


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
        arrays, counts = texts.encode(tokenizer, needs['inputs']['text'], section['max_length'], section['truncate'],
                                      folder)
        out.append((counts | {'seconds': time.perf_counter() - began}, arrays, None))
    return out


def features(phases: list[Phase], inputs: list[dict], context: Context, folder: pathlib.Path) -> list[tuple]:
    """What a frozen backbone makes of each row, `[N, ...]` float32: computed once, whoever trains a head on it."""
    out = []
    for phase, needs in zip(phases, inputs, strict=True):
        began, rows = time.perf_counter(), _arrays(needs['inputs'])
        shapes = _shapes(phase.section, context, rows)
        computed = featurize(_model(phase.section, context), rows, shapes, context, folder / phase.id,
                             functools.partial(context.log, phase.label))
        out.append(({'seconds': time.perf_counter() - began, 'examples': len(computed)}, {'features': computed}, None))
    return out


def featurize(model: Model, inputs: dict, shapes: tuple[int, ...], context: Context, folder: pathlib.Path,
              log: Callable) -> np.ndarray:
    """The features of all rows, shortest first, kept in parts in `folder` so that a killed run goes on."""
    n = len(next(iter(inputs.values())))
    lengths = data.longest(inputs)
    order = np.arange(n) if lengths is None else np.argsort(lengths, kind='stable')
    batches = list(data.eval_batches(n, min(context.execution.eval_batch_size, n)))
    assert model.featurize is not None
    step = train.Program(sharding.traced_on(context.mesh, model.featurize),
                         out_shardings=sharding.replicated(context.mesh))
    frozen = model.frozen(lambda path, shape: sharding.replicated(context.mesh))
    folder.mkdir(parents=True, exist_ok=True)
    parts = {folder / f'{i}.npy': batches[i:i + PART] for i in range(0, len(batches), PART)}
    missing = multihost.same([path.name for path in parts if not path.exists()])

    def place(batch):
        return sharding.place_rows(data.trim(data.take(inputs, order[batch[0]]), shapes), context.mesh)
    wanted = itertools.chain.from_iterable(part for path, part in parts.items() if path.name in missing)
    placed = prefetch.ahead(place, wanted)
    with contextlib.closing(placed):
        made = prefetch.late((batch, step(frozen, x)) for batch, x in placed)
        for number, path in enumerate(parts):
            if path.name in missing:
                rows = [np.asarray(out)[:real] for (_, real), out in itertools.islice(made, len(parts[path]))]
                _keep_part(path, np.concatenate(rows))
            log(min((number + 1) * PART, len(batches)), len(batches), {})
    return in_order(list(parts), order, folder) if multihost.is_coordinator() else np.zeros(0)


def in_order(parts: list[pathlib.Path], order: np.ndarray, folder: pathlib.Path) -> np.ndarray:
    """The rows of .npy files one behind the other, row i being the one that is to stand at `order[i]`; mapped."""
    first = np.load(parts[0], mmap_mode='r', allow_pickle=False)
    flat, sorted_rows = (disk.Growing(first.dtype, folder) for _ in range(2))
    for path in parts:
        flat.append(np.load(path, allow_pickle=False))
    found, back = flat.array(-1, *first.shape[1:]), np.argsort(order, kind='stable')
    for start in range(0, len(back), len(first)):
        sorted_rows.append(found[back[start:start + len(first)]])
    return sorted_rows.array(-1, *first.shape[1:])


def _keep_part(path: pathlib.Path, part: np.ndarray) -> None:
    if multihost.is_coordinator():
        with open(path.with_suffix('.part'), 'wb') as file:
            np.save(file, part)
        path.with_suffix('.part').rename(path)


def fit(phases: list[Phase], inputs: list[dict], context: Context, folder: pathlib.Path) -> list[tuple]:
    """Trains a model on `rows` of `inputs` towards `targets` and predicts `test`: teacher, student, ceiling."""
    section, began, execution = phases[0].section, time.perf_counter(), context.execution
    rows, static = np.stack([i['rows'] for i in inputs]), _static(section, inputs[0], context)
    pool, test = _inputs(inputs[0], 'inputs', 'test')
    watch = {k: v[:section['watch']] for k, v in test.items()}
    runs = Runs(pool, rows, np.stack([_targets(i['targets']) for i in inputs]),
                np.array([p.section['seed'] for p in phases]), _hyper(phases), watch, section['evaluations'],
                section['num_classes'], section['window'])
    trainer = _trainer(section, context, static, pool, test,
                       **_in_memory(section, context, static, pool, test, runs=len(phases)))
    checkpoint, log = Checkpoint(folder / 'checkpoint'), functools.partial(context.log, describe(phases))
    try:
        params, history = trainer.fit(runs, checkpoint, execution.checkpoint_every, log)
        predicted = trainer.predict(params, test, reduce=best)  # while the last checkpoint is being written
    finally:
        checkpoint.close()
    measured = {'steps': static.steps, 'seconds': time.perf_counter() - began, 'runs': len(phases),
                'compile_seconds': trainer.compile_seconds, 'programs': trainer.programs,
                'shapes': list(trainer.shapes)}
    keep = execution.keep == 'all' or phases[0].kind in ('teacher', 'rung')
    return [_fitted(measured | _seen(static, pool, rows[r]), history, r, {k: v[r] for k, v in predicted.items()},
                    train.one_run(params, r) if keep else None) for r in range(len(phases))]


def _seen(static: train.Static, pool: dict, rows: np.ndarray) -> dict[str, int]:
    """How many examples, and tokens of texts, a run learns from."""
    lengths, examples = data.longest(pool), static.steps * static.batch_size
    return {'examples': examples} | ({} if lengths is None else {'tokens': int(lengths[rows].mean() * examples)})


def _fitted(measured: dict, history: History, run: int, predicted: dict, params) -> tuple:
    """The result of one run out of a stack; of one that broke down, only why."""
    broken = history.broken(run)
    if broken is None and not np.isfinite(predicted['top_probability']).all():
        broken = 'answers are no numbers after the last step'
    if broken:
        return measured | {'failed': broken}, None, None
    arrays = {'loss': history.loss[:, run], 'watched': history.watched[:, run], 'watched_steps': history.steps}
    return measured | {'final_loss': float(history.loss[-1, run])}, arrays | predicted, params


def label(phases: list[Phase], inputs: list[dict], context: Context, folder: pathlib.Path) -> list[tuple]:
    """The teacher's answers on the rows that the student will learn from: probabilities, or classes if hard."""
    began, section = time.perf_counter(), phases[0].section
    pool, = _inputs(inputs[0], 'inputs')
    trainer = _trainer(section, context, train.Static('xent', 1, 1, section['num_classes']), pool)
    params = trainer.put(train.stack([i['teacher'].params() for i in inputs]))
    out = trainer.predict(params, pool, np.stack([i['rows'] for i in inputs]))
    measured = {'seconds': time.perf_counter() - began, 'runs': len(phases), 'examples': out.shape[1]}
    return [(measured, {'labels': altered(labels, p.section)}, None) for p, labels in zip(phases, out, strict=True)]


def altered(labels: np.ndarray, section: dict) -> np.ndarray:
    """Probabilities `[n, K]` as a `label` section wants them: p^(1/T) renormalised, a share of them moved by one to
    K - 1 classes (label noise, drawn by the seed), and of hard labels the classes `[n]` int32."""
    temperature, noise = section.get('temperature', 1.0), section.get('label_noise', 0.0)
    if temperature != 1:
        logs = np.log(np.maximum(labels, 1e-30)) / temperature
        labels = scipy.special.softmax(logs, axis=-1).astype(np.float32)
    if noise:
        rng, classes = np.random.default_rng((section['seed'], 2)), labels.shape[-1]
        shift = np.where(rng.random(len(labels)) < noise, rng.integers(1, classes, len(labels)), 0)
        labels = np.take_along_axis(labels, (np.arange(classes) - shift[:, None]) % classes, axis=-1)
    return labels.argmax(-1).astype(np.int32) if section['labels'] == 'hard' else labels


def zero_shot(phases: list[Phase], inputs: list[dict], context: Context, folder: pathlib.Path) -> list[tuple]:
    """What a pretrained model answers on the test set before any fine-tuning."""
    began, section = time.perf_counter(), phases[0].section
    test = _arrays(inputs[0]['test'])
    trainer = _trainer(section, context, train.Static('xent', 1, 1, section['num_classes']), test)
    model = trainer.model  # its adapters, where it has any, change nothing yet
    init = jax.jit(lambda pretrained: sharding.constrain(context.mesh, model.init(jax.random.key(0), pretrained)))
    params = init(model.load(trainer.shardings))
    predicted = trainer.predict(jax.tree.map(lambda x: x[None], params), test, reduce=best)
    return [({'seconds': time.perf_counter() - began}, {k: v[0] for k, v in predicted.items()}, None)]


def evaluate(phases: list[Phase], inputs: list[dict], context: Context, folder: pathlib.Path) -> list[tuple]:
    """Reads the truth of the test set, which no phase does that trains, labels or predicts."""
    return [(evaluation.evaluate(phase.section, needs, context.dataset.render), None, None)
            for phase, needs in zip(phases, inputs, strict=True)]


def compare(phases: list[Phase], inputs: list[dict], context: Context, folder: pathlib.Path) -> list[tuple]:
    """Students of a grid against each other, on the truth of the test set."""
    return [(evaluation.compare_all(phase.section, needs), None, None)
            for phase, needs in zip(phases, inputs, strict=True)]


PHASES: dict[str, Callable] = {
    'tokens': tokens,
    'features': features,
    'teacher': fit,
    'label': label,
    'student': fit,
    'rung': fit,
    'ceiling': fit,
    'zero_shot': zero_shot,
    'evaluate': evaluate,
    'compare': compare,
}
ON_DEVICES = ('features', 'teacher', 'label', 'student', 'rung', 'ceiling', 'zero_shot')  # all hosts take part in these


def run(phases: list[Phase], inputs: list[dict], folder: pathlib.Path, *, context: Context) -> list[tuple]:
    """Runs phases of one group; `graph.execute` calls it."""
    try:
        return PHASES[phases[0].kind](phases, inputs, context, folder)
    finally:
        process.return_freed_memory()


def make_context(config, dataset: Dataset, models: dict[str, Model], log: Callable) -> Context:
    """The context that a config describes, on the devices there are."""
    return Context(dataset, models, sharding.make_mesh(**config.mesh), config.train, log)
