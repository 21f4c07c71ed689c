"""What `experiments.benchmark` measures of generation: tokens a second after prompts, against transformers' `generate`.

Both sides are greedy, read the same prompts, all of one length, and draw the same number of tokens. A block is
`--steps` such calls; the sides take turns. Parameters are in the precision of the computation on both sides.
"""
import contextlib
import pathlib
import statistics
import tempfile
from types import SimpleNamespace

import jax
import numpy as np

from experiments.benchmark import machine, subjects
from experiments.benchmark.jax_loop import Loop
from experiments.benchmark.tables import Table, number
from experiments.benchmark.train import WARM, ratios
from experiments.benchmark.worker import Worker


def generate(options: SimpleNamespace) -> tuple[Table, dict]:
    """Tokens a second at each of `batches`: median, lowest and highest over rounds, and the ratio of the sides."""
    kinds = {'jax': 'jax_generate'} | ({'torch': 'torch_generate'} if options.side == 'both' else {})
    table = [['batch', '', 'tokens/s', 'lowest', 'highest', 'ms/token', 'first call s', 'peak MB', 'torch / jax']]
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        name = subjects.materialised(options.model, pathlib.Path(scratch))
        for batch in options.batches:
            one = measured(kinds, options, name, scratch, batch)
            found.append(one)
            table += [row(kind, one, options.new) for kind in kinds]
            print('\n'.join(' '.join(line) for line in table[-len(kinds):]))
    apart = [str(r['batch']) for r in found if not r['same']]
    note = {'note': f'texts of the two sides differ at batch {", ".join(apart)} (equal logits, or rounding)'}
    return table, {'runs': found} | (note if apart else {})


def measured(kinds: dict[str, str], options: SimpleNamespace, name: str, scratch: str, batch: int) -> dict:
    """Blocks of all kinds in turn. same: whether all made the same texts in their first block."""
    vocabulary = subjects.parts(name, options.dtype).backbone.config.vocab_size
    arrays = pathlib.Path(scratch) / f'prompts-{batch}.npz'
    tokens = np.random.default_rng(0).integers(0, vocabulary, (batch, options.length)).astype(np.int32)
    np.savez(arrays, tokens=tokens)
    spec = {'model': name, 'dtype': options.dtype, 'new': options.new, 'threads': options.threads,
            'arrays': str(arrays)}
    with contextlib.ExitStack() as opened:
        workers = {kind: opened.enter_context(Worker(worker, spec)) for kind, worker in kinds.items()}
        blocks = [{kind: workers[kind].block(options.steps) for kind in list(workers)[::1 if i % 2 else -1]}
                  for i in range(WARM + options.rounds)]
    texts = {block['losses'][0] for block in blocks[0].values()}
    found = {'batch': batch, 'first': blocks[0], 'rounds': blocks[WARM:], 'same': len(texts) == 1}
    if len(kinds) > 1:
        found |= ratios(*([r[kind]['seconds'] for r in blocks[WARM:]] for kind in kinds))
    return found


def row(kind: str, found: dict, new: int) -> list[str]:
    """A line of the table."""
    blocks = [r[kind] for r in found['rounds']]
    rates = [found['batch'] * new * b['steps'] / b['seconds'] for b in blocks]
    middle = statistics.median(rates)
    ratio = f'{found["ratio"]:.2f}' if kind == 'jax' and 'ratio' in found else '-'
    return [str(found['batch']), kind, *map(number, (middle, min(rates), max(rates), 1e3 * found['batch'] / middle,
            found['first'][kind]['first_call'], blocks[-1]['peak_bytes'] / 1e6)), ratio]


def generator(spec: dict, arrays) -> Loop:
    """Calls of `generate`; each gives the texts' ids added up."""
    from w2s_jax import sampling
    draw, params = sampling.opened(pathlib.Path(spec['model']), dtype=spec['dtype'])
    params = jax.device_put(jax.tree.map(lambda x: x.astype(spec['dtype']), params))
    tokens = arrays['tokens']
    length, keys = np.full(len(tokens), tokens.shape[1]), jax.random.split(jax.random.key(0), len(tokens))

    def step(_: int):
        return draw(params, tokens, length, keys, steps=spec['new'], pick=sampling.GREEDY).tokens.sum()
    return Loop(step, machine.memory_peak)
