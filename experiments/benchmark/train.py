"""What `experiments.benchmark` measures of one model: training steps, labelling, and how both grow with its size.

Every side is a process of its own (`worker.py`). Where there are two they take turns, so that whatever else the machine
does meets both; the ratio is the median over rounds.
"""
import contextlib
import pathlib
import statistics
import tempfile
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np

from experiments.benchmark import machine, subjects
from experiments.benchmark.tables import Table, number, share
from experiments.benchmark.worker import Worker
from w2s_jax.errors import ConfigError
from w2s_jax.models import hf
from w2s_jax.train import memory
from w2s_jax.train import step as steps

RATE, TOTAL = 2e-5, 100_000  # so many steps that the rate stays what it is
PARITY = {'float32': 1e-3, 'bfloat16': 5e-2}  # how far the losses of the two sides may be apart ...
COMPARED = 2  # ... in so many steps; then Adam, which divides by what is still small, drives rounding apart
WARM = 2  # blocks before those that count: the first compiles, and the memory of a process takes its shape
HEAD = ['', 'ms/step', 'tokens/s', 'lowest', 'highest', 'GFLOP/s', 'of matmul peak', 'of datasheet', 'compile s',
        'peak MB', 'CPU s/step', 'faults/step']
Found = tuple[Table, dict]  # a table to print, and what to keep


def step(options: SimpleNamespace) -> Found:
    """Blocks of training steps: tokens a second, model FLOP/s and their shares, compile time, memory, page faults."""
    kinds = {'jax': 'jax'} | ({'torch': 'torch'} if options.side == 'both' else {})
    found = run(kinds, options)
    flops = subjects.step_flops(found['parts'], options.batch, options.length)
    table = [HEAD, *(row(kind, found, options, flops) for kind in kinds)]
    return table, kept(found) | {'flops': flops}


def label(options: SimpleNamespace) -> Found:
    """The same of forward passes, and of `Trainer.predict` with all that a labelling phase does; and a roofline."""
    kinds = {'jax': 'jax_label', 'jax, Trainer.predict': 'predict'}
    kinds |= {'torch': 'torch_label'} if options.side == 'both' else {}
    found = run(kinds, options)
    flops = subjects.forward_flops(found['parts'], options.batch, options.length)
    found['rows_of'] = {'jax, Trainer.predict': subjects.ROWS}
    table = [HEAD, *(row(kind, found, options, flops) for kind in kinds)]
    return table, kept(found) | {'flops': flops} | roofline(found, options, flops)


def roofline(found: dict, options: SimpleNamespace, flops: float) -> dict:
    """How much of what memory and products allow the forward pass reaches, and a `note` that says so."""
    known, moved = options.machine, subjects.moved_bytes(found['parts'], options.batch, options.length)
    peak = statistics.median(found['peaks']) * known['devices']
    line = machine.roofline(flops, moved, peak, known['bandwidth'] * known['devices'])
    rate = statistics.median(r['jax']['steps'] / r['jax']['seconds'] for r in found['rounds']) * flops
    line |= {'moved_bytes': moved, 'reached': rate / line['attainable']}
    note = (f'roofline: {number(line["intensity"])} FLOP a byte ({number(flops / 1e9)} GFLOP over at least '
            f'{number(moved / 1e6)} MB); memory {number(known["bandwidth"] / 1e9)} GB/s; attainable '
            f'{number(line["attainable"] / 1e9)} GFLOP/s (bound by {line["bound"]}), reached {line["reached"]:.1%}')
    return {'roofline': line, 'note': note}


def spec_of(options: SimpleNamespace, name: str, scratch: str) -> tuple[dict, Any]:
    """What a worker is told, its arrays written to `scratch`, and the parts of the model."""
    found = subjects.parts(name, options.dtype)
    spec = {'model': name, 'dtype': options.dtype, 'rate': RATE, 'warmup': 0.0, 'steps': TOTAL,
            'accumulate': options.accumulate, 'threads': options.threads, 'fused': options.fused,
            'compile': options.compile, 'arrays': str(pathlib.Path(scratch) / 'arrays.npz')}
    if not subjects.is_chess(name):
        spec['pool'] = hf.read_out(hf.read(pathlib.Path(name)))
    arrays: dict[str, Any] = subjects.arrays(name, found, options.batch, options.length)
    np.savez(spec['arrays'], **arrays)
    return spec, found


def run(kinds: dict[str, str], options: SimpleNamespace) -> dict:
    """Blocks of all kinds (shown name -> kind of worker) in turn, and between them the machine's own products, since it
    may drift: {'parts', 'first', 'rounds', 'peaks' (operations a second, one a round), 'losses_apart'}."""
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as open_workers:
        name = subjects.materialised(options.model, pathlib.Path(scratch))
        spec, found = spec_of(options, name, scratch)
        workers = {shown: open_workers.enter_context(Worker(kind, spec)) for shown, kind in kinds.items()}
        size = options.machine['peaks'][options.dtype]['size']
        peak = open_workers.enter_context(Worker('peak', {'dtype': options.dtype, 'size': size}))
        first = {shown: w.block(options.steps) for shown, w in workers.items()}
        sides: dict[str, dict] = {k: first[k] for k in ('jax', 'torch') if k in first}
        apart = parity(sides, options.dtype) if len(sides) > 1 else None
        rounds, peaks = [], []
        for i in range(WARM - 1 + options.rounds):
            order = list(workers)[::1 if i % 2 else -1]
            rounds.append({kind: workers[kind].block(options.steps) for kind in order})
            peaks += peak.block(1)['losses']
        return {'parts': found, 'first': first, 'rounds': rounds[WARM - 1:], 'warm': rounds[:WARM - 1],
                'peaks': peaks[WARM - 1:], 'losses_apart': apart}


def shares_of(found: dict, rates: list[float], options: SimpleNamespace, devices: int) -> tuple[float, float | None]:
    """Operations a second in each round as a share of the machine's own products, measured in the same round, and of
    the datasheet's number, if there is one: medians over the rounds."""
    own = statistics.median(rate / peak for rate, peak in zip(rates, found['peaks'], strict=True)) / devices
    promised = machine.promised(options.dtype, options.machine)
    return own, promised and statistics.median(rates) / promised / devices


def kept(found: dict) -> dict:
    """What is written of it, with the ratio of the two sides where there are two."""
    numbers = {k: found[k] for k in ('first', 'warm', 'rounds', 'peaks', 'losses_apart')}
    if 'torch' not in found['first']:
        return numbers
    return numbers | ratios(*([r[kind]['seconds'] for r in found['rounds']] for kind in ('jax', 'torch')))


def ratios(ours: list[float], theirs: list[float]) -> dict:
    """How many times as long the other took: the median over rounds, the lowest and the highest."""
    each = [b / a for a, b in zip(ours, theirs, strict=True)]
    return {'ratio': statistics.median(each), 'lowest': min(each), 'highest': max(each), 'ratios': each}


def parity(first: dict[str, dict], dtype: str = 'float32') -> float:
    """How far the first losses of the two sides are apart. Raises ConfigError where they train different models."""
    apart = float(np.abs(np.subtract(*(block['losses'][:COMPARED] for block in first.values()))).max())
    for kind, block in first.items():
        print(f'first losses, {kind}: {", ".join(format(x, ".6f") for x in block["losses"])}')
    print(f'the first {COMPARED} are at most {apart:.1e} apart')
    if not apart < PARITY[dtype]:
        raise ConfigError(f'--model: losses are {apart:.1e} apart, expected at most {PARITY[dtype]:g}: '
                          'not the same model')
    return apart


def row(kind: str, found: dict, options: SimpleNamespace, flops: float) -> list[str]:
    """A line of the table. flops: of a step, or of a batch that is labelled."""
    blocks, many = [r[kind] for r in found['rounds']], found.get('rows_of', {}).get(kind, 1)
    rate = [many * b['steps'] / b['seconds'] for b in blocks]
    middle = statistics.median(rate)
    cpu, faults = (statistics.median(b[k] / b['steps'] / many for b in blocks) for k in ('cpu_seconds', 'faults'))
    devices = 1 if kind == 'torch' else options.machine['devices']
    shares = shares_of(found, [x * flops for x in rate], options, devices)
    compiled = kind != 'torch' or options.compile
    return [kind, number(1e3 / middle), *(number(x * options.batch * options.length) for x in (
        middle, min(rate), max(rate))), number(middle * flops / 1e9), *map(share, shares),
        number(found['first'][kind]['first_call']) if compiled else '-', number(blocks[-1]['peak_bytes'] / 1e6),
        number(cpu), f'{faults:.0f}']


def growth(options: SimpleNamespace) -> Found:
    """Time and memory of a training step of each of `models` at each of `lengths`, and what the arithmetic says of its
    memory: parameters, gradients and moments, and what the forward pass keeps."""
    table = [['model', 'parameters, M', 'batch', 'length', 'ms/step', 'tokens/s', 'GFLOP/s', 'of matmul peak',
              'peak MB', 'of which state MB', 'activations by arithmetic, MB']]
    found: list[dict] = []
    for name in options.models:
        for length in options.lengths:
            one = SimpleNamespace(**vars(options) | {'model': name, 'length': subjects.length_of(name, length)})
            table.append(grown(one, found))
            print(' '.join(table[-1]))
            if subjects.is_chess(name):
                break  # boards have one length
    return table, {'runs': found}


def grown(options: SimpleNamespace, found: list[dict]) -> list[str]:
    """A line of the table; its numbers are added to `found`."""
    measured = run({'jax': 'jax'}, options)
    parts = measured.pop('parts')
    blocks = [r['jax'] for r in measured['rounds']]
    flops = subjects.step_flops(parts, options.batch, options.length)
    rates = [b['steps'] / b['seconds'] for b in blocks]
    rate = statistics.median(rates)
    own, _ = shares_of(measured, [x * flops for x in rates], options, options.machine['devices'])
    state, activations = arithmetic(options, parts)
    found.append(measured | {'model': options.model, 'length': options.length, 'flops': flops, 'state': state,
                             'activations': activations, 'parameters': parts.num_params})
    return [options.model, number(parts.num_params / 1e6), str(options.batch), str(options.length), number(1e3 / rate),
            number(rate * options.batch * options.length), number(rate * flops / 1e9), share(own),
            number(blocks[-1]['peak_bytes'] / 1e6), number(state / 1e6), number(activations / 1e6)]


def arithmetic(options: SimpleNamespace, parts) -> tuple[int, int]:
    """(state, activations) in bytes, as `memory.run_bytes` has them before anything runs."""
    rows = {'tokens': jax.ShapeDtypeStruct((options.batch, 1, options.length), np.int32)}
    if parts.family != 'chess':
        rows['length'] = jax.ShapeDtypeStruct((options.batch, 1), np.int32)
    static = steps.Static('xent', TOTAL, options.batch, subjects.classes(options.model), options.accumulate)
    return memory.run_bytes(subjects.bound(options.model, parts), static, steps.hyper(1e-3), rows)
