"""Kind `fit`: a model trained on rows of its inputs towards targets, and what it then says of the test sets."""
import functools
import pathlib
import time

import jax
import numpy as np

from w2s_jax import data, metrics
from w2s_jax.errors import ConfigError
from w2s_jax.graph import Phase, describe
from w2s_jax.phases import context as common
from w2s_jax.phases.context import Context
from w2s_jax.registry import Settings
from w2s_jax.store import lease
from w2s_jax.store.artifacts import Artifact
from w2s_jax.train import exact, memory
from w2s_jax.train.checkpoint import Checkpoint
from w2s_jax.train.optimizers import OPTIMIZERS
from w2s_jax.train.runs import History, Runs, evaluated, num_steps
from w2s_jax.train.step import Static
from w2s_jax.train.stopping import STOPPING, Held, recorded
from w2s_jax.train.trainer import one_run, stack


def size(section: dict, needs: dict) -> tuple:
    """Phases of one size train in one program: how many rows they learn from, and hold out, and whether their targets
    are classes `[n]` or probabilities `[n, K]`."""
    learned, held = parted(section, needs)
    return len(learned), len(held), np.ndim(common.labels(needs['targets'])) if 'targets' in needs else 0


def parted(section: dict, needs: dict) -> tuple[np.ndarray, np.ndarray]:
    """Places among a phase's rows: those that it learns from, and those that a stopping rule holds out."""
    rows, stop, seed = common.rows(needs), section.get('stopping'), section['hyper']['seed']
    if not stop or not stop['holdout']:
        return np.arange(len(rows)), np.arange(len(rows) if stop else 0)
    learned, held = data.hold_out(needs['group'][rows], stop['holdout'], seed)
    if 'peer' in section['hyper']:
        halves = data.halves(needs['group'][rows[learned]], .5, seed)
        learned = learned[halves[section['hyper']['peer']][:min(map(len, halves))]]  # equal parts train in one program
    return learned, held


def choose(phases: list[Phase], inputs: list[dict], context: Context) -> list[Phase]:
    """Of phases of one group, those that train together first: of the first one's size, as many as fit in memory."""
    sizes = [size(p.section, needs) for p, needs in zip(phases, inputs, strict=True)]
    same = [p for p, s in zip(phases, sizes, strict=True) if s == sizes[0]]
    section, needs = phases[0].section, inputs[0]
    pool, *tests = common.inputs(needs, 'inputs', *common.tests(needs))
    state, activations = common.run_bytes(section, context, static_of(section, needs, context),
                                          hyper_of(phases[:1], one=True), pool, *tests)
    room = memory.room(state, activations, context.execution.runs == 'vmap', memory.budget(context.execution.memory))
    return same[:max(room, 1)]


def static_of(section: dict, needs: dict, context: Context) -> Static:
    """What the program of a phase is compiled for."""
    n = len(parted(section, needs)[0])
    batch, epochs = (n, 1) if exactly(section) else (section['batch_size'], section['epochs'])
    steps = num_steps(n, batch, epochs)
    columns = tuple((k, column(needs, k, section).shape[1:]) for k in sorted(columns_of(needs)))
    bound = common.bound(section)
    return Static(bound, steps, batch, section['num_classes'], context.execution.accumulate,
                  section['optimizer']['name'], section['optimizer']['schedule'], columns, 0 if bound.is_loss else n,
                  'stopping' in section, common.model_of(section, context.models).intercept)


def exactly(section: dict) -> bool:
    """Whether a phase solves for the minimum of its loss and takes no steps."""
    return bool(OPTIMIZERS[section['optimizer']['name']].options.get('exact'))


def hyper_of(phases: list[Phase], one: bool = False) -> dict:
    """The traced numbers of phases, stacked; of the first alone."""
    found = [{k: v for k, v in p.section['hyper'].items() if k not in ('seed', 'peer')} for p in phases]
    if one:
        return jax.tree.map(np.float32, found[0])
    return jax.tree.map(lambda *x: np.array(x, np.float32), *found)


def columns_of(needs: dict) -> list[str]:
    """The names of the further columns that an objective reads."""
    return [k.removeprefix('columns/') for k in needs if k.startswith('columns/')]


def column(needs: dict, name: str, section: dict) -> np.ndarray:
    """A further column `[n, ...]` float32; labels that are classes, whole numbers, as one-hot rows. Raises ConfigError
    unless it has as many rows as the phase learns from."""
    need = needs[f'columns/{name}']
    found, rows = common.labels(need), common.rows(needs)
    if isinstance(need, Artifact) and found.ndim == 1 and np.issubdtype(found.dtype, np.integer):
        found = np.eye(section['num_classes'], dtype=np.float32)[found]
    if len(found) != len(rows):
        raise ConfigError(f'column {name!r}: {len(found)} rows, expected the {len(rows)} that are learned from')
    return found.astype(np.float32)


def runs_of(phases: list[Phase], inputs: list[dict], pool: dict, watch: dict, intercept: bool) -> Runs:
    """What trains in one program: each phase a run. intercept: whether the head has one."""
    section = phases[0].section
    places = [parted(p.section, needs) for p, needs in zip(phases, inputs, strict=True)]
    rows = [common.rows(needs) for needs in inputs]
    targets = [common.labels(needs['targets']) if 'targets' in needs else np.zeros(len(r), np.int32)
               for needs, r in zip(inputs, rows, strict=True)]
    for r, t in zip(rows, targets, strict=True):
        if len(r) != len(t):
            raise ConfigError(f'{phases[0].label}: {len(t)} targets for {len(r)} rows, expected as many')
    more = {k: np.stack([column(needs, k, section)[at] for needs, (at, _) in zip(inputs, places, strict=True)])
            for k in columns_of(inputs[0])}
    held = None
    if 'stopping' in section:
        looked, given = (np.stack([x[at] for x, (_, at) in zip(y, places, strict=True)]) for y in (rows, targets))
        held = held_of(section, inputs, looked, given, len(places[0][0]))
    learned, taught = (np.stack([x[at] for x, (at, _) in zip(y, places, strict=True)]) for y in (rows, targets))
    hyper = hyper_of(phases)
    if intercept:
        weights = more.get('weight', np.ones(learned.shape, np.float32))
        hyper['intercept'] = np.stack([log_shares(t, w, section['num_classes'])
                                       for t, w in zip(taught, weights, strict=True)])
    return Runs(pool, learned, taught, np.array([p.seed for p in phases]), hyper, watch,
                looks(section), section['num_classes'], section['window'], more, start_of(section, inputs),
                held)


def held_of(section: dict, inputs: list[dict], rows: np.ndarray, targets: np.ndarray, learned: int) -> Held:
    """What the stopping rule of runs looks at.

    Args:
      rows: `[R, M]` of the pool, held out (or learned).  targets: `[R, M, K]` or `[R, M]`, their labels.  learned: how
        many rows each run learns from.
    """
    entry = STOPPING[section['stopping']['name']]
    evenly = bool(entry.options.get('evenly'))
    if 'peer' in section['hyper']:
        return Held(recorded, rows, targets, evenly, past=True)
    steps = num_steps(learned, section['batch_size'], section['epochs'])
    number = len(evaluated(steps, looks(section), not evenly))
    peers = [[common.arrays(needs[f'peers/{i}'])['looked'] for i in range(2)] for needs in inputs] \
        if entry.options.get('peers') else []
    return Held(functools.partial(entry.fn, settings=Settings(section['stopping'])), rows, targets, evenly,
                bool(entry.options.get('past')), np.stack([together(p, number) for p in peers]) if peers else None)


def together(answers: list[np.ndarray], number: int) -> np.ndarray:
    """`[number, 2, M]`: of two models' answers `[E, M]` those that they give when as large a share of training is over;
    fewer steps have fewer looks."""
    at = [(np.arange(1, number + 1) * len(one) // number - 1).clip(0) for one in answers]
    return np.stack([one[i] for one, i in zip(answers, at, strict=True)], axis=1)


def looks(section: dict) -> int:
    """How often models are looked at, 0 for the usual: after every epoch where a stopping rule wants even steps."""
    rule = section.get('stopping')
    every = rule and STOPPING[rule['name']].options.get('evenly')
    return section['evaluations'] or (section['epochs'] if every else 0)


def log_shares(targets: np.ndarray, weights: np.ndarray, num_classes: int) -> np.ndarray:
    """`[K]` float32: the logarithms, less their mean, of the classes' shares of labels `[n, K]` or `[n]`.

    A head that starts there answers the shares before it has read anything. Half a label is added to each class, so
    that one without labels is not ruled out.
    """
    labels = targets if targets.ndim == 2 else np.eye(num_classes)[targets]
    logs = np.log((labels * weights[:, None]).sum(0, dtype=np.float64) + .5)
    return (logs - logs.mean()).astype(np.float32)


def start_of(section: dict, inputs: list[dict]):
    """The parameters that runs go on from, stacked; None if they begin anew."""
    if 'start' not in section:
        return None
    params = [needs['start'].params() for needs in inputs]
    if section['start'] == 'new':
        params = [{k: v for k, v in p.items() if k != 'head'} for p in params]
    return stack(params)


def run(phases: list[Phase], inputs: list[dict], context: Context, folder: pathlib.Path) -> list[tuple]:
    """Trains all phases in one program; the result of each has its losses, curves, predictions and parameters."""
    section, began, execution = phases[0].section, time.perf_counter(), context.execution
    static, names = static_of(section, inputs[0], context), common.tests(inputs[0])
    pool, *tests = common.inputs(inputs[0], 'inputs', *names)
    main = tests[names.index('predict/test')]
    runs = runs_of(phases, inputs, pool, {k: v[:section['watch']] for k, v in main.items()},
                   bool(static.intercept))
    how = common.in_memory(section, context, static, hyper_of(phases, one=True), pool, *tests, runs=len(phases))
    trainer = common.trainer(section, context, static, pool, *tests, **how)
    checkpoint = Checkpoint(folder / 'checkpoint', check=lease.check)
    log = functools.partial(context.log, describe(phases))
    try:
        if exactly(section):
            params, history = exact.fit(trainer, runs)
        else:
            params, history = trainer.fit(runs, checkpoint, execution.checkpoint_every, log)
        predicted: dict[str, np.ndarray] = {}
        for name, test in zip(names, tests, strict=True):  # while the last checkpoint is being written
            found = trainer.predict(params, test, reduce=metrics.best)
            predicted |= {f'{name.removeprefix("predict/")}.{k}': v for k, v in found.items()}
    finally:
        checkpoint.close()
    measured = {'steps': static.steps, 'seconds': time.perf_counter() - began, 'runs': len(phases),
                'compile_seconds': trainer.compile_seconds, 'programs': trainer.programs,
                'shapes': list(trainer.shapes)}
    scale = {f'features.{k}': v for k, v in (common.scaling(inputs[0]) or {}).items()}
    return [result(measured | seen(static, pool, runs.rows[r]), history, r,
                   {k: v[r] for k, v in predicted.items()} | scale, one_run(params, r) if phases[r].keep else None,
                   keeps_answers='peer' in section['hyper']) for r in range(len(phases))]


def seen(static: Static, pool: dict, rows: np.ndarray) -> dict[str, int]:
    """How many examples, and tokens of texts, a run learns from."""
    lengths, examples = data.longest(pool), static.steps * static.batch_size
    return {'examples': examples, 'rows': len(rows)} | (
        {} if lengths is None else {'tokens': int(lengths[rows].mean() * examples)})


def result(measured: dict, history: History, run: int, predicted: dict, params, keeps_answers: bool) -> tuple:
    """The result of one run out of a stack; of one that diverged, only why. keeps_answers: on the rows held out."""
    broken = history.broken(run)
    if broken is None and not all(np.isfinite(v).all() for k, v in predicted.items() if k.endswith('top_probability')):
        broken = 'answers are no numbers after the last step'
    if broken:
        return measured | {'failed': broken}, None, None
    arrays = {'loss': history.loss[:, run]}
    if len(history.watched):
        arrays |= {'watched': history.watched[:, run], 'watched_steps': history.steps}
    arrays |= {'looked': history.answers[:, run]} if keeps_answers else {}
    arrays |= {f'state.{k}': np.asarray(v)[run] for k, v in history.final.items()}
    aux = {k: v[run] for k, v in history.aux.items() if np.isfinite(v[run]).all()}
    measured |= {'final_loss': float(history.loss[-1, run])} | ({'aux': aux} if aux else {})
    if np.isfinite(history.scores[:, run]).any():
        scores = history.scores[:, run]
        measured |= {'stopped': {'step': int(history.steps[scores.argmax()]), 'scores': [float(s) for s in scores]}}
    return measured, arrays | predicted, params


