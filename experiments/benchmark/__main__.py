"""How fast we are, and against what. Every number also goes to --out as JSON, the table as Markdown to --markdown.

  python -m experiments.benchmark --what=machine --out=machine.json
  python -m experiments.benchmark --what=train --model=chess-l --batch=256 --side=jax
  .venv-parity/bin/python -m experiments.benchmark --what=train --model=M/all-MiniLM-L6-v2 --batch=32 --length=128
  .venv-parity/bin/python -m experiments.benchmark --what=label --model=random:llama-1b --dtype=bfloat16 --compile
  python -m experiments.benchmark --what=growth --models=random:4x256,random:8x512 --lengths=64,128,256
  python -m experiments.benchmark --what=scaling --model=random:4x256 --batch=32 --devices=1,2,4,8
  python -m experiments.benchmark --what=input --config=configs/nlp.py:sciq --config.task.path=D/sciq \
      --config.student.model=M/all-MiniLM-L6-v2 --rows=2048
  .venv-parity/bin/python -m experiments.benchmark --what=experiment --teacher=M/paraphrase-MiniLM-L3-v2 \
      --model=M/all-MiniLM-L6-v2 --data=D/sst2 --rounds=3
  python -m experiments.benchmark --what=plan
  python -m experiments.benchmark --what=probe
  python -m experiments.benchmark --what=load --model=M/SmolLM2-135M-Instruct
  .venv-parity/bin/python -m experiments.benchmark --what=generate --model=random:llama-135m --batches=1,16,64 --new=64

A rate of model FLOP/s (what a step must compute, by a formula: `subjects.py`) is also given as a share of this
machine's own matrix products in that precision, measured first (or read from --machine), and of the datasheet's number
where the device is known (`machine.py`). --side=both compares with plain PyTorch (`torch_loop.py`), in an environment
that has it (`make parity` makes one). Best on a machine with nothing else to do.
"""
import importlib.util
import json
import os
import pathlib
import platform
import statistics
import sys
from collections.abc import Callable
from importlib import metadata
from types import SimpleNamespace

import jax
from absl import flags
from ml_collections import config_flags

from experiments.benchmark import experiment, input, machine, plan, probe, sampling, scaling, subjects, tables, train
from experiments.benchmark.worker import command, timed
from w2s_jax import cli as program
from w2s_jax.errors import ConfigError

MEASURES: dict[str, Callable] = {
    'machine': lambda options: (machine.table(options.machine), {}),
    'train': train.step, 'label': train.label, 'growth': train.growth,
    'scaling': scaling.scaling, 'input': input.starving, 'plan': plan.plan,
    'experiment': experiment.experiment, 'probe': probe.probe, 'load': experiment.load,
    'generate': sampling.generate}
FOLDERS = {'experiment': ('model', 'teacher', 'data'), 'load': ('model',)}  # that must exist
RATED = ('machine', 'train', 'label', 'growth', 'scaling')  # against the machine, in processes of their own
TWO_SIDED = ('train', 'label', 'generate')

WHAT = flags.DEFINE_enum('what', 'train', list(MEASURES), 'what is measured')
MACHINE = flags.DEFINE_string('machine', None, 'JSON file of an earlier --what=machine; else measured anew')
CONFIG = config_flags.DEFINE_config_file('config', None, 'input: the experiment whose student is trained')
OPTIONS = [
    flags.DEFINE_string('model', None, 'folder, random:llama-1b, or chess-l; experiment: of the student, load: folder'),
    flags.DEFINE_list('models', [], 'growth: the same, several'),
    flags.DEFINE_string('teacher', None, 'experiment: folder of the teacher'),
    flags.DEFINE_string('data', None, 'experiment: folder of sst2'),
    flags.DEFINE_integer('rows', 0, 'of features (probe; 0: 5000), of the pool (experiment; 0: 1000), of the half '
                         '(input; 0: half of the pool)', 0),
    flags.DEFINE_integer('batch', 32, 'rows a step', 1),
    flags.DEFINE_integer('length', 128, 'tokens a row; a board has 64', 1),
    flags.DEFINE_list('lengths', ['128'], 'growth: the same, several'),
    flags.DEFINE_list('devices', ['1', '2', '4', '8'], 'scaling: how many devices, simulated ones on a CPU'),
    flags.DEFINE_list('batches', ['1', '16', '64'], 'generate: prompts at a time, several'),
    flags.DEFINE_integer('new', 64, 'generate: tokens after each prompt', 2),
    flags.DEFINE_enum('dtype', 'float32', ['float32', 'bfloat16'], 'of the computation; parameters are float32'),
    flags.DEFINE_integer('accumulate', 1, 'train: microbatches a step', 1),
    flags.DEFINE_enum('side', 'both', ['jax', 'both'], 'train, label, generate: ours alone, or PyTorch too'),
    flags.DEFINE_integer('steps', 4, 'steps a block', 2),
    flags.DEFINE_integer('rounds', 5, 'how often each side is measured', 1),
    flags.DEFINE_integer('threads', 2, 'threads of PyTorch', 1),
    flags.DEFINE_bool('fused', False, 'the fused AdamW of PyTorch'),
    flags.DEFINE_bool('compile', False, 'torch.compile')]
OUT = flags.DEFINE_string('out', None, 'JSON file of every number (default: benchmark-WHAT.json)')
MARKDOWN = flags.DEFINE_string('markdown', None, 'FILE for the table as Markdown, or FILE#NAME: between the lines '
                               '<!-- NAME --> and <!-- end NAME --> of it')


def main() -> None:
    """Measures what the flags say, prints a table and writes the numbers. Raises ConfigError."""
    what, options = WHAT.value, SimpleNamespace(**{f.name: f.value for f in OPTIONS}, config=CONFIG.value)
    check(what, options)
    facts = {'what': what, 'options': vars(options) | {'config': str(CONFIG.value)}, 'processors': os.cpu_count(),
             'load_before': os.getloadavg(), 'versions': versions()}
    if what in RATED:
        jax.config.update('jax_platforms', 'cpu')  # of this process: accelerators are left to its workers
        options.machine = facts['machine'] = known_machine(MACHINE.value)
    table, found = MEASURES[what](options)
    said = [tables.columns(table), *notes(found)]
    print('\n'.join(said))
    out = pathlib.Path(OUT.value or f'benchmark-{what}.json')
    out.write_text(json.dumps(facts | found | {'load_after': os.getloadavg(), 'table': table}, indent=1, default=str)
                   + '\n')
    if MARKDOWN.value:
        tables.write(MARKDOWN.value, '\n\n'.join([tables.markdown(table), *said[1:]]))
    print(f'every number: {out}')


def notes(found: dict) -> list[str]:
    """Lines that belong below the table."""
    said = []
    if 'ratio' in found:
        said.append('{ratio:.2f} times as fast as PyTorch ({lowest:.2f} to {highest:.2f})'.format(**found))
    if peaks := found.get('peaks'):
        middle, low, high = (tables.number(f(peaks) / 1e9) for f in (statistics.median, min, max))
        said.append(f"the machine's own products, measured in turn: {middle} GFLOP/s ({low} to {high})")
    return said + ([found['note']] if 'note' in found else [])


def check(what: str, options: SimpleNamespace) -> None:
    """Raises ConfigError where the options do not fit; makes folders absolute and numbers out of lists."""
    for name in FOLDERS.get(what, ()):
        path = pathlib.Path(getattr(options, name) or '').expanduser().absolute()
        if not getattr(options, name) or not path.exists():
            raise ConfigError(f'--{name}: {getattr(options, name)!r}, expected an existing folder')
        setattr(options, name, path)
    options.lengths, options.devices, options.batches = (numbers(k, getattr(options, k)) for k in
                                                           ('lengths', 'devices', 'batches'))
    if what in ('train', 'label', 'scaling', 'generate'):
        options.length = subjects.length_of(subjects.check(options.model), options.length)
    if what == 'growth' and not options.models:
        raise ConfigError('--models: none, expected for example random:4x256,random:8x512')
    for name in options.models:
        subjects.check(name, '--models')
    if what in RATED and options.batch % options.accumulate:
        raise ConfigError(f'--accumulate: {options.accumulate} does not divide --batch {options.batch}')
    if what == 'input' and options.config is None:
        raise ConfigError('--config: missing, expected for example configs/nlp.py:sciq')
    if what == 'generate' and subjects.is_chess(options.model):
        raise ConfigError(f'--model: {options.model!r}, expected a language model')
    if what in TWO_SIDED and options.side == 'both':
        check_two_sides(what, options)
    if what == 'experiment':
        check_torch(what)


def check_two_sides(what: str, options: SimpleNamespace) -> None:
    """Raises ConfigError where there is nothing to compare with."""
    if subjects.is_chess(options.model):
        raise ConfigError(f"--side: 'both', but {options.model!r} has no counterpart in PyTorch, expected jax")
    check_torch(what)


def check_torch(what: str) -> None:
    """Raises ConfigError where this Python has no PyTorch."""
    if importlib.util.find_spec('torch') is None:
        raise ConfigError(f'--what={what}: {sys.prefix} has no torch (`make parity` makes .venv-parity, which has; '
                          'train and label also take --side=jax)')


def numbers(name: str, values: list[str]) -> list[int]:
    """Whole numbers of 1 or more. Raises ConfigError."""
    if not values or not all(v.isdecimal() and int(v) for v in values):
        raise ConfigError(f'--{name}: {",".join(values)!r}, expected whole numbers of 1 or more, separated by commas')
    return [int(v) for v in values]


def known_machine(file: str | None) -> dict:
    """What `machine.facts` says, from a file that --what=machine wrote, else measured in a process of its own."""
    if file is None:
        return json.loads(timed(command('machine', {}))['output'])
    try:
        return json.loads(pathlib.Path(file).read_text())['machine']
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f'--machine: {file!r}, expected what --what=machine wrote to --out') from None


def versions() -> dict[str, str]:
    """Of Python and of what decides speed; those that are not installed are left out."""
    found = {'python': platform.python_version()}
    for name in ('jax', 'jaxlib', 'flax', 'optax', 'torch', 'transformers'):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


if __name__ == '__main__':
    os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', '')  # compile anew what is timed with its compilation
    program.run(main)
