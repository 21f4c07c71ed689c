"""How fast we are, and against what: training, a whole experiment, a hundred probes, loading.

  .venv-parity/bin/python -m experiments.benchmark --what=train --model=M/all-MiniLM-L6-v2 --batch=32 --length=128
  .venv-parity/bin/python -m experiments.benchmark --what=train --model=M/SmolLM2-135M-Instruct --batch=8 --length=128
  .venv-parity/bin/python -m experiments.benchmark --what=experiment --teacher=M/paraphrase-MiniLM-L3-v2 \
      --model=M/all-MiniLM-L6-v2 --data=D/sst2 --rounds=3
  python -m experiments.benchmark --what=probe
  python -m experiments.benchmark --what=load --model=M/SmolLM2-135M-Instruct

train and experiment compare with plain PyTorch (`torch_loop.py`), in an environment that has it (`make parity` makes
one). The two sides are processes of their own (`worker.py`) and take turns, so that whatever else the machine does
meets both; the ratio is the median over rounds. Every number goes to --out as JSON. Best on a machine with nothing
else to do.
"""
import importlib.util
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments.worker import Worker, command
from w2s_jax import command as program
from w2s_jax import config as configs
from w2s_jax import data, parallel
from w2s_jax import train as training
from w2s_jax.errors import ConfigError
from w2s_jax.methods import naive
from w2s_jax.models import hf, language, modes
from w2s_jax.tasks import TASKS

WHAT = flags.DEFINE_enum('what', 'train', ['train', 'experiment', 'probe', 'load'], 'what is measured')
MODEL = flags.DEFINE_string('model', None, 'folder of the model; experiment: of the student')
TEACHER = flags.DEFINE_string('teacher', None, 'experiment: folder of the teacher')
DATA = flags.DEFINE_string('data', None, 'experiment: folder of sst2')
ROWS = flags.DEFINE_integer('rows', 0, 'probe: rows of features (0: 5000); experiment: of the pool (0: 1000)', 0)
BATCH = flags.DEFINE_integer('batch', 32, 'train, experiment: rows a step', 1)
LENGTH = flags.DEFINE_integer('length', 128, 'train: tokens a row', 1)
STEPS = flags.DEFINE_integer('steps', 4, 'train: steps a block', 2)
ROUNDS = flags.DEFINE_integer('rounds', 5, 'how often each side is measured', 1)
THREADS = flags.DEFINE_integer('threads', 2, 'threads of PyTorch', 1)
FUSED = flags.DEFINE_bool('fused', False, 'train: the fused AdamW of PyTorch')
OUT = flags.DEFINE_string('out', None, 'JSON file of every number (default: benchmark-WHAT.json)')

RATE, TOTAL = 2e-5, 100_000  # so many steps that the rate stays what it is
PARITY = 1e-3  # how far the losses of the two sides may be apart ...
COMPARED = 2  # ... in so many steps; then Adam, which divides by what is still small, drives rounding apart
WARM = 2  # blocks before those that count: the first compiles, and the memory of a process takes its shape
WIDTH, PROBE_BATCH, PROBE_EPOCHS = 576, 128, 20  # of the probes
Found = tuple[list[list[str]], dict]  # a table to print, and what to keep


def ratios(ours: list[float], theirs: list[float]) -> dict:
    """How many times as long the other took: the median over rounds, the lowest and the highest."""
    each = [b / a for a, b in zip(ours, theirs, strict=True)]
    return {'ratio': statistics.median(each), 'lowest': min(each), 'highest': max(each), 'ratios': each}


# train


def train_arrays(folder: pathlib.Path, batch: int, length: int) -> dict[str, np.ndarray]:
    """Random rows, full length, the order in which a run of seed 0 sees them, and a random head `[D, 2]`."""
    config, rng, n = hf.read(folder).config, np.random.default_rng(0), 16 * batch
    return {'tokens': rng.integers(0, config.vocab_size, (n, length)).astype(np.int32),
            'length': np.full(n, length, np.int32), 'truth': rng.integers(0, 2, n).astype(np.int32),
            'order': np.concatenate([data.epoch_batches(0, epoch, n, batch) for epoch in range(50)]),
            'head': (rng.normal(size=(config.d_out, 2)) * config.d_out ** -.5).astype(np.float32)}


def step_flops(folder: pathlib.Path, batch: int, length: int) -> float:
    """Model floating-point operations of a training step: 6 a token for each parameter outside the embeddings
    (arXiv 2001.08361, section 2.1), and 12 L d a token and layer for attention (arXiv 2204.02311, appendix B)."""
    config = hf.read(folder).config
    inner = sum(int(np.prod(shape)) for path, shape in hf.expected(config).items() if path.startswith('layers.'))
    attention = 12 * config.num_layers * length * config.num_heads * config.per_head
    return float(batch * length * (6 * inner + attention))


def train(options) -> Found:
    """Blocks of steps of both sides in turn; tokens a second, model FLOP/s, page faults, and that the losses agree."""
    spec = {'model': str(options.model), 'rate': RATE, 'warmup': 0.0, 'steps': TOTAL, 'threads': options.threads,
            'fused': options.fused, 'pool': hf.read_out(hf.read(options.model))}
    with tempfile.TemporaryDirectory() as scratch:
        spec['arrays'] = str(pathlib.Path(scratch) / 'arrays.npz')
        np.savez(spec['arrays'], **train_arrays(options.model, options.batch, options.length))  # type: ignore[arg-type]
        workers = {kind: Worker(kind, spec) for kind in ('jax', 'torch')}
        first = {kind: w.block(options.steps) for kind, w in workers.items()}
        apart = parity(first)
        rounds = []
        for i in range(WARM - 1 + options.rounds):
            order = list(workers)[::1 if i % 2 else -1]
            rounds.append({kind: workers[kind].block(options.steps) for kind in order})
        for w in workers.values():
            w.close()
    counted = rounds[WARM - 1:]
    tokens, flops = options.batch * options.length, step_flops(options.model, options.batch, options.length)
    table = [['', 'tokens/s', 'lowest', 'highest', 'model GFLOP/s', 'CPU s/step', 'page faults/step'],
             *(train_row(kind, [r[kind] for r in counted], tokens, flops) for kind in workers)]
    found = ratios(*([r[kind]['seconds'] for r in counted] for kind in workers))
    return table, found | {'first': first, 'rounds': rounds, 'losses_apart': apart, 'step_flops': flops}


def parity(first: dict[str, dict]) -> float:
    """How far the first losses of the two sides are apart. Raises ConfigError where they train different models."""
    apart = float(np.abs(np.subtract(*(block['losses'][:COMPARED] for block in first.values()))).max())
    for kind, block in first.items():
        print(f'first losses, {kind}: {", ".join(format(x, ".6f") for x in block["losses"])}')
    print(f'the first {COMPARED} are at most {apart:.1e} apart')
    if not apart < PARITY:
        raise ConfigError(f'--model: losses are {apart:.1e} apart, expected at most {PARITY:g}: not the same model')
    return apart


def train_row(kind: str, blocks: list[dict], tokens: int, flops: float) -> list[str]:
    """A line of the table. tokens, flops: of a step."""
    rate = [b['steps'] / b['seconds'] for b in blocks]
    middle, cpu, faults = (statistics.median(x) for x in (
        rate, *([b[k] / b['steps'] for b in blocks] for k in ('cpu_seconds', 'faults'))))
    return [kind, *(f'{x * tokens:.0f}' for x in (middle, min(rate), max(rate))), f'{middle * flops / 1e9:.0f}',
            f'{cpu:.2f}', f'{faults:.0f}']


# experiment


def experiment(options) -> Found:
    """A whole small experiment from the start of a process, ours and PyTorch's in turn, compilation included."""
    config = experiment_config(options)
    found: dict = {'rounds': []}
    with tempfile.TemporaryDirectory() as name:
        scratch = pathlib.Path(name)
        (scratch / 'spec.json').write_text(json.dumps(torch_spec(config, options)))
        (scratch / 'small.py').write_text('from w2s_jax.config import default_config as get_config  # noqa: F401\n')
        ours = [sys.executable, '-m', 'experiments.run', f'--config={scratch / "small.py"}',
                *(f'--config.{k}={v}' for k, v in changed(config).items())]
        theirs = command('torch_experiment', {'spec': str(scratch / 'spec.json')})
        for i in range(options.rounds):
            sides = {'jax': [*ours, f'--workdir={scratch / str(i)}'], 'torch': theirs}
            found['rounds'].append({kind: timed(sides[kind]) for kind in list(sides)[::1 if i % 2 else -1]})
            found['results'] = json.loads((scratch / str(i) / 'results.json').read_text())
    seconds = {kind: [r[kind]['seconds'] for r in found['rounds']] for kind in ('jax', 'torch')}
    table = [['seconds', *map(str, range(options.rounds)), 'median'],
             *([kind, *(f'{s:.1f}' for s in (*x, statistics.median(x)))] for kind, x in seconds.items())]
    accuracy = {who: found['results'][who]['accuracy']['mean'] for who in ('weak', 'ceiling')}
    print(f'accuracies: jax {accuracy}, torch {found["rounds"][-1]["torch"]["output"]}')
    return table, found | ratios(seconds['jax'], seconds['torch'])


def experiment_config(options):
    """One seed, one loss, measured once at the end, no report: what the other side does."""
    c, rows = configs.default_config(), options.rows or 1000
    c.task.update(name='sst2', path=str(options.data), train_size=rows, test_size=min(rows, 800))
    c.teacher.model, c.student.model = str(options.teacher), str(options.model)
    c.optimizer.learning_rate, c.seeds, c.report.html = 5e-5, (0,), False
    c.train.update(batch_size=options.batch, epochs=2, evaluations=1)
    return c


def changed(config) -> dict:
    """The fields of a config that are not the defaults."""
    default = configs.flat(configs.default_config())
    return {k: tuple(v) if isinstance(v, list) else v for k, v in configs.flat(config).items() if v != default[k]}


def torch_spec(config, options) -> dict:
    """The same rows, models and numbers for `torch_loop.experiment`."""
    dataset = TASKS[config.task.name](config.task, lambda line: None)
    halves = naive.trimmed_halves(dataset.pool.group, config.method.share, config.seeds[0])
    parts = dict(zip(('a', 'b', 'test'), (*map(dataset.pool.take, halves), dataset.test), strict=True))
    rows = {k: [[str(text), int(truth)] for text, truth in zip(p.inputs['text'][:, 0], p.truth, strict=True)]
            for k, p in parts.items()}
    folders = {'teacher': options.teacher, 'student': options.model}
    return {'rows': rows, 'pools': {k: hf.read_out(hf.read(f)) for k, f in folders.items()},
            **{k: str(f) for k, f in folders.items()}, 'max_length': config.task.max_length,
            'rate': config.optimizer.learning_rate, 'warmup': config.optimizer.warmup, 'threads': options.threads,
            'batch': config.train.batch_size, 'epochs': config.train.epochs}


def timed(argv: list[str]) -> dict:
    """Seconds from the start of a process to its end, and the last line it printed. Raises RuntimeError."""
    began = time.perf_counter()
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f'{" ".join(argv[:4])}: status {done.returncode}\n{done.stderr}')
    return {'seconds': time.perf_counter() - began, 'output': done.stdout.strip().rpartition('\n')[2]}


# probe


def probe(options) -> Found:
    """`Trainer.fit` of ten seeds by ten learning rates against that of one run, on cached features: from nothing
    compiled, and again."""
    rounds = [{1: fit_probes(1, 1, options.rows or 5000), 100: fit_probes(10, 10, options.rows or 5000)}
              for _ in range(options.rounds)]
    table, found = [['seconds', '1 run', '100 runs', '100 runs / 1 run']], {}
    for when in ('first', 'again'):
        seconds = [[r[k][when] for r in rounds] for k in (1, 100)]
        found[when] = ratios(*seconds)
        table.append([when, *(f'{statistics.median(s):.2f}' for s in seconds),
                      '{ratio:.2f} ({lowest:.2f} to {highest:.2f})'.format(**found[when])])
    return table, {'rounds': rounds} | found


def fit_probes(seeds: int, rates: int, rows: int) -> dict[str, float]:
    """Seconds of `Trainer.fit` for seeds x rates runs: the first call, and one with everything compiled."""
    jax.clear_caches()
    for compiled in (training.compiled_init, training.compiled_step, training.compiled_predict):
        compiled.cache_clear()
    model, seconds = probe_model(), {}
    for when in ('first', 'again'):
        runs = probe_runs(seeds, rates, rows)
        static = training.Static('xent', training.num_steps(rows // 2, PROBE_BATCH, PROBE_EPOCHS), PROBE_BATCH, 2)
        trainer, began = training.Trainer(model, static, parallel.make_mesh()), time.perf_counter()
        jax.block_until_ready(trainer.fit(runs)[0])
        seconds[when] = time.perf_counter() - began
    return seconds


def probe_runs(seeds: int, rates: int, rows: int) -> training.Runs:
    """Runs on random features `[N, 1, D]` whose class a hyperplane decides; those of a seed stand together."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(rows, 1, WIDTH)).astype(np.float32)
    truth = (features[:, 0] @ rng.normal(size=WIDTH) > 0).astype(np.int32)
    halves = np.stack([np.random.default_rng(s).permutation(rows)[:rows // 2] for s in range(seeds)]).repeat(rates, 0)
    rate = np.tile(np.geomspace(1e-4, 1e-1, rates), seeds).astype(np.float32)
    rest = (np.full(len(rate), x, np.float32) for x in (0, .999, 1, .05, 0, 0))
    return training.Runs({'features': features}, halves, truth[halves], np.arange(seeds).repeat(rates),
                         training.Hyper(rate, *rest), {'features': features[:256]}, 4, 2)


def probe_model() -> modes.Model:
    """The head that is trained on cached features, as `modes.probe` binds it."""
    head = language.TextHead(2)

    def init(key, pretrained=None):
        return {'head': head.init(key, jnp.zeros((1, 1, WIDTH)))['params']}

    def apply(params, inputs, frozen=None):
        return head.apply({'params': params['head']}, inputs['features'])
    return modes.Model('probe', init, apply, modes.count(jax.eval_shape(init, jax.random.key(0))), {}, 1e-3)


# load


def load(options) -> Found:
    """Peak host memory of loading a model against the bytes of its parameters, each time in a new process."""
    argv = command('load', {'model': str(options.model)})
    rounds = [json.loads(timed(argv)['output']) for _ in range(options.rounds)]
    worst = max(r['peak'] / r['parameters'] for r in rounds)
    table = [['parameters, MB', 'peak, MB', 'peak / parameters'],
             [f'{rounds[0]["parameters"] / 1e6:.1f}', f'{max(r["peak"] for r in rounds) / 1e6:.1f}', f'{worst:.3f}']]
    return table, {'rounds': rounds, 'worst': worst}


MEASURES = {  # with the folders that each needs
    'train': (train, ('model',)), 'experiment': (experiment, ('model', 'teacher', 'data')), 'probe': (probe, ()),
    'load': (load, ('model',))}


def main() -> None:
    """Measures what the flags say, prints a table and writes the numbers. Raises ConfigError."""
    what = WHAT.value
    options = SimpleNamespace(**{f.name: f.value for f in (MODEL, TEACHER, DATA, ROWS, BATCH, LENGTH, STEPS, ROUNDS,
                                                           THREADS, FUSED)})
    measure, needs = MEASURES[what]
    for name in needs:
        path = pathlib.Path(getattr(options, name) or '').expanduser().absolute()
        if not getattr(options, name) or not path.exists():
            raise ConfigError(f'--{name}: {getattr(options, name)!r}, expected an existing folder')
        setattr(options, name, path)
    if what in ('train', 'experiment') and importlib.util.find_spec('torch') is None:
        raise ConfigError(f'--what={what}: {sys.prefix} has no torch (`make parity` makes .venv-parity, which has)')
    facts = {'what': what, 'options': vars(options), 'processors': os.cpu_count(), 'load_before': os.getloadavg(),
             'versions': {'python': platform.python_version(), 'jax': jax.__version__}}
    table, found = measure(options)
    print_table(table)
    if 'ratio' in found:
        print('{ratio:.2f} times as fast as PyTorch ({lowest:.2f} to {highest:.2f})'.format(**found))
    out = pathlib.Path(OUT.value or f'benchmark-{what}.json')
    out.write_text(json.dumps(facts | found | {'load_after': os.getloadavg()}, indent=1, default=str) + '\n')
    print(f'every number: {out}')


def print_table(table: list[list[str]]) -> None:
    """Columns of equal width."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        print('  '.join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


if __name__ == '__main__':
    program.run(main)
