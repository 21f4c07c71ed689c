"""A decoder: a transformer that reads prompts at once, then one more token of each row at a time, with a cache.

A cache has S = L + steps slots a row. A prompt's token t lies in slot t, a row's n-th token after it in slot L + n, for
all rows alike, so that a step writes one slice and scatters nothing; what a slot's position is differs from row to row.
"""
import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from w2s_jax.models.attention import Past
from w2s_jax.models.config import TransformerConfig
from w2s_jax.models.transformer import CACHE, KEPT, Transformer, language_logits

FREE = 2**30  # the position of slots that hold padding, which comes after every token


@dataclasses.dataclass(frozen=True)
class Decoder:
    """read: (params, frozen) -> (variables of the transformer, the table `[V, D]` of its next-token head).
    dtype: what keys and values are kept in, 'float32' or 'bfloat16'."""
    config: TransformerConfig
    read: Callable
    dtype: str

    def start(self, weights: tuple, tokens, length, steps: int):
        """Reads prompts.

        Args:
          weights: (params, frozen).  tokens: `[B, L]`, padded at the right.  length: `[B]`, at least 1.
          steps: how many tokens may follow.
        Returns: logits `[B, V]` of what comes first, and the cache `[N, B, K, L + steps, C]`.
        """
        variables, table = self.read(*weights)
        hidden, kept = Transformer(self.config).apply(variables, tokens, length, mutable=[KEPT])
        room = [(0, 0), (0, 0), (0, 0), (0, steps), (0, 0)]
        cache = jax.tree.map(lambda x: jnp.pad(x.astype(self.dtype), room), kept[KEPT])
        last = jnp.take_along_axis(hidden, (length - 1)[:, None, None], axis=1)[:, 0]
        return language_logits(last, table, self.config), cache

    def step(self, weights: tuple, cache, token, length, number, size: int):
        """Reads the token `[B]` that came as number n = 0, 1, ... after prompts of `length` that were padded to `size`.

        Returns: logits `[B, V]` of the next, and the cache with it.
        """
        variables, table = self.read(*weights)
        room = jax.tree.leaves(cache)[0].shape[3]
        past = Past(length + number, positions(length, size, room))
        hidden, kept = Transformer(self.config).apply({**variables, CACHE: cache}, token[:, None], past=past,
                                                      mutable=[KEPT])
        cache = jax.tree.map(lambda x, new: jax.lax.dynamic_update_slice_in_dim(x, new.astype(x.dtype), size + number,
                                                                                axis=3), cache, kept[KEPT])
        return language_logits(hidden[:, 0], table, self.config), cache


def positions(length, size: int, room: int):
    """`[B, room]`: the position of each slot, of prompts of `length` `[B]` that were padded to `size`."""
    slot, length = jnp.arange(room)[None], length[:, None]
    return jnp.where(slot < length, slot, jnp.where(slot < size, FREE, length + slot - size))


@dataclasses.dataclass(frozen=True)
class Both:
    """Two decoders that read the same tokens, side by side; weights and caches are pairs, logits `[B, 2, V]`."""
    decoders: tuple[Decoder, Decoder]

    def start(self, weights: tuple, tokens, length, steps: int):
        """As `Decoder.start`."""
        return _paired([d.start(w, tokens, length, steps) for d, w in zip(self.decoders, weights, strict=True)])

    def step(self, weights: tuple, cache, token, length, number, size: int):
        """As `Decoder.step`."""
        return _paired([d.step(w, c, token, length, number, size)
                        for d, w, c in zip(self.decoders, weights, cache, strict=True)])


def _paired(found: list) -> tuple:
    return jnp.stack([logits for logits, _ in found], axis=1), tuple(cache for _, cache in found)
