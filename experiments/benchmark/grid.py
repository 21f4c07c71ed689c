"""What a grid saves: cells that share phases against one command a cell, and runs in one program against runs alone.

  python -m experiments.benchmark.grid --compare=cells --train_size=1200
  python -m experiments.benchmark.grid --compare=runs --of=chess-xs
  python -m experiments.benchmark.grid --compare=runs --of=probe

cells: configs/chess_grid.py (18 cells, three seeds each) as one grid, and as 18 `experiments.run`, from nothing.
runs: 64 runs (eight learning rates by eight seeds) in one program in one process, against a process for each, and
against a program compiled anew for each in one process. The last two are timed on --sample of them and scaled.
Nothing that was compiled before is used, in contrast to the commands as users run them; JAX_COMPILATION_CACHE_DIR
names a folder where there is to be one. Every number goes to --to as JSON. Nothing else should run on the machine.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np
from absl import flags

from configs import chess_grid
from experiments.benchmark import probe
from w2s_jax import cli
from w2s_jax.engine import plan as plans
from w2s_jax.engine import results, sweep
from w2s_jax.runtime import process as runtime
from w2s_jax.runtime import sharding
from w2s_jax.train import program
from w2s_jax.train import step as steps
from w2s_jax.train import trainer as training
from w2s_jax.train.runs import Runs, num_steps

WHAT = flags.DEFINE_enum('compare', 'runs', ['cells', 'runs'], 'what to compare')
KIND = flags.DEFINE_enum('of', 'chess-xs', ['chess-xs', 'probe'], 'what the 64 runs train')
TRAIN_SIZE = flags.DEFINE_integer('train_size', 1200, 'puzzles, both halves together')
HOW = flags.DEFINE_enum('how', 'auto', ['auto', 'vmap', 'map'], 'as train.runs of a config')
SAMPLE = flags.DEFINE_integer('sample', 8, 'how many of the 64 runs are timed alone')
WORKER = flags.DEFINE_string('worker', None, 'internal: train these runs, as a JSON list of numbers')
OUT = flags.DEFINE_string('to', None, 'where the numbers go; grid-benchmark-COMPARE.json')
SEEDS, RATES = 8, 8
FIRST = 20  # steps in which losses are compared


# cells


def cells() -> dict:
    """Seconds of a grid and of its cells one by one, each a command of its own in a folder of its own."""
    sizes = [f'--config.task.train_size={TRAIN_SIZE.value}', f'--config.task.test_size={TRAIN_SIZE.value // 3}',
             '--config.report.html=False']
    overrides = chess_grid.get_sweep()
    with tempfile.TemporaryDirectory() as folder:
        whole = timed('experiments.grid', '--config=configs/chess_grid.py', f'--workdir={folder}/grid', *sizes)
        alone = []
        for i, cell in enumerate(overrides):
            alone.append(timed('experiments.run', '--config=configs/chess_grid.py', f'--workdir={folder}/{i}', *sizes,
                               *(f'--config.{k}={v}' for k, v in cell.items())))
            print(f'  cell {i}: {alone[-1]:.1f} s', flush=True)
        grid = json.loads(pathlib.Path(folder, 'grid', 'grid.json').read_text())
        apart = [difference(pathlib.Path(folder), i, c['folder']) for i, c in enumerate(grid['cells'])]
    kinds = [p['kind'] for p in grid['phases']]
    print(f'grid {whole:.1f} s, {len(alone)} commands {sum(alone):.1f} s: {whole / sum(alone):.2f} of it')
    return {'grid': whole, 'alone': alone, 'ratio': whole / sum(alone), 'accuracies_apart': max(apart),
            'phases': {k: kinds.count(k) for k in dict.fromkeys(kinds)}}


def difference(folder: pathlib.Path, cell: int, name: str) -> float:
    """How far apart a cell's accuracies are, alone and in the grid."""
    found = [json.loads((folder / p / 'results.json').read_text()) for p in (str(cell), f'grid/{name}')]
    seeds = [[r[w]['accuracy']['seeds'] for w in ('weak', 'ceiling')] + [s['accuracy']['seeds'] for s in r['students']]
             for r in found]
    return float(np.abs(np.array(seeds[0]) - np.array(seeds[1])).max())


def timed(module: str, *args: str) -> float:
    """Seconds of a command. Raises RuntimeError where it fails."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, '-m', module, *args], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f'{module} {" ".join(args)}: status {done.returncode}\n{done.stderr}')
    return time.perf_counter() - began


# runs


def runs() -> dict:
    """Seconds of 64 runs in one program, of a process for each, and of a compilation for each; and how far apart."""
    numbers, sample = list(range(SEEDS * RATES)), np.linspace(0, SEEDS * RATES - 1, SAMPLE.value).round().astype(int)
    together, stacked = process(numbers)
    single = [process([int(i)]) for i in sample]
    began, recompiled = time.perf_counter(), []
    for i in sample:
        forget()
        recompiled.append(losses([int(i)]))
    again = (time.perf_counter() - began) / len(sample) * len(numbers)
    alone = float(np.mean([s for s, _ in single])) * len(numbers)
    own = np.concatenate([found['loss'] for _, found in single], axis=1)
    apart = np.abs(np.array(stacked['loss'])[:FIRST, sample] - own[:FIRST])
    print(f'64 runs in one program {together:.1f} s; a process each {alone:.0f} s ({alone / together:.1f} times); '
          f'compiled each {again:.0f} s ({again / together:.1f} times)')
    print(f'losses of the first {FIRST} steps apart by {apart.max():.2g} at most, '
          f'{(apart.max(0) == 0).sum()} of {len(sample)} runs equal to the bit; {stacked["programs"]} program')
    return {'together': together, 'processes': alone, 'recompiled': again, 'apart': float(apart.max()),
            'equal_to_the_bit': int((apart.max(0) == 0).sum()), 'sample': len(sample), 'programs': stacked['programs']}


def process(numbers: list[int]) -> tuple[float, dict]:
    """Seconds of a process that trains these runs, its start included, and what it found."""
    with tempfile.TemporaryDirectory() as folder:
        out = f'{folder}/found.json'
        seconds = timed('experiments.benchmark.grid', f'--worker={json.dumps(numbers)}', f'--of={KIND.value}',
                        f'--how={HOW.value}', f'--train_size={TRAIN_SIZE.value}', f'--to={out}')
        return seconds, json.loads(pathlib.Path(out).read_text())


def forget() -> None:
    """Makes the next program compile anew."""
    jax.clear_caches()
    for compiled in (program.compiled_init, program.compiled_step, program.compiled_predict):
        compiled.cache_clear()


def losses(numbers: list[int]) -> dict:
    """Trains some of the 64 runs in one program: losses `[T, R]` and the programs that were compiled."""
    model, found = (probes if KIND.value == 'probe' else chess)(numbers)
    batch, epochs = (probe.BATCH, probe.EPOCHS) if KIND.value == 'probe' else (32, 2)
    static = steps.Static('xent', num_steps(found.rows.shape[1], batch, epochs), batch, found.num_classes)
    how = training.choose_how(HOW.value, model.num_params)
    trainer = training.Trainer(model, static, sharding.make_mesh(), how)
    _, history = trainer.fit(found)
    return {'loss': history.loss.tolist(), 'programs': trainer.programs}


def probes(numbers: list[int]):
    """A head on random features, as in `benchmark_probe.probe`."""
    whole = probe.probe_runs(SEEDS, RATES, 5000)
    return probe.probe_model(), chosen(whole, numbers)


def chess(numbers: list[int]):
    """The smallest chess model on the truth of a half of the pool."""
    c = sweep.apply(chess_grid.get_config('rates'), {'task.train_size': TRAIN_SIZE.value})
    plan = plans.prepare(c, lambda line: None)
    ceilings = [p for p in plan.phases if p.role == 'ceiling']
    rows = np.stack([p.needs['rows'].value for p in ceilings]).repeat(RATES, 0)
    targets = np.asarray(plan.dataset.pool.truth)[rows]
    rate = np.tile(np.geomspace(1e-4, 2e-3, RATES), SEEDS).astype(np.float32)
    rest = (np.full(len(rate), x, np.float32) for x in (0, .999, 1, .05))
    pool = plan.dataset.pool.inputs
    whole = Runs(pool, rows, targets, np.arange(SEEDS).repeat(RATES), steps.hyper(rate, *rest),
                 {k: v[:64] for k, v in plan.dataset.test.inputs.items()}, 1, plan.dataset.num_classes)
    return plan.models['student'], chosen(whole, numbers)


def chosen(whole: Runs, numbers: list[int]) -> Runs:
    """Some of the runs."""
    hyper = jax.tree.map(lambda x: x[numbers], whole.hyper)
    return Runs(whole.inputs, whole.rows[numbers], whole.targets[numbers], whole.seeds[numbers], hyper,
                whole.watch, whole.evaluations, whole.num_classes)


def main() -> None:
    """Measures what the flags say and writes the numbers."""
    if WORKER.value:
        runtime.keep_freed_memory()
        found = losses(json.loads(WORKER.value))
    else:
        found = {'compare': WHAT.value, 'of': KIND.value, 'how': HOW.value, 'load_before': os.getloadavg()} | (
            cells() if WHAT.value == 'cells' else runs()) | {'versions': results.versions()}
    out = pathlib.Path(OUT.value or f'grid-benchmark-{WHAT.value}.json')
    out.write_text(json.dumps(found, indent=1) + '\n')


if __name__ == '__main__':
    os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', '')
    cli.run(main)
