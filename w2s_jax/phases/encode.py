"""Kinds `tokens` and `features`: inputs as a model takes them, computed once for all who need them."""
import contextlib
import functools
import itertools
import pathlib
import time
from collections.abc import Callable

import jax
import numpy as np

from w2s_jax import data
from w2s_jax.errors import DataError
from w2s_jax.graph import Phase
from w2s_jax.models import lora
from w2s_jax.models import tokens as texts
from w2s_jax.models.linear import ADAPTERS
from w2s_jax.models.modes import Model
from w2s_jax.phases import context as common
from w2s_jax.phases.context import Context
from w2s_jax.runtime import multihost, sharding
from w2s_jax.store import arrays
from w2s_jax.train import prefetch
from w2s_jax.train.program import Program

PART = 16  # batches of features that are saved together
SHOWN = 3  # texts in a chat template that are shown


def tokens(phases: list[Phase], inputs: list[dict], context: Context, folder: pathlib.Path) -> list[tuple]:
    """The token ids of texts, for every model that has this tokenizer."""
    out = []
    for phase, needs in zip(phases, inputs, strict=True):
        began, section = time.perf_counter(), phase.section
        readers = [m for m in context.models.values()
                   if m.tokenizer and m.tokenizer.fingerprint == section['tokenizer']]
        tokenizer, vocab_size = readers[0].tokenizer, min(m.vocab_size for m in readers)
        assert tokenizer is not None
        every = common.arrays(needs['inputs'])['text']
        if 'packed' in section:
            every = texts.one_each(every[common.rows(needs)], texts.BETWEEN)
        shown = {}
        if 'chat' in section:
            every = texts.in_chat(tokenizer, every, section['max_length'], every.shape[1] > 1 and 'open' not in section)
            shown = {'shown': [str(row[0]) for row in every[:SHOWN]]}
            for text in shown['shown']:
                context.say(f'{phase.label}: {text!r}')
        arrays, counts = texts.encode(tokenizer, every, section['max_length'], section['truncate'], folder, vocab_size,
                                      'chat' not in section)
        if section.get('whole') and counts['truncated']:
            raise DataError(f'{phase.label}: {counts["truncated"]} of {counts["texts"]} are longer than '
                            f'{section["max_length"]} tokens, expected whole prompts; a larger '
                            'task.max_length, or of prompts that show examples fewer method.shots')
        if 'packed' in section:
            arrays = texts.packed(arrays, section['packed'])
        out.append((counts | shown | {'seconds': time.perf_counter() - began}, arrays, None))
    return out


def features(phases: list[Phase], inputs: list[dict], context: Context, folder: pathlib.Path) -> list[tuple]:
    """What a frozen backbone makes of each row, `[N, ...]` float32: computed once, whoever trains a head on it."""
    out = []
    for phase, needs in zip(phases, inputs, strict=True):
        began, rows = time.perf_counter(), common.arrays(needs['inputs'])
        shapes, model = common.shapes(phase.section, context, rows), common.model_of(phase.section, context.models)
        common.check_vocabulary(model, rows)
        tuned = tuned_backbone(model, needs['backbone'].params(), phase.section) if 'backbone' in needs else None
        computed = featurize(model, rows, shapes, context, folder / phase.id,
                             functools.partial(context.log, phase.label), tuned)
        out.append(({'seconds': time.perf_counter() - began, 'examples': len(computed)}, {'features': computed}, None))
    return out


def tuned_backbone(model: Model, params: dict, section: dict) -> dict:
    """The backbone's parameters that a phase trained, `params` being all of its own: those themselves, or the frozen
    ones with its adapters, scaled by `section['adapters']`, merged into them."""
    if ADAPTERS not in params:
        return params['backbone']
    return lora.merge(jax.tree.map(np.asarray, model.frozen(None)), params[ADAPTERS], section['adapters'])


def featurize(model: Model, inputs: dict, shapes: tuple[int, ...], context: Context, folder: pathlib.Path,
              log: Callable, tuned: dict | None = None) -> np.ndarray:
    """The features of all rows, shortest first, kept in parts in `folder` so that a killed run goes on. tuned: the
    backbone's parameters, where they are not the pretrained ones."""
    n = len(next(iter(inputs.values())))
    lengths = data.longest(inputs)
    order = np.arange(n) if lengths is None else np.argsort(lengths, kind='stable')
    size = min(context.execution.eval_batch_size, n)
    batches = list(data.eval_batches(n, size))
    assert model.featurize is not None
    step = _program(model.featurize, context.mesh)
    everywhere = sharding.replicated(context.mesh)
    frozen = model.frozen(lambda path, shape: everywhere) if tuned is None else jax.tree.map(
        lambda x: sharding.put(x, everywhere), tuned)
    folder.mkdir(parents=True, exist_ok=True)
    parts = {folder / f'{size}-{i}.npy': batches[i:i + PART] for i in range(0, len(batches), PART)}
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
                common.keep_part(path, functools.partial(np.save, arr=np.concatenate(rows)))
            log(min((number + 1) * PART, len(batches)), len(batches), {})
    return in_order(list(parts), order, folder) if multihost.is_coordinator() else np.zeros(0)


@functools.lru_cache(maxsize=16)
def _program(featurize: Callable, mesh) -> Program:
    """One for all phases that ask the same of a model: the pool, every test set, all seeds."""
    return Program(sharding.traced_on(mesh, featurize), out_shardings=sharding.replicated(mesh))


def in_order(parts: list[pathlib.Path], order: np.ndarray, folder: pathlib.Path) -> np.ndarray:
    """The rows of .npy files one behind the other, row i being the one that is to stand at `order[i]`; mapped."""
    first = np.load(parts[0], mmap_mode='r', allow_pickle=False)
    flat, sorted_rows = (arrays.Growing(first.dtype, folder) for _ in range(2))
    for path in parts:
        flat.append(np.load(path, allow_pickle=False))
    found, back = flat.array(-1, *first.shape[1:]), np.argsort(order, kind='stable')
    for start in range(0, len(back), len(first)):
        sorted_rows.append(found[back[start:start + len(first)]])
    return sorted_rows.array(-1, *first.shape[1:])
