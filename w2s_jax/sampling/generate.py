"""Prompts to texts: the prompts are read and all tokens drawn in one compiled program.

A row's tokens depend on its prompt and on its own key alone, whatever the other rows, the bucket and the devices are.
That is exact up to the rounding of matrix products, which differs with their shapes: logits agree to about 1e-6, and a
token changes only where two are that close.
"""
import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from w2s_jax.errors import ConfigError, DataError
from w2s_jax.models import hf
from w2s_jax.models.config import TransformerConfig
from w2s_jax.models.modes import Model
from w2s_jax.runtime import sharding
from w2s_jax.sampling.cache import Both, Decoder
from w2s_jax.sampling.pick import Pick

SHORTEST = 16  # tokens of the first bucket; each is twice as long as the one before


class Texts(NamedTuple):
    """What was drawn for B prompts, with a leading axis of runs if these are stacked.

    tokens: `[B, T]` int32, 0 after the end.  logprobs: `[B, T]` float32, of each token under the model (the second of
    two) at temperature 1 without filters; 0 after the end.  stopped: `[B]` bool, whether a stop token came.
    length: `[B]` int32, how many tokens came, the stop token included.
    """
    tokens: Any
    logprobs: Any
    stopped: Any
    length: Any


def bind(*models: Model, cache: str = '', mesh=None) -> Callable:
    """`generate` of a generative model (`Model.generative`), or of two for a Pick with `alpha`: before and after.

    Args:
      cache: the type of kept keys and values, 'float32' or 'bfloat16'; '': that of the computation.
      mesh: of devices that share the rows; runs lie where their params do.
    Raises ConfigError for a model that predicts no tokens.
    """
    decoders = []
    for model in models:
        if model.language is None:
            raise ConfigError(f'{model.name}: no next-token head, expected a generative model')
        decoders.append(_decoder(model.transformer.config, model.language, cache))
    return _bind(decoders, mesh)


def opened(folder: pathlib.Path, *, cache: str = '', dtype: str = 'float32', mesh=None) -> tuple[Callable, dict]:
    """(generate, params) of a model folder as it was published. Raises WeightsError, also for one without a head."""
    table, checkpoint = hf.load_head(folder), hf.read(folder)
    params = {'backbone': hf.load(folder)} | ({} if table is None else {'head': {'table': table}})
    return _bind([_decoder(dataclasses.replace(checkpoint.config, dtype=dtype), _published, cache)], mesh), params


def _published(params, frozen=None) -> tuple:
    """What `Decoder.read` is for, of params as `opened` gives them."""
    tied = params['backbone']['tokens']['embedding']
    return {'params': params['backbone']}, params['head']['table'] if 'head' in params else tied


def _decoder(config: TransformerConfig, read: Callable, cache: str) -> Decoder:
    if cache not in ('', 'float32', 'bfloat16'):
        raise ConfigError(f'cache: {cache!r}, expected float32 or bfloat16')
    return Decoder(dataclasses.replace(config, remat='none', unroll=False), read, cache or config.dtype)


def _bind(decoders: list[Decoder], mesh) -> Callable:
    if len(decoders) > 2:
        raise ConfigError(f'{len(decoders)} models, expected one or two')
    return functools.partial(_generate, Both((decoders[0], decoders[1])) if len(decoders) == 2 else decoders[0], mesh)


def _generate(decoder: Decoder | Both, mesh, params, tokens, length, keys, *, steps: int, pick: Pick,
              stops: Sequence[int] = (), frozen=None, runs: bool = False) -> Texts:
    """Draws up to `steps` tokens after each prompt; it ends when all rows have stopped.

    Args:
      params: of the model; of two, a pair.  frozen: what of it is not trained (LoRA), a pair likewise.
      tokens: `[B, L]` int32, padded at the right.  length: `[B]`.  keys: `[B]`, one a row.
      stops: tokens that end a text; they are its last.
      runs: params have a leading axis of runs, keys are `[R, B]`, and all of Texts has that axis; frozen and the
        prompts are the same for all of them, or have it too (prompts).
    Raises ConfigError, DataError.
    """
    configs = [d.config for d in (decoder.decoders if isinstance(decoder, Both) else [decoder])]
    tokens, length = np.asarray(tokens), np.asarray(length)
    _check(configs, tokens, length, keys.shape, steps, pick, stops, runs)
    tokens = bucketed(tokens, length, min(c.max_length for c in configs))
    pairs = zip(params, frozen or (None, None), strict=True) if len(configs) > 1 else ()
    weights = tuple(pairs) or (params, frozen)
    arrays = [jnp.asarray(x, jnp.int32) for x in (tokens, length)]
    shared = mesh is not None and not runs
    if shared:
        *arrays, keys = sharding.place_rows((*arrays, keys), mesh)
    with sharding.on(mesh) if shared else contextlib.nullcontext():
        return program(decoder, weights, *arrays, keys, jnp.asarray(stops, jnp.int32), steps=steps, pick=pick,
                       runs=runs)


def bucketed(tokens: np.ndarray, length: np.ndarray, most: int) -> np.ndarray:
    """`[..., L]` with L the shortest bucket that holds the longest prompt, so that few programs are compiled."""
    longest = int(length.max())
    size = min(SHORTEST * 2 ** max(0, int(np.ceil(np.log2(longest / SHORTEST)))), most)
    tokens = tokens[..., :longest]
    return np.pad(tokens, [(0, 0)] * (tokens.ndim - 1) + [(0, size - tokens.shape[-1])])


def _check(configs: list[TransformerConfig], tokens: np.ndarray, length: np.ndarray, keys: tuple, steps: int,
           pick: Pick, stops: Sequence[int], runs: bool) -> None:
    rows = tokens.shape[:-1]
    if tokens.ndim - runs not in (1, 2) or not tokens.size or length.shape != rows or keys[runs:] != rows[-1:]:
        raise DataError(f'prompts: tokens {tokens.shape}, length {length.shape}, keys {keys}; expected [B, L], [B] '
                        f'and {"[R, B]" if runs else "[B]"}')
    if length.min() < 1 or length.max() > tokens.shape[-1]:
        raise DataError(f'prompts: lengths {length.min()} to {length.max()}, expected 1 to {tokens.shape[-1]}')
    vocabulary = min(c.vocab_size for c in configs)
    if tokens.min() < 0 or tokens.max() >= vocabulary:
        raise DataError(f'prompts: token {tokens.max()}, expected 0 to {vocabulary - 1}')
    if len({c.vocab_size for c in configs}) > 1:
        raise ConfigError(f'two models of {" and ".join(str(c.vocab_size) for c in configs)} tokens, expected the same')
    if not all(c.causal for c in configs):
        raise ConfigError('a model that reads in both directions, expected a causal one')
    if pick.models != len(configs):
        raise ConfigError(f'pick.alpha: {pick.alpha}, which needs {pick.models} models, but there are {len(configs)}')
    if steps < 1:
        raise ConfigError(f'steps: {steps}, expected 1 or more')
    most = min(c.max_length for c in configs)
    if length.max() + steps > most:
        raise DataError(f'prompts: up to {length.max()} tokens and {steps} steps, expected at most {most} together, '
                        'for which the model was made')
    for stop in stops:
        if not 0 <= stop < vocabulary:
            raise ConfigError(f'stops: {stop!r}, expected a token from 0 to {vocabulary - 1}')


class _State(NamedTuple):
    cache: Any
    token: Any  # [B], the last
    texts: Texts


@functools.partial(jax.jit, static_argnames=('decoder', 'steps', 'pick', 'runs'))
def program(decoder, weights, tokens, length, keys, stops, *, steps: int, pick: Pick, runs: bool) -> Texts:
    """What `generate` compiles, once for each shape of prompts, number of steps and Pick."""
    def record(number, logits, cache, keys, texts):
        token = jax.vmap(lambda x, key: pick(x, jax.random.fold_in(key, number)))(logits, keys)
        likely = jax.nn.log_softmax(logits if pick.models == 1 else logits[:, 1])
        likely = jnp.take_along_axis(likely, token[:, None], axis=1)[:, 0]
        over, stop = texts.stopped, (token[:, None] == stops[None]).any(1)
        kept = texts.tokens.at[:, number].set(jnp.where(over, 0, token))
        likely = texts.logprobs.at[:, number].set(jnp.where(over, 0, likely))
        return _State(cache, token, Texts(kept, likely, over | stop, texts.length + ~over))

    def begin(weights, tokens, length, keys):
        logits, cache = decoder.start(weights, tokens, length, steps - 1)
        rows = len(length)
        blank = Texts(jnp.zeros((rows, steps), jnp.int32), jnp.zeros((rows, steps), jnp.float32),
                      jnp.zeros(rows, bool), jnp.zeros(rows, jnp.int32))
        return record(0, logits, cache, keys, blank)

    def proceed(number, state, weights, length, keys):
        logits, cache = decoder.step(weights, state.cache, state.token, length, number - 1, tokens.shape[-1])
        return record(number, logits, cache, keys, state.texts)

    if runs:  # of steps, not of the loop: else every step would copy the caches of the runs that have ended
        each = _runs_axes(decoder, weights), 0 if tokens.ndim == 3 else None, 0 if length.ndim == 2 else None, 0
        begin = jax.vmap(begin, in_axes=each)
        proceed = jax.vmap(proceed, in_axes=(None, 0, each[0], *each[2:]))
    _, state = jax.lax.while_loop(
        lambda at: (at[0] < steps) & ~at[1].texts.stopped.all(),
        lambda at: (at[0] + 1, proceed(at[0], at[1], weights, length, keys)),
        (jnp.int32(1), begin(weights, tokens, length, keys)))
    return state.texts


def _runs_axes(decoder, weights: tuple) -> tuple:
    """Which of the weights have an axis of runs: params, not what is frozen."""
    return ((0, None),) * len(weights) if isinstance(decoder, Both) else (0, None)
