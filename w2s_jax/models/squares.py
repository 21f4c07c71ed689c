"""A chess encoder that says what stands on hidden squares: what it learns of positions without any move."""
import dataclasses

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import optax

from w2s_jax.models import chess_moves
from w2s_jax.models.modes import Parts

# Which squares are hidden where nobody says so, as in evaluations.
FIXED = np.isin(np.arange(chess_moves.NUM_SQUARES), np.arange(3, 64, 7))


class SquaresHead(nn.Module):
    """`[B, 2]` float32: minus the log-likelihood of what stands on the hidden squares, and how many these are. At first
    everything is as likely."""

    @nn.compact
    def __call__(self, x: dict):
        head = nn.Dense(chess_moves.VOCAB_SIZE, kernel_init=nn.initializers.zeros, name='squares')
        logits = head(x['states']).astype(jnp.float32)
        losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, x['tokens'])
        return jnp.stack([jnp.where(x['hidden'], losses, 0).sum(1), x['hidden'].sum(1).astype(jnp.float32)], axis=-1)


def hiding(parts: Parts) -> Parts:
    """The parts of a chess encoder with a head for its squares in place of its moves. A hidden square looks empty: the
    vocabulary has no token for one. Inputs may say which are, `hidden` `[B, 64]` bool."""
    def features(backbone, variables, inputs):
        tokens = inputs['tokens'][:, 0].astype(jnp.int32)
        hidden = jnp.broadcast_to(inputs.get('hidden', FIXED), tokens.shape)
        states = backbone.apply(variables, jnp.where(hidden, chess_moves.EMPTY, tokens))
        return {'states': states, 'tokens': tokens, 'hidden': hidden}

    def load(shardings):
        return {'backbone': parts.load(shardings)['backbone']}

    return dataclasses.replace(parts, head=SquaresHead(), features=features, load=load, answers=False, generative=None,
                               extra=(*(e for e in parts.extra if e[0] != 'head'), ('head', 'squares')))
