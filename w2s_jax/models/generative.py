"""Language models that predict their own texts: `[B, 2]`, of every row its negative log-likelihood and its tokens."""
import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from w2s_jax.models.config import TransformerConfig
from w2s_jax.models.modes import Parts
from w2s_jax.models.transformer import language_logits
from w2s_jax.runtime import sharding

CHUNK = 128  # positions whose logits `[B, CHUNK, V]` are held at once


class NextTokenHead(nn.Module):
    """`[B, 2]` float32: minus the log-likelihood of a row's texts, and how many tokens that was. The first token of a
    text is given, or where there are `begins` `[B, S]` all before that place.

    tied: the table of the embeddings, which comes with the features, is the head.  compares: `[B, S]` instead, the
    log-likelihood of each text: of texts that differ in an answer alone these are the logits of the answers.
    """
    config: TransformerConfig
    tied: bool
    compares: bool = False

    @nn.compact
    def __call__(self, x: dict):
        c = self.config
        table = x['table'] if self.tied else self.param('table', nn.initializers.normal(.02), (c.vocab_size, c.d_out))
        losses = token_losses(x['hidden'], x['tokens'], table, c)
        at = jnp.arange(1, x['tokens'].shape[1])[None]
        real = at < x['length'].reshape(-1, 1)
        if 'begins' in x:
            real &= at >= x['begins'].reshape(-1, 1)
        found = jnp.where(real, losses, 0).sum(1).reshape(x['length'].shape)
        if self.compares:
            return -found
        return jnp.stack([found.sum(1), real.sum(1).astype(jnp.float32).reshape(x['length'].shape).sum(1)], axis=-1)


def token_losses(hidden, tokens, table, config: TransformerConfig):
    """`[B, L - 1]` float32: minus the log-probability of every token but the first, given those before it.

    Args:
      hidden: `[B, L, D]`.  tokens: `[B, L]`.  table: `[V, D]`. Logits are computed in chunks of positions, again when
        differentiated: of a vocabulary of 49 000 they would be most of the memory.
    """
    @jax.checkpoint
    def some(part):
        logits = language_logits(part[0], table, config)
        chosen = jnp.take_along_axis(logits, part[1][..., None], axis=-1)[..., 0]
        return jax.nn.logsumexp(logits, axis=-1) - chosen
    hidden, tokens = hidden[:, :-1], tokens[:, 1:]
    length = tokens.shape[1]
    if length <= CHUNK:
        return some((hidden, tokens))
    chunks = -(-length // CHUNK)
    padded = [jnp.pad(x, [(0, 0), (0, chunks * CHUNK - length)] + [(0, 0)] * (x.ndim - 2)) for x in (hidden, tokens)]
    parts = [jnp.moveaxis(x.reshape(len(x), chunks, CHUNK, *x.shape[2:]), 1, 0) for x in padded]
    found = jax.lax.map(some, tuple(parts))
    return jnp.moveaxis(found, 0, 1).reshape(len(tokens), -1)[:, :length]


def predicting(parts: Parts, tied: bool, read_table: Callable) -> Parts:
    """The parts of a language model with its next-token head in place of a head for classes.

    read_table: () -> the table `[V, D]` of a head that is not tied.
    """
    def features(backbone, variables, inputs):
        length = inputs['length'].reshape(-1)
        tokens = inputs['tokens'].reshape(len(length), -1)
        found = {'hidden': backbone.apply(variables, tokens, length), 'tokens': tokens,
                 **{k: inputs[k] for k in ('length', 'begins') if k in inputs}}
        return found | ({'table': variables['params']['tokens']['embedding']} if tied else {})

    def table(params, variables):
        return variables['params']['tokens']['embedding'] if tied else params['head']['table']

    def load(shardings):
        found = parts.load(shardings)
        if tied:
            return found
        table = read_table()
        return found | {'head': {'table': sharding.put(table, shardings('head/table', table.shape)) if shardings
                                 else table}}

    config = parts.backbone.config
    extra = tuple((k, v) for k, v in parts.extra if k not in ('read_out', 'intercept'))
    return dataclasses.replace(parts, head=NextTokenHead(config, tied), features=features, load=load, answers=True,
                               intercept=(), extra=(*extra, ('head', 'next token')), generative=None,
                               comparing=None, preferring=None, table=table)


def comparing(parts: Parts) -> Parts:
    """The parts of `predicting` with the log-likelihoods of a row's texts as their logits."""
    return dataclasses.replace(parts, head=parts.head.clone(compares=True), extra=(*parts.extra, ('texts', 'compared')))


def preferring(parts: Parts) -> Parts:
    """The parts of `comparing`, to be trained on which text of a row is preferred (train/preference.py): of what two
    texts have in common at their beginning, nothing counts."""
    return dataclasses.replace(comparing(parts), scored=True, extra=(*parts.extra, ('texts', 'preferred')))
