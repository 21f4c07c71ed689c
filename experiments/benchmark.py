"""How fast we are, and against what: training, a whole experiment, a hundred probes, loading.

  .venv-parity/bin/python -m experiments.benchmark --what=train --model=M/all-MiniLM-L6-v2 --batch=32 --length=128
  .venv-parity/bin/python -m experiments.benchmark --what=train --model=M/SmolLM2-135M-Instruct --batch=8 --length=128
  .venv-parity/bin/python -m experiments.benchmark --what=experiment --teacher=M/paraphrase-MiniLM-L3-v2 \
      --model=M/all-MiniLM-L6-v2 --data=sst2/train.parquet
  python -m experiments.benchmark --what=probe
  python -m experiments.benchmark --what=load --model=M/SmolLM2-135M-Instruct

train and experiment compare with plain PyTorch (`torch_loop.py`), in an environment that has it (`make parity` makes
one). The two sides are processes of their own and take turns in one run, so that whatever else the machine does meets
both; the ratio is the median over rounds. Everything that was measured goes to --out as JSON. Nothing else should run.
"""
import json
import os
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from absl import flags

WHAT = flags.DEFINE_enum('what', 'train', ['train', 'experiment', 'probe', 'load'], 'what is measured')
MODEL = flags.DEFINE_string('model', None, 'folder of the model; experiment: of the student')
TEACHER = flags.DEFINE_string('teacher', None, 'experiment: folder of the teacher')
DATA = flags.DEFINE_string('data', None, 'experiment: a file of sst2, with columns text and label')
ROWS = flags.DEFINE_integer('rows', 5000, 'probe: rows of features; experiment: of the pool', 1)
BATCH = flags.DEFINE_integer('batch', 32, 'rows a step', 1)
LENGTH = flags.DEFINE_integer('length', 128, 'train: tokens a row', 1)
STEPS = flags.DEFINE_integer('steps', 4, 'train: steps a block', 1)
ROUNDS = flags.DEFINE_integer('rounds', 5, 'how often each side is measured', 1)
THREADS = flags.DEFINE_integer('threads', 2, 'threads of PyTorch', 1)
FUSED = flags.DEFINE_bool('fused', False, 'the fused AdamW of PyTorch')
OUT = flags.DEFINE_string('out', None, 'JSON file of every number (default: benchmark-WHAT.json)')

RATE, WARMUP, TOTAL = 2e-5, 0.0, 100_000  # so many steps that the rate stays what it is
PARITY = 1e-3  # how far the losses of the two sides may be apart


def read_loss(x) -> float:
    """A loss of one run as a number, whichever side it comes from."""
    return float(np.asarray(x).ravel()[0])


# Workers: a process that runs blocks of steps when it is told to, and else waits.

def serve(step: Callable[[int], Any], source=sys.stdin, sink=sys.stdout) -> None:
    """Reads lines with a number of steps, runs them, and answers each with what the block cost, as JSON."""
    done = 0
    for line in source:
        before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        losses = [step(done + i) for i in range(int(line))]
        losses = [read_loss(x) for x in losses]
        seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
        done += len(losses)
        print(json.dumps({'seconds': seconds, 'losses': losses, 'steps': len(losses),
                          'cpu_seconds': after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
                          'faults': after.ru_minflt - before.ru_minflt}), file=sink, flush=True)


class Worker:
    """The parent's end of a process that `serve`s."""

    def __init__(self, kind: str, spec: dict):
        self.process = subprocess.Popen(command(kind, spec), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def block(self, steps: int) -> dict:
        """Runs so many steps there. Raises RuntimeError where the process has died."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(f'{steps}\n')
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f'{self.process.args[3]}: ended with status {self.process.wait()}')  # type: ignore[index]
        return json.loads(line)

    def close(self) -> None:
        self.process.communicate()


def command(kind: str, spec: dict) -> list[str]:
    """How this file starts itself as a process of one side."""
    return [sys.executable, '-m', 'experiments.benchmark', kind, json.dumps(spec)]


def worker(kind: str, spec: dict) -> None:
    """What such a process does. The PyTorch ones import nothing of ours."""
    if kind == 'torch':
        from experiments import torch_loop
        serve(torch_loop.stepper(spec, np.load(spec['arrays'])))
    elif kind == 'torch_experiment':
        from experiments import torch_loop
        print(json.dumps(torch_loop.experiment(json.loads(pathlib.Path(spec['spec']).read_text()))))
    else:
        from w2s_jax import runtime
        runtime.keep_freed_memory()
        {'jax': lambda: serve(jax_stepper(spec, np.load(spec['arrays']))),
         'load': lambda: print(json.dumps(measure_load(spec)))}[kind]()


# --what=train

def jax_stepper(spec: dict, arrays):
    """step number -> its loss, still to be read: the very step of `Trainer.fit`."""
    import jax

    from w2s_jax import data, parallel, train
    from w2s_jax.models import language, modes
    nothing = data.Examples({'text': np.array([['']], object)}, np.zeros(1, np.int32), np.zeros(1, np.int64))
    parts = language.parts(spec['model'], 'model', data.Dataset('benchmark', 2, nothing, nothing), 'float32')
    hyper = train.Hyper(*(np.array([x], np.float32) for x in (spec['rate'], 0, .999, 1, spec['warmup'], 0, 0)))
    runs = train.Runs({k: arrays[k][:, None] for k in ('tokens', 'length')}, np.arange(len(arrays['tokens']))[None],
                      arrays['truth'][None], np.zeros(1, np.int64), hyper, {}, 0, 2)
    batch = arrays['order'].shape[1]
    trainer = train.Trainer(modes.bind(parts, 'full', ()), train.Static('xent', spec['steps'], batch, 2),
                            parallel.make_mesh(), shapes=(arrays['tokens'].shape[1],))
    state = trainer.init(runs)
    head = jax.tree.map(lambda x: np.asarray(arrays['head'])[None], state.params['head'])
    state = state.replace(params=state.params | {'head': jax.device_put(head, parallel.replicated(trainer.mesh))})

    def step(number: int):
        nonlocal state
        inputs, supervision = runs.batch(number, batch)
        placed = trainer.place(inputs), parallel.place_batch(supervision, trainer.mesh)
        state, metrics = trainer.step(state, *placed, runs.hyper, trainer.frozen)
        return metrics['loss']
    return step


def train_arrays(folder: pathlib.Path, batch: int, length: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random rows, full length, the order that a run of seed 0 sees them in, and a random head `[D, 2]`."""
    from w2s_jax import data
    from w2s_jax.models import hf
    config, rng, n = hf.read(folder).config, np.random.default_rng(seed), 16 * batch
    return {'tokens': rng.integers(0, config.vocab_size, (n, length)).astype(np.int32),
            'length': np.full(n, length, np.int32), 'truth': rng.integers(0, 2, n).astype(np.int32),
            'order': np.concatenate([data.epoch_batches(0, epoch, n, batch) for epoch in range(50)]),
            'head': (rng.normal(size=(config.d_out, 2)) * config.d_out ** -.5).astype(np.float32)}


def step_flops(folder: pathlib.Path, batch: int, length: int) -> float:
    """Model floating-point operations of a training step: 6 a token for each parameter outside the embeddings
    (arXiv 2001.08361, section 2.1), and 12 L d a token and layer for attention (arXiv 2204.02311, appendix B)."""
    from w2s_jax.models import hf
    config = hf.read(folder).config
    inner = sum(int(np.prod(shape)) for path, shape in hf.expected(config).items() if path.startswith('layers.'))
    attention = 12 * config.num_layers * length * config.num_heads * config.per_head
    return float(batch * length * (6 * inner + attention))


def train(options) -> tuple[list[list[str]], dict]:
    """Blocks of steps of both sides in turn; tokens a second, model FLOP/s, page faults, and that the losses agree."""
    from w2s_jax.models import hf
    folder = options.model
    spec = {'model': str(folder), 'rate': RATE, 'warmup': WARMUP, 'steps': TOTAL, 'threads': options.threads,
            'fused': options.fused, 'pool': hf.read_out(hf.read(folder))}
    with tempfile.TemporaryDirectory() as scratch:
        np.savez(pathlib.Path(scratch) / 'arrays.npz', **train_arrays(folder, options.batch, options.length))
        spec['arrays'] = str(pathlib.Path(scratch) / 'arrays.npz')
        workers = {kind: Worker(kind, spec) for kind in ('jax', 'torch')}
        first = {kind: w.block(options.steps) for kind, w in workers.items()}  # compiles, and warms up
        apart = float(np.abs(np.subtract(*(first[kind]['losses'] for kind in workers))).max())
        print(f'losses of {options.steps} steps: jax {first["jax"]["losses"]}, torch {first["torch"]["losses"]}; '
              f'at most {apart:.1e} apart (allowed {PARITY:g})')
        if not apart < PARITY:
            raise SystemExit('error: the two sides do not train the same model, so that their speeds say nothing')
        rounds = []
        for i in range(options.rounds):
            order = list(workers)[::1 if i % 2 else -1]
            rounds.append({kind: workers[kind].block(options.steps) for kind in order})
        for w in workers.values():
            w.close()
    tokens, flops = options.batch * options.length, step_flops(folder, options.batch, options.length)
    ratios = [r['torch']['seconds'] / r['jax']['seconds'] for r in rounds]
    table = [['', 'tokens/s', 'lowest', 'highest', 'model GFLOP/s', 'CPU s/step', 'page faults/step'],
             *(train_row(kind, [r[kind] for r in rounds], tokens, flops) for kind in workers)]
    return table, {'first': first, 'rounds': rounds, 'losses_apart': apart, 'step_flops': flops} | summary(ratios)


def train_row(kind: str, blocks: list[dict], tokens: int, flops: float) -> list[str]:
    """A line of the table. tokens, flops: of a step."""
    rate = [b['steps'] / b['seconds'] for b in blocks]
    middle, cpu, faults = (statistics.median(x) for x in (
        rate, *([b[k] / b['steps'] for b in blocks] for k in ('cpu_seconds', 'faults'))))
    return [kind, *(f'{x * tokens:.0f}' for x in (middle, min(rate), max(rate))), f'{middle * flops / 1e9:.0f}',
            f'{cpu:.2f}', f'{faults:.0f}']


def summary(ratios: list[float]) -> dict:
    """How many times as fast we are: the median over rounds, and the lowest and highest."""
    return {'ratio': statistics.median(ratios), 'lowest': min(ratios), 'highest': max(ratios), 'ratios': ratios}


# --what=experiment

def experiment(options) -> tuple[list[list[str]], dict]:
    """A whole small experiment from the start of a process, ours and PyTorch's in turn."""
    from w2s_jax import config as configs
    from w2s_jax.methods import naive
    from w2s_jax.models import hf
    from w2s_jax.tasks import TASKS
    table = [['seconds', *map(str, range(options.rounds)), 'median'], ['jax'], ['torch']]
    found: dict = {'rounds': []}
    with tempfile.TemporaryDirectory() as name:
        scratch = pathlib.Path(name)
        ours = experiment_command(options, scratch)
        c = configs.default_config()
        c.task.update(name='sst2', path=str(options.data), train_size=options.rows, test_size=options.rows)
        dataset = TASKS['sst2'](c.task, lambda line: None)
        halves = naive.trimmed_halves(dataset.pool.group, c.method.share, 0)
        parts = dict(zip(('a', 'b', 'test'), (*map(dataset.pool.take, halves), dataset.test), strict=True))
        rows = {k: [[str(t), int(y)] for t, y in zip(p.inputs['text'][:, 0], p.truth, strict=True)]
                for k, p in parts.items()}
        folders = {'teacher': options.teacher, 'student': options.model}
        spec = {'rows': rows, 'pools': {k: hf.read_out(hf.read(f)) for k, f in folders.items()},
                **{k: str(f) for k, f in folders.items()}, 'max_length': c.task.max_length, 'rate': 5e-5,
                'batch': options.batch, 'epochs': 2, 'warmup': c.optimizer.warmup, 'threads': options.threads}
        (scratch / 'spec.json').write_text(json.dumps(spec))
        for i in range(options.rounds):
            sides = {'jax': [*ours, f'--workdir={scratch / str(i)}'],
                     'torch': command('torch_experiment', {'spec': str(scratch / 'spec.json')})}
            found['rounds'].append({kind: timed(sides[kind]) for kind in list(sides)[::1 if i % 2 else -1]})
            found['results'] = json.loads((scratch / str(i) / 'results.json').read_text())
    for row in table[1:]:
        seconds = [r[row[0]]['seconds'] for r in found['rounds']]
        row += [f'{s:.1f}' for s in (*seconds, statistics.median(seconds))]
    return table, found | summary([r['torch']['seconds'] / r['jax']['seconds'] for r in found['rounds']])


def experiment_command(options, scratch: pathlib.Path) -> list[str]:
    """`experiments.run` with the same rows and steps, measured once at the end, and no report."""
    (scratch / 'small.py').write_text('from w2s_jax.config import default_config as get_config  # noqa: F401\n')
    fields = {'task.name': 'sst2', 'task.path': options.data, 'task.train_size': options.rows,
              'task.test_size': options.rows, 'teacher.model': options.teacher, 'student.model': options.model,
              'student.loss.name': 'xent', 'optimizer.learning_rate': 5e-5, 'train.batch_size': options.batch,
              'train.epochs': 2, 'train.evaluations': 1, 'report.html': 'false'}
    return [sys.executable, '-m', 'experiments.run', f'--config={scratch / "small.py"}', '--config.seeds=(0,)',
            *(f'--config.{k}={v}' for k, v in fields.items())]


def timed(argv: list[str]) -> dict:
    """Seconds from the start of a process to its end, and the last line it printed. Raises CalledProcessError."""
    began = time.perf_counter()
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.stderr.write(done.stderr)
        done.check_returncode()
    return {'seconds': time.perf_counter() - began, 'output': done.stdout.strip().rpartition('\n')[2]}


# --what=probe

def probe(options) -> tuple[list[list[str]], dict]:
    """`Trainer.fit` of ten seeds by ten learning rates against one run, on cached features; both from nothing
    compiled (first) and again (warm)."""
    found: dict = {'rounds': [{} for _ in range(options.rounds)]}
    for r in found['rounds']:
        for seeds, rates in ((1, 1), (10, 10)):
            r[str(seeds * rates)] = fit_probes(seeds, rates, options)
    table = [['seconds', '1 run', '100 runs', '100 runs / 1 run']]
    for when in ('first', 'warm'):
        one, many = ([r[k][when] for r in found['rounds']] for k in ('1', '100'))
        ratios = [b / a for a, b in zip(one, many, strict=True)]
        table.append([when, f'{statistics.median(one):.2f}', f'{statistics.median(many):.2f}',
                      f'{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})'])
        found[when] = summary(ratios)
    return table, found


def fit_probes(seeds: int, rates: int, options) -> dict[str, float]:
    """Seconds of one call of `Trainer.fit` for seeds x rates runs, with compilation and without."""
    import jax

    from w2s_jax import train
    jax.clear_caches()
    train.compiled_step.cache_clear()
    train.compiled_predict.cache_clear()
    times = {}
    for when in ('first', 'warm'):
        trainer, runs = probes(seeds, rates, options)
        began = time.perf_counter()
        params, _ = trainer.fit(runs)
        jax.block_until_ready(params)
        times[when] = time.perf_counter() - began
    return times


def probes(seeds: int, rates: int, options):
    """A trainer of heads on random features `[N, 1, D]`, and seeds x rates runs, those of a seed together."""
    from w2s_jax import parallel, train
    n, width, batch = options.rows, 576, 128
    rng = np.random.default_rng(0)
    features = rng.normal(size=(n, 1, width)).astype(np.float32)
    truth = (features[:, 0] @ rng.normal(size=width) > 0).astype(np.int32)
    held = np.stack([np.sort(np.random.default_rng(s).permutation(n)[:n // 2]) for s in range(seeds)]).repeat(rates, 0)
    rate, rest = np.tile(np.geomspace(1e-4, 1e-1, rates), seeds), (0, .999, 1, .05, 0, 0)
    hyper = train.Hyper(rate.astype(np.float32), *(np.full(seeds * rates, x, np.float32) for x in rest))
    runs = train.Runs({'features': features}, held, truth[held], np.arange(seeds).repeat(rates), hyper,
                      {'features': features[:256]}, 4, 2)
    static = train.Static('xent', train.num_steps(n // 2, batch, 20), batch, 2)
    return train.Trainer(probe_model(width), static, parallel.make_mesh()), runs


def probe_model(width: int):
    """The head that is trained on cached features, `[B, 1, D]`, as `modes.probe` binds it."""
    import jax
    import jax.numpy as jnp

    from w2s_jax.models import language, modes
    head = language.TextHead(2)

    def init(key, pretrained=None):
        return {'head': head.init(key, jnp.zeros((1, 1, width)))['params']}

    def apply(params, inputs, frozen=None):
        return head.apply({'params': params['head']}, inputs['features'])
    return modes.Model('probe', init, apply, modes.count(jax.eval_shape(init, jax.random.key(0))), {}, 1e-3)


# --what=load

def measure_load(spec: dict) -> dict[str, float]:
    """Bytes of a model's parameters, and how far loading them raised this process's memory at its peak."""
    import jax

    from w2s_jax.models import hf
    folder = pathlib.Path(spec['model'])
    hf.expected(hf.read(folder).config)  # what runs once in a process is no part of it
    pathlib.Path('/proc/self/clear_refs').write_text('5')  # the peak is now what is resident
    before = status('VmRSS')
    params = hf.load(folder)
    return {'parameters': sum(x.nbytes for x in jax.tree.leaves(params)), 'peak': status('VmHWM') - before}


def status(field: str) -> int:
    """A field of /proc/self/status, in bytes."""
    line = next(x for x in pathlib.Path('/proc/self/status').read_text().splitlines() if x.startswith(field))
    return int(line.split()[1]) * 1024


def load(options) -> tuple[list[list[str]], dict]:
    """Peak host memory of loading a model against the bytes of its parameters, each time in a new process."""
    argv = command('load', {'model': str(options.model)})
    rounds = [json.loads(timed(argv)['output']) for _ in range(options.rounds)]
    worst = max(r['peak'] / r['parameters'] for r in rounds)
    table = [['parameters, MB', 'peak, MB', 'peak / parameters'],
             [f'{rounds[0]["parameters"] / 1e6:.1f}', f'{max(r["peak"] for r in rounds) / 1e6:.1f}', f'{worst:.3f}']]
    return table, {'rounds': rounds, 'ratio': worst}


NEEDS = {'train': ('model',), 'experiment': ('model', 'teacher', 'data'), 'probe': (), 'load': ('model',)}
MEASURE = {'train': train, 'experiment': experiment, 'probe': probe, 'load': load}


def main() -> None:
    """Measures what the flags say. Raises ConfigError."""
    import importlib.util

    from w2s_jax.errors import ConfigError
    options = SimpleNamespace(**{f.name: f.value for f in (
        MODEL, TEACHER, DATA, ROWS, BATCH, LENGTH, STEPS, ROUNDS, THREADS, FUSED)})
    for name in NEEDS[WHAT.value]:
        if getattr(options, name) is None or not pathlib.Path(getattr(options, name)).expanduser().exists():
            raise ConfigError(f'--{name}: {getattr(options, name)!r}, expected what exists')
        setattr(options, name, pathlib.Path(getattr(options, name)).expanduser().absolute())
    if WHAT.value in ('train', 'experiment') and importlib.util.find_spec('torch') is None:
        raise ConfigError(f'--what={WHAT.value}: there is no torch in {sys.prefix} (`make parity` makes .venv-parity)')
    before = os.getloadavg()
    table, found = MEASURE[WHAT.value](options)
    print_table(table)
    if 'ratios' in found:
        print(f'{found["ratio"]:.2f} times as fast ({found["lowest"]:.2f} to {found["highest"]:.2f})')
    out = pathlib.Path(OUT.value or f'benchmark-{WHAT.value}.json')
    facts = {'what': WHAT.value, 'options': vars(options), 'load_average': [before, os.getloadavg()],
             'python': platform.python_version(), 'processors': os.cpu_count()}
    out.write_text(json.dumps(facts | found, indent=1, default=str) + '\n')
    print(f'every number: {out}')


def print_table(table: list[list[str]]) -> None:
    """Columns of equal width."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        print('  '.join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


if __name__ == '__main__':
    if len(sys.argv) == 3 and not sys.argv[1].startswith('-'):
        worker(sys.argv[1], json.loads(sys.argv[2]))
    else:
        from w2s_jax import command as program
        program.run(main)
