"""Kind `generate`: texts that a language model writes after prompts, which later phases train on or judge."""
import functools
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from w2s_jax import data, sampling
from w2s_jax.graph import Phase
from w2s_jax.models import tokens
from w2s_jax.phases import context as common
from w2s_jax.phases.context import Context
from w2s_jax.runtime import multihost, sharding

PART = 4  # batches that are saved together
NAMES = ('tokens', 'logprobs', 'stopped', 'length')


def run(phases: list[Phase], inputs: list[dict], context: Context, folder: pathlib.Path) -> list[tuple]:
    """Of N prompts and S samples of each: `text` `[N, S]`, what was written without the prompt; `tokens`, `logprobs`
    `[N, S, T]`, `length` and `stopped` `[N, S]` (sampling.Texts); `ended` `[N, S]`, whether a text came to its end."""
    out: list[tuple] = []
    for phase, needs in zip(phases, inputs, strict=True):
        began, section = time.perf_counter(), phase.section
        prompts = common.arrays(needs['inputs'])
        length = np.asarray(prompts['length']).reshape(-1)
        model = common.model_of(section, context.models)
        common.check_vocabulary(model, prompts)
        found = drawn(np.asarray(prompts['tokens']).reshape(len(length), -1), length, writer(section, needs, context),
                      section, context, folder / phase.id, functools.partial(context.log, phase.label))
        if not multihost.is_coordinator():
            out.append(({}, {}, None))
            continue
        found |= written(model.tokenizer, prompts, found, tuple(section['cut']))
        measured = {'seconds': time.perf_counter() - began, 'texts': int(found['length'].size),
                    'tokens': int(found['length'].sum()), 'ended': float(found['ended'].mean()),
                    'empty': int(sum(not text.strip() for text in found['text'].ravel()))}
        out.append((measured, found, None))
    return out


def writer(section: dict, needs: dict, context: Context) -> Callable:
    """(tokens, length, keys) -> sampling.Texts: `generate` of a section's model, or of two (`before`), with their
    parameters: those of the phase that trained it, or pretrained ones."""
    pick = sampling.Pick(**section['pick'])
    named = [('model', section['model'])]
    if 'before' in section:
        named.insert(0, ('before', section['before']))
    models, weights = [], []
    for name, identity in named:
        model = common.model_of({'model': identity}, context.models)
        models.append(model)
        weights.append(placed(model, needs.get(name), context))
    params, frozen = (tuple(x) if len(named) > 1 else x[0] for x in zip(*weights, strict=True))
    generate = sampling.bind(*models, mesh=context.mesh)
    return functools.partial(generate, params, steps=section['steps'], pick=pick, stops=tuple(section['stops']),
                             frozen=frozen)


def placed(model, trained, context: Context) -> tuple:
    """(params, frozen) of a model on the mesh, of the artifact that trained it or of the pretrained one (None)."""
    def place(path, shape):
        return sharding.sharding(context.mesh, path, shape)
    if trained is None:
        init = jax.jit(lambda pretrained: sharding.constrain(context.mesh, model.init(jax.random.key(0), pretrained)))
        params = init(model.load(place))
    else:
        params = sharding.put_tree(trained.params(), context.mesh)
    return params, model.frozen(place)


def drawn(tokens: np.ndarray, length: np.ndarray, generate: Callable, section: dict, context: Context,
          folder: pathlib.Path, log: Callable) -> dict[str, np.ndarray]:
    """All samples of prompts `[N, L]`, shortest first, kept in parts in `folder` so that a killed run goes on and ends
    with the same bits: what is drawn depends on the row, the sample and the seed."""
    n, samples = len(tokens), section['samples']
    prompt, sample = np.repeat(np.arange(n), samples), np.tile(np.arange(samples), n)
    order = np.argsort(length[prompt], kind='stable')
    size = min(context.execution.eval_batch_size, len(order))
    batches = list(data.eval_batches(len(order), size))
    parts = {folder / f'{size}-{i}.npz': batches[i:i + PART] for i in range(0, len(batches), PART)}
    folder.mkdir(parents=True, exist_ok=True)
    missing = multihost.same([path.name for path in parts if not path.exists()])
    for number, (path, mine) in enumerate(parts.items()):
        if path.name in missing:
            found = []
            for index, real in mine:
                rows = order[index]
                keys = row_keys(section['hyper']['seed'], prompt[rows], sample[rows])
                texts = multihost.fetch(generate(tokens[prompt[rows]], length[prompt[rows]], keys))
                found.append({name: np.asarray(getattr(texts, name))[:real] for name in NAMES})
            part: dict[str, Any] = {name: np.concatenate([f[name] for f in found]) for name in NAMES}
            common.keep_part(path, functools.partial(np.savez, **part))
        log(min((number + 1) * PART, len(batches)), len(batches), {})
    return _together(list(parts), order, (n, samples)) if multihost.is_coordinator() else {}


def row_keys(seed: int, prompt: np.ndarray, sample: np.ndarray):
    """`[B]` keys, one for each prompt's each sample."""
    each = jax.vmap(lambda p, s: jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), p), s))
    return each(np.asarray(prompt, np.uint32), np.asarray(sample, np.uint32))


def _together(paths: list[pathlib.Path], order: np.ndarray, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """The parts' rows in the prompts' order, `[N, S, ...]`."""
    loaded = []
    for path in paths:
        with np.load(path, allow_pickle=False) as file:
            loaded.append({name: file[name] for name in NAMES})
    back = np.argsort(order, kind='stable')
    found = {name: np.concatenate([part[name] for part in loaded])[back] for name in NAMES}
    return {name: x.reshape(*shape, *x.shape[1:]) for name, x in found.items()}


def written(tokenizer, prompts: dict, found: dict[str, np.ndarray], cut: tuple[str, ...]) -> dict[str, np.ndarray]:
    """`text` and `ended` `[N, S]` of tokens: what stands before the first of the strings `cut`."""
    (n, samples), length = found['length'].shape, np.asarray(prompts['length']).reshape(-1)
    begun = [row[:k].tolist() for row, k in zip(np.asarray(prompts['tokens']).reshape(n, -1), length, strict=True)]
    drawn = [[found['tokens'][i, j, :found['length'][i, j]].tolist() for j in range(samples)] for i in range(n)]
    whole = tokens.continued(tokenizer, begun, drawn)
    text, ended = np.empty((n, samples), object), found['stopped'].copy()
    for (i, j), _ in np.ndenumerate(ended):
        ends = [at for at in (whole[i][j].find(one) for one in cut) if at >= 0]
        text[i, j] = whole[i][j][:min(ends)] if ends else whole[i][j]
        ended[i, j] |= bool(ends)
    return {'text': text, 'ended': ended}
