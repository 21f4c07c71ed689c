"""Kind `score`: pairs of texts, and what a language model says of them before it is tuned on them."""
import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable

import jax
import numpy as np

from w2s_jax.errors import DataError
from w2s_jax.graph import Phase
from w2s_jax.phases import context as common
from w2s_jax.phases.context import Context
from w2s_jax.phases.encode import featurize


def begins(tokens: np.ndarray, length: np.ndarray) -> np.ndarray:
    """`[N, 2]` int32: where the two texts of a row part, at least 1 and at most the last token of the shorter one: the
    prompt before them is theirs in common, if their tokens are.

    Args:
      tokens: `[N, 2, L]`.  length: `[N, 2]`. Raises DataError for a text of one token, in which nothing is predicted.
    """
    if length.min() < 2:
        raise DataError('task: a text of a pair has fewer than two tokens, expected some to predict')
    at = np.arange(tokens.shape[-1])
    same = (tokens[:, 0] == tokens[:, 1]) & (at < length.min(1)[:, None])
    first = np.where(same.all(1), tokens.shape[-1], (~same).argmax(1))
    return np.repeat(np.clip(first, 1, length.min(1) - 1)[:, None], 2, axis=1).astype(np.int32)


def run(phases: list[Phase], inputs: list[dict], context: Context, folder: pathlib.Path) -> list[tuple]:
    """The inputs `tokens` and `length`, and beside them `begins` and `reference`, both `[N, 2]`: the log-likelihood of
    each text from there on, of the pretrained model, or of the one that is gone on from (the need `model`)."""
    out = []
    for phase, needs in zip(phases, inputs, strict=True):
        began, rows = time.perf_counter(), dict(common.arrays(needs['inputs']))
        rows['begins'] = begins(np.asarray(rows['tokens']), np.asarray(rows['length']))
        model = common.model_of(phase.section, context.models)
        common.check_vocabulary(model, rows)
        scorer = dataclasses.replace(model, featurize=_likelihoods(model.apply))
        params = needs['model'].params() if 'model' in needs else model.init(jax.random.key(0), model.load(None))
        both = {'params': params, 'frozen': model.frozen(None)}
        shapes = common.shapes(phase.section, context, rows)
        found = featurize(scorer, rows, shapes, context, folder / phase.id, functools.partial(context.log, phase.label),
                          both)
        measured = {'seconds': time.perf_counter() - began, 'examples': len(found),
                    'apart_from_the_start': int((rows['begins'][:, 0] == 1).sum())}
        out.append((measured, rows | {'reference': found}, None))
    return out


@functools.lru_cache(maxsize=16)
def _likelihoods(apply: Callable) -> Callable:
    """A model's `apply` as `featurize` calls it; one for all phases, so that it is compiled once."""
    return lambda both, inputs: apply(both['params'], inputs, both['frozen'])
